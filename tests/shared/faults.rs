//! Kills at the system calls of a run that pushes and of one that fetches, by strace.

use std::process::Command;

use harness::{Project, Requirement, missing, states, stderr};

use crate::folder::place;
use crate::{RUN, TABLES, all, machine};

/// Calls that change what is on disk, here or there.
const CALLS: [&str; 8] = ["openat", "write", "fsync", "rename", "renameat2", "link", "unlink", "mkdir"];
/// Points of each call.
const POINTS: usize = 3;

/// A run under strace with further arguments.
fn traced(project: &Project, args: &[&str], calls: &str) -> std::process::Output {
    let program = project.command(&[]).get_program().to_owned();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "--seccomp-bpf", "-e", "signal=none", "-e", &format!("trace={calls}")]);
    command.args(args).arg(program).args(RUN).current_dir(project.folder()).output().unwrap()
}

/// The most calls of each name by one thread.
fn calls_of(project: &Project) -> Vec<usize> {
    let output = traced(project, &["-o", "strace.log"], &CALLS.join(","));
    assert!(output.status.success(), "{}", stderr(&output));
    let log = std::fs::read_to_string(project.path("strace.log")).unwrap();
    let most = |call: &&str| {
        let mut threads = std::collections::BTreeMap::new();
        let lines = log.lines().filter_map(|line| line.split_once(' '));
        for (thread, _) in lines.filter(|(_, rest)| rest.trim_start().starts_with(&format!("{call}("))) {
            *threads.entry(thread).or_insert(0) += 1;
        }
        threads.into_values().max().unwrap_or(0)
    };
    CALLS.iter().map(most).collect()
}

#[test]
fn killed_anywhere_a_push_and_a_fetch_are_ended_by_the_next_run() {
    if Command::new("strace").arg("-V").output().is_err() {
        return missing(Requirement::Strace, "there is no strace in PATH");
    }
    let (whole, address) = place();
    let wanted = machine(TABLES, &address, 60);
    assert!(wanted.halftone(&RUN).status.success());
    let there = whole.files("shared", "").into_iter().map(|name| name["shared".len()..].to_owned());
    let there: std::collections::BTreeSet<String> = there.collect();
    let mut points = 0;
    for fetches in [false, true] {
        let begin = || {
            let (shared, address) = place();
            if fetches {
                assert!(machine(TABLES, &address, 60).halftone(&RUN).status.success());
            }
            (machine(TABLES, &address, 60), shared)
        };
        let counts = calls_of(&begin().0);
        for (call, count) in CALLS.iter().zip(counts) {
            let step = count.div_ceil(POINTS).max(1);
            for number in (1..=count).step_by(step) {
                let (machine, shared) = begin();
                let kill = format!("inject={call}:signal=KILL:when={number}");
                let killed = traced(&machine, &["-o", "/dev/null", "-e", &kill], call);
                let what = format!("{call} {number}, fetches: {fetches}");
                // Every manifest that is there names files that are there: another machine takes them.
                let other = self::machine(TABLES, machine_address(&machine), 60);
                let output = other.halftone(&RUN);
                assert!(output.status.success(), "{what}: {}", all(&output));
                let output = machine.halftone(&RUN);
                assert!(output.status.success(), "{what}: {}", all(&output));
                assert!(killed.status.success() || states(&output).values().any(|state| *state == "reused"));
                for project in [&machine, &other] {
                    // What the other one computed meanwhile leaves unfinished work beside a whole result.
                    project.done(&["gc"]);
                    assert_eq!(project.store(".halftone"), wanted.store(".halftone"), "{what}");
                    project.done(&["verify", "--remote"]);
                }
                let left: Vec<String> = shared.files("shared", "");
                let left = left.iter().map(|name| &name["shared".len()..]).filter(|name| !name.contains("/.tmp-"));
                assert_eq!(left.map(str::to_owned).collect::<std::collections::BTreeSet<_>>(), there, "{what}");
                points += 1;
            }
        }
    }
    assert!(points > 24, "{points}");
}

fn machine_address(machine: &Project) -> &'static str {
    let text = std::fs::read_to_string(machine.path("pipeline.yaml")).unwrap();
    text.split('"').nth(1).unwrap().to_owned().leak()
}
