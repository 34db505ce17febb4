//! A folder to run pipelines in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kit::Digest;

/// Settings that make the quickstart small.
pub const SMALL: [&str; 16] = [
    "world.prompts=12",
    "world.holdout_prompts=8",
    "world.demonstrations=96",
    "world.judge_rows=96",
    "world.model={width: 16, layers: 1, heads: 2}",
    "imitation.steps=12",
    "imitation.batch.items=8",
    "judge.steps=12",
    "judge.batch.items=8",
    "verdicts.least_mass=0",
    "holdout_verdicts.least_mass=0",
    "samples.k=3",
    "before.k=2",
    "after.k=2",
    "policy.batch.pairs=8",
    "policy.epochs=1",
];

/// A folder with the repository's pipelines in it.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A fresh one.
    pub fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        std::os::unix::fs::symlink(pipelines, folder.path().join("pipelines")).unwrap();
        Place { folder }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command, to be run in it.
    pub fn halftone(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halftone"));
        command.args(args).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The small quickstart.
    pub fn quickstart(&self, args: &[&str]) -> Command {
        let mut command = self.halftone(&["run", "pipelines/quickstart.yaml", "--json", "--device", "cpu"]);
        SMALL.iter().for_each(|set| _ = command.args(["--set", set]));
        command.args(args);
        command
    }

    /// The files below a folder whose names end so, as paths from the place.
    pub fn files(&self, folder: &str, end: &str) -> Vec<String> {
        let mut files = Vec::new();
        let Ok(entries) = std::fs::read_dir(self.path(folder)) else { return files };
        for entry in entries {
            let name = format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy());
            if self.path(&name).is_dir() {
                files.extend(self.files(&name, end));
            } else if name.ends_with(end) {
                files.push(name);
            }
        }
        files
    }

    /// The content of every port of a pipeline's latest run, by `stage/port`. TensorBoard files, which contain times,
    /// are left out.
    pub fn ports(&self, pipeline: &str) -> BTreeMap<String, Digest> {
        let runs = self.path(".halftone/runs").join(pipeline);
        let mut ports = BTreeMap::new();
        for stage in names(&runs).into_iter().filter(|name| name.parse::<u64>().is_err()) {
            for port in names(&runs.join(&stage)).into_iter().filter(|name| name != "tensorboard") {
                let digest = kit::digest_folder(&runs.join(&stage).join(&port)).unwrap();
                ports.insert(format!("{stage}/{port}"), digest);
            }
        }
        assert!(!ports.is_empty());
        ports
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let folders = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    folders.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// The stderr of a run.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The state of each stage after a run with `--json`: `ran`, `reused` or `skipped`.
pub fn states(output: &Output) -> BTreeMap<String, &'static str> {
    let mut states = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let state = match event["event"].as_str().unwrap() {
            "stage_finished" => "ran",
            "stage_reused" => "reused",
            "stage_skipped" => "skipped",
            _ => continue,
        };
        states.insert(event["stage"].as_str().unwrap().to_owned(), state);
    }
    assert!(!states.is_empty(), "{}", stderr(output));
    states
}

/// The stages that did work.
pub fn ran(output: &Output) -> BTreeSet<String> {
    states(output).into_iter().filter(|(_, state)| *state == "ran").map(|(stage, _)| stage).collect()
}
