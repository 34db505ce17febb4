//! The judge's soft labels against the sandbox's true ones.

use kit::rows::TruthRow;
use kit::{Context, Outcome, Result};

use crate::summary::{Summary, by_form};

pub(crate) fn summarise(context: &Context<'_>, summary: &mut Summary, outcome: Outcome) -> Result<Outcome> {
    let rows: Vec<TruthRow> = context.rows("truth")?.collect::<Result<_>>()?;
    for (ending, rows) in by_form(&rows, |row| &row.form) {
        let error = rows.iter().map(|row| (row.p_hat - row.p_star).abs());
        summary.mean(&format!("truth/mean_abs_error{ending}"), error, "mean |p_hat - p*|");
        let pairs: Vec<_> = rows.iter().map(|row| (row.p_hat, row.p_star)).collect();
        summary.correlation(&format!("truth/correlation{ending}"), &pairs, "Pearson's, p_hat against p*");
        let decided = rows.iter().filter(|row| row.p_star != 0.5);
        let agree = decided.map(|row| (row.p_hat - 0.5) * (row.p_star - 0.5) > 0.0);
        summary.share(&format!("truth/agreement{ending}"), agree, "p_hat and p* on the same side of 0.5");
    }
    let count = rows.len() as u64;
    Ok(outcome.balance("truth", count, count, 0))
}
