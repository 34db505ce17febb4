//! The script of a Slurm job. It names no value of the environment: those come from a file that only the user can read.

use std::path::Path;

use crate::cluster::command::{FINAL, Program, quoted};
use crate::cluster::config::{Resources, Slurm};
use crate::cluster::tasks::{Role, Task};

/// Seconds before the time limit at which a task is asked to stop; it stops within ten.
const NOTICE: u32 = 120;
/// Stands for the number of a part; no word of a command contains it.
const PART: &str = "\u{1}";

/// The body of every script, after what is the task's own. bash runs a trap only between commands, so that the program
/// runs in the background. A killed task is put back by the script: Slurm does so for lost nodes and preemptions alone.
const BODY: &str = include_str!("task.sh");

/// The first lines of every script: without them a signal ends it for good, and modules and a prelude may take long.
const TRAPS: &str = include_str!("traps.sh");

/// The places of a submission.
pub struct Places<'a> {
    /// The folder that the commands run in.
    pub working: &'a Path,
    /// The folder of logs.
    pub logs: &'a Path,
    /// The file of environment variables.
    pub environment: &'a Path,
}

/// The text of a script; its first argument is added to the number of an array's element to give the part.
pub fn script(
    slurm: &Slurm,
    resources: &Resources,
    task: &Task,
    program: &Program<'_>,
    pipeline: &str,
    places: &Places<'_>,
) -> String {
    let mut text = String::from("#!/bin/bash\n");
    let pattern = if task.role == Role::Parts { "%A_%a" } else { "%j" };
    let log = places.logs.join(format!("{}.{}-{pattern}.log", task.name, task.role.word()));
    let ours = [
        format!("--job-name={}", job_name(pipeline, task)),
        format!("--output={}", log.display()),
        "--open-mode=append".to_owned(),
        "--requeue".to_owned(),
        "--export=NIL".to_owned(),
        format!("--signal=B:USR1@{NOTICE}"),
        "--kill-on-invalid-dep=yes".to_owned(),
    ];
    for option in ours.iter().chain(&resources.options) {
        let option = match option.split_once('=') {
            Some((name, value)) if value.contains(char::is_whitespace) => format!("{name}=\"{value}\""),
            _ => option.clone(),
        };
        text.push_str(&format!("#SBATCH {option}\n"));
    }
    text.push_str(&format!("# written by halftone {}\n", env!("CARGO_PKG_VERSION")));
    text.push_str(TRAPS);
    text.push_str(&format!("cd {} || exit 74\n", quoted(&places.working.display().to_string())));
    text.push_str(&format!(". {} || exit 74\n", quoted(&places.environment.display().to_string())));
    if !slurm.modules.is_empty() {
        text.push_str("if ! type module > /dev/null 2>&1; then . /etc/profile; fi\n");
        let modules: Vec<String> = slurm.modules.iter().map(|name| quoted(name)).collect();
        text.push_str(&format!("module load {} || exit 74\n", modules.join(" ")));
    }
    if let Some(prelude) = &slurm.prelude {
        text.push_str(&format!("{}\n", prelude.trim_end()));
    }
    let what = match task.role {
        Role::Parts => {
            text.push_str("part=$((SLURM_ARRAY_TASK_ID + ${1:-0}))\n");
            format!("{}\" part $part/{}\"", quoted(&task.name), task.parts)
        }
        role => quoted(&format!("{} {}", task.name, role.word())),
    };
    text.push_str(&format!("what={what}\nrequeues={}\n", resources.requeues));
    if resources.ranks > 1 {
        // A launcher hands this signal on; TERM is its own. On other nodes ranks get the environment of this script. Where
        // ranks have ended with an error, srun ends one that hangs, too.
        text.push_str("asks=USR1\nexport SLURM_EXPORT_ENV=ALL SLURM_KILL_BAD_EXIT=1\n");
    }
    let codes: Vec<String> = FINAL.iter().map(ToString::to_string).collect();
    text.push_str(&BODY.replace("FINAL", &codes.join("|")));
    let commands = match resources.ranks {
        1 => program.commands(task, PART),
        ranks => vec![program.ranks(task, ranks, &slurm.launcher, resources.gpus_of_node)],
    };
    for command in commands {
        let words = command.iter().map(|word| match word.strip_prefix(PART) {
            Some(rest) => format!("\"$part{rest}\""),
            None => quoted(word),
        });
        let command = words.collect::<Vec<_>>().join(" ");
        text.push_str(&format!("run {command}\nif [ $code != 0 ]; then end; fi\n"));
    }
    text.push_str("end\n");
    text
}

/// The name of a job: Slurm shows pipeline and stage.
pub fn job_name(pipeline: &str, task: &Task) -> String {
    match task.role {
        Role::Parts | Role::Whole => format!("{pipeline}/{}", task.name),
        role => format!("{pipeline}/{}.{}", task.name, role.word()),
    }
}
