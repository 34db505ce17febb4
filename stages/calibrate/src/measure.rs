//! Distances between probabilities and their targets.

use crate::fit::Observation;

/// Probabilities are kept this far from 0 and 1 in the log loss, so that one hard and wrong label is not infinite.
pub const EDGE: f64 = 1e-6;

/// One bin of a reliability diagram, of the side that the label prefers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Its lower end, in [0.5, 1).
    pub low: f64,
    /// Its upper end; the last bin holds 1 too.
    pub high: f64,
    /// Labels in it.
    pub rows: u64,
    /// Their mean probability.
    pub mean_p: f64,
    /// The mean gold probability of the preferred side: what `mean_p` should be.
    pub mean_gold: f64,
}

/// Bins of equal width over [0.5, 1]; ties of exactly 1/2 say nothing about a side and count with both gold values.
pub fn reliability(observations: &[Observation], bins: u32) -> Vec<Bin> {
    let width = 0.5 / f64::from(bins);
    let mut found: Vec<Bin> = (0..bins)
        .map(|bin| {
            let low = 0.5 + width * f64::from(bin);
            Bin { low, high: low + width, rows: 0, mean_p: 0.0, mean_gold: 0.0 }
        })
        .collect();
    for it in observations {
        let (p, gold) = match it.p_hat.total_cmp(&0.5) {
            std::cmp::Ordering::Greater => (it.p_hat, it.gold),
            std::cmp::Ordering::Less => (1.0 - it.p_hat, 1.0 - it.gold),
            std::cmp::Ordering::Equal => (0.5, 0.5),
        };
        let bin = (((p - 0.5) / width) as usize).min(bins as usize - 1);
        found[bin].rows += 1;
        found[bin].mean_p += p;
        found[bin].mean_gold += gold;
    }
    for bin in found.iter_mut().filter(|bin| bin.rows > 0) {
        bin.mean_p /= bin.rows as f64;
        bin.mean_gold /= bin.rows as f64;
    }
    found
}

/// Expected calibration error: the mean distance of a bin's probability from its gold share, by rows.
pub fn expected_calibration_error(bins: &[Bin]) -> f64 {
    let rows: u64 = bins.iter().map(|bin| bin.rows).sum();
    bins.iter().map(|bin| bin.rows as f64 / rows as f64 * (bin.mean_p - bin.mean_gold).abs()).sum()
}

/// Squared distance.
pub fn brier(it: &Observation) -> f64 {
    (it.p_hat - it.gold).powi(2)
}

/// Cross-entropy of the gold label with the probability, kept [`EDGE`] from 0 and 1.
pub fn log_loss(it: &Observation) -> f64 {
    let p = it.p_hat.clamp(EDGE, 1.0 - EDGE);
    -(it.gold * p.ln() + (1.0 - it.gold) * (1.0 - p).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        let it = |p_hat, gold| Observation { p_hat, gold };
        let rows = [it(0.9, 1.0), it(0.1, 1.0), it(0.95, 1.0), it(0.62, 0.0), it(0.5, 1.0), it(1.0, 1.0)];
        let bins = reliability(&rows, 5);
        assert_eq!(bins.iter().map(|bin| bin.rows).collect::<Vec<_>>(), [1, 1, 0, 0, 4]);
        // The second row prefers b, and b is worse: gold 0.
        assert!((bins[4].mean_p - (0.9 + 0.9 + 0.95 + 1.0) / 4.0).abs() < 1e-12 && bins[4].mean_gold == 0.75);
        let expected = (4.0 * (0.9375f64 - 0.75) + 0.62 + 0.0) / 6.0;
        assert!((expected_calibration_error(&bins) - expected).abs() < 1e-12);
        assert!((brier(&rows[1]) - 0.81).abs() < 1e-12);
        assert!((log_loss(&it(0.25, 0.5)) - -(0.5 * 0.25f64.ln() + 0.5 * 0.75f64.ln())).abs() < 1e-12);
        assert!(log_loss(&it(1.0, 0.0)) < 14.0);
    }
}
