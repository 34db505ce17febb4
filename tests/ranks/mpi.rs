//! Ranks as processes under MPI.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{Project, Requirement, missing, stderr};

use super::{TRAININGS, begin, files, same_bytes, send, stopped_after_a_checkpoint};

/// True where ranks can be processes.
fn has_mpi(project: &Project) -> bool {
    let found = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        missing(Requirement::Mpi, "there is no mpirun");
        return false;
    }
    let built = stderr(&project.halftone(&["rank", "none.yaml", "--stage", "none", "--transport", "mpi"]));
    if built.contains("this build has no MPI") {
        missing(Requirement::Mpi, "the program is built without the feature `mpi`");
        return false;
    }
    true
}

/// `halftone rank` under `mpirun`.
fn ranks(project: &Project, count: usize, args: &[&str]) -> Command {
    let program = project.command(&[]).get_program().to_owned();
    let mut command = Command::new("mpirun");
    // As root, and with more processes than cores: so it is where tests run.
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &count.to_string()]).arg(program);
    command.args(["rank", "--transport", "mpi"]).args(args).current_dir(project.folder()).env("RAYON_NUM_THREADS", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn code(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), stderr(output))
}

/// Starts ranks that print their events, and sends one of them a signal once a step is made; gives their end, which has
/// to come within a minute.
fn one_gets(mut ranks: Command, rank: usize, signal: &str) -> Output {
    let mut child = ranks.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"progressed\"")), "no step was made");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let began = Instant::now();
    send(signal, children.split_whitespace().nth(rank).expect("mpirun has a child for each rank"));
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    output
}

#[test]
fn processes_under_mpi_give_the_bytes_of_one() {
    let project = files();
    if !has_mpi(&project) {
        return;
    }
    project.done(&["run", "pipeline.yaml", "--quiet"]);
    for count in [2, 4] {
        let work = format!("mpi-{count}");
        begin(&project, &work);
        for stage in TRAININGS {
            let args = ["pipeline.yaml", "--stage", stage, "--work", &work, "--quiet"];
            let output = ranks(&project, count, &args).output().unwrap();
            assert_eq!(code(&output).0, Some(0), "{}", stderr(&output));
        }
        same_bytes(&project, &work);
        // Now there is nothing to do, which all ranks hear.
        let again = ranks(&project, count, &["pipeline.yaml", "--stage", "sft", "--work", &work]).output().unwrap();
        assert_eq!(code(&again).0, Some(0), "{}", stderr(&again));
    }
}

#[test]
fn processes_under_mpi_end_together() {
    let project = files();
    if !has_mpi(&project) {
        return;
    }
    project.done(&["run", "pipeline.yaml", "--quiet"]);
    begin(&project, "stopped");
    let args = ["pipeline.yaml", "--stage", "dpo", "--work", "stopped", "--json"];
    // A signal that mpirun hands on: rank 0 writes a checkpoint, and all leave with 75.
    assert_eq!(stopped_after_a_checkpoint(ranks(&project, 4, &args), "-USR1"), Some(75));
    // A rank that is lost ends all, as mpirun sees it.
    let (lost, text) = code(&one_gets(ranks(&project, 2, &args), 1, "-KILL"));
    assert_eq!(lost, Some(137), "{text}");
    // One that hangs does so, too; the others name it.
    let impatient = [&args[..], &["--patience", "4"]].concat();
    for (count, rank) in [(4, 2), (2, 0)] {
        let (hung, text) = code(&one_gets(ranks(&project, count, &impatient), rank, "-STOP"));
        assert!(hung == Some(75) && text.contains(&format!("for 4 s: rank {rank} on ")), "{hung:?}: {text}");
    }
    for (stage, count) in [("dpo", 2), ("sft", 4), ("rpo", 1), ("jpo", 2), ("lora", 1)] {
        let output =
            ranks(&project, count, &["pipeline.yaml", "--stage", stage, "--work", "stopped", "--quiet"]).output();
        let output = output.unwrap();
        assert_eq!(code(&output).0, Some(0), "{}", stderr(&output));
    }
    same_bytes(&project, "stopped");

    // Errors have the exit code that they have elsewhere.
    let of = |count: usize, stage: &str, work: &str| {
        code(&ranks(&project, count, &["pipeline.yaml", "--stage", stage, "--work", work]).output().unwrap())
    };
    let (many, text) = of(8, "dpo", "none");
    assert!(many == Some(78) && text.contains("`reference` has no result"), "{many:?}: {text}");
    begin(&project, "begun");
    let (many, text) = of(8, "dpo", "begun");
    assert!(many == Some(78) && text.contains("8 ranks were started and `batch.ranks` allows 4"), "{many:?}: {text}");
    let (odd, text) = of(3, "dpo", "begun");
    assert!(odd == Some(64) && text.contains("3 processes were started; wanted a power of two"), "{odd:?}: {text}");
    let (other, text) = of(2, "reference", "none");
    assert!(other == Some(64) || other == Some(78), "{other:?}: {text}");
}
