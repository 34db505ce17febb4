//! Evidence of a run's success in its tables: figures by stage, ends of trainings, labels, lengths and rejects.

use std::collections::BTreeMap;

use kit::{Result, Table, end_mean};
use serde_json::Value;

use super::ROWS;
use super::files::Found;
use crate::store::{RunRecord, Store};

/// Margins that moved by less have hardly moved.
pub const STILL: f64 = 0.02;

/// A label within this of one half says little; one this near to 0 or 1 says all.
const NEAR_HALF: f64 = 0.1;
const CERTAIN: f64 = 0.01;

/// The evidence collected from a run.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The figures of `evaluate`, `judge` and `calibrate`.
    pub figures: Vec<Figure>,
    pub trainings: Vec<Training>,
    /// The tables of pairs that trainings read, or all where none does.
    pub labels: Vec<Labels>,
    /// Responses to the same prompts before and after training, in tokens each.
    pub lengths: Vec<Lengths>,
    /// Responses that `max_tokens` cut: the stage, the share.
    pub cut: Vec<(String, f64)>,
    /// Responses that mostly repeat what they said: the stage, the share.
    pub loops: Vec<(String, f64)>,
    /// Rows that stages rejected: the stage, rejected, read.
    pub rejected: Vec<(String, u64, u64)>,
    /// True where a stage judged.
    pub judged: bool,
}

/// A figure of a table `summary`.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub stage: String,
    pub kind: String,
    /// The figure.
    pub metric: String,
    pub value: f64,
    /// The ends of its 95 % interval.
    pub interval: Option<(f64, f64)>,
    /// The rows that it rests on.
    pub rows: u64,
}

/// A training by its first and its last steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Training {
    pub stage: String,
    pub steps: usize,
    /// The loss of the first step, and the mean over the last ones.
    pub loss: Option<(f64, f64)>,
    /// The same of margins; nothing for imitation.
    pub margin: Option<(f64, f64)>,
    /// The mean accuracy over the last steps.
    pub accuracy: Option<f64>,
    /// The mean reward of chosen sides over the last steps.
    pub chosen: Option<f64>,
    /// The evaluations during training: step, loss, accuracy.
    pub evaluations: Vec<(u64, f64, Option<f64>)>,
    /// Number of last steps that the means are over.
    pub window: usize,
}

/// The labels of a table of pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    pub table: String,
    pub pairs: u64,
    /// The share within 0.1 of one half.
    pub near_half: f64,
    /// The share beyond 0.99.
    pub certain: f64,
}

/// Mean lengths of responses in tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Lengths {
    /// The stage that answered without training, and its mean.
    pub before: (String, f64),
    /// The stage that answered with the trained policy, and its mean.
    pub after: (String, f64),
}

impl Evidence {
    /// Reads the tables of a run.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn of(store: &Store, record: &RunRecord, found: &[Found]) -> Result<Evidence> {
        let mut evidence = Evidence::default();
        for table in found.iter().filter(|table| table.rows > 0) {
            match table.table {
                Table::Summary => evidence.figures.extend(figures(record, table)?),
                Table::Metrics => evidence.trainings.push(training(table)?),
                _ => {}
            }
        }
        let pairs = || found.iter().filter(|table| table.table == Table::Pairs && table.rows > 0);
        let trained: Vec<&Found> = pairs().filter(|table| is_trained_on(store, record, table)).collect();
        for table in if trained.is_empty() { pairs().collect() } else { trained } {
            evidence.labels.push(labels(table)?);
        }
        let samples = samples(record, found)?;
        evidence.cut = samples.iter().map(|sample| (sample.stage.clone(), sample.cut)).collect();
        evidence.lengths = lengths(store, record, &samples);
        let share =
            |name: &String| Some((name.clone(), record.stages.get(name)?.figures.get("share of loops")?.as_f64()?));
        evidence.loops = record.order.iter().filter_map(share).collect();
        for (name, stage) in record.order.iter().filter_map(|name| record.stages.get_key_value(name)) {
            if let (Some(rejected), Some(read)) = (stage.rejected, stage.read)
                && rejected > 0
            {
                evidence.rejected.push((name.clone(), rejected, read));
            }
        }
        evidence.judged = record.stages.keys().any(|name| kind_of(record, name) == "judge");
        Ok(evidence)
    }

    /// The figures of a name, of all stages of some kind.
    pub fn named<'a>(&'a self, kind: &'a str, metric: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().filter(move |figure| figure.kind == kind && figure.metric == metric)
    }
}

/// The kind of a stage of a run.
pub fn kind_of<'a>(record: &'a RunRecord, stage: &str) -> &'a str {
    let recipe = record.stages.get(stage).and_then(|stage| stage.recipe.as_ref());
    recipe.map_or("", |recipe| recipe.kind.as_str())
}

fn figures(record: &RunRecord, table: &Found) -> Result<Vec<Figure>> {
    let rows = table.first(&["metric", "value", "low", "high", "rows"], ROWS)?;
    let figure = |row: &Vec<Value>| {
        Some(Figure {
            stage: table.stage.clone(),
            kind: kind_of(record, &table.stage).to_owned(),
            metric: row[0].as_str()?.to_owned(),
            value: row[1].as_f64()?,
            interval: row[2].as_f64().zip(row[3].as_f64()),
            rows: row[4].as_u64().unwrap_or(0),
        })
    };
    Ok(rows.iter().filter_map(figure).collect())
}

