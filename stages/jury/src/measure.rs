//! How far labels are from gold ones.

use kit::Z;
use kit::probability::{Bin, calibration_error, cross_entropy, preferred};
use kit::rows::SummaryRow;

/// Bins of the calibration error, over [0.5, 1].
const BINS: u32 = 10;

/// A label beside a gold one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// P(a better).
    pub p: f64,
    /// Its log-odds.
    pub log_odds: f64,
    /// The gold P(a better).
    pub gold: f64,
}

/// A figure of one label.
type Measure = fn(&Known) -> f64;

/// The gold probability of the side that a label prefers; 1/2 where it prefers none.
pub fn right(it: &Known) -> f64 {
    preferred(it.p, it.gold).1
}

/// Cross-entropy of gold with the label, in nats.
pub fn log_loss(it: &Known) -> f64 {
    cross_entropy(it.log_odds, it.gold)
}

fn brier(it: &Known) -> f64 {
    (it.p - it.gold).powi(2)
}

/// The figures of one source or of all together, named `FIGURE/WHO`.
pub fn figures(who: &str, known: &[Known], note: &str) -> Vec<SummaryRow> {
    let measures = [("accuracy", right as Measure), ("log_loss", log_loss), ("brier", brier)];
    let mut rows: Vec<SummaryRow> = measures
        .into_iter()
        .map(|(name, of)| mean(&format!("{name}/{who}"), known.iter().map(of).collect(), note))
        .collect();
    rows.push(SummaryRow {
        metric: format!("ece/{who}"),
        value: calibration_error(&Bin::of(known.iter().map(|it| preferred(it.p, it.gold)), 0.5, BINS)),
        low: None,
        high: None,
        rows: known.len() as u64,
        note: "expected calibration error over 10 bins of [0.5, 1]; above 0 for any finite sample".to_owned(),
    });
    rows
}

/// A mean with the normal interval; rows are taken as independent.
pub fn mean(metric: &str, values: Vec<f64>, note: &str) -> SummaryRow {
    let n = values.len() as f64;
    let value = values.iter().sum::<f64>() / n;
    let half = Z * (values.iter().map(|it| (it - value).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
    let interval = Some(half).filter(|half| half.is_finite());
    SummaryRow {
        metric: metric.to_owned(),
        value,
        low: interval.map(|half| value - half),
        high: interval.map(|half| value + half),
        rows: values.len() as u64,
        note: format!("{note}; normal interval"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        let it = |p: f64, gold| Known { p, log_odds: (p / (1.0 - p)).ln(), gold };
        let known = [it(0.9, 1.0), it(0.1, 1.0), it(0.62, 1.0), it(0.5, 1.0)];
        let found = figures("x", &known, "rows");
        let value = |name: &str| found.iter().find(|row| row.metric == name).unwrap().value;
        assert_eq!(value("accuracy/x"), 2.5 / 4.0);
        let brier = (0.01 + 0.81 + 0.38f64.powi(2) + 0.25) / 4.0;
        assert!((value("brier/x") - brier).abs() < 1e-12);
        let loss = -(0.9f64.ln() + 0.1f64.ln() + 0.62f64.ln() + 0.5f64.ln()) / 4.0;
        assert!((value("log_loss/x") - loss).abs() < 1e-12);
        // Bins: 0.9 twice with one right, 0.62 right, 0.5 half right.
        assert!((value("ece/x") - ((1.8 - 1.0) + 0.38) / 4.0).abs() < 1e-12);
    }
}
