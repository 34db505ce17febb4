//! Distances between probabilities and their targets.

use kit::probability::{Bin, cross_entropy, preferred};

use crate::fit::Label;

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
    fn preferred(&self) -> (f64, f64) {
        preferred(self.label.p, self.gold)
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

/// Bins of equal width over [0.5, 1], of the side that each label prefers.
pub fn reliability(rows: &[Measured], bins: u32) -> Vec<Bin> {
    Bin::of(rows.iter().map(Measured::preferred), 0.5, bins)
}

/// Bins of equal width over [0, 1], of side a: as the labels stand in the table.
pub fn reliability_of_a(rows: &[Measured], bins: u32) -> Vec<Bin> {
    Bin::of(rows.iter().map(|it| (it.label.p, it.gold)), 0.0, bins)
}

#[cfg(test)]
mod tests {
    use kit::probability::calibration_error;

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
        assert!((bins[4].sum_p - (0.9 + 0.9 + 0.95 + 1.0)).abs() < 1e-12 && bins[4].sum_gold == 3.0);
        let expected = (4.0 * (0.9375f64 - 0.75) + 0.62 + 0.0) / 6.0;
        assert!((calibration_error(&bins) - expected).abs() < 1e-12);
        // Of side a in halves: 0.1 of gold 1; and 0.9, 0.95, 0.62, 0.5, 1 of gold 4/5.
        let of_a = reliability_of_a(&rows, 2);
        let expected = (0.9 + (3.97f64 - 4.0).abs()) / 6.0;
        assert!((calibration_error(&of_a) - expected).abs() < 1e-12, "{of_a:?}");
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
