//! A stage's surroundings in a temporary folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kit::rows::Reject;
use kit::{
    Context, Digest, Error, Event, Forecast, ForecastInputs, Interrupt, Outcome, Result, Row, Seed, Source, Stage,
    Table, TableWriter,
};

use crate::oracle;

/// Inputs on disk, and room for outputs.
pub struct Place {
    /// The folder that inputs and outputs lie below.
    pub folder: tempfile::TempDir,
    inputs: BTreeMap<&'static str, Vec<Source>>,
    seed: Seed,
    /// Events of the stage so far.
    pub events: Mutex<Vec<Event>>,
    /// Requests a stop after so many shards.
    pub stop_after: Mutex<Option<usize>>,
    /// Requests a stop after so many further reports of progress.
    pub stop_at_progress: Mutex<usize>,
    interrupt: Interrupt,
}

impl Place {
    /// A place without inputs.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Place {
        Place {
            folder: tempfile::tempdir().unwrap(),
            inputs: BTreeMap::new(),
            seed: Seed(17),
            events: Mutex::new(Vec::new()),
            stop_after: Mutex::new(None),
            stop_at_progress: Mutex::new(0),
            interrupt: Interrupt::default(),
        }
    }

    /// The same place under another seed of the run.
    pub fn seeded(self, seed: u64) -> Place {
        Place { seed: Seed(seed), ..self }
    }

    /// Adds a table to an input.
    pub fn table<R: Row>(self, key: &'static str, rows: Vec<R>) -> Place {
        let number = self.inputs.get(key).map_or(0, Vec::len);
        let path = self.folder.path().join(format!("inputs/{key}-{number}"));
        let mut writer = TableWriter::create(&path).unwrap();
        writer.extend(rows).unwrap();
        writer.finish().unwrap();
        self.source(key, path, R::TABLE)
    }

    /// Adds a model folder: the name of an oracle's, or a path.
    pub fn model(self, key: &'static str, name: impl AsRef<Path>) -> Place {
        self.source(key, oracle(name), Table::Model)
    }

    fn source(mut self, key: &'static str, path: PathBuf, table: Table) -> Place {
        let digest = Digest::of(path.to_string_lossy().as_bytes());
        self.inputs.entry(key).or_default().push(Source { path, table, digest, name: key.to_owned() });
        self
    }

    /// Runs `work` in the output folder `name`.
    pub fn run<T>(&self, name: &str, work: impl FnOnce(&Context<'_>) -> T) -> T {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let interrupt = self.interrupt.clone();
        let events = move |event: Event| {
            let mut stop = self.stop_after.lock().unwrap();
            if let (Event::ShardCommitted { shard, .. }, Some(after)) = (&event, *stop)
                && *shard as usize + 1 >= after
            {
                interrupt.raise();
                *stop = None;
            }
            let mut left = self.stop_at_progress.lock().unwrap();
            if matches!(event, Event::Progressed { .. }) && *left > 0 {
                *left -= 1;
                if *left == 0 {
                    interrupt.raise();
                }
            }
            drop(left);
            self.events.lock().unwrap().push(event);
        };
        work(&Context {
            seed: self.seed,
            device: "cpu",
            folder: &folder,
            inputs: self.inputs.clone(),
            events: &events,
            interrupt: self.interrupt.clone(),
        })
    }

    /// Runs a stage whose settings have no findings in the output folder `name`. Each input's rows are kept or stand in
    /// `rejects`.
    pub fn stage(&self, name: &str, stage: &dyn Stage) -> Result<Outcome> {
        assert_eq!(stage.check(), []);
        let outcome = self.run(name, |context| stage.run(context))?;
        let has_rejects = stage.outputs().iter().any(|port| port.table == Reject::TABLE);
        let rejects: Vec<Reject> = if has_rejects { self.rows(&format!("{name}/rejects")) } else { Vec::new() };
        for balance in &outcome.balance {
            let rejected = rejects.iter().filter(|reject| reject.input == balance.input).count() as u64;
            assert_eq!((balance.read, balance.rejected), (balance.kept + balance.rejected, rejected), "{balance:?}");
        }
        Ok(outcome)
    }

    /// Goes on after an interrupt, as a new process would.
    pub fn restarted(mut self) -> Place {
        self.interrupt = Interrupt::default();
        self
    }

    /// Runs `work` in the output folder `name` in processes of which each is stopped after one batch more than the one
    /// before, until it is done. Returns the outcome and the number of processes.
    pub fn run_in_pieces<T>(mut self, name: &str, work: impl Fn(&Context<'_>) -> Result<T>) -> (Place, T, usize) {
        for process in 1..1000 {
            *self.stop_at_progress.lock().unwrap() = process;
            let outcome = self.run(name, &work);
            let events = std::mem::take(&mut *self.events.lock().unwrap());
            let what = match process - 1 {
                0 => None,
                1 => Some("1 batch of unfinished work".to_owned()),
                count => Some(format!("{count} batches of unfinished work")),
            };
            let resumed = what.is_none_or(|what| events.contains(&Event::Resumed { what }));
            assert!(resumed, "process {process} did not take up what the one before left: {events:?}");
            match outcome {
                Err(Error::Interrupted) => self = self.restarted(),
                outcome => return (self, outcome.unwrap(), process),
            }
        }
        panic!("it is never done");
    }

    /// The folder of an output port.
    pub fn port(&self, port: &str) -> PathBuf {
        self.folder.path().join(port)
    }

    /// The texts that stages noted.
    pub fn notes(&self) -> Vec<String> {
        let noted = |event: &Event| if let Event::Noted { text } = event { Some(text.clone()) } else { None };
        self.events.lock().unwrap().iter().filter_map(noted).collect()
    }

    /// The rows of an output port.
    pub fn rows<R: Row>(&self, port: &str) -> Vec<R> {
        kit::read_rows(&self.port(port)).unwrap()
    }

    /// The files of an output port with their bytes.
    pub fn bytes(&self, port: &str) -> BTreeMap<String, Vec<u8>> {
        let files = std::fs::read_dir(self.port(port)).unwrap();
        let files = files.map(|file| file.unwrap().path());
        files
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
            .collect()
    }
}

/// The forecast of a stage, counted from its inputs.
pub fn counted(stage: &dyn Stage, context: &Context<'_>) -> Result<Forecast> {
    let outlook = stage.forecast(&ForecastInputs::of(context))?;
    Ok(outlook.forecast.expect("the inputs are there"))
}
