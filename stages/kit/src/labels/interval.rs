//! Intervals of 95 %.

/// The 97.5 % point of the normal distribution.
pub const Z: f64 = 1.959_963_984_540_054;

/// Wilson's score interval of a share of so many rows; nothing for none.
///
/// For shares of soft labels, which vary less than yes and no, it is wider than need be.
pub fn wilson(share: f64, rows: u64) -> Option<(f64, f64)> {
    if rows == 0 {
        return None;
    }
    let n = rows as f64;
    let scale = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    // At 0 and 1 one end is the share itself; rounding must not carry it outside.
    Some(((centre - half).clamp(0.0, share), (centre + half).clamp(share, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(share: f64, rows: u64, low: f64, high: f64) {
        let got = wilson(share, rows).unwrap();
        assert!((got.0 - low).abs() < 5e-5 && (got.1 - high).abs() < 5e-5, "{share} of {rows}: {got:?}");
    }

    #[test]
    fn wilson_by_hand() {
        // 8 of 10: centre (0.8 + 0.192073)/1.384146, half 1.959964/1.384146 * sqrt(0.016 + 0.00960365).
        check(0.8, 10, 0.490_16, 0.943_32);
        // None of 10: 0, z^2 / (10 + z^2).
        check(0.0, 10, 0.0, 0.277_53);
        check(1.0, 10, 1.0 - 0.277_53, 1.0);
        // 1 of 2: symmetric around 1/2.
        check(0.5, 2, 0.5 - 0.405_47, 0.5 + 0.405_47);
        assert_eq!(wilson(0.5, 0), None);
    }
}
