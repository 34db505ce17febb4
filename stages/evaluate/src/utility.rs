//! The sandbox's utility of several models' responses, and the differences between them.

use std::collections::BTreeMap;

use kit::rows::Utility;
use kit::{Context, Error, Outcome, Result, RowReader};

use crate::summary::{DIFFERENCE, Summary};

/// Mean utility of each prompt's responses.
type ByPrompt = BTreeMap<String, f64>;

pub(crate) fn summarise(
    context: &Context<'_>,
    names: &[String],
    summary: &mut Summary,
    outcome: Outcome,
) -> Result<Outcome> {
    let sources = context.sources("utilities");
    if sources.len() != names.len() {
        return Err(Error::Pipeline(format!(
            "`utilities` has {} tables and `utility_names` {} names",
            sources.len(),
            names.len()
        )));
    }
    let mut rows = 0;
    let mut tables = Vec::new();
    for source in sources {
        let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for row in RowReader::<Utility>::open(&[&source.path])? {
            let row = row?;
            rows += 1;
            let (sum, count) = sums.entry(row.prompt_id).or_default();
            *sum += row.utility * f64::from(row.count);
            *count += f64::from(row.count);
        }
        tables.push(sums.into_iter().map(|(prompt, (sum, count))| (prompt, sum / count)).collect::<ByPrompt>());
    }
    for (name, table) in names.iter().zip(&tables) {
        let note = "mean over prompts of the mean over their responses";
        summary.mean(&format!("utility/{name}"), table.values().copied(), note);
    }
    for (name, table) in names.iter().zip(&tables).skip(1) {
        let paired: Vec<f64> = difference(&tables[0], table);
        if paired.is_empty() {
            context.warn(format!("`{}` and `{name}` have no prompt in common, so there is no difference", names[0]));
        }
        let metric = format!("utility/{name}-{}", names[0]);
        summary.mean(&metric, paired.into_iter(), &format!("{DIFFERENCE} over the prompts that both have"));
    }
    Ok(outcome.balance("utilities", rows, rows, 0))
}

/// The second's values less the first's, by prompt.
fn difference(first: &ByPrompt, second: &ByPrompt) -> Vec<f64> {
    second.iter().filter_map(|(prompt, utility)| Some(utility - first.get(prompt)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_paired_by_prompt() {
        let table = |rows: &[(&str, f64)]| rows.iter().map(|(id, value)| ((*id).to_owned(), *value)).collect();
        let (before, after) = (table(&[("p0", 0.5), ("p1", 0.25)]), table(&[("p1", 0.75), ("p2", 1.0)]));
        assert_eq!(difference(&before, &after), [0.5]);
    }
}
