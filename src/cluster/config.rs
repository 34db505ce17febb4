//! The cluster file: its field docs are the manual, `halftone schema --cluster`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// A cluster that runs the stages of pipelines, and what their tasks ask of it. Nothing here decides a result: the same
/// bytes come from any number of tasks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cluster {
    /// Slurm: `run FILE --on` submits, `status` shows, `cancel` cancels.
    Slurm(Slurm),
    /// Kubernetes: `plan FILE --on FILE --render DIR` writes indexed jobs.
    Kubernetes(Kubernetes),
    /// Ray: `plan FILE --on FILE --render DIR` writes a driver.
    Ray(Ray),
}

/// Tasks as Slurm jobs: an array for each row-wise stage, one job for any other; a training may have several ranks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slurm {
    /// Tasks of a row-wise stage that computes here (`judge`, `sample`, `embed`, `reference`, `compare` by embeddings);
    /// each computes an equal part of its shards. With 1 the stage is one job.
    pub tasks: NonZeroUsize,
    /// Tasks of a stage that run at once, at most; without it as many as the scheduler likes.
    #[serde(default)]
    pub at_once: Option<NonZeroUsize>,
    /// How often a task is put back into the queue: at its time limit, after a kill, and after errors that pass. What it
    /// committed stays. Preemptions and lost nodes count.
    #[serde(default = "requeues")]
    pub requeues: u32,
    /// `--account`.
    #[serde(default)]
    pub account: Option<String>,
    /// `--partition`.
    #[serde(default)]
    pub partition: Option<String>,
    /// `--qos`.
    #[serde(default)]
    pub qos: Option<String>,
    /// `--constraint`: the tasks of a stage have to compute on one kind of device, with the same vector instructions.
    #[serde(default)]
    pub constraint: Option<String>,
    /// `--gres` of stages that hold a model, such as `gpu:1`.
    #[serde(default)]
    pub gres: Option<String>,
    /// `--time` of each task, such as `"2:00:00"`. Two minutes before it a task stops and is put back into the queue.
    #[serde(default)]
    pub time: Option<String>,
    /// `--mem`, such as `32G`.
    #[serde(default)]
    pub memory: Option<String>,
    /// `--cpus-per-task`; models compute with so many threads.
    #[serde(default)]
    pub cpus: Option<NonZeroUsize>,
    /// Further options of `sbatch`, such as `--mail-type=FAIL`.
    #[serde(default)]
    pub options: Vec<String>,
    /// Names of modules that are loaded first.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Lines of bash before the task, after the modules.
    #[serde(default)]
    pub prelude: Option<String>,
    /// Words before the program, such as `[apptainer, exec, --nv, halftone.sif]`.
    #[serde(default)]
    pub container: Vec<String>,
    /// The program; without it the path of the one that submits.
    #[serde(default)]
    pub program: Option<String>,
    /// Words before `-n RANKS` that start the ranks of a training, such as `[srun]`. A program with the feature `mpi`
    /// takes the launcher of its MPI: `mpirun`, or `[srun, --mpi=pmix]`.
    #[serde(default = "launcher")]
    pub launcher: Vec<String>,
    /// Names of further environment variables that tasks get, in a file that only you can read. Those that the pipeline
    /// file names, and those of the hub, are among them without being named here.
    #[serde(default)]
    pub environment: Vec<String>,
    /// Operations of 32 bits or less that a task computes in a second with your models, as measured, such as `2.0e14`.
    /// For the forecasts of `plan` alone.
    #[serde(default)]
    pub operations_per_second: Option<f64>,
    /// By the name of a stage, or of all stages of a matrix: what is other for it.
    #[serde(default)]
    pub stages: BTreeMap<String, SlurmStage>,
}

/// The resources of one stage, each in place of the one for all stages.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlurmStage {
    /// Its tasks.
    #[serde(default)]
    pub tasks: Option<NonZeroUsize>,
    /// Those of them that run at once, at most.
    #[serde(default)]
    pub at_once: Option<NonZeroUsize>,
    /// Ranks that do a training together, as tasks of one job: a power of two, at most its `batch.ranks`. Each has `cpus`
    /// of its own; `memory` and `gres` are for all of them on a node. The bytes are those of one process.
    #[serde(default)]
    pub ranks: Option<NonZeroUsize>,
    /// Nodes that the ranks are spread over, as many on each; 1 without it.
    #[serde(default)]
    pub nodes: Option<NonZeroUsize>,
    /// How often a task is put back into the queue.
    #[serde(default)]
    pub requeues: Option<u32>,
    /// `--account`.
    #[serde(default)]
    pub account: Option<String>,
    /// `--partition`.
    #[serde(default)]
    pub partition: Option<String>,
    /// `--qos`.
    #[serde(default)]
    pub qos: Option<String>,
    /// `--constraint`.
    #[serde(default)]
    pub constraint: Option<String>,
    /// `--gres`; `none` for none.
    #[serde(default)]
    pub gres: Option<String>,
    /// `--time`.
    #[serde(default)]
    pub time: Option<String>,
    /// `--mem`.
    #[serde(default)]
    pub memory: Option<String>,
    /// `--cpus-per-task`.
    #[serde(default)]
    pub cpus: Option<NonZeroUsize>,
    /// Further options of `sbatch`, after those for all stages.
    #[serde(default)]
    pub options: Vec<String>,
    /// Operations in a second, for forecasts alone.
    #[serde(default)]
    pub operations_per_second: Option<f64>,
}

