//! Where a row went in training: its steps drawn once more from the seed, its reference log-probs, its contrasts.

use std::collections::BTreeMap;

use kit::rows::{Contrast, Item, Metric, Pair, StepRow};
use kit::{Context, Fact, Result, Table, Traced, Trail};
use serde_json::{Value, json};

use crate::config::Train;
use crate::dataset::Example;
use crate::log::contrasts;
use crate::run::Plan;
use crate::step::objective_error;

/// Tables of more rows are not tokenised again for one row.
const MOST_ROWS: u64 = 200_000;

/// What training did with the rows of a trail.
pub(crate) fn trace(stage: &Train, context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    let paths: Vec<_> = context.sources("from").iter().map(|source| &source.path).collect();
    let mut rows: Vec<(String, f64, f64)> = match context.table_of("from") {
        Some(Table::Items) => {
            let items = trail.sides_in::<Item, _>(&paths)?;
            items.into_iter().map(|item| (item.item_id, item.label, item.weight)).collect()
        }
        _ => {
            let pairs = trail.pairs_in::<Pair, _>(&paths)?;
            pairs.into_iter().map(|pair| (pair.pair_id, pair.p_hat, pair.weight)).collect()
        }
    };
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|a, b| a.0 == b.0);
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let is_row = |id: &str| rows.iter().any(|row| row.0 == id);
    let seen: Vec<StepRow> = kit::find(&[context.port("steps")], &["row_id"], |cells| is_row(cells[0]))?;
    let metrics: Vec<Metric> = kit::read_rows(&context.port("metrics"))?;
    let kept: Vec<Contrast> = match context.port("contrasts") {
        port if port.is_dir() => kit::find(&[port], &["pair_id"], |cells| is_row(cells[0]))?,
        _ => Vec::new(),
    };
    let again = match context.count_rows_of(&["from"])? {
        0..=MOST_ROWS => Some(Again::of(stage, context, stage.plan(context)?, &kept)?),
        _ => None,
    };
    let of_row = |(id, label, weight): (String, f64, f64)| {
        let name = if context.table_of("from") == Some(Table::Items) { "label" } else { "p_hat" };
        let mut facts = vec![Fact::told(name, label), Fact::told("weight", weight)];
        facts.extend(again.iter().flat_map(|again| again.of_example(&id)));
        let steps: Vec<u64> = seen.iter().filter(|step| step.row_id == id).map(|step| step.step).collect();
        facts.push(match &again {
            Some(again) => {
                let drawn = again.steps.get(&id).cloned().unwrap_or_default();
                Fact::checked("steps", json!(steps), json!(drawn), "the order drawn again from the seed")
            }
            None => Fact::told("steps", json!(steps)).because("too many rows to draw their order again"),
        });
        for step in &steps {
            let Some(metric) = metrics.iter().find(|metric| metric.step == *step) else { continue };
            facts.push(Fact::told(&format!("loss of step {step}"), json!(metric.loss)).because("of its whole batch"));
        }
        for contrast in kept.iter().filter(|contrast| contrast.pair_id == id) {
            facts.extend(of_contrast(contrast, again.as_ref()));
        }
        Traced { title: format!("trained on {id}"), facts }
    };
    Ok(rows.into_iter().map(of_row).collect())
}

/// What training would do again, up to the model's own numbers.
struct Again {
    plan: Plan,
    /// The steps of each row.
    steps: BTreeMap<String, Vec<u64>>,
    /// Contrasts by step, row and column.
    contrasts: BTreeMap<(u64, String, String), (f64, f64)>,
}

impl Again {
    fn of(stage: &Train, context: &Context<'_>, plan: Plan, kept: &[Contrast]) -> Result<Again> {
        let (mut steps, mut found) = (BTreeMap::<String, Vec<u64>>::new(), BTreeMap::new());
        let (mut done, mut pass) = (0, 0);
        while done < plan.batches {
            context.interrupt.check()?;
            for rows in plan.order.pass(pass) {
                done += 1;
                if done > plan.batches {
                    break;
                }
                let assembled = plan.dataset.assemble(&rows, &stage.objective)?;
                if stage.objective.no_step(&assembled.batch).is_some() {
                    continue;
                }
                for &row in &rows {
                    steps.entry(plan.dataset.examples[row].id().to_owned()).or_default().push(done);
                }
                if kept.iter().any(|contrast| contrast.step == done) {
                    let (evaluation, _) = stage.objective.evaluate(&assembled.batch).map_err(objective_error)?;
                    for row in contrasts(&plan.dataset, &rows, &evaluation, &assembled.batch, done) {
                        found.insert((done, row.pair_id, row.rejected_pair_id), (row.weight, row.similarity));
                    }
                }
            }
            pass += 1;
        }
        Ok(Again { plan, steps, contrasts: found })
    }

    /// Tokens and reference log-probs of a row's sequences.
    fn of_example(&self, id: &str) -> Vec<Fact> {
        let dataset = &self.plan.dataset;
        let Some(example) = dataset.examples.iter().find(|example| example.id() == id) else {
            let reject = dataset.rejects.iter().find(|reject| reject.row_id == id);
            return reject
                .map(|reject| Fact::told("left out", reject.reason.as_str()).because(reject.detail.as_str()))
                .into_iter()
                .collect();
        };
        let mut facts = Vec::new();
        let sides = example.sequences();
        for (side, sequence) in &sides {
            let tokens = &dataset.sequences[*sequence];
            let how = format!("{} of prompt, {} of completion", tokens.start, tokens.completion_tokens());
            facts.push(Fact::told(&format!("tokens of {side}"), tokens.ids.len()).because(how));
            if let Some((logp, _)) = dataset.reference[*sequence] {
                facts.push(Fact::told(&format!("reference logp of {side}"), logp));
            }
        }
        if let (Example::Pair { chosen, rejected, .. }, true) = (example, sides.len() == 2)
            && let (Some(chosen), Some(rejected)) = (dataset.reference[*chosen], dataset.reference[*rejected])
        {
            let how = "chosen less rejected: what the policy starts from";
            facts.push(Fact::told("reference margin", chosen.0 - rejected.0).because(how));
        }
        facts
    }
}

fn of_contrast(contrast: &Contrast, again: Option<&Again>) -> Vec<Fact> {
    let (step, other) = (contrast.step, &contrast.rejected_pair_id);
    let key = (step, contrast.pair_id.clone(), other.clone());
    let names = [("weight", contrast.weight), ("similarity", contrast.similarity)];
    let fact = |(at, (name, stored)): (usize, (&str, f64))| {
        let name = format!("contrast {name} in step {step}");
        let against = format!("against the rejected side of {other}");
        let Some(again) = again else { return Fact::told(&name, stored).because(against) };
        let found = again.contrasts.get(&key).map_or(Value::Null, |both| if at == 0 { both.0 } else { both.1 }.into());
        Fact::checked(&name, stored, found, &format!("{against}; from the embeddings of its batch"))
    };
    names.into_iter().enumerate().map(fact).collect()
}
