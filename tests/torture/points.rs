//! Kills and errors at the system calls of a run, by strace; it needs no change of the program.

use std::collections::BTreeMap;
use std::process::Command;

use harness::{Requirement, missing};
use rand::{Rng, SeedableRng};

use crate::place::{Place, binary, finish};
use crate::table::{Form, Table};

/// Calls that change or read what is on disk.
const CALLS: [&str; 13] = [
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "rmdir",
    "symlink",
    "flock",
];
/// Calls that fail for want of room.
const ROOM: [&str; 5] = ["openat", "write", "pwrite64", "mkdir", "symlink"];
/// Calls that a broken device fails.
const DEVICE: [&str; 8] = ["openat", "read", "pread64", "write", "fsync", "rename", "getdents64", "statx"];
/// Calls that fail where the kernel is short of memory.
const MEMORY: [&str; 7] = ["openat", "read", "write", "statx", "mkdir", "rename", "clone3"];
/// Calls that fail for want of rights.
const RIGHTS: [&str; 6] = ["openat", "mkdir", "rename", "unlink", "symlink", "statx"];

/// Points of one call in the long form, at most.
const MOST: usize = 100;

/// One call among those of one name.
#[derive(Debug)]
struct Point {
    models: bool,
    call: &'static str,
    number: usize,
}

/// Both pipelines and their calls.
struct Runs {
    place: [Place; 2],
    wanted: [BTreeMap<String, kit::Digest>; 2],
    /// The first call that the program makes for its own sake, and the last one.
    calls: [BTreeMap<&'static str, (usize, usize)>; 2],
}

impl Runs {
    fn new() -> Runs {
        let place = [Place::tables(), Place::models()];
        let wanted = [0, 1].map(|at: usize| {
            let whole = place[at].copy();
            let ran = whole.run();
            assert_eq!(ran.code, 0, "{}", ran.err);
            whole.results()
        });
        let calls = [0, 1].map(|at: usize| calls_of(&place[at].copy()));
        Runs { place, wanted, calls }
    }

    fn points(&self, form: Form, calls: &[&'static str], short: usize) -> Vec<Point> {
        let mut points = Vec::new();
        for models in [false, true] {
            let of = |call: &&'static str| {
                let (first, last) = self.calls[usize::from(models)].get(call).copied().unwrap_or((1, 0));
                let points = (first..=last).map(|number| Point { models, call, number }).collect();
                Form::Short.some(points, form.pick(short, MOST))
            };
            points.extend(calls.iter().flat_map(of));
        }
        points
    }

    /// Runs with something injected at a point, and once more without.
    fn check(&self, point: &Point, inject: &str, codes: &[i32]) -> Result<(), String> {
        let at = usize::from(point.models);
        let place = self.place[at].copy();
        let what = format!("{} {inject} {}", if point.models { "models" } else { "tables" }, point.call);
        let inject = format!("inject={}:{inject}", point.call);
        let ran = finish(&mut strace(&place, &["-o", "/dev/null", "-e", &inject], point.call));
        ran.is_one_of(codes, &what)?;
        place.halftone(&["verify"]).is_one_of(&[0], &format!("{what}: verify"))?;
        place.ends_as(&self.wanted[at], &what)
    }
}

fn strace(place: &Place, args: &[&str], calls: &str) -> Command {
    let mut command = place.command("strace", &["-f", "-qq", "--seccomp-bpf"]);
    command.args(args).args(["-e", &format!("trace={calls}"), "-e", "signal=none"]);
    command.arg(binary()).args(["run", "pipeline.yaml", "--device", "cpu"]);
    command
}

/// Numbers of each call by one thread. strace counts them by thread.
fn calls_of(place: &Place) -> BTreeMap<&'static str, (usize, usize)> {
    let all: Vec<&'static str> = CALLS.into_iter().chain(DEVICE).chain(["clone3"]).collect();
    let ran = finish(&mut strace(place, &["-o", "strace.log"], &all.join(",")));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for line in std::fs::read_to_string(place.path("strace.log")).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some(call) = all.iter().find(|call| rest.trim_start().starts_with(&format!("{call}("))) else { continue };
        // Before it reads the pipeline a process is busy with its libraries.
        if first.is_empty() && line.contains("pipeline.yaml") {
            first =
                all.iter().map(|call| (*call, counts.get(&(thread.to_owned(), *call)).map_or(1, |n| n + 1))).collect();
        }
        *counts.entry((thread.to_owned(), call)).or_default() += 1;
    }
    let mut calls = BTreeMap::new();
    for call in all {
        let most = counts.iter().filter(|((_, of), _)| *of == call).map(|(_, count)| *count).max();
        calls.insert(call, (first.get(call).copied().unwrap_or(1), most.unwrap_or(0)));
    }
    calls
}

