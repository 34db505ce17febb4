//! Gold labels of some comparisons.

use kit::{Context, GoldLabel, Result};

use crate::bench::Bench;

/// The gold P(a better) of each comparison that has one: the mean of its labels. What is about no comparison goes to
/// the rejects.
///
/// # Errors
/// When the input cannot be read or a label is no probability.
pub fn read(context: &Context<'_>, bench: &mut Bench) -> Result<Vec<Option<f64>>> {
    let mut sums = vec![(0.0, 0.0); bench.index.len()];
    let labels = GoldLabel::read(context)?;
    bench.read.insert("gold", labels.len() as u64);
    for label in labels {
        if let Some((at, exchanged)) = bench.index.find(label.comparison.as_deref(), &label.sides) {
            sums[at].0 += label.p_of(exchanged);
            sums[at].1 += 1.0;
        } else {
            let detail = "no comparison has this id with the same sides, or the ids of both sides";
            bench.rejects.push(label.reject("no_comparison", detail));
        }
    }
    Ok(sums.into_iter().map(|(sum, labels)| (labels > 0.0).then(|| sum / labels)).collect())
}
