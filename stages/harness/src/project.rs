//! A folder with pipeline files and data, and the built program in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use kit::Digest;
use serde_json::Value;

/// A folder for one test of the program.
pub struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// A folder with these files.
    #[track_caller]
    pub fn new(files: &[(&str, &str)]) -> Project {
        let project = Project { folder: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(name, text)| project.write(name, text));
        project
    }

    /// A folder with the repository's pipelines.
    pub fn with_pipelines() -> Project {
        let project = Project::new(&[]);
        let pipelines = crate::root().join("pipelines").canonicalize().unwrap();
        std::os::unix::fs::symlink(pipelines, project.path("pipelines")).unwrap();
        project
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The program, to be run in it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The program, run to its end.
    pub fn halftone(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The program, begun, with nobody who reads what it prints.
    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The standard output of a command that succeeds.
    #[track_caller]
    pub fn done(&self, args: &[&str]) -> String {
        let output = self.halftone(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The standard error of a command that succeeds.
    #[track_caller]
    pub fn says(&self, args: &[&str]) -> String {
        let output = self.halftone(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stderr(&output)
    }

    /// The standard error of a command that fails with this exit code.
    #[track_caller]
    pub fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.halftone(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        stderr(&output)
    }

    /// The values of a file of JSON Lines.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The files below a folder whose names end so, as paths from the project.
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

    /// The digest of every file of the store in a working folder, by its path in it, without TensorBoard files, which have
    /// times.
    pub fn store(&self, work: &str) -> BTreeMap<String, Digest> {
        let store = format!("{work}/store");
        let files = self.files(&store, "").into_iter().filter(|name| !name.contains("tensorboard"));
        files.map(|name| (name[store.len()..].to_owned(), kit::digest_file(&self.path(&name)).unwrap())).collect()
    }

    /// The content of every port of a pipeline's latest run, by `stage/port`, without TensorBoard files, which have times.
    pub fn ports(&self, pipeline: &str) -> BTreeMap<String, Digest> {
        let runs = self.path(".halftone/runs").join(pipeline);
        let mut ports = BTreeMap::new();
        for stage in folders(&runs).into_iter().filter(|name| name.parse::<u64>().is_err()) {
            for port in folders(&runs.join(&stage)).into_iter().filter(|name| name != "tensorboard") {
                let digest = kit::digest_folder(&runs.join(&stage).join(&port)).unwrap();
                ports.insert(format!("{stage}/{port}"), digest);
            }
        }
        assert!(!ports.is_empty());
        ports
    }
}

/// The program that was built with the tests: they lie in a folder beside it.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("halftone");
    assert!(program.is_file(), "{} is not there", program.display());
    program
}

fn folders(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let folders = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    folders.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// The standard error of a process.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The end of each stage in a run with `--json`: `ran`, `reused` or `skipped`.
#[track_caller]
pub fn states(output: &Output) -> BTreeMap<String, &'static str> {
    let mut states = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
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

/// The stages that did work in a run with `--json`.
#[track_caller]
pub fn ran(output: &Output) -> BTreeSet<String> {
    states(output).into_iter().filter(|(_, state)| *state == "ran").map(|(stage, _)| stage).collect()
}
