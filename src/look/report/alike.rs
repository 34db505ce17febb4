//! Similar prompts: the nearest ones by their embeddings, and the effective number of prompts in a batch under RPO's
//! weights.

use kit::{Result, Table};
use serde_json::Value;

use super::examples::short;
use super::files::{self, Found, groups};
use super::plots::{Frame, Ink, Mark, counts, range};
use super::texts::texts;
use super::view::{Figure, Grid, Part, Section, four, grouped};
use crate::store::RunRecord;

const SIZE: (u32, u32) = (350, 230);
/// Most prompts that are compared with each other.
const PROMPTS: usize = 200;
/// Prompts that are shown with their nearest ones.
const SHOWN: usize = 8;
/// The batch where no training of the run says another.
const BATCH: usize = 32;

/// A training with RPO's weights: its stage, tau, and the rows of a batch.
#[derive(Debug, PartialEq)]
struct Weighing {
    stage: String,
    tau: f64,
    batch: usize,
}

/// The neighbours in each table of embeddings.
pub fn section(record: &RunRecord, found: &[Found]) -> Result<Option<Section>> {
    let trainings = weighings(record);
    let parts = files::parts(&groups(found, &[Table::Embeddings]), |table| neighbours(&trainings, found, table))?;
    Ok((!parts.is_empty()).then_some(Section {
        id: "alike",
        title: "Similar prompts",
        note: "By the cosine of their embeddings, from the prompt with the nearest neighbour to the one that stands most \
               alone. Relative preference optimization gives the prompts of a batch weights softmax((cosine − 1) / τ); \
               (sum w)² / sum w² says how many prompts with equal weights they are worth.",
        parts,
    }))
}

