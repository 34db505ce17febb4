//! A training whose ranks are tasks of one job: the bytes are those of one process, whatever happens to a rank.

use std::time::{Duration, Instant};

use harness::{Project, Requirement, missing};
use rustix::process::Signal;

use super::loopback::{in_path, processes, send};
use super::{Setting, URGENT};

const PIPELINE: &str = "
name: cluster
seed: 17
stages:
  world: {kind: sandbox, mode: world, prompts: 24, holdout_prompts: 4, demonstrations: 64, judge_rows: 64}
  sft:
    kind: train
    from: world.demonstrations
    model: world.model
    objective: {name: sft}
    optimizer: {lr: 1.0e-3}
    batch: {items: 16, ranks: 4}
    steps: 200
    checkpoint_every: 2
";

/// All files of a kind below a folder, one after the other.
fn text(project: &Project, folder: &str, end: &str) -> String {
    let files = project.files(folder, end);
    files.iter().map(|file| std::fs::read_to_string(project.path(file)).unwrap_or_default()).collect()
}

/// Runs the pipeline on the cluster with `settings` in the cluster file, lets one of `ranks` processes after the other
/// meet a fault as soon as there is a checkpoint of its attempt, and compares the stores. Each fault comes with a word
/// of the log. Gives the log.
fn run(setting: &Setting, work: &str, settings: &str, ranks: usize, faults: &[(&str, &str)]) -> String {
    let (cluster, project) = (&setting.cluster, &setting.project);
    let all = "kind: slurm\ntasks: 1\nmemory: 300M\ncpus: 1\ntime: \"0:30:00\"";
    project.write("cluster.yaml", &format!("{all}\n{settings}\n"));
    assert!(setting.submit(work).contains("submitted: sft as job"));
    let logs = || text(project, &format!("{work}/cluster"), ".log");
    let written = || text(project, &format!("{work}/runs"), "events.jsonl").matches("\"checkpoint_written\"").count();
    let (mut known, began) = (0, Instant::now());
    let until = |is: &dyn Fn() -> bool| {
        while !is() {
            assert!(began.elapsed() < Duration::from_secs(180), "{work}: {}", logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    for (fault, says) in faults {
        until(&|| written() > known);
        let ours = format!("--work {} ", project.path(work).display());
        let started = |line: &str| ["mpirun", "srun", "bash"].iter().any(|word| line.contains(word));
        let found = processes(|line| line.contains(&ours) && !started(line));
        assert_eq!(found.len(), ranks, "{work}, {fault}");
        let before = logs().matches(says).count();
        match *fault {
            "PREEMPTION" => _ = cluster.ask("sbatch", &URGENT),
            "USR1" => _ = cluster.ask("scancel", &["--batch", "--signal=USR1", "--user=root", "--state=RUNNING"]),
            "KILL" => send(found[ranks - 1], Signal::KILL),
            _ => send(found[ranks - 1], Signal::STOP),
        }
        until(&|| logs().matches(says).count() > before);
        known = written();
    }
    cluster.wait(Duration::from_secs(120));
    assert_eq!(logs().matches("back into the queue").count(), faults.len(), "{}", logs());
    let status = setting.done(&["status", "--work", work]);
    assert_eq!(project.store(work), project.store("one"), "{work}: {status}");
    logs()
}

const FAULTS: [(&str, &str); 3] = [("USR1", "exit 75 after USR1"), ("KILL", "exit 137"), ("STOP", "exit 75\n")];

#[test]
fn a_training_on_slurm_that_is_stopped_killed_or_preempted_goes_on() {
    let Some(setting) = Setting::new(PIPELINE) else { return };
    run(&setting, "work", "", 1, &[FAULTS[0], FAULTS[1], ("PREEMPTION", "exit 75 after ")]);
}

#[test]
fn ranks_over_tcp_that_srun_starts_give_the_bytes_of_one_process() {
    let Some(setting) = Setting::new(PIPELINE) else { return };
    let run = |work, more: &str, faults| {
        let environment = "prelude: export HALFTONE_TRANSPORT=tcp HALFTONE_PATIENCE=4";
        run(&setting, work, &format!("launcher: [srun]\n{environment}\n{more}"), 2, faults)
    };
    run("nodes", "stages: {sft: {ranks: 2, nodes: 2}}", &FAULTS[1..2]);
    let log = run("node", "stages: {sft: {ranks: 2}}", &FAULTS);
    assert!(log.contains("not heard of for 4 s: rank "), "{log}");
}

#[test]
fn ranks_on_slurm_give_the_bytes_of_one_process() {
    if !cfg!(feature = "mpi") || !in_path("mpirun") {
        return missing(Requirement::Mpi, "the program is built without the feature `mpi`, or there is no mpirun");
    }
    let Some(setting) = Setting::new(PIPELINE) else { return };
    // Daemons and tasks are root's here, which Open MPI wants to be told twice.
    let root = "prelude: export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 HALFTONE_PATIENCE=4";
    let run = |work, more: &str, faults| run(&setting, work, &format!("{root}\n{more}"), 2, faults);
    run("nodes", "stages: {sft: {ranks: 2, nodes: 2}}", &[]);
    let log = run("faults", "stages: {sft: {ranks: 2}}", &FAULTS);
    assert!(log.contains("not heard of for 4 s: rank "), "{log}");
    run("steps", "launcher: [srun, --mpi=pmix]\nstages: {sft: {ranks: 2}}", &FAULTS[..2]);
}
