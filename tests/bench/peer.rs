//! The same work in Python.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::material::Material;
use crate::stage;

/// A script of `peers/` with its arguments.
pub struct Peer {
    /// The tool.
    pub name: &'static str,
    script: &'static str,
    /// The texts it works on.
    data: fn(&Material) -> &Path,
    arguments: &'static [&'static str],
}

/// Measurements of a peer.
pub struct Measured {
    /// The tool.
    pub name: &'static str,
    /// Units a second, as in the workload.
    pub rate: f64,
    /// The process's largest resident memory.
    pub mib: f64,
}

impl Peer {
    pub const fn new(
        name: &'static str,
        script: &'static str,
        data: fn(&Material) -> &Path,
        arguments: &'static [&'static str],
    ) -> Peer {
        Peer { name, script, data, arguments }
    }

    /// Runs the script: MODEL DATA ARGUMENTS QUESTION.
    pub fn measure(&self, python: &Path, material: &Material) -> Measured {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/peers").join(self.script);
        let model = if self.script == "embed.py" {
            material.encoder.as_deref().unwrap_or(&material.model)
        } else {
            &material.model
        };
        let mut command = Command::new(python);
        command.arg(script).arg(model).arg((self.data)(material)).args(self.arguments).arg(&material.question);
        command.env("HF_HUB_OFFLINE", "1").env("BENCH_DEVICE", stage::device());
        let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", python.display()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        let Some(line) = line else { panic!("{}: {}", self.name, String::from_utf8_lossy(&output.stderr)) };
        let said: Value = serde_json::from_str(line).unwrap();
        Measured { name: self.name, rate: said["rate"].as_f64().unwrap(), mib: said["mib"].as_f64().unwrap() }
    }
}
