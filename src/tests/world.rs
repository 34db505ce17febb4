//! A work folder and a pipeline file for one test.

use std::path::PathBuf;
use std::sync::Mutex;

use kit::Interrupt;

use super::kinds::KINDS;
use super::memory::Memory;
use crate::engine::executor::Here;
use crate::engine::plan::{Planner, Selection};
use crate::engine::run::{Options, Run};
use crate::error::{Error, Result};
use crate::pipeline::check::check_file;
use crate::pipeline::graph::Graph;
use crate::progress::{Event, Reporter, RunEvent};
use crate::store::{Access, Records, RunRecord, Shared, Store};

/// A folder of its own for each test.
pub struct World {
    pub folder: tempfile::TempDir,
    /// The shared store, where there is one.
    pub remote: Option<Memory>,
}

/// Collects the events of a run.
#[derive(Default)]
pub struct Collector(pub Mutex<Vec<(String, Event)>>);

impl Reporter for Collector {
    fn report(&self, stage: Option<&str>, event: &Event) {
        self.0.lock().unwrap().push((stage.unwrap_or_default().to_owned(), event.clone()));
    }
}

/// The result of a run.
pub struct RunResult {
    pub record: RunRecord,
    pub result: Result<()>,
    pub heard: Vec<(String, Event)>,
}

impl RunResult {
    /// `stage state` of each stage, in the order of the file.
    pub fn states(&self) -> String {
        let states = self.record.order.iter().map(|name| format!("{name} {}", self.record.stages[name].state.word()));
        states.collect::<Vec<_>>().join(", ")
    }

    pub fn code(&self) -> i32 {
        self.result.as_ref().err().map_or(0, crate::exit::code)
    }

    pub fn said(&self, wanted: impl Fn(&RunEvent) -> bool) -> bool {
        self.heard.iter().any(|(_, event)| matches!(event, Event::Run(event) if wanted(event)))
    }
}

impl World {
    pub fn new() -> World {
        World { folder: tempfile::tempdir().unwrap(), remote: None }
    }

    /// One that shares a store.
    pub fn sharing(remote: &Memory) -> World {
        World { remote: Some(remote.clone()), ..World::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn store(&self) -> Store {
        Store::open(&self.path("work"))
    }

    pub fn records(&self) -> Records {
        Records::new(&self.path("work"))
    }

    /// The store, with the shared one where there is one.
    pub fn shared_store(&self, access: Access) -> Result<Store> {
        let Some(remote) = &self.remote else { return Ok(self.store()) };
        Ok(self.store().sharing(Shared::open(Box::new(remote.clone()), &self.path("work"), access)?))
    }

    pub fn graph(&self, text: &str) -> Graph {
        let file = self.path("pipeline.yaml");
        std::fs::write(&file, text).unwrap();
        check_file(&file, &[], KINDS).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().map(|problem| problem.line(&file) + "\n").collect::<String>())
        })
    }

    /// The plan, one line per stage.
    pub fn plan(&self, text: &str, selection: &Selection) -> Result<Vec<String>> {
        let graph = self.graph(text);
        let (store, records) = (self.shared_store(Access::Look)?, self.records());
        let planned = Planner::new(&graph, &store, &records, None)?.plan(selection)?;
        let line = |stage: &usize| format!("{}: {}", graph.nodes[*stage].name, planned[*stage].decision.sentence());
        Ok(graph.order.iter().map(line).collect())
    }

    pub fn run(&self, text: &str) -> RunResult {
        self.run_with(text, Selection::default(), &Interrupt::default()).unwrap()
    }

    /// A run, or why it could not begin.
    pub fn run_with(&self, text: &str, selection: Selection, interrupt: &Interrupt) -> Result<RunResult, Error> {
        let graph = self.graph(text);
        let (store, records, heard) = (self.shared_store(Access::Work)?, self.records(), Collector::default());
        let options = Options { selection, device: "cpu".to_owned(), no_wait: false, command: Vec::new() };
        let planned = Planner::new(&graph, &store, &records, None)?.plan(&options.selection)?;
        let (number, _alive) = records.begin(&graph.name)?;
        let run = Run {
            graph: &graph,
            store: &store,
            records: &records,
            options: &options,
            executor: &Here,
            reporter: &heard,
            interrupt,
        };
        let (record, result) = run.run(number, planned);
        Ok(RunResult { record, result, heard: heard.0.into_inner().unwrap() })
    }

    /// The text of the messages in a stage's port, through the link of the latest run.
    pub fn texts(&self, stage: &str, port: &str) -> Vec<String> {
        let path = self.records().link_path("test", stage, port);
        let rows = kit::read_rows::<kit::rows::Prompt>(&path).unwrap();
        rows.into_iter().map(|row| row.messages[0].content.clone()).collect()
    }
}
