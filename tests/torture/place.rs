//! Folders to be unkind in, and what is left in them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kit::Digest;
use serde_json::Value;

/// Longer than this nothing here may take; with many processes side by side.
const PATIENCE: Duration = Duration::from_secs(120);
/// The exit code of what was stopped because it took longer.
pub const TOO_LONG: i32 = 124;

const TABLES: &str = "\
name: torture
seed: 17
stages:
  data: {kind: ingest, files: ./data.jsonl, holdout: 0.1}
  pairs: {kind: pairs, from: data.pairs, ties: keep}
  held: {kind: pairs, from: data.holdout_pairs, ties: keep}
  twice: {kind: pairs, from: [pairs, held], ties: drop}
";

const MODELS: &str = "\
name: torture
seed: 3
stages:
  world:
    kind: sandbox
    mode: world
    prompts: 12
    holdout_prompts: 8
    demonstrations: 96
    judge_rows: 96
    model: {width: 16, layers: 1, heads: 2}
  imitation:
    kind: train
    from: world.demonstrations
    model: world.model
    objective: {name: sft}
    optimizer: {lr: 3.0e-3, schedule: cosine, warmup_steps: 2, weight_decay: 0.01, clip_norm: 1.0}
    batch: {items: 8, shuffle: true}
    steps: 40
    checkpoint_every: 4
  samples: {kind: sample, from: world.prompts, model: imitation, k: 4, temperature: 1.0, max_tokens: 8, shard_rows: 2}
  comparisons: {kind: compare, from: samples, within: all}
  verdicts:
    kind: judge
    comparisons: comparisons
    model: imitation
    template: ./judge.jinja
    form: text
    labels: {first: [\" A\"], second: [\" B\"]}
    debias: probability
    least_mass: 0.0
    shard_rows: 6
  pairs: {kind: pairs, from: verdicts}
  reference: {kind: reference, from: pairs, model: imitation, shard_rows: 6}
  embeddings: {kind: embed, from: pairs, model: imitation, shard_rows: 2}
  policy:
    kind: train
    from: pairs
    reference: reference
    embeddings: embeddings
    model: imitation
    objective: {name: rpo, beta: 0.3, tau: 0.5}
    optimizer: {lr: 3.0e-4, schedule: constant, warmup_steps: 0, weight_decay: 0.0, clip_norm: 1.0}
    batch: {pairs: 4, shuffle: true}
    epochs: 2
    checkpoint_every: 3
  evaluation: {kind: evaluate, pairs: pairs, model: policy, reference: imitation}
";

/// The binary that is tried.
pub fn binary() -> PathBuf {
    std::env::var_os("TORTURE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_halftone").into(), PathBuf::from)
}

/// The result of a process.
#[derive(Debug)]
pub struct ProcessResult {
    /// Its exit code; 128 and the signal's number where it died of one.
    pub code: i32,
    /// Its stderr.
    pub err: String,
}

impl ProcessResult {
    /// The end of what it said, in one line.
    pub fn said(&self) -> String {
        let text = self.err.trim().replace('\n', " / ");
        let from = text.char_indices().rev().nth(300).map_or(0, |(at, _)| at);
        text[from..].to_owned()
    }

    /// An error unless the code is one of these.
    pub fn is_one_of(&self, codes: &[i32], what: &str) -> Result<(), String> {
        if codes.contains(&self.code) {
            return Ok(());
        }
        Err(format!("{what}: exit code {}: {}", self.code, self.said()))
    }
}

/// Runs a command to its end, or stops it.
pub fn finish(command: &mut Command) -> ProcessResult {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let err = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // The buffered output of a killed process is not read.
        let _ = stderr.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let began = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if began.elapsed() > PATIENCE => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(3)),
        }
    };
    let code = status.map_or(TOO_LONG, |status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap()));
    ProcessResult { code, err: err.join().unwrap() }
}