/// Fills the rows.
pub fn fill(table: &mut Table) {
    let names = [
        "killed at a system call",
        "full disk from a system call on",
        "broken device at a system call",
        "no more threads",
        "no more open files",
        "no memory in the kernel",
        "no rights at a system call",
        "SIGTERM at a system call",
        "killed at random",
    ];
    if !names.iter().any(|name| table.wants(name)) {
        return;
    }
    let runs = Runs::new();
    if Command::new("strace").arg("-V").output().is_err() {
        missing(Requirement::Strace, "there is no strace in PATH");
        names[..8].iter().for_each(|name| table.leave_out(name, "there is no strace here"));
    } else {
        table.row(
            names[0],
            "nothing half-written; run again, the same bytes; no leftovers",
            |form| runs.points(form, &CALLS, 2),
            |point| runs.check(point, &format!("signal=KILL:when={}", point.number), &[137, 0]),
        );
        table.row(
            names[1],
            "exit code 74, or 0; run again with room, the bytes are the same",
            |form| runs.points(form, &ROOM, 2),
            |point| runs.check(point, &format!("error=ENOSPC:when={}+", point.number), &[74, 0]),
        );
        table.row(
            names[2],
            "exit code 74, or 0; run again, the bytes are the same",
            |form| runs.points(form, &DEVICE, 1),
            |point| runs.check(point, &format!("error=EIO:when={}", point.number), &[74, 0]),
        );
        table.row(
            names[3],
            "exit code 74, or 0; run again, the bytes are the same",
            |form| runs.points(form, &["clone3"], 2),
            |point| runs.check(point, &format!("error=EAGAIN:when={}+", point.number), &[74, 0]),
        );
        for (name, calls, error, short) in [
            (names[4], &["openat"][..], "EMFILE:when=#+", 2),
            (names[5], &MEMORY[..], "ENOMEM:when=#", 1),
            (names[6], &RIGHTS[..], "EACCES:when=#", 1),
        ] {
            table.row(
                name,
                "exit code 74, or 0; run again, the bytes are the same",
                |form| runs.points(form, calls, short),
                |point| {
                    let inject = format!("error={}", error.replace('#', &point.number.to_string()));
                    runs.check(point, &inject, &[74, 0])
                },
            );
        }
        table.row(
            names[7],
            "exit code 75, or 0; run again, the bytes are the same",
            |form| runs.points(form, &["openat", "read", "statx", "flock", "rename"], 2),
            |point| runs.check(point, &format!("signal=TERM:when={}", point.number), &[75, 0]),
        );
    }
    table.row(
        names[8],
        "run again, the bytes are those of an undisturbed run; no leftovers",
        |form| (0..form.pick(4, 120) as u64).collect(),
        |seed| {
            let place = runs.place[1].copy();
            let mut rng = rand::rngs::StdRng::seed_from_u64(*seed);
            for _ in 0..4 {
                let mut child = place.command(binary(), &["run", "pipeline.yaml", "--device", "cpu"]);
                let mut child =
                    child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
                std::thread::sleep(std::time::Duration::from_millis(rng.random_range(5..900)));
                child.kill().unwrap();
                child.wait().unwrap();
            }
            place.ends_as(&runs.wanted[1], &format!("kills of seed {seed}"))
        },
    );
}
