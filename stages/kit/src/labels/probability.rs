//! Probabilities, their log-odds, and their distance from gold.

/// Log-odds of a probability that is kept `edge` from 0 and 1, whose log-odds are infinite; with `logit(1 - p) =
/// -logit(p)` to the last bit for every p >= 1/2.
pub fn logit(p: f64, edge: f64) -> f64 {
    let upper = if p < 0.5 { 1.0 - p } else { p }.min(1.0 - edge);
    let z = (upper / (1.0 - upper)).ln();
    if p < 0.5 { -z } else { z }
}

/// 1 / (1 + exp(-x)), with `sigmoid(-x) = 1 - sigmoid(x)` to the last bit: the half in [0.5, 1] is computed, and its
/// difference to 1 is exact.
pub fn sigmoid(x: f64) -> f64 {
    let upper = 1.0 / (1.0 + (-x.abs()).exp());
    if x >= 0.0 { upper } else { 1.0 - upper }
}

/// softplus(x) - y x: the cross-entropy of y with sigmoid(x), in nats.
pub fn cross_entropy(x: f64, y: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p() - y * x
}

/// P of the side that a label prefers, and that side's gold probability. Ties of exactly 1/2 say nothing about a side
/// and count half.
pub fn preferred(p: f64, gold: f64) -> (f64, f64) {
    match p.total_cmp(&0.5) {
        std::cmp::Ordering::Greater => (p, gold),
        std::cmp::Ordering::Less => (1.0 - p, 1.0 - gold),
        std::cmp::Ordering::Equal => (0.5, 0.5),
    }
}

/// One bin of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Its lower end.
    pub low: f64,
    /// Its upper end; the last bin holds 1 too.
    pub high: f64,
    /// Labels in it.
    pub rows: u64,
    /// The sum of their probabilities.
    pub sum_p: f64,
    /// The sum of their gold probabilities: `sum_p` where they are calibrated.
    pub sum_gold: f64,
}

impl Bin {
    /// So many bins of equal width over [from, 1] of (probability, gold): bin = floor((p - from) / width).
    pub fn of(points: impl Iterator<Item = (f64, f64)>, from: f64, bins: u32) -> Vec<Bin> {
        let width = (1.0 - from) / f64::from(bins);
        let mut found: Vec<Bin> = (0..bins)
            .map(|bin| {
                let low = from + width * f64::from(bin);
                Bin { low, high: low + width, rows: 0, sum_p: 0.0, sum_gold: 0.0 }
            })
            .collect();
        for (p, gold) in points {
            let bin = &mut found[(((p - from) / width) as usize).min(bins as usize - 1)];
            bin.rows += 1;
            bin.sum_p += p;
            bin.sum_gold += gold;
        }
        found
    }
}

/// Expected calibration error of the sides that labels prefer (see [`preferred`]): the mean distance of a bin's
/// probability from its gold share, by rows.
pub fn calibration_error(bins: &[Bin]) -> f64 {
    let rows: u64 = bins.iter().map(|bin| bin.rows).sum();
    bins.iter().map(|bin| (bin.sum_p - bin.sum_gold).abs()).sum::<f64>() / rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrored_probabilities_are_exact() {
        for x in [0.0, 1e-9, 0.3, 4.0, 40.0, 800.0] {
            assert_eq!(sigmoid(-x), 1.0 - sigmoid(x));
        }
        for p in [0.5, 0.7, 0.9999, 1.0] {
            assert_eq!(logit(1.0 - p, 1e-9), -logit(p, 1e-9));
        }
        assert!((logit(0.75, 1e-6) - 3f64.ln()).abs() < 1e-15);
        assert!((logit(1.0, 1e-6) - (1e6f64 - 1.0).ln()).abs() < 1e-9);
    }

    #[test]
    fn cross_entropy_is_finite_far_out() {
        assert_eq!(cross_entropy(1000.0, 0.5), 500.0);
        assert_eq!(cross_entropy(-1000.0, 0.5), 500.0);
        assert_eq!(cross_entropy(1000.0, 1.0), 0.0);
        assert!((cross_entropy(3f64.ln(), 1.0) - (4.0 / 3.0f64).ln()).abs() < 1e-15);
    }

    #[test]
    fn calibration_error_by_hand() {
        // 0.9 and 0.95 in one bin, one of them right: 1.85 - 1; 0.62 in another, right: 0.38. A tie counts nothing.
        let points = [(0.9, 1.0), (0.05, 1.0), (0.62, 1.0), (0.5, 0.0)];
        let bins = Bin::of(points.map(|(p, gold)| preferred(p, gold)).into_iter(), 0.5, 5);
        assert!((calibration_error(&bins) - (0.85 + 0.38) / 4.0).abs() < 1e-12);
        assert_eq!(bins.iter().map(|bin| bin.rows).collect::<Vec<_>>(), [1, 1, 0, 0, 2]);
        assert_eq!(preferred(0.5, 1.0), (0.5, 0.5));
    }
}