/// A folder with a pipeline.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// An empty one.
    pub fn empty() -> Place {
        Place { folder: tempfile::Builder::new().prefix("torture-").tempdir().unwrap() }
    }

    /// With a pipeline of tables alone.
    pub fn tables() -> Place {
        let place = Place::empty();
        place.write("pipeline.yaml", TABLES);
        let mut data = String::new();
        for row in 0..300 {
            let (question, padding, p) = (row / 3, "and so on ".repeat(row % 7), 0.5 + (row % 50) as f64 / 100.0);
            let line = serde_json::json!({"prompt": format!("question {question}"), "p_hat": p,
                "chosen": format!("answer {row} {padding}"), "rejected": format!("silence {row}")});
            writeln!(data, "{line}").unwrap();
        }
        place.write("data.jsonl", &data);
        place
    }

    /// With a pipeline that makes models, samples, judges and trains.
    pub fn models() -> Place {
        let place = Place::empty();
        place.write("pipeline.yaml", MODELS);
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/templates/sandbox.jinja");
        std::fs::copy(template, place.path("judge.jinja")).unwrap();
        place
    }

    /// Another one with the same files.
    pub fn copy(&self) -> Place {
        let place = Place::empty();
        let from = format!("{}/.", self.folder.path().display());
        let status = Command::new("cp").args(["-a", &from]).arg(place.folder.path()).status().unwrap();
        assert!(status.success());
        place
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A command in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.folder.path()).env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs the binary to its end.
    pub fn halftone(&self, args: &[&str]) -> ProcessResult {
        finish(&mut self.command(binary(), args))
    }

    /// Runs the pipeline.
    pub fn run(&self) -> ProcessResult {
        self.halftone(&["run", "pipeline.yaml", "--device", "cpu"])
    }

    /// Runs a line of the shell in which `halftone` is the binary.
    pub fn shell(&self, line: &str) -> ProcessResult {
        let line = format!("halftone() {{ exec {} \"$@\"; }}; {line}", binary().display());
        finish(&mut self.command("bash", &["-c", &line]))
    }

    /// Runs until a stage has reported an event so many times, then kills. True where the stage was at work still.
    pub fn kill_at(&self, stage: &str, event: &str, times: usize) -> bool {
        let mut command = self.command(binary(), &["run", "pipeline.yaml", "--device", "cpu", "--json"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let Ok(event_told) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
            seen += usize::from(event_told["stage"] == stage && event_told["event"] == event);
            if seen == times {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        self.names("").iter().any(|name| name.contains(".partial/"))
    }

    /// The files below the folder of results by their names from there.
    pub fn names(&self, below: &str) -> Vec<String> {
        let mut names = Vec::new();
        walk(&self.path(".halftone").join(below), below, &mut names);
        names.sort();
        names
    }

    /// The bytes of all results: the entries of the store without files that contain times.
    pub fn results(&self) -> BTreeMap<String, Digest> {
        let names = self.names("store").into_iter();
        let names = names.filter(|name| !name.contains("/.tensorboard/") && !name.contains(".damaged-"));
        names.map(|name| (name.clone(), kit::digest_file(&self.path(".halftone").join(&name)).unwrap())).collect()
    }

    /// Runs the pipeline once more, which has to give these results and leave no unknown file.
    pub fn ends_as(&self, wanted: &BTreeMap<String, Digest>, what: &str) -> Result<(), String> {
        self.run().is_one_of(&[0], &format!("{what}: run again"))?;
        let results = self.results();
        if let Some((name, _)) = results.iter().find(|(name, digest)| wanted.get(*name) != Some(digest)) {
            return Err(format!("{what}: run again: {name} is not as it should be"));
        }
        if let Some(name) = wanted.keys().find(|name| !results.contains_key(*name)) {
            return Err(format!("{what}: run again: {name} is missing"));
        }
        self.halftone(&["verify"]).is_one_of(&[0], &format!("{what}: verify after the run"))?;
        self.halftone(&["gc", "--keep", "1"]).is_one_of(&[0], &format!("{what}: gc after the run"))?;
        match self.names("").into_iter().find(|name| leftover(name)) {
            Some(name) => Err(format!("{what}: {name} is left for ever")),
            None => Ok(()),
        }
    }
}

/// True where a file is one of those that a kill leaves and nobody reads.
fn leftover(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let temporary = |part: &&str| part.starts_with(".tmp") || part.ends_with(".next") || part.contains(".partial");
    let unnamed = [".stages.json", ".statcache.json"];
    parts.iter().any(temporary) || parts.last().is_some_and(|last| unnamed.contains(last))
}

fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), &name, names),
            _ => names.push(name),
        }
    }
}