fn training(table: &Found) -> Result<Training> {
    let columns = [
        "step",
        "loss",
        "rewards/margins",
        "rewards/accuracies",
        "rewards/chosen",
        "eval_loss",
        "eval_rewards/accuracies",
    ];
    let rows = crate::look::inspect::Rows::open(&table.path)?.first(&columns, usize::MAX)?;
    let column = |at: usize| -> Vec<f64> { rows.iter().filter_map(|row| row[at].as_f64()).collect() };
    let ends = |at: usize| {
        let values = column(at);
        Some((*values.first()?, end_mean(&values)?.0))
    };
    let evaluations = rows.iter().filter_map(|row| Some((row[0].as_u64()?, row[5].as_f64()?, row[6].as_f64())));
    Ok(Training {
        stage: table.stage.clone(),
        steps: rows.len(),
        loss: ends(1),
        margin: ends(2),
        accuracy: end_mean(&column(3)).map(|(mean, _)| mean),
        chosen: end_mean(&column(4)).map(|(mean, _)| mean),
        evaluations: evaluations.collect(),
        window: end_mean(&column(1)).map_or(0, |(_, steps)| steps),
    })
}

/// True where a training reads the table, compared by the digest of its input.
fn is_trained_on(store: &Store, record: &RunRecord, table: &Found) -> bool {
    let digest = digest_of(store, record, &table.stage, &table.port);
    let trainings = record.stages.keys().filter(|name| kind_of(record, name) == "train");
    digest.is_some_and(|digest| trainings.flat_map(|name| read_by(record, name, "from")).any(|read| read == digest))
}

/// The digest of what a stage of the run wrote.
fn digest_of(store: &Store, record: &RunRecord, stage: &str, port: &str) -> Option<String> {
    let manifest = store.manifest(record.stages.get(stage)?.entry.as_ref()?).ok()??;
    Some(manifest.ports.get(port)?.digest().to_string())
}

/// The digests of what a stage read as an input.
fn read_by(record: &RunRecord, stage: &str, input: &str) -> Vec<String> {
    let recipe = record.stages.get(stage).and_then(|stage| stage.recipe.as_ref());
    let inputs = recipe.and_then(|recipe| recipe.inputs.get(input));
    inputs.into_iter().flatten().map(|source| source.digest.to_string()).collect()
}

fn labels(table: &Found) -> Result<Labels> {
    let rows = table.first(&["p_hat"], ROWS)?;
    let values: Vec<f64> = rows.iter().filter_map(|row| row[0].as_f64()).collect();
    let share = |of: &dyn Fn(f64) -> bool| {
        values.iter().filter(|value| of(**value)).count() as f64 / values.len().max(1) as f64
    };
    Ok(Labels {
        table: table.name(),
        pairs: table.rows,
        near_half: share(&|p| (p - 0.5).abs() < NEAR_HALF),
        certain: share(&|p| !(CERTAIN..=1.0 - CERTAIN).contains(&p)),
    })
}

/// The responses that a stage drew.
struct Samples {
    stage: String,
    /// Their mean length in tokens.
    tokens: f64,
    /// The share that was cut.
    cut: f64,
}

fn samples(record: &RunRecord, found: &[Found]) -> Result<Vec<Samples>> {
    let mut all = Vec::new();
    let drawn = |table: &&Found| table.table == Table::Responses && kind_of(record, &table.stage) == "sample";
    for table in found.iter().filter(drawn) {
        let (mut sum, mut count, mut cut) = (0.0, 0.0, 0.0);
        for row in table.first(&["tokens", "count", "finish"], ROWS)? {
            let (Some(tokens), times) = (row[0].as_f64(), row[1].as_f64().unwrap_or(1.0)) else { continue };
            sum += times * tokens;
            count += times;
            cut += if row[2] == "length" { times } else { 0.0 };
        }
        if count > 0.0 {
            all.push(Samples { stage: table.stage.clone(), tokens: sum / count, cut: cut / count });
        }
    }
    Ok(all)
}

/// Responses of trained policies beside those of models that were not trained on pairs, to the same prompts.
fn lengths(store: &Store, record: &RunRecord, samples: &[Samples]) -> Vec<Lengths> {
    let mut preference: BTreeMap<String, bool> = BTreeMap::new();
    for name in record.stages.keys().filter(|name| kind_of(record, name) == "train") {
        let sft = || {
            let settings = record.stages[name].recipe.as_ref().map(|recipe| &recipe.settings["objective"]);
            settings.is_some_and(|objective| objective["name"] == "sft" || objective == "sft")
        };
        if let Some(digest) = digest_of(store, record, name, "policy") {
            preference.insert(digest, !sft());
        }
    }
    let trained = |sample: &&Samples| {
        let model = read_by(record, &sample.stage, "model");
        model.first().and_then(|digest| preference.get(digest)).copied().unwrap_or(false)
    };
    let mut all = Vec::new();
    for after in samples.iter().filter(trained) {
        let same = |other: &&Samples| {
            !trained(other) && read_by(record, &other.stage, "from") == read_by(record, &after.stage, "from")
        };
        if let Some(before) = samples.iter().find(same) {
            all.push(Lengths {
                before: (before.stage.clone(), before.tokens),
                after: (after.stage.clone(), after.tokens),
            });
        }
    }
    all
}
