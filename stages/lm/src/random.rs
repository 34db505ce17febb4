//! Random numbers that depend on a seed, a name and a place only.

/// `n` numbers from a normal distribution of mean 0. Each is a function of the seed, the name and its place alone.
pub(crate) fn normal(seed: u64, name: &str, n: usize, deviation: f64) -> Vec<f32> {
    let key = mix(seed ^ mix(fnv(name)));
    let uniform = |place: u64| ((bits(key, place) >> 11) as f64 + 0.5) / (1u64 << 53) as f64; // in (0, 1)
    let mut numbers = Vec::with_capacity(n + 1);
    for pair in 0..n.div_ceil(2) as u64 {
        // Box and Muller: two uniform numbers give two normal ones.
        let radius = (-2.0 * uniform(2 * pair).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * uniform(2 * pair + 1)).sin_cos();
        numbers.push((deviation * radius * cos) as f32);
        numbers.push((deviation * radius * sin) as f32);
    }
    numbers.truncate(n);
    numbers
}

/// `n` numbers evenly distributed between -bound and bound. Each is a function of the seed, the name and its place
/// alone.
pub(crate) fn uniform(seed: u64, name: &str, n: usize, bound: f64) -> Vec<f32> {
    let key = mix(seed ^ mix(fnv(name)));
    let unit = |place: u64| ((bits(key, place) >> 11) as f64 + 0.5) / (1u64 << 53) as f64; // in (0, 1)
    (0..n as u64).map(|place| (bound * (2.0 * unit(place) - 1.0)) as f32).collect()
}

/// The bits at a place of the stream of a key: SplitMix64, read at any place without those before it.
#[inline(always)]
pub(crate) fn bits(key: u64, place: u64) -> u64 {
    mix(key.wrapping_add(place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The finalizer of SplitMix64: a bijection whose outputs look random.
#[inline(always)]
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The FNV-1a hash of a name.
pub(crate) fn fnv(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of SplitMix64 with seed 0, as its authors publish them.
    #[test]
    fn bits_are_those_of_splitmix64() {
        assert_eq!(
            [0, 1, 2].map(|place| bits(0, place)),
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]
        );
    }

    #[test]
    fn normal_numbers_have_the_right_moments() {
        let numbers = normal(3, "a", 100_001, 0.02);
        assert_eq!(numbers.len(), 100_001);
        let moment = |k: i32| numbers.iter().map(|&x| (f64::from(x) / 0.02).powi(k)).sum::<f64>() / 100_001.0;
        assert!(moment(1).abs() < 0.02, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.02, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.15, "{}", moment(4));
        let lag: f64 = numbers.windows(2).map(|w| f64::from(w[0]) * f64::from(w[1]) / 4e-4).sum::<f64>() / 1e5;
        assert!(lag.abs() < 0.02, "{lag}");
    }

    #[test]
    fn uniform_numbers_fill_their_range() {
        let numbers = uniform(3, "a", 100_001, 0.25);
        let moment = |k: i32| numbers.iter().map(|&x| (f64::from(x) / 0.25).powi(k)).sum::<f64>() / 100_001.0;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0 / 3.0).abs() < 0.01, "{} {}", moment(1), moment(2));
        assert!(numbers.iter().all(|x| x.abs() < 0.25) && numbers.iter().any(|x| x.abs() > 0.2499));
    }

    #[test]
    fn seeds_and_names_give_other_numbers() {
        assert_eq!(normal(3, "a", 5, 1.0), normal(3, "a", 9, 1.0)[..5]);
        assert_ne!(normal(3, "a", 5, 1.0), normal(4, "a", 5, 1.0));
        assert_ne!(normal(3, "a", 5, 1.0), normal(3, "b", 5, 1.0));
    }
}
