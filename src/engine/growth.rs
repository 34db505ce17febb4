//! What a run over more rows needs: each stage asked again with larger inputs, at the pace of the runs that are known.

use std::collections::BTreeMap;
use std::time::Duration;

use kit::{Amount, Expected, ForecastInputs, Outlook, Result, Table};

use crate::engine::device::EFFICIENCY;
use crate::engine::forecast::Forecaster;
use crate::engine::plan::{Decision, Planned, Planner};
use crate::pipeline::graph::Origin;
use crate::store::{Manifest, StageState};

/// Runs that are looked through for a time of a stage.
const RECENT: usize = 50;

/// What a run over so many rows needs.
pub struct Growth {
    /// Rows that the sources of the pipeline would read.
    pub rows: u64,
    /// Rows that they read now.
    pub known_rows: u64,
    /// By stage; none where it does not run, or where too little is known.
    pub stages: Vec<Option<Grown>>,
}

/// What one stage needs then.
#[derive(Debug, Clone)]
pub struct Grown {
    /// Units of work.
    pub rows: Amount,
    pub tokens: Option<Amount>,
    /// Bytes of its tables before compression.
    pub bytes: Option<u64>,
    /// Parts that any process can compute; 1 where it works on whole tables.
    pub shards: u64,
    /// Peak memory, bytes, where it is forecast.
    pub memory: Option<u64>,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Time of one device; none where it is unknown.
    pub time: Option<Duration>,
    /// Where the time comes from.
    pub pace: Pace,
}

/// Where the time of a stage comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Pace {
    /// A run did so many units in so many seconds.
    Measured { run: u64, rows: u64, seconds: f64 },
    /// The arithmetic to be done, at the speed of this machine.
    Arithmetic,
    /// No run is known, and the arithmetic is not.
    Unknown,
}

/// A result that a run made, and its time.
struct Known {
    manifest: Manifest,
    /// The run and its seconds of work.
    took: Option<(u64, f64)>,
}

/// Parts of the expected rows of each port of a stage that a run has shown to be written.
type Yields = BTreeMap<(usize, String), f64>;

impl Growth {
    /// What a run needs whose sources read `rows` rows. No row is read.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn of(
        planner: &Planner<'_>,
        planned: &[Planned],
        forecaster: &mut Forecaster<'_>,
        rows: u64,
    ) -> Result<Growth> {
        let graph = planner.graph;
        let known: Vec<Option<Known>> =
            (0..graph.nodes.len()).map(|stage| known(planner, planned, stage)).collect::<Result<_>>()?;
        let mut yields = Yields::new();
        let now = outlooks(planner, planned, forecaster, 1.0, Step::Learn(&known, &mut yields));
        let sources = (0..graph.nodes.len()).filter(|stage| is_source(planner, *stage));
        let read = sources.filter_map(|stage| rows_of_source(&now[stage], known[stage].as_ref()));
        let known_rows = read.fold(0, u64::saturating_add);
        let factor = if known_rows == 0 { 1.0 } else { rows as f64 / known_rows as f64 };
        let then = outlooks(planner, planned, forecaster, factor, Step::Apply(&known, &yields));
        let stages = (0..graph.nodes.len()).map(|stage| {
            if let Decision::Skip(_) = planned[stage].decision {
                return None;
            }
            grown(planner, forecaster, stage, (&now[stage], &then[stage]), known[stage].as_ref(), factor)
        });
        Ok(Growth { rows, known_rows, stages: stages.collect() })
    }
}

