//! Distances between probabilities and their targets.

use kit::wilson;

use crate::fit::{Label, cross_entropy};

/// Probabilities without log-odds (isotonic) are kept this far from 0 and 1 in the log loss, so that one hard and wrong
/// label is not infinite.
pub const EDGE: f64 = 1e-6;

/// A label beside its gold one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The label.
    pub label: Label,
    /// The gold P(a better).
    pub gold: f64,
}

impl Measured {
    /// P of the side that the label prefers, and that side's gold probability. Ties of exactly 1/2 say nothing about a
    /// side and count half.
    fn preferred(&self) -> (f64, f64) {
        let p = self.label.p;
        match p.total_cmp(&0.5) {
            std::cmp::Ordering::Greater => (p, self.gold),
            std::cmp::Ordering::Less => (1.0 - p, 1.0 - self.gold),
            std::cmp::Ordering::Equal => (0.5, 0.5),
        }
    }

    /// The gold probability of the preferred side: 1 where a hard gold label agrees, 1/2 for a tie.
    pub fn hit(&self) -> f64 {
        self.preferred().1
    }

    /// Squared distance of P(a better) from gold.
    pub fn brier(&self) -> f64 {
        (self.label.p - self.gold).powi(2)
    }

    /// Cross-entropy of the gold label with the log-odds, nothing cut: softplus(x) - gold x. Labels without log-odds are
    /// kept [`EDGE`] from 0 and 1.
    pub fn log_loss(&self) -> f64 {
        if let Some(x) = self.label.log_odds {
            return cross_entropy(x, self.gold);
        }
        let p = self.label.p.clamp(EDGE, 1.0 - EDGE);
        -(self.gold * p.ln() + (1.0 - self.gold) * (1.0 - p).ln())
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
    /// Their mean probability.
    pub mean_p: f64,
    /// Their mean gold probability: what `mean_p` should be.
    pub mean_gold: f64,
}

impl Bin {
    /// Wilson's interval of the gold probability at 95 %; nothing for no rows.
    pub fn gold_interval(&self) -> Option<(f64, f64)> {
        wilson(self.mean_gold, self.rows)
    }
}

/// Bins of equal width over [0.5, 1], of the side that each label prefers: bin = floor((c - 0.5) / width), c = max(p, 1 - p).
pub fn reliability(rows: &[Measured], bins: u32) -> Vec<Bin> {
    binned(rows.iter().map(Measured::preferred), 0.5, bins)
}

/// Bins of equal width over [0, 1], of side a: as the labels stand in the table.
pub fn reliability_of_a(rows: &[Measured], bins: u32) -> Vec<Bin> {
    binned(rows.iter().map(|it| (it.label.p, it.gold)), 0.0, bins)
}

fn binned(points: impl Iterator<Item = (f64, f64)>, from: f64, bins: u32) -> Vec<Bin> {
    let width = (1.0 - from) / f64::from(bins);
    let mut found: Vec<Bin> = (0..bins)
        .map(|bin| {
            let low = from + width * f64::from(bin);
            Bin { low, high: low + width, rows: 0, mean_p: 0.0, mean_gold: 0.0 }
        })
        .collect();
    for (p, gold) in points {
        let bin = &mut found[(((p - from) / width) as usize).min(bins as usize - 1)];
        bin.rows += 1;
        bin.mean_p += p;
        bin.mean_gold += gold;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn it(p: f64, gold: f64) -> Measured {
        Measured { label: Label { p, log_odds: None }, gold }
    }

    #[test]
    fn figures_by_hand() {
        let rows = [it(0.9, 1.0), it(0.1, 1.0), it(0.95, 1.0), it(0.62, 0.0), it(0.5, 1.0), it(1.0, 1.0)];
        let bins = reliability(&rows, 5);
        assert_eq!(bins.iter().map(|bin| bin.rows).collect::<Vec<_>>(), [1, 1, 0, 0, 4]);
        // The second row prefers b, and b is worse: gold 0.
        assert!((bins[4].mean_p - (0.9 + 0.9 + 0.95 + 1.0) / 4.0).abs() < 1e-12 && bins[4].mean_gold == 0.75);
        let expected = (4.0 * (0.9375f64 - 0.75) + 0.62 + 0.0) / 6.0;
        assert!((expected_calibration_error(&bins) - expected).abs() < 1e-12);
        // Of side a in halves: 0.1 of gold 1; and 0.9, 0.95, 0.62, 0.5, 1 of gold 4/5.
        let of_a = reliability_of_a(&rows, 2);
        let expected = (0.9 + (3.97f64 - 4.0).abs()) / 6.0;
        assert!((expected_calibration_error(&of_a) - expected).abs() < 1e-12, "{of_a:?}");
        assert!((rows[1].brier() - 0.81).abs() < 1e-12);
        assert_eq!(rows.map(|row| row.hit()), [1.0, 0.0, 1.0, 0.0, 0.5, 1.0]);
    }

    #[test]
    fn the_log_loss_is_cut_only_where_there_are_no_log_odds() {
        assert!((it(0.25, 0.5).log_loss() - -(0.5 * 0.25f64.ln() + 0.5 * 0.75f64.ln())).abs() < 1e-12);
        assert!(it(1.0, 0.0).log_loss() < 14.0);
        // sigmoid(40) is 1.0 in double precision; softplus(40) is 40.
        assert_eq!(Measured { label: Label::of(40.0), gold: 0.0 }.log_loss(), 40.0);
    }
}
