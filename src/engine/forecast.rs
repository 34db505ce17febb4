//! Forecasts of a plan's stages: counted where their inputs are there, else estimated from the outputs expected of the
//! stages before them.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kit::{Context, Expected, Forecast, ForecastInputs, Outlook, Result, Table};
use serde_json::Value;

use crate::engine::device::{self, EFFICIENCY, Speed};
use crate::engine::machine;
use crate::engine::plan::{Decision, Planned, Planner};
use crate::pipeline::graph::{Node, Origin};
use crate::units::size;

/// The forecast of one stage of a plan.
#[derive(Debug, Clone)]
pub struct StageForecast {
    /// Its work, time and memory.
    pub forecast: Forecast,
    /// Expected time of its work; none where it is unknown.
    pub time: Option<Duration>,
    /// True where it was counted from the inputs, false where it was estimated.
    pub counted: bool,
    /// Bytes of its tables before compression, as far as they are expected; none where no table is.
    pub bytes: Option<u64>,
}

/// Tells what the stages of a plan will do.
pub struct Forecaster<'a> {
    planner: &'a Planner<'a>,
    planned: &'a [Planned],
    device: OnceCell<String>,
    asked_device: &'a str,
    /// Processes or threads for each device; 1 at first.
    pub jobs: usize,
    speed: OnceCell<Speed>,
    work: &'a Path,
    /// Expected content of tables on disk; each is read once.
    looked_at: BTreeMap<PathBuf, Expected>,
    /// Counted outlooks, by settings and recipe: equal stages are counted once.
    counted: BTreeMap<String, Outlook>,
}

impl<'a> Forecaster<'a> {
    /// For a plan, models on a device (`auto`, `cpu` or `cuda:N`), with the speed that is known in a work folder.
    pub fn new(planner: &'a Planner<'a>, planned: &'a [Planned], device: &'a str, work: &'a Path) -> Forecaster<'a> {
        Forecaster {
            planner,
            planned,
            device: OnceCell::new(),
            asked_device: device,
            jobs: 1,
            speed: OnceCell::new(),
            work,
            looked_at: BTreeMap::new(),
            counted: BTreeMap::new(),
        }
    }

    /// The forecast of each stage; none where it does not run, or where too little is known. Where no stage runs, no
    /// file is read.
    pub fn all(&mut self) -> Vec<Option<Result<StageForecast>>> {
        self.forecasts_of_all(true)
    }

    /// As [`Forecaster::all`], without reading the inputs that are there: it takes no time.
    pub fn estimates(&mut self) -> Vec<Option<Result<StageForecast>>> {
        self.forecasts_of_all(false)
    }

    fn forecasts_of_all(&mut self, count_inputs: bool) -> Vec<Option<Result<StageForecast>>> {
        let graph = self.planner.graph;
        let mut forecasts: Vec<Option<Result<StageForecast>>> = (0..graph.nodes.len()).map(|_| None).collect();
        let mut outlooks: Vec<Outlook> = vec![Outlook::default(); graph.nodes.len()];
        for &stage in &graph.order {
            let runs = match self.planned[stage].decision {
                Decision::Run(_) => true,
                Decision::Depends(_) => false,
                _ => continue,
            };
            let ahead = self.ahead(stage, &outlooks);
            let kind = &graph.nodes[stage].stage;
            let count =
                |context: &Context<'_>| kind.forecast(&ForecastInputs { context: Some(context), ..ahead.clone() });
            let recipe = self.planned[stage].recipe.as_ref().filter(|_| runs && count_inputs);
            let alike = recipe.map(|recipe| format!("{} {}", recipe.entry(), graph.nodes[stage].settings));
            let counted = match alike.as_ref().map(|alike| self.counted.get(alike)) {
                Some(Some(known)) => Some(Ok(known.clone())),
                Some(None) => self.planner.surroundings(stage, self.planned, self.device(), count),
                None => None,
            };
            if let (Some(alike), Some(Ok(outlook))) = (alike, &counted) {
                self.counted.insert(alike, outlook.clone());
            }
            // An error here is reported by the run.
            let estimated = || kind.forecast(&ahead).unwrap_or_default();
            let is_counted = counted.is_some();
            let (outlook, failed) = match counted {
                Some(Ok(outlook)) => (outlook, None),
                Some(Err(error)) => (estimated(), Some(error)),
                None => (estimated(), None),
            };
            forecasts[stage] = match failed {
                Some(error) => Some(Err(error)),
                None => outlook.forecast.clone().map(|forecast| {
                    let bytes = outlook.outputs.values().filter_map(Expected::bytes).reduce(u64::saturating_add);
                    Ok(StageForecast { bytes, ..self.with_time(forecast, is_counted) })
                }),
            };
            outlooks[stage] = outlook;
        }
        forecasts
    }

    /// The device that models will compute on.
    pub fn device(&self) -> &str {
        // A device that is not there is reported by `run`.
        self.device.get_or_init(|| device::resolve(self.asked_device).unwrap_or_else(|_| "cpu".to_owned()))
    }

    /// The speed, where it was needed.
    pub fn speed(&self) -> Option<&Speed> {
        self.speed.get()
    }

    /// The speed of this machine.
    pub fn measured_speed(&self) -> &Speed {
        self.speed.get_or_init(|| device::speed(self.work))
    }

    /// The expected content of a path; none where it cannot be read.
    pub fn on_disk(&mut self, path: &Path, table: Table) -> Option<Expected> {
        self.look_at(path, table).ok()
    }

    fn with_time(&self, forecast: Forecast, counted: bool) -> StageForecast {
        let work = forecast.work.filter(|_| self.device() == "cpu");
        let time = work.map(|work| {
            let seconds = work.operations / (self.measured_speed().at(work.width) * EFFICIENCY);
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        });
        StageForecast { forecast, time, counted, bytes: None }
    }

    /// The expected content of a stage's inputs; inputs that cannot be read are left out.
    fn ahead(&mut self, stage: usize, outlooks: &[Outlook]) -> ForecastInputs<'static> {
        let node: &Node = &self.planner.graph.nodes[stage];
        let mut ahead =
            ForecastInputs { device: self.device().to_owned(), jobs: self.jobs, ..ForecastInputs::default() };
        for edge in node.inputs.iter().filter(|edge| edge.idle.is_none()) {
            let sources = edge.sources.iter().map(|origin| self.expected(origin, outlooks));
            if let Ok(sources) = sources.collect::<Result<_>>() {
                ahead.inputs.insert(edge.key, sources);
            }
        }
        ahead
    }

