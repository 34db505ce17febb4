//! Ranks as processes over TCP.

use std::process::{Child, Command};

use harness::{Project, stderr};

use super::processes::{after_a_checkpoint, compare, done, ends, rank};
use super::{TRAININGS, begin, files, same_bytes, send};

fn ranks(project: &Project, size: usize, args: &[&str]) -> Vec<Command> {
    (0..size).map(|of| rank(project, of, size, &["tcp"], args)).collect()
}

fn started(ranks: Vec<Command>) -> Vec<Child> {
    ranks.into_iter().map(|mut rank| rank.spawn().unwrap()).collect()
}

#[test]
fn processes_over_tcp_give_the_bytes_of_one() {
    compare("tcp", |project, of, size, args| rank(project, of, size, &["tcp"], args));
}

/// Sends signals to ranks once the first checkpoint is written; gives how they end.
fn signalled(mut children: Vec<Child>, signal: &str, to: &[usize]) -> Vec<(Option<i32>, String)> {
    let reader = after_a_checkpoint(&mut children, |children| {
        to.iter().for_each(|rank| send(signal, &children[*rank].id().to_string()));
    });
    if signal == "-STOP" {
        // It would stay for ever; the others end without it.
        let mut stopped = children.remove(to[0]);
        let ends = ends(children);
        stopped.kill().unwrap();
        stopped.wait().unwrap();
        reader.join().unwrap();
        return ends;
    }
    let ends = ends(children);
    reader.join().unwrap();
    ends
}

#[test]
fn processes_over_tcp_end_together() {
    let project = files();
    project.done(&["run", "pipeline.yaml", "--quiet"]);
    begin(&project, "stopped");
    let args = ["--stage", "dpo", "--work", "stopped", "--json"];
    let start = |size: usize, more: &[&str]| started(ranks(&project, size, &[&args[..], more].concat()));
    let codes = |ends: &[(Option<i32>, String)]| ends.iter().map(|(code, _)| *code).collect::<Vec<_>>();

    // A signal to all of them: rank 0 writes a checkpoint, and all leave with 75.
    let ended = signalled(start(4, &[]), "-USR1", &[0, 1, 2, 3]);
    assert_eq!(codes(&ended), [Some(75); 4], "{ended:?}");
    // To one alone: all stop at the same step.
    let ended = signalled(start(2, &[]), "-USR1", &[1]);
    assert_eq!(codes(&ended), [Some(75); 2], "{ended:?}");
    // One that is lost ends all, and they name it.
    for (size, lost) in [(4, 2), (2, 0)] {
        let ended = signalled(start(size, &[]), "-KILL", &[lost]);
        for (rank, (code, text)) in ended.iter().enumerate().filter(|(rank, _)| *rank != lost) {
            assert_eq!(*code, Some(75), "rank {rank}: {text}");
        }
        assert!(ended.iter().any(|(_, text)| text.contains(&format!("rank {lost} has ended"))), "{ended:?}");
    }
    // One that hangs does so, too.
    let ended = signalled(start(4, &["--patience", "4"]), "-STOP", &[2]);
    assert_eq!(codes(&ended), [Some(75); 3], "{ended:?}");
    assert!(ended.iter().any(|(_, text)| text.contains("for 4 s: rank 2 on ")), "{ended:?}");
    // The same command goes on, with any number of ranks.
    for (stage, size) in TRAININGS.into_iter().zip([4, 2, 1, 2, 4]) {
        done(ranks(&project, size, &["--stage", stage, "--work", "stopped", "--quiet"]));
    }
    same_bytes(&project, "stopped");
}

#[test]
fn errors_of_ranks_over_tcp_have_the_exit_code_that_they_have_elsewhere() {
    let project = files();
    let all = |size: usize, args: &[&str], code: i32, wanted: &str| {
        let ended = ends(started(ranks(&project, size, args)));
        assert!(ended.iter().all(|(got, _)| *got == Some(code)), "{ended:?}");
        assert!(ended[0].1.contains(wanted), "{ended:?}");
    };
    all(2, &["--stage", "dpo", "--work", "none"], 78, "`reference` has no result");
    begin(&project, "begun");
    all(8, &["--stage", "dpo", "--work", "begun"], 78, "8 ranks were started and `batch.ranks` allows 4");
    all(3, &["--stage", "dpo", "--work", "begun"], 64, "3 processes were started; wanted a power of two");
    all(2, &["--stage", "dpo", "--work", "begun", "--ranks", "4"], 64, "4 ranks were started, and this one sees 2");
    // Those that never come are named.
    let mut alone = rank(&project, 0, 4, &["tcp"], &["--stage", "dpo", "--work", "begun", "--patience", "1"]);
    let output = alone.output().unwrap();
    let text = stderr(&output);
    assert!(output.status.code() == Some(75) && text.contains("rank 1, rank 2, rank 3"), "{text}");
    // Nobody said which rank it is.
    let mut nobody = rank(&project, 0, 1, &["tcp"], &["--stage", "dpo", "--work", "begun"]);
    let output = nobody.env_remove("RANK").output().unwrap();
    let text = stderr(&output);
    assert!(output.status.code() == Some(64) && text.contains("nothing says which rank this is"), "{text}");
}