/// Tasks as Kubernetes jobs, indexed for row-wise stages. Rendered, and not tried on a cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// Tasks of a row-wise stage.
    pub tasks: NonZeroUsize,
    /// Tasks of a stage that run at once, at most.
    #[serde(default)]
    pub at_once: Option<NonZeroUsize>,
    /// How often a task is started again.
    #[serde(default = "requeues")]
    pub requeues: u32,
    /// The image with the program.
    pub image: String,
    /// The claim of the volume that holds the working folder; every task writes to it.
    pub volume_claim: String,
    /// The place of that volume in the containers. The working folder lies below it.
    pub mount: PathBuf,
    /// The namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The secret whose entries become environment variables, such as `HF_TOKEN`.
    #[serde(default)]
    pub secret: Option<String>,
    /// GPUs of tasks that hold a model (`nvidia.com/gpu`).
    #[serde(default)]
    pub gpus: Option<NonZeroUsize>,
    /// CPUs of a task.
    #[serde(default)]
    pub cpus: Option<NonZeroUsize>,
    /// Memory of a task, such as `32Gi`.
    #[serde(default)]
    pub memory: Option<String>,
    /// The program in the image.
    #[serde(default = "program")]
    pub program: String,
    /// By the name of a stage, or of all stages of a matrix: what is other for it.
    #[serde(default)]
    pub stages: BTreeMap<String, Tasks>,
}

/// Tasks in a Ray cluster whose nodes see one file system.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ray {
    /// Tasks of a row-wise stage.
    pub tasks: NonZeroUsize,
    /// How often a task is started again.
    #[serde(default = "requeues")]
    pub requeues: u32,
    /// GPUs of tasks that hold a model.
    #[serde(default)]
    pub gpus: Option<NonZeroUsize>,
    /// CPUs of a task.
    #[serde(default)]
    pub cpus: Option<NonZeroUsize>,
    /// The program on the nodes; without it the path of the one that renders.
    #[serde(default)]
    pub program: Option<String>,
    /// By the name of a stage, or of all stages of a matrix: what is other for it.
    #[serde(default)]
    pub stages: BTreeMap<String, Tasks>,
}

/// The tasks of one stage.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tasks {
    /// Its tasks, in place of those for all stages.
    pub tasks: NonZeroUsize,
}

fn requeues() -> u32 {
    10
}

fn program() -> String {
    "halftone".to_owned()
}

/// Each of two ranks would be bound to one core, and have several threads.
fn launcher() -> Vec<String> {
    ["mpirun", "--bind-to", "none"].map(str::to_owned).to_vec()
}

/// What the tasks of one stage ask of Slurm.
#[derive(Debug, Clone, PartialEq)]
pub struct Resources {
    pub at_once: Option<NonZeroUsize>,
    /// Ranks of a training; 1 where one process does it.
    pub ranks: usize,
    pub requeues: u32,
    /// Options of `sbatch`.
    pub options: Vec<String>,
    /// `--time`, for forecasts.
    pub time: Option<String>,
    /// GPUs that `--gres` names, of one node.
    pub gpus_of_node: u64,
    /// GPUs of a task, or of all ranks.
    pub gpus: u64,
    pub operations_per_second: Option<f64>,
}

impl Slurm {
    /// The resources of a stage's tasks, by its names (its own, then that of its matrix); `holds_model` decides whether
    /// `gres` for all stages is asked for.
    pub fn resources(&self, names: &[&str], holds_model: bool) -> Resources {
        let own = names.iter().find_map(|name| self.stages.get(*name)).cloned().unwrap_or_default();
        let for_all = self.gres.clone().filter(|_| holds_model);
        let gres = own.gres.or(for_all).filter(|gres| gres != "none");
        let time = own.time.or_else(|| self.time.clone());
        let cpus = own.cpus.or(self.cpus).map(|cpus| cpus.to_string());
        let (ranks, nodes) = (own.ranks.map_or(1, NonZeroUsize::get), own.nodes.map_or(1, NonZeroUsize::get));
        let of_ranks = |count: usize| (ranks > 1).then(|| count.to_string());
        let gpus_of_node = gres.as_deref().map_or(0, gpus_of);
        let given = [
            ("ntasks", of_ranks(ranks)),
            ("nodes", of_ranks(nodes)),
            ("ntasks-per-node", of_ranks(ranks / nodes)),
            ("account", own.account.or_else(|| self.account.clone())),
            ("partition", own.partition.or_else(|| self.partition.clone())),
            ("qos", own.qos.or_else(|| self.qos.clone())),
            ("constraint", own.constraint.or_else(|| self.constraint.clone())),
            ("gres", gres),
            ("time", time.clone()),
            ("mem", own.memory.or_else(|| self.memory.clone())),
            ("cpus-per-task", cpus),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?)));
        Resources {
            at_once: own.at_once.or(self.at_once),
            ranks,
            requeues: own.requeues.unwrap_or(self.requeues),
            options: given.chain(self.options.iter().cloned()).chain(own.options).collect(),
            time,
            gpus_of_node,
            gpus: gpus_of_node * nodes as u64,
            operations_per_second: own.operations_per_second.or(self.operations_per_second),
        }
    }
}

