//! The tables of figures, before and after.

use kit::probability::calibration_error;
use kit::rows::{ReliabilityRow, SummaryRow};
use kit::{Context, Result, Z, wilson};

use crate::config::Calibrate;
use crate::measure::{Measured, reliability, reliability_of_a};

/// A figure of one label.
type Measure = fn(&Measured) -> f64;

/// Writes `reliability` and `summary`; `further` rows stand at the end of the latter.
pub(crate) fn write_measures(
    stage: &Calibrate,
    context: &Context<'_>,
    [before, after]: [&[Measured]; 2],
    further: Vec<SummaryRow>,
) -> Result<Vec<SummaryRow>> {
    let sets = [("before", before), ("after", after)];
    let mut table = context.writer::<ReliabilityRow>("reliability")?;
    let mut summary = Vec::new();
    let bins = stage.bins;
    for (labels, rows) in sets {
        let found = reliability(rows, bins);
        table.extend(found.iter().enumerate().map(|(index, bin)| {
            let of = |sum: f64| (bin.rows > 0).then(|| sum / bin.rows as f64);
            let gold = of(bin.sum_gold).and_then(|share| wilson(share, bin.rows));
            ReliabilityRow {
                labels: labels.to_owned(),
                bin: index as u32,
                low: bin.low,
                high: bin.high,
                rows: bin.rows,
                mean_p: of(bin.sum_p),
                mean_gold: of(bin.sum_gold),
                gold_low: gold.map(|gold| gold.0),
                gold_high: gold.map(|gold| gold.1),
            }
        }))?;
        let note = format!(
            "expected calibration error: mean |share right - max(p, 1 - p)| over {bins} equal bins of [0.5, 1], a tie half \
             right; above 0 for any finite sample"
        );
        summary.push(point(&format!("ece/{labels}"), calibration_error(&found), rows.len(), &note));
    }
    table.finish()?;
    for (labels, rows) in sets {
        let note = format!("the same of side a: mean |gold - p| over {bins} equal bins of [0, 1]");
        let value = calibration_error(&reliability_of_a(rows, bins));
        summary.push(point(&format!("ece_side/{labels}"), value, rows.len(), &note));
    }
    let measures: [(&str, Measure, &str); 3] = [
        ("brier", Measured::brier, "squared distance of P(a better) from gold"),
        ("log_loss", Measured::log_loss, "cross-entropy of gold with the log-odds, in nats, nothing cut"),
        ("accuracy", Measured::hit, "the gold probability of the side that the label prefers; a tie is half"),
    ];
    for (metric, of, note) in measures {
        for (labels, rows) in sets {
            summary.push(mean(&format!("{metric}/{labels}"), rows.iter().map(of), note));
        }
        let change = before.iter().zip(after).map(|(before, after)| of(after) - of(before));
        summary.push(mean(&format!("{metric}/change"), change, "after less before, row by row"));
    }
    summary.extend(further);
    let mut writer = context.writer::<SummaryRow>("summary")?;
    writer.extend(summary.clone())?;
    writer.finish()?;
    Ok(summary)
}

fn point(metric: &str, value: f64, rows: usize, note: &str) -> SummaryRow {
    let (metric, note) = (metric.to_owned(), note.to_owned());
    SummaryRow { metric, value, low: None, high: None, rows: rows as u64, note }
}

/// A mean with the normal interval; rows are taken as independent.
fn mean(metric: &str, values: impl Iterator<Item = f64>, note: &str) -> SummaryRow {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let value = values.iter().sum::<f64>() / n;
    let half = Z * (values.iter().map(|it| (it - value).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
    let note = format!("{note}; rows that the fit has not seen; normal interval");
    let (low, high) = (Some(value - half), Some(value + half));
    SummaryRow { metric: metric.to_owned(), value, low, high, rows: values.len() as u64, note }
}