fn grown(
    planner: &Planner<'_>,
    forecaster: &Forecaster<'_>,
    stage: usize,
    (now, then): (&Outlook, &Outlook),
    known: Option<&Known>,
    factor: f64,
) -> Option<Grown> {
    let node = &planner.graph.nodes[stage];
    let source = is_source(planner, stage);
    let read_now = rows_of_source(now, known);
    let (forecast, before) = (then.forecast.as_ref(), now.forecast.as_ref());
    let rows = match source {
        true => Amount::about(times(read_now?, factor)),
        false => forecast?.rows,
    };
    let device = match known.map(|known| known.manifest.device.clone()) {
        Some(device) => device,
        None if node.stage.needs_device() => forecaster.device().to_owned(),
        None => "cpu".to_owned(),
    };
    let share = match (before, forecast) {
        _ if source => Some(factor),
        (Some(before), Some(forecast)) => match (before.work, forecast.work) {
            (Some(before), Some(then)) if before.operations > 0.0 => Some(then.operations / before.operations),
            _ if before.rows.value > 0 => Some(forecast.rows.value as f64 / before.rows.value as f64),
            _ => None,
        },
        _ => None,
    };
    let took = known.and_then(|known| known.took);
    let duration = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let (time, pace) = match (took, share, forecast.and_then(|forecast| forecast.work)) {
        (Some((run, seconds)), Some(share), _) => {
            let rows = if source { read_now? } else { before.map_or(0, |before| before.rows.value) };
            (Some(duration(seconds * share)), Pace::Measured { run, rows, seconds })
        }
        (_, _, Some(work)) if device == "cpu" => {
            let speed = forecaster.measured_speed().at(work.width) * EFFICIENCY;
            (Some(duration(work.operations / speed)), Pace::Arithmetic)
        }
        _ => (None, Pace::Unknown),
    };
    let shard_rows = node.settings.get("shard_rows").and_then(serde_json::Value::as_u64).filter(|rows| *rows > 0);
    let shards = forecast.and_then(|forecast| forecast.shards).or(shard_rows.map(|each| rows.value.div_ceil(each)));
    let shards = shards.filter(|_| node.stage.is_row_wise()).unwrap_or(1).max(1);
    Some(Grown {
        rows,
        tokens: forecast.and_then(|forecast| forecast.tokens),
        bytes: then.outputs.values().filter_map(Expected::bytes).reduce(u64::saturating_add),
        shards,
        memory: forecast.and_then(|forecast| forecast.memory),
        device,
        time,
        pace,
    })
}

/// What a pass over the stages does with results that are known.
enum Step<'a> {
    /// Takes them, and learns which part of the expected rows is written.
    Learn(&'a [Option<Known>], &'a mut Yields),
    /// Takes their lengths of texts, and the parts that were learned.
    Apply(&'a [Option<Known>], &'a Yields),
}

/// The outlook of each stage where the sources read `factor` times as many rows.
fn outlooks(
    planner: &Planner<'_>,
    planned: &[Planned],
    forecaster: &mut Forecaster<'_>,
    factor: f64,
    mut step: Step<'_>,
) -> Vec<Outlook> {
    let graph = planner.graph;
    let mut outlooks: Vec<Outlook> = vec![Outlook::default(); graph.nodes.len()];
    for &stage in graph.order.iter().filter(|stage| !matches!(planned[**stage].decision, Decision::Skip(_))) {
        let node = &graph.nodes[stage];
        let mut ahead = ForecastInputs { device: forecaster.device().to_owned(), ..ForecastInputs::default() };
        for edge in node.inputs.iter().filter(|edge| edge.idle.is_none()) {
            let expected = edge.sources.iter().map(|origin| match origin {
                Origin::Port { stage, port, table } => {
                    Some(outlooks[*stage].outputs.get(port).cloned().unwrap_or_else(|| Expected::unknown(*table)))
                }
                Origin::Path { path, table } => Some(scaled(forecaster.on_disk(path, *table)?, factor)),
                Origin::Hub { .. } => Some(Expected::unknown(Table::Model)),
            });
            if let Some(sources) = expected.collect() {
                ahead.inputs.insert(edge.key, sources);
            }
        }
        let mut outlook = node.stage.forecast(&ahead).unwrap_or_default();
        let known = match &step {
            Step::Learn(known, _) | Step::Apply(known, _) => known[stage].as_ref(),
        };
        for output in &node.outputs {
            let (port, table) = (&output.name, output.table);
            let estimated = outlook.outputs.get(port).cloned();
            let folder = known.map(|known| planner.store.entry(&known.manifest.recipe.entry()).join(port));
            let actual = folder.and_then(|folder| forecaster.on_disk(&folder, table));
            let rows = |of: &Option<Expected>| of.as_ref().and_then(|of| of.rows).map(|rows| rows.value);
            let expected = match &mut step {
                Step::Learn(_, yields) => {
                    if let (Some(actual), Some(estimated)) = (rows(&actual), rows(&estimated))
                        && estimated > 0
                        && !is_source(planner, stage)
                    {
                        yields.insert((stage, port.clone()), actual as f64 / estimated as f64);
                    }
                    actual.or(estimated)
                }
                Step::Apply(..) if is_source(planner, stage) => actual.or(estimated).map(|it| scaled(it, factor)),
                Step::Apply(_, yields) => {
                    let part = yields.get(&(stage, port.clone())).copied().unwrap_or(1.0);
                    estimated.map(|it| with_lengths(scaled(it, part), actual.as_ref()))
                }
            };
            if let Some(expected) = expected {
                outlook.outputs.insert(port.clone(), expected);
            }
        }
        outlooks[stage] = outlook;
    }
    outlooks
}

