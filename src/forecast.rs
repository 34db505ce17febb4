//! What the stages of a plan will have to do: counted where their inputs are there, else estimated from what the stages
//! before them will write.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::device::{self, EFFICIENCY, Speed};
use crate::graph::{Node, Origin};
use crate::plan::{Decision, Planned, Planner};
use kit::{Ahead, Expected, Forecast, Outlook, Result, Table};

/// What is told of a stage.
#[derive(Debug, Clone)]
pub struct Told {
    /// What it will do.
    pub forecast: Forecast,
    /// How long that takes; nothing where it is not known.
    pub time: Option<Duration>,
    /// Whether it was counted from its inputs.
    pub counted: bool,
}

/// Tells what the stages of a plan will do.
pub struct Forecaster<'a> {
    planner: &'a Planner<'a>,
    planned: &'a [Planned],
    device: OnceCell<String>,
    asked_device: &'a str,
    speed: OnceCell<Speed>,
    work: &'a Path,
    /// What tables on disk are like, each looked at once.
    on_disk: BTreeMap<PathBuf, Expected>,
}

impl<'a> Forecaster<'a> {
    /// For a plan, models on a device (`auto`, `cpu` or `cuda:N`), with the speed that is known in a work folder.
    pub fn new(planner: &'a Planner<'a>, planned: &'a [Planned], device: &'a str, work: &'a Path) -> Forecaster<'a> {
        Forecaster {
            planner,
            planned,
            device: OnceCell::new(),
            asked_device: device,
            speed: OnceCell::new(),
            work,
            on_disk: BTreeMap::new(),
        }
    }

    /// What each stage will do; nothing where it does not run, or where nothing can be told. Where no stage runs, nothing
    /// is looked at.
    pub fn all(&mut self) -> Vec<Option<Result<Told>>> {
        let graph = self.planner.graph;
        let mut told: Vec<Option<Result<Told>>> = (0..graph.nodes.len()).map(|_| None).collect();
        let mut outlooks: Vec<Outlook> = vec![Outlook::default(); graph.nodes.len()];
        for &stage in &graph.order {
            let runs = match self.planned[stage].decision {
                Decision::Run(_) => true,
                Decision::Depends(_) => false,
                _ => continue,
            };
            let outlook = self.outlook(stage, &outlooks);
            let counted = if runs { self.planner.forecast(stage, self.planned, self.device()) } else { None };
            let estimated = outlook.as_ref().ok().and_then(|outlook| outlook.forecast.as_ref());
            told[stage] = match counted {
                Some(counted) => Some(counted.map(|counted| self.told(joined(counted, estimated), true))),
                None => estimated.map(|estimated| Ok(self.told(estimated.clone(), false))),
            };
            // What cannot be told now is told by the run.
            outlooks[stage] = outlook.unwrap_or_default();
        }
        told
    }

    /// The device that models will compute on.
    pub fn device(&self) -> &str {
        // A device that is not there is told by `run`.
        self.device.get_or_init(|| device::resolve(self.asked_device).unwrap_or_else(|_| "cpu".to_owned()))
    }

    /// The speed, where it was needed.
    pub fn speed(&self) -> Option<&Speed> {
        self.speed.get()
    }

    fn told(&self, forecast: Forecast, counted: bool) -> Told {
        let work = forecast.work.filter(|_| self.device() == "cpu");
        let time = work.map(|work| {
            let speed = self.speed.get_or_init(|| device::speed(self.work));
            let seconds = work.operations / (speed.at(work.width) * EFFICIENCY);
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        });
        Told { forecast, time, counted }
    }

    fn outlook(&mut self, stage: usize, outlooks: &[Outlook]) -> Result<Outlook> {
        let graph = self.planner.graph;
        let node: &Node = &graph.nodes[stage];
        let mut ahead = Ahead { device: self.device().to_owned(), ..Ahead::default() };
        for edge in node.inputs.iter().filter(|edge| edge.idle.is_none()) {
            let mut sources = Vec::new();
            for origin in &edge.sources {
                sources.push(match origin {
                    Origin::Hub { .. } => Expected::unknown(Table::Model),
                    Origin::Path { path, table } => self.look_at(path, *table)?,
                    Origin::Port { stage, port, table } => match self.planned[*stage].decision.manifest() {
                        Some(manifest) => {
                            let folder = self.planner.store.entry(&manifest.recipe.entry());
                            self.look_at(&folder.join(port), *table)?
                        }
                        None => {
                            let expected = outlooks[*stage].outputs.get(port).cloned();
                            expected.unwrap_or_else(|| Expected::unknown(*table))
                        }
                    },
                });
            }
            ahead.inputs.insert(edge.key, sources);
        }
        node.stage.expect(&ahead)
    }

    fn look_at(&mut self, path: &Path, table: Table) -> Result<Expected> {
        if let Some(known) = self.on_disk.get(path) {
            return Ok(known.clone());
        }
        let found = Expected::on_disk(path, table)?;
        self.on_disk.insert(path.to_owned(), found.clone());
        Ok(found)
    }
}

/// What was counted, with the memory and the work of the estimate: those of the tokens that were counted.
fn joined(counted: Forecast, estimated: Option<&Forecast>) -> Forecast {
    let Some(estimated) = estimated else { return counted };
    let share = match (counted.tokens, estimated.tokens) {
        (Some(counted), Some(estimated)) if estimated.value > 0 => counted.value as f64 / estimated.value as f64,
        _ => 1.0,
    };
    let work = estimated.work.map(|work| kit::Work { operations: work.operations * share, ..work });
    Forecast { work: counted.work.or(work), memory: counted.memory.or(estimated.memory), ..counted }
}