    fn expected(&mut self, origin: &Origin, outlooks: &[Outlook]) -> Result<Expected> {
        match origin {
            Origin::Hub { .. } => Ok(Expected::unknown(Table::Model)),
            Origin::Path { path, table } => self.look_at(path, *table),
            Origin::Port { stage, port, table } => match self.planned[*stage].decision.manifest() {
                Some(manifest) if !self.planned[*stage].decision.is_here() => {
                    let rows = manifest.ports.get(port).filter(|_| *table != Table::Model).map(|files| files.rows);
                    let known = |rows| Expected::of_rows(*table, kit::Amount::exact(rows));
                    Ok(rows.map_or_else(|| Expected::unknown(*table), known))
                }
                Some(manifest) => {
                    let folder = self.planner.store.entry(&manifest.recipe.entry());
                    self.look_at(&folder.join(port), *table)
                }
                None => {
                    let expected = outlooks[*stage].outputs.get(port).cloned();
                    Ok(expected.unwrap_or_else(|| Expected::unknown(*table)))
                }
            },
        }
    }

    fn look_at(&mut self, path: &Path, table: Table) -> Result<Expected> {
        if let Some(known) = self.looked_at.get(path) {
            return Ok(known.clone());
        }
        let found = Expected::on_disk(path, table)?;
        self.looked_at.insert(path.to_owned(), found.clone());
        Ok(found)
    }
}

/// A message where a stage needs more memory than there is: the need, the memory, and the settings that need less.
pub fn shortage(forecast: &Forecast, node: &Node, device: &str) -> Option<String> {
    let needed = forecast.memory?;
    if node.stage.needs_device() {
        return too_small(needed, machine::memory_of(device)?, &node.settings, device);
    }
    let there = machine::memory_of("cpu")?;
    (needed > there).then(|| {
        let (needed, there) = (size(needed), size(there));
        format!("does not fit: about {needed} of memory are needed for its rows and this machine has {there}")
    })
}

fn too_small(needed: u64, there: u64, settings: &Value, device: &str) -> Option<String> {
    if needed <= there {
        return None;
    }
    let ways = [
        ("/batch/tokens_per_micro_batch", "a smaller `batch.tokens_per_micro_batch`"),
        ("/tokens_per_batch", "a smaller `tokens_per_batch`"),
        ("/memory", "`memory: {schedule: two_pass}`"),
        ("/optimizer", "an `adapter`"),
    ];
    let ways: Vec<&str> = ways.iter().filter(|(key, _)| settings.pointer(key).is_some()).map(|(_, way)| *way).collect();
    let fewer = if ways.is_empty() { String::new() } else { format!("{}, ", ways.join(", ")) };
    let place = if device == "cpu" { "this machine" } else { device };
    Some(format!(
        "does not fit: about {} of memory are needed and {place} has {}; less is needed with {fewer}`dtype: bf16` or a \
         smaller model",
        size(needed),
        size(there)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said_with_what_there_is_and_what_helps() {
        let settings = serde_json::json!({"memory": {}, "optimizer": {}, "batch": {"tokens_per_micro_batch": 16384}});
        assert_eq!(too_small(23 << 30, 23 << 30, &settings, "cpu"), None);
        assert_eq!(
            too_small(51 << 30, 23 << 30, &settings, "cpu").unwrap(),
            "does not fit: about 51.0 GiB of memory are needed and this machine has 23.0 GiB; less is needed with a \
             smaller `batch.tokens_per_micro_batch`, `memory: {schedule: two_pass}`, an `adapter`, `dtype: bf16` or a \
             smaller model"
        );
        let text = too_small(51 << 30, 23 << 30, &serde_json::json!({"tokens_per_batch": 4096}), "cuda:0").unwrap();
        assert!(text.contains("cuda:0 has 23.0 GiB; less is needed with a smaller `tokens_per_batch`"), "{text}");
    }
}
