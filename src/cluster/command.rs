//! The commands of tasks: the contract between a scheduler and halftone, the same under Slurm, Kubernetes and Ray.
//!
//! A command ends with 0 where its work is there, with 75 (stopped, or it has to wait), 69 or 74 where the same command
//! goes on later, and with 64, 65, 70 or 78 where trying again cannot help. Killed at any moment it is started again.

use std::path::Path;

use crate::cluster::tasks::{Role, Task};
use crate::exit;

/// Exit codes after which starting again cannot help.
pub const FINAL: [i32; 4] = [exit::USAGE, exit::DATA, exit::INTERNAL, exit::PIPELINE];

/// What all commands of a submission have in common.
pub struct Program<'a> {
    /// Words before the program.
    pub container: &'a [String],
    /// The program.
    pub program: String,
    /// The work folder.
    pub work: &'a Path,
    /// The pipeline file.
    pub file: &'a Path,
    /// `--device`.
    pub device: &'a str,
    /// The options that select stages.
    pub selection: &'a [String],
}

impl Program<'_> {
    /// The commands of a task, one after the other. `part` stands for the number of a part.
    pub fn commands(&self, task: &Task, part: &str) -> Vec<Vec<String>> {
        let work = self.work.display().to_string();
        let begin = |command: &str| -> Vec<String> {
            let own = [&*self.program, "--work", &work, command, &self.file.display().to_string()].map(str::to_owned);
            self.container.iter().cloned().chain(own).collect()
        };
        let device = || ["--device".to_owned(), self.device.to_owned()];
        let shards = |which: String| {
            let own = ["--stage".to_owned(), task.name.clone(), "--shards".to_owned(), which];
            begin("shard").into_iter().chain(own).chain(device()).collect::<Vec<_>>()
        };
        let run = |selection: &[String]| {
            begin("run").into_iter().chain(selection.iter().cloned()).chain(device()).collect::<Vec<_>>()
        };
        let only = ["--only".to_owned(), task.name.clone()];
        match task.role {
            Role::Parts => vec![shards(format!("{part}/{}", task.parts))],
            // `shard` refuses shards of another device, where `run` would compute them again.
            Role::Seal => vec![shards("all".to_owned()), run(&only)],
            Role::Whole => vec![run(&only)],
            Role::Report => vec![run(self.selection)],
        }
    }

    /// The command that starts the ranks of a training, of which those of one node share its GPUs in turn.
    pub fn ranks(&self, task: &Task, ranks: usize, launcher: &[String], gpus_of_node: u64) -> Vec<String> {
        let all = || (0..gpus_of_node).map(|gpu| format!("cuda:{gpu}")).collect::<Vec<_>>().join(",");
        let device = if self.device == "auto" && gpus_of_node > 1 { all() } else { self.device.to_owned() };
        let (count, work) = (ranks.to_string(), self.work.display().to_string());
        let file = self.file.display().to_string();
        let own = [
            &*self.program,
            "--work",
            &work,
            "rank",
            &file,
            "--stage",
            &task.name,
            "--ranks",
            &count,
            "--device",
            &device,
        ];
        let words = launcher.iter().cloned().chain(["-n".to_owned(), count.clone()]);
        words.chain(self.container.iter().cloned()).chain(own.map(str::to_owned)).collect()
    }
}

/// A word as bash reads it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-=:@,+%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_one_word_to_bash() {
        for word in ["", "a b", "it's", "$HOME", "`id`", "a\nb", "plain/x-1.yaml", "*", "~"] {
            let output =
                std::process::Command::new("bash").args(["-c", &format!("printf %s {}", quoted(word))]).output();
            assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), word);
        }
    }
}
