//! Draws and keys of rows.

use kit::Seed;

/// The 96 bits behind an id that `kit` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub [u8; 12]);

impl Key {
    /// The key of the id that parts make.
    pub(crate) fn made_of(parts: &[&str]) -> Key {
        Key(kit::id_bits(parts))
    }

    /// The key as text.
    pub(crate) fn hex(self) -> String {
        kit::id_text(self.0)
    }

    /// A fair coin that depends on the key alone.
    pub(crate) fn coin(self) -> bool {
        self.0[11] & 1 == 1
    }

    /// A draw in [0, 2^64) for a purpose.
    pub(crate) fn draw(self, seed: Seed, purpose: &str) -> u64 {
        seed.derive(purpose, &self.hex(), 0)
    }

    /// True with this probability, drawn from the seed and the purpose.
    pub(crate) fn happens(self, seed: Seed, purpose: &str, probability: f64) -> bool {
        // The upper 53 bits are a number in [0, 1) that f64 holds exactly.
        ((self.draw(seed, purpose) >> 11) as f64) < probability * (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ids() {
        for parts in [&["a", "b"][..], &["ab"], &[]] {
            assert_eq!(Key::made_of(parts).hex(), kit::id_of(parts));
        }
    }

    #[test]
    fn events_happen_as_often_as_they_should() {
        let keys: Vec<_> = (0..20_000).map(|number| Key::made_of(&[&number.to_string()])).collect();
        let share = |rate| keys.iter().filter(|key| key.happens(Seed(3), "test", rate)).count() as f64 / 20_000.0;
        assert_eq!((share(0.0), share(1.0)), (0.0, 1.0));
        assert!((share(0.3) - 0.3).abs() < 0.01);
        let coins = keys.iter().filter(|key| key.coin()).count() as f64 / 20_000.0;
        assert!((coins - 0.5).abs() < 0.01);
    }
}
