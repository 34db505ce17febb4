//! A folder with files for one test.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// A folder with these files.
    pub fn new(files: &[(&str, &str)]) -> Project {
        let project = Project { folder: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(name, text)| project.write(name, text));
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn halftone(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halftone"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// The stdout of a command that succeeds.
    pub fn done(&self, args: &[&str]) -> String {
        let output = self.halftone(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The stderr of a command that fails with this exit code.
    pub fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.halftone(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        text
    }

    /// The stderr of a command that succeeds.
    pub fn says(&self, args: &[&str]) -> String {
        let output = self.halftone(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {text}");
        text
    }

    /// A file of JSON Lines.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