/// So many times the rows of a table; a model stays as it is.
fn scaled(expected: Expected, factor: f64) -> Expected {
    if expected.table == Table::Model || factor == 1.0 {
        return expected;
    }
    let grow = |amount: Option<Amount>| amount.map(|amount| Amount::about(times(amount.value, factor)));
    let (rows, prompts, responses) = (grow(expected.rows), grow(expected.prompts), grow(expected.responses));
    Expected { rows, prompts, responses, ..expected }
}

/// With the lengths of the texts of a table that is there.
fn with_lengths(expected: Expected, there: Option<&Expected>) -> Expected {
    let Some(there) = there else { return expected };
    Expected {
        prompt_tokens: there.prompt_tokens.or(expected.prompt_tokens),
        response_tokens: there.response_tokens.or(expected.response_tokens),
        model: there.model.clone().or(expected.model),
        ..expected
    }
}

fn times(value: u64, factor: f64) -> u64 {
    // A float beyond u64 becomes its greatest value.
    (value as f64 * factor).round() as u64
}

/// True for a stage that reads no table: one that takes files, or makes its rows itself.
fn is_source(planner: &Planner<'_>, stage: usize) -> bool {
    let read = planner.graph.nodes[stage].inputs.iter().filter(|edge| edge.idle.is_none());
    read.flat_map(|edge| &edge.sources).all(|origin| origin.table() == Table::Model)
}

/// The rows that a source reads, or makes.
fn rows_of_source(outlook: &Outlook, known: Option<&Known>) -> Option<u64> {
    let read = known.and_then(|known| known.manifest.read());
    let made = || outlook.outputs.values().filter_map(|port| port.rows).map(|rows| rows.value).max();
    read.or_else(|| outlook.forecast.as_ref().map(|forecast| forecast.rows.value).filter(|rows| *rows > 0))
        .or_else(made)
}

/// The newest result of a stage that a run made and timed; else the one that the plan would use again.
fn known(planner: &Planner<'_>, planned: &[Planned], stage: usize) -> Result<Option<Known>> {
    let (records, name) = (planner.records, &planner.graph.nodes[stage].name);
    for run in records.runs(&planner.graph.name)?.into_iter().take(RECENT) {
        let Some(record) = records.read(&planner.graph.name, run)? else { continue };
        let Some(record) = record.stages.get(name).filter(|record| record.state == StageState::Ran) else { continue };
        if let (Some(entry), Some(seconds)) = (&record.entry, record.seconds)
            && let Some(manifest) = planner.store.manifest(entry)?
        {
            return Ok(Some(Known { manifest, took: Some((run, seconds)) }));
        }
    }
    let there = planned[stage].decision.is_here().then(|| planned[stage].decision.manifest()).flatten();
    Ok(there.map(|manifest| Known { manifest: manifest.clone(), took: None }))
}
