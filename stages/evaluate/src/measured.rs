//! A measure of its own, and its figures.

use kit::rows::{Reject, SummaryRow};
use kit::{Context, Finding, InputPort, Outcome, OutputPort, Result};

/// A measure asked for by `measure`.
pub(crate) trait Measured {
    /// As those of a stage.
    fn inputs(&self) -> Vec<InputPort>;

    /// Outputs besides `summary` and `rejects`.
    fn outputs(&self) -> Vec<OutputPort> {
        Vec::new()
    }

    /// As those of a stage.
    fn check(&self) -> Vec<Finding>;

    /// Inputs whose rows are the work.
    fn counted(&self) -> &'static [&'static str];

    /// Reads the inputs, writes the further outputs, and gives the figures.
    fn compute(&self, context: &Context<'_>) -> Result<Found>;
}

/// The figures of a measure.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) figures: Vec<SummaryRow>,
    pub(crate) rejects: Vec<Reject>,
    /// The balance of the inputs, and headlines.
    pub(crate) outcome: Outcome,
}

/// A figure with the ends of its interval.
pub(crate) fn figure(
    metric: impl Into<String>,
    value: f64,
    interval: Option<(f64, f64)>,
    rows: u64,
    note: impl Into<String>,
) -> SummaryRow {
    let (low, high) = (interval.map(|it| it.0), interval.map(|it| it.1));
    SummaryRow { metric: metric.into(), value, low, high, rows, note: note.into() }
}