impl Cluster {
    /// The tasks of a row-wise stage, by its names.
    pub fn tasks(&self, names: &[&str]) -> usize {
        let of = |stages: &BTreeMap<String, Tasks>| names.iter().find_map(|name| Some(stages.get(*name)?.tasks));
        match self {
            Cluster::Slurm(slurm) => {
                names.iter().find_map(|name| slurm.stages.get(*name)?.tasks).unwrap_or(slurm.tasks).get()
            }
            Cluster::Kubernetes(kubernetes) => of(&kubernetes.stages).unwrap_or(kubernetes.tasks).get(),
            Cluster::Ray(ray) => of(&ray.stages).unwrap_or(ray.tasks).get(),
        }
    }
}

/// The GPUs that a `--gres` names: `gpu:2`, `gpu:a100:2`, `gpu`.
fn gpus_of(gres: &str) -> u64 {
    let gpus = gres.split(',').filter(|one| one.split(':').next() == Some("gpu"));
    gpus.map(|one| one.rsplit(':').next().and_then(|count| count.parse().ok()).unwrap_or(1)).sum()
}

/// The seconds of a time limit as Slurm writes it: `MM`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`. None
/// for any other text, and for `UNLIMITED`.
pub fn seconds_of(time: &str) -> Option<u64> {
    let (days, rest) = match time.split_once('-') {
        Some((days, rest)) => (Some(days.parse::<u64>().ok()?), rest),
        None => (None, time),
    };
    let parts: Vec<u64> = rest.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let seconds = match (days, &parts[..]) {
        (None, [minutes]) => minutes * 60,
        (None, [minutes, seconds]) => minutes * 60 + seconds,
        (_, [hours, minutes, seconds]) => hours * 3600 + minutes * 60 + seconds,
        (Some(_), [hours]) => hours * 3600,
        (Some(_), [hours, minutes]) => hours * 3600 + minutes * 60,
        _ => return None,
    };
    Some(days.unwrap_or(0) * 86_400 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_gpus_are_read_as_slurm_reads_them() {
        for (time, seconds) in [
            ("90", Some(5400)),
            ("1:30", Some(90)),
            ("2:00:00", Some(7200)),
            ("1-0", Some(86_400)),
            ("1-12:30", Some(131_400)),
            ("0-0:0:5", Some(5)),
            ("UNLIMITED", None),
            ("2h", None),
            ("1:2:3:4", None),
        ] {
            assert_eq!(seconds_of(time), seconds, "{time}");
        }
        for (gres, gpus) in [("gpu:2", 2), ("gpu", 1), ("gpu:a100:4", 4), ("gpu:1,nvme:3", 1), ("shard:3", 0)] {
            assert_eq!(gpus_of(gres), gpus, "{gres}");
        }
    }

    #[test]
    fn a_stage_takes_its_own_and_else_what_is_for_all() {
        let slurm: Cluster = serde_json::from_value(serde_json::json!({
            "kind": "slurm", "tasks": 4, "partition": "gpu", "gres": "gpu:1", "time": "1:00:00", "options": ["--x"],
            "stages": {"verdicts": {"tasks": 9, "gres": "gpu:2", "options": ["--y"]}, "pairs": {"partition": "cpu"},
                       "policy": {"ranks": 8, "nodes": 2, "gres": "gpu:4"}},
        }))
        .unwrap();
        assert_eq!((slurm.tasks(&["verdicts"]), slurm.tasks(&["policy@1", "policy"])), (9, 4));
        let Cluster::Slurm(slurm) = slurm else { panic!("it is Slurm") };
        let options = |name: &str, model| slurm.resources(&[name], model).options.join(" ");
        assert_eq!(options("verdicts", true), "--partition=gpu --gres=gpu:2 --time=1:00:00 --x --y");
        assert_eq!(options("pairs", false), "--partition=cpu --time=1:00:00 --x");
        assert_eq!(slurm.resources(&["samples"], true).gpus, 1);
        let policy = slurm.resources(&["policy@1", "policy"], true);
        let options = "--ntasks=8 --nodes=2 --ntasks-per-node=4 --partition=gpu --gres=gpu:4 --time=1:00:00 --x";
        assert_eq!(policy.options.join(" "), options);
        assert_eq!((policy.ranks, policy.gpus_of_node, policy.gpus), (8, 4, 8));
    }
}
