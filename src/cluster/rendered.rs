//! Rendered files, and what all of them are about.

use std::path::{Path, PathBuf};

use kit::{Error, Result};

use crate::cluster::command::{Program, quoted};
use crate::cluster::tasks::Task;
use crate::pipeline::graph::Graph;

/// The name of the frozen pipeline in a folder of scripts.
pub const PIPELINE: &str = "pipeline.yaml";
/// The name of the file of environment variables.
pub const ENVIRONMENT: &str = "environment";

/// A file to write.
pub struct File {
    pub name: String,
    pub text: String,
    /// True for scripts that people start.
    pub executable: bool,
}

impl File {
    /// A file to be read.
    pub fn new(name: impl Into<String>, text: String) -> File {
        File { name: name.into(), text, executable: false }
    }
}

/// What a rendering is about.
pub struct Rendered<'a> {
    pub graph: &'a Graph,
    pub tasks: &'a [Task],
    /// The folder that the commands run in.
    pub working: &'a Path,
    /// The folder that the files are written to.
    pub folder: &'a Path,
    /// The work folder.
    pub work: &'a Path,
    /// `--device`.
    pub device: &'a str,
    /// The options that select stages.
    pub selection: &'a [String],
    /// Names of environment variables that tasks need.
    pub environment: &'a [String],
    /// The frozen pipeline.
    pub pipeline: &'a str,
}

impl Rendered<'_> {
    /// True where the task holds a model.
    pub fn holds_model(&self, task: &Task) -> bool {
        task.stage.is_some_and(|stage| self.graph.nodes[stage].stage.needs_device())
    }

    /// A line about a training whose ranks are for Slurm alone; empty for other tasks.
    pub fn about_ranks(&self, task: &Task) -> String {
        let most = task.stage.map_or(1, |stage| self.graph.nodes[stage].stage.most_ranks());
        let name = &task.name;
        if most > 1 {
            format!("# `{name}` is done by one process here: its ranks are for Slurm\n")
        } else {
            String::new()
        }
    }

    /// The parts that all commands share.
    pub fn program<'p>(&'p self, container: &'p [String], program: String, file: &'p Path) -> Program<'p> {
        let Rendered { work, device, selection, .. } = self;
        Program { container, program, work, file, device, selection }
    }

    /// The beginning of a script that people start.
    pub fn beginning(&self, about: &str) -> String {
        let name = &self.graph.name;
        format!(
            "#!/bin/bash\n# {about} of `{name}`; written by halftone {}\nset -eu\ncd {} || exit 74\n",
            env!("CARGO_PKG_VERSION"),
            quoted(&self.folder.display().to_string())
        )
    }
}

/// The program that tasks run: the one given, else this one.
///
/// # Errors
/// When the system does not say where this one is.
pub fn program(given: Option<&String>) -> Result<String> {
    let own = || std::env::current_exe().map_err(Error::io("this program"));
    given.map_or_else(|| own().map(|path| path.display().to_string()), |given| Ok(given.clone()))
}

/// Writes files into a folder.
///
/// # Errors
/// When the file system refuses.
pub fn write(folder: &Path, files: &[File]) -> Result<()> {
    for file in files {
        let path: PathBuf = folder.join(&file.name);
        kit::commit::commit_bytes(&path, file.text.as_bytes())?;
        if file.executable {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}
