//! Gold labels of some comparisons.

use kit::rows::{Pair, ScoredVerdict};
use kit::{Context, Result, RowReader, Table};

use crate::bench::{Bench, wrong};
use crate::sides::{Sides, pair_sides_of, verdict_sides_of};

/// A gold row.
struct Labelled {
    id: String,
    comparison: Option<String>,
    sides: Sides,
    p_hat: f64,
    place: (Option<String>, Option<u64>),
}

/// The gold P(a better) of each comparison that has one: the mean of its labels. What is about no comparison goes to
/// the rejects.
///
/// # Errors
/// When the input cannot be read or a label is no probability.
pub fn read(context: &Context<'_>, bench: &mut Bench) -> Result<Vec<Option<f64>>> {
    let mut sums = vec![(0.0, 0.0); bench.index.len()];
    let mut rows = 0;
    for source in context.sources("gold") {
        let mut take = |bench: &mut Bench, row: Labelled| -> Result<()> {
            rows += 1;
            if !(0.0..=1.0).contains(&row.p_hat) {
                return Err(wrong("p_hat", &row.id, &row.place, row.p_hat, "a probability"));
            }
            match bench.index.find(row.comparison.as_deref(), &row.sides) {
                Some((at, turned)) => {
                    sums[at].0 += if turned { 1.0 - row.p_hat } else { row.p_hat };
                    sums[at].1 += 1.0;
                }
                None => {
                    let detail = "no comparison has this id with the same sides, or the ids of both sides".to_owned();
                    bench.reject("gold", row.id, "no_comparison", detail, row.place);
                }
            }
            Ok(())
        };
        match source.table {
            Table::Pairs => {
                for row in RowReader::<Pair>::open(&[&source.path])? {
                    let row = row?;
                    let sides = pair_sides_of(&row);
                    let place = (row.source_file, row.source_line);
                    take(
                        bench,
                        Labelled { id: row.pair_id, comparison: row.comparison_id, sides, p_hat: row.p_hat, place },
                    )?;
                }
            }
            _ => {
                for row in RowReader::<ScoredVerdict>::open(&[&source.path])? {
                    let row = row?;
                    let sides = verdict_sides_of(&row);
                    let place = (row.source_file, row.source_line);
                    let id = row.comparison_id;
                    take(bench, Labelled { id: id.clone(), comparison: Some(id), sides, p_hat: row.p_hat, place })?;
                }
            }
        }
    }
    bench.read.insert("gold", rows);
    Ok(sums.into_iter().map(|(sum, labels)| (labels > 0.0).then(|| sum / labels)).collect())
}
