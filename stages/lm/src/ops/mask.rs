//! Masks of dropout as functions of keys.

use crate::random::{bits, mix};

// T rows, K columns.

/// A mask [T, K].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask<'a> {
    /// The keys of the rows [T].
    pub rows: &'a [u64],
    /// The key of the place in the model.
    pub place: u64,
    /// The share of numbers that become 0, in [0, 1).
    pub share: f64,
}

impl Mask<'_> {
    /// A number is left out where its 32 bits are below this.
    pub fn threshold(&self) -> u32 {
        (self.share * 4_294_967_296.0) as u32
    }

    /// The factor of what is left, by which the expected value stays.
    pub fn scale(&self) -> f64 {
        1.0 / (1.0 - self.share)
    }

    /// The key of a row at this place.
    pub fn key(&self, row: usize) -> u64 {
        mix(self.rows[row] ^ self.place)
    }

    /// Factors of all numbers.
    pub fn factors(&self, width: usize) -> Vec<f64> {
        let (threshold, scale) = (self.threshold(), self.scale());
        let of = |row: usize| {
            let key = self.key(row);
            (0..width).map(move |column| if drawn(key, column) < threshold { 0.0 } else { scale })
        };
        (0..self.rows.len()).flat_map(of).collect()
    }
}

/// 32 bits for a column: a draw of 64 serves two columns.
#[inline(always)]
fn drawn(key: u64, column: usize) -> u32 {
    (bits(key, column as u64 / 2) >> (column % 2 * 32)) as u32
}
