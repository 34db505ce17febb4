//! A stage's surroundings in a temporary folder, and the oracle data; for the tests of the crates under `stages`.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kit::rows::{Message, Pair};
use kit::{Context, Digest, Event, Interrupt, Row, Seed, Source, Table, TableWriter};
use serde_json::Value;

/// Inputs on disk, and room for outputs.
pub struct Place {
    pub folder: tempfile::TempDir,
    inputs: BTreeMap<&'static str, Vec<Source>>,
    /// What the stage told.
    pub events: Mutex<Vec<Event>>,
    /// A stop is asked for after so many shards.
    pub stop_after: Mutex<Option<usize>>,
    /// A stop is asked for when a stage has told its progress so many times more.
    pub stop_at_progress: Mutex<usize>,
    interrupt: Interrupt,
}

impl Place {
    pub fn new() -> Place {
        Place {
            folder: tempfile::tempdir().unwrap(),
            inputs: BTreeMap::new(),
            events: Mutex::new(Vec::new()),
            stop_after: Mutex::new(None),
            stop_at_progress: Mutex::new(0),
            interrupt: Interrupt::default(),
        }
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
        self.source(key, oracles().join(name), Table::Model)
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
            seed: Seed(17),
            device: "cpu",
            folder: &folder,
            inputs: self.inputs.clone(),
            events: &events,
            interrupt: self.interrupt.clone(),
        })
    }

    /// Goes on after an interrupt, as a new process would.
    pub fn restarted(mut self) -> Place {
        self.interrupt = Interrupt::default();
        self
    }

    /// Runs `work` in the output folder `name` in processes of which each is stopped after one batch more than the one
    /// before, until it is done. Gives what came of it and the number of processes.
    pub fn run_in_pieces<T>(mut self, name: &str, work: impl Fn(&Context<'_>) -> kit::Result<T>) -> (Place, T, usize) {
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
                Err(kit::Error::Interrupted) => self = self.restarted(),
                outcome => return (self, outcome.unwrap(), process),
            }
        }
        panic!("it is never done");
    }

    pub fn rows<R: Row>(&self, port: &str) -> Vec<R> {
        kit::read_rows(&self.folder.path().join(port)).unwrap()
    }

    /// The files of an output port with their bytes.
    pub fn bytes(&self, port: &str) -> BTreeMap<String, Vec<u8>> {
        let files = std::fs::read_dir(self.folder.path().join(port)).unwrap();
        let files = files.map(|file| file.unwrap().path());
        files
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
            .collect()
    }
}

/// The folder of the oracles.
pub fn oracles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/oracles")
}

/// The rows of a JSON Lines file of the oracles.
pub fn lines(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(oracles().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The oracles' pairs, `same` or `joint`, as chat or as raw text.
pub fn pairs(form: &str, chat: bool) -> Vec<Pair> {
    let (ask, answer) = if chat { ("user", "assistant") } else { ("text", "text") };
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = lines(if form == "joint" { "joint.jsonl" } else { "pairs.jsonl" });
    let pair = |(index, row): (usize, Value)| {
        let (c, r) = if form == "joint" { ("chosen_", "rejected_") } else { ("", "") };
        let (chosen_id, rejected_id) = (text(&row, &format!("{c}prompt_id")), text(&row, &format!("{r}prompt_id")));
        Pair {
            pair_id: format!("{form}{index:02}"),
            comparison_id: None,
            form: form.to_owned(),
            chosen_response_id: format!("{chosen_id}-chosen"),
            chosen_prompt_id: chosen_id,
            chosen_prompt: vec![Message::new(ask, text(&row, &format!("{c}prompt")))],
            chosen: vec![Message::new(answer, text(&row, "chosen"))],
            rejected_response_id: format!("{rejected_id}-rejected"),
            rejected_prompt_id: rejected_id,
            rejected_prompt: vec![Message::new(ask, text(&row, &format!("{r}prompt")))],
            rejected: vec![Message::new(answer, text(&row, "rejected"))],
            p_hat: row["p_hat"].as_f64().unwrap(),
            weight: 1.0,
            source_file: Some("pairs.jsonl".to_owned()),
            source_line: Some(index as u64 + 1),
        }
    };
    rows.into_iter().enumerate().map(pair).collect()
}

/// Holds a kind's output to the digest that stands beside its version. The numbers are rounded, so that it is the same
/// on every CPU; a change that this shows is a change that users see.
pub fn check_golden(stage: &dyn kit::Stage, lines: impl Iterator<Item = String>, version: &str, digest: &str) {
    let text: String = lines.map(|line| line + "\n").collect();
    assert_eq!(
        (stage.version().as_str(), Digest::of(text.as_bytes()).short(12).as_str()),
        (version, digest),
        "the output changed: raise the version, then put version and digest here\n{text}"
    );
}

/// What a stage will do, counted from its inputs.
pub fn counted(stage: &dyn kit::Stage, context: &Context<'_>) -> kit::Result<kit::Forecast> {
    let outlook = stage.forecast(&kit::Ahead::of(context))?;
    Ok(outlook.forecast.expect("the inputs are there"))
}