/// The trainings that weigh by embeddings, those with other settings once each.
fn weighings(record: &RunRecord) -> Vec<Weighing> {
    let mut all: Vec<Weighing> = Vec::new();
    for stage in &record.order {
        let recipe = record.stages.get(stage).and_then(|record| record.recipe.as_ref());
        let Some(settings) = recipe.filter(|recipe| recipe.kind == "train").map(|recipe| &recipe.settings) else {
            continue;
        };
        let objectives = match &settings["objective"] {
            Value::Array(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        };
        let tau = objectives.iter().find(|one| one["name"] == "rpo").and_then(|one| one["tau"].as_f64());
        let batch = ["pairs", "items", "prompts"].iter().find_map(|unit| settings["batch"][unit].as_u64());
        if let Some((tau, batch)) = tau.zip(batch)
            && all.iter().all(|known| (known.tau, known.batch as u64) != (tau, batch))
        {
            all.push(Weighing { stage: stage.clone(), tau, batch: batch as usize });
        }
    }
    all
}

fn neighbours(trainings: &[Weighing], found: &[Found], table: &Found) -> Result<Part> {
    let rows = table.first(&["prompt_id", "embedding"], PROMPTS)?;
    let read = |row: &Vec<Value>| -> Option<(String, Vec<f64>)> {
        let values: Vec<f64> = row[1].as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
        Some((row[0].as_str()?.to_owned(), values))
    };
    let prompts: Vec<(String, Vec<f64>)> = rows.iter().filter_map(read).collect();
    let cosines = cosines(&prompts.iter().map(|(_, vector)| vector.as_slice()).collect::<Vec<_>>());
    let count = prompts.len();
    // Of each prompt the others, the nearest first.
    let nearest = |i: usize| {
        let mut others: Vec<usize> = (0..count).filter(|&j| j != i).collect();
        others.sort_by(|&a, &b| cosines[i][b].total_cmp(&cosines[i][a]).then(a.cmp(&b)));
        others.truncate(2);
        others
    };
    let mut near: Vec<(usize, Vec<usize>)> = (0..count).map(|i| (i, nearest(i))).collect();
    near.retain(|(_, others)| !others.is_empty());
    near.sort_by(|(i, a), (j, b)| cosines[*j][b[0]].total_cmp(&cosines[*i][a[0]]).then(i.cmp(j)));
    let last = near.len().saturating_sub(1);
    let mut picked: Vec<usize> = (0..SHOWN).map(|number| last * number / (SHOWN - 1)).collect();
    picked.dedup();
    let wanted: Vec<&(usize, Vec<usize>)> = picked.iter().filter_map(|&at| near.get(at)).collect();
    let ids = wanted.iter().flat_map(|(i, others)| std::iter::once(i).chain(others));
    let columns = |table| match table {
        Table::Pairs => Some(["chosen_prompt_id", "chosen_prompt"]),
        Table::Items => Some(["prompt_id", "prompt"]),
        Table::Prompts => Some(["prompt_id", "messages"]),
        _ => None,
    };
    let texts = texts(found, ids.map(|&i| prompts[i].0.as_str()).collect(), columns)?;
    let mut grid = Grid::new(&["prompt", "the nearest", "#cosine", "the next", "#cosine"]);
    for (i, others) in wanted {
        let text = |i: usize| {
            let id = &prompts[i].0;
            short(texts.get(id).unwrap_or(id), 120).into()
        };
        let mut cells = vec![text(*i)];
        for place in 0..2 {
            let other = others.get(place);
            cells.push(other.map(|&other| text(other)).unwrap_or_default());
            cells.push(other.map(|&other| four(cosines[*i][other]).into()).unwrap_or_default());
        }
        grid.push(cells);
    }
    let between: Vec<f64> = (0..count).flat_map(|i| cosines[i][..i].to_vec()).collect();
    let x = range(between.iter().copied());
    let bars = counts(between, x.clone(), 40);
    let top = bars.iter().map(|bar| bar.2).fold(1.0, f64::max);
    let frame = Frame { size: SIZE, x, y: 0.0..top * 1.05, x_name: "cosine", y_name: "pairs of prompts" };
    let mut facts = vec![table.read_note(count, "prompts compared with each other")];
    let mut figures = vec![Figure::new("All pairs of prompts", &frame, &[(Ink::series(0), Mark::Bars(bars))], &[])?];
    if count > 1 {
        let (figure, size_facts) = sizes(trainings, &cosines)?;
        figures.push(figure);
        facts.extend(size_facts);
    }
    Ok(Part { title: table.name(), facts: facts.join(" · "), figures, table: Some(grid), ..Part::default() })
}

/// The effective sample size of a row's weights against tau, for the batches of the trainings.
fn sizes(trainings: &[Weighing], cosines: &[Vec<f64>]) -> Result<(Figure, Vec<String>)> {
    let mut batches: Vec<usize> = trainings.iter().map(|training| training.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    if batches.is_empty() {
        batches.push(BATCH);
    }
    let most = trainings.iter().map(|training| training.tau).fold(1.0, f64::max);
    let taus: Vec<f64> = (1..=40).map(|step| most * f64::from(step) / 40.0).collect();
    let (mut marks, mut legend, mut facts) = (Vec::new(), Vec::new(), Vec::new());
    for (number, &batch) in batches.iter().enumerate() {
        let ink = Ink::series(number);
        let size = |tau: f64| (tau, effective(cosines, tau, batch));
        marks.push((ink, Mark::Line(taus.iter().map(|&tau| size(tau)).collect())));
        let own: Vec<&Weighing> = trainings.iter().filter(|training| training.batch == batch).collect();
        marks.push((ink, Mark::Dots(own.iter().map(|training| size(training.tau)).collect())));
        legend.push((ink, format!("batches of {}", grouped(batch as u64))));
        facts.extend(own.iter().map(|Weighing { stage, tau, batch }| {
            let size = four(effective(cosines, *tau, *batch));
            format!(
                "{stage}: with τ {tau} the weights of a row are worth {size} of {} prompts",
                batch.min(&cosines.len())
            )
        }));
    }
    let top = batches.iter().map(|&batch| batch.min(cosines.len()) as f64).fold(1.0, f64::max);
    let frame = Frame { size: SIZE, x: 0.0..most * 1.02, y: 0.0..top * 1.05, x_name: "τ", y_name: "prompts" };
    Ok((Figure::new("Effective sample size of RPO's weights", &frame, &marks, &legend)?, facts))
}

/// (sum w)² / sum w² with w = exp((cosine − 1) / tau), the mean over the rows of batches that are cut off the front.
fn effective(cosines: &[Vec<f64>], tau: f64, batch: usize) -> f64 {
    let batch = batch.clamp(1, cosines.len());
    let mut sizes = Vec::new();
    for start in (0..=cosines.len() - batch).step_by(batch) {
        for row in &cosines[start..start + batch] {
            let weights = || row[start..start + batch].iter().map(|cosine| ((cosine - 1.0) / tau).exp());
            sizes.push(weights().sum::<f64>().powi(2) / weights().map(|weight| weight * weight).sum::<f64>());
        }
    }
    sizes.iter().sum::<f64>() / sizes.len() as f64
}

fn cosines(vectors: &[&[f64]]) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths: Vec<f64> = vectors.iter().map(|vector| dot(vector, vector).sqrt()).collect();
    let row = |i: usize| (0..vectors.len()).map(|j| dot(vectors[i], vectors[j]) / (lengths[i] * lengths[j])).collect();
    (0..vectors.len()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_weights_are_worth_the_whole_batch_and_sharp_ones_a_single_prompt() {
        let cosines = cosines(&[&[1.0, 0.0], &[0.0, 2.0], &[-3.0, 0.0], &[0.0, -1.0]]);
        assert_eq!(cosines[0], [1.0, 0.0, -1.0, 0.0]);
        assert!((effective(&cosines, 1e6, 4) - 4.0).abs() < 1e-4);
        assert!((effective(&cosines, 1e-2, 4) - 1.0).abs() < 1e-4);
        // Weights 1, 1/e, 1/e², 1/e by hand; batches of two hold cosines 1 and 0.
        let e = (-1.0_f64).exp();
        let by_hand = (1.0 + 2.0 * e + e * e).powi(2) / (1.0 + 2.0 * e * e + e.powi(4));
        assert!((effective(&cosines, 1.0, 4) - by_hand).abs() < 1e-12);
        assert!((effective(&cosines, 1.0, 2) - (1.0 + e).powi(2) / (1.0 + e * e)).abs() < 1e-12);
    }
}
