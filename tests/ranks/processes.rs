//! Ranks as processes that this test starts.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::{Project, stderr};

use super::{TRAININGS, begin, files, same_bytes};

/// The command of one rank; `transport` and what follows are its options.
pub fn rank(project: &Project, rank: usize, size: usize, transport: &[&str], args: &[&str]) -> Command {
    let mut command = project.command(&["rank", "pipeline.yaml", "--device", "cpu", "--transport"]);
    command.args(transport).args(args).env("RAYON_NUM_THREADS", "1");
    command.env("RANK", rank.to_string()).env("WORLD_SIZE", size.to_string()).env("LOCAL_RANK", rank.to_string());
    // Tests may run as a task of Slurm, or under MPI.
    for (key, _) in std::env::vars().filter(|(key, _)| ["SLURM_", "OMPI_", "PMI"].iter().any(|of| key.starts_with(of)))
    {
        command.env_remove(key);
    }
    command
}

/// Does something to ranks that print their events, once the first checkpoint is written. What is given reads on.
pub fn after_a_checkpoint(children: &mut [Child], act: impl FnOnce(&[Child])) -> JoinHandle<()> {
    let mut lines = BufReader::new(children[0].stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"checkpoint_written\"")), "no checkpoint was written");
    act(children);
    std::thread::spawn(move || lines.for_each(drop))
}

/// Exit code and words of each of some processes, at the end of all of them, which has to come in a minute.
#[track_caller]
pub fn ends(children: Vec<Child>) -> Vec<(Option<i32>, String)> {
    let began = Instant::now();
    let end = |child: Child| {
        let output = child.wait_with_output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let ends: Vec<_> = children.into_iter().map(end).collect();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}: {ends:?}", began.elapsed());
    ends
}

/// Lets ranks compute a stage.
#[track_caller]
pub fn done(ranks: Vec<Command>) {
    let children = ranks.into_iter().map(|mut rank| rank.spawn().unwrap()).collect();
    for (rank, (code, text)) in ends(children).into_iter().enumerate() {
        assert_eq!(code, Some(0), "rank {rank}: {text}");
    }
}

/// Compares what 2 and 4 ranks make of all trainings with what one makes; gives the folder.
pub fn compare(name: &str, of: impl Fn(&Project, usize, usize, &[&str]) -> Command) -> Project {
    let project = files();
    project.done(&["run", "pipeline.yaml", "--quiet"]);
    for size in [2, 4] {
        let work = format!("{name}-{size}");
        begin(&project, &work);
        for stage in TRAININGS {
            let args = ["--stage", stage, "--work", &work, "--quiet"];
            done((0..size).map(|rank| of(&project, rank, size, &args)).collect());
        }
        same_bytes(&project, &work);
        // Now there is nothing to do, which all ranks hear.
        done((0..size).map(|rank| of(&project, rank, size, &["--stage", "sft", "--work", &work])).collect());
    }
    project
}
