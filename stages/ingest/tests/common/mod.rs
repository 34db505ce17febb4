//! Runs the stage on files made for a test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kit::rows::{Message, Reject};
use kit::{Context, Event, Finding, Interrupt, Outcome, Row, Seed};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with data files.
pub struct Data(TempDir);

/// The results of a run.
pub struct Done {
    folder: TempDir,
    pub outcome: Outcome,
    pub events: Vec<Event>,
}

impl Data {
    pub fn new() -> Data {
        Data(tempfile::tempdir().unwrap())
    }

    /// A folder with one file.
    pub fn of(name: &str, bytes: impl AsRef<[u8]>) -> Data {
        let data = Data::new();
        data.write(name, bytes);
        data
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Data {
        std::fs::write(self.path(name), bytes).unwrap();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The configuration for these files and some more keys.
    pub fn config(&self, files: &[&str], more: Value) -> Value {
        let files: Vec<_> = files.iter().map(|name| self.path(name).display().to_string()).collect();
        let mut config = json!({"files": files});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    }

    pub fn check(&self, files: &[&str], more: Value) -> Vec<Finding> {
        match (ingest::KIND.configure)(self.config(files, more)) {
            Ok((stage, _)) => stage.check(),
            Err(finding) => vec![finding],
        }
    }

    pub fn ports(&self, files: &[&str], more: Value) -> Vec<String> {
        let (stage, _) = (ingest::KIND.configure)(self.config(files, more)).unwrap();
        stage.outputs().into_iter().map(|port| port.name).collect()
    }

    /// Runs the stage; an error's text has the folder taken out.
    pub fn run(&self, files: &[&str], more: Value) -> Result<Done, String> {
        let (stage, _) = (ingest::KIND.configure)(self.config(files, more)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let events = Mutex::new(Vec::new());
        let listen = |event: Event| events.lock().unwrap().push(event);
        let context = Context {
            seed: Seed(17),
            device: "cpu",
            folder: folder.path(),
            inputs: BTreeMap::new(),
            events: &listen,
            interrupt: Interrupt::default(),
        };
        let outcome = stage.run(&context).map_err(|error| self.short(&error.to_string()))?;
        for balance in &outcome.balance {
            assert_eq!(balance.read, balance.kept + balance.rejected);
        }
        for port in stage.outputs() {
            kit::read_port(&folder.path().join(&port.name), port.table).unwrap();
        }
        let events = events.into_inner().unwrap();
        Ok(Done { folder, outcome, events })
    }

    /// A text without the folder.
    pub fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

impl Done {
    pub fn rows<R: Row>(&self, port: &str) -> Vec<R> {
        kit::read_rows(&self.folder.path().join(port)).unwrap()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Lines and reasons of the rejects.
    pub fn rejects(&self) -> Vec<(u64, String)> {
        let rejects = self.rows::<Reject>("rejects");
        rejects.into_iter().map(|reject| (reject.source_line.unwrap(), reject.reason)).collect()
    }

    /// Rows read, kept and rejected.
    pub fn balance(&self) -> [u64; 3] {
        let balance = &self.outcome.balance[0];
        [balance.read, balance.kept, balance.rejected]
    }
}

/// Messages in one line: `user: q | assistant: a`.
pub fn say(messages: &[Message]) -> String {
    messages.iter().map(|m| format!("{}: {}", m.role, m.content)).collect::<Vec<_>>().join(" | ")
}
