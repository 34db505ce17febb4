//! Exit codes where the system gives less than requested: file sizes, streams, signals at any moment.

use std::time::Duration;

use crate::place::{Place, binary, finish};
use crate::table::{Form, Table};

/// Commands that print a result, and what they are to end with where all is well.
const COMMANDS: [(&str, i32); 14] = [
    ("run pipeline.yaml", 0),
    ("run pipeline.yaml --json", 0),
    ("run bad.yaml", 78),
    ("check pipeline.yaml", 0),
    ("check bad.yaml", 78),
    ("plan pipeline.yaml", 0),
    ("status", 0),
    ("inspect pairs", 0),
    ("dag pipeline.yaml", 0),
    ("schema", 0),
    ("kinds", 0),
    ("verify", 0),
    ("gc", 0),
    ("--help", 0),
];

struct Streams {
    command: &'static str,
    redirect: &'static str,
    code: i32,
}

fn streams(_: Form) -> Vec<Streams> {
    let mut cases = Vec::new();
    for (command, code) in COMMANDS {
        // Messages on stderr are optional: without stderr a command ends with the same code.
        for redirect in ["2>/dev/full", "2>&-"] {
            cases.push(Streams { command, redirect, code });
        }
        // Stdout is the result: a command that cannot print it has failed.
        for redirect in [">/dev/full", ">&-"] {
            cases.push(Streams { command, redirect, code: if code == 0 { 74 } else { code } });
        }
    }
    cases
}

/// Sends a signal some time after the program has begun: Rust's runtime lets signal 13 be ignored. Nothing can catch a
/// signal before that, and the program is given a moment to do so after it. (The shell would not let a process in the
/// background be interrupted.)
const SEND: &str = "\
import signal, subprocess, sys, time
wait, number, ignored, command = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == 'ignored', sys.argv[4:]
# The program inherits it, as from nohup.
signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
signal.signal(number, signal.SIG_DFL)
def mask(name):
    with open(f'/proc/{child.pid}/status') as status:
        return int(next(line for line in status if line.startswith(name)).split()[1], 16)
until = time.monotonic() + 5
while not mask('SigIgn') >> 12 & 1 and time.monotonic() < until: pass
until = time.monotonic() + 0.05
while not mask('SigCgt') >> number - 1 & 1 and time.monotonic() < until: pass
time.sleep(wait)
child.send_signal(number)
code = child.wait()
sys.exit(code if code >= 0 else 128 - code)
";

/// Fills the rows.
pub fn fill(table: &mut Table) {
    let names = [
        "file-size limit",
        "full or closed streams",
        "SIGTERM at a moment",
        "SIGINT at a moment",
        "SIGHUP at a moment",
        "SIGHUP under nohup",
    ];
    if !names.iter().any(|name| table.wants(name)) {
        return;
    }
    let (tables, models) = (Place::tables(), Place::models());
    let wanted = [&tables, &models].map(|place| {
        let whole = place.copy();
        let ran = whole.run();
        assert_eq!(ran.code, 0, "{}", ran.err);
        whole.results()
    });
    let places = [&tables, &models];
    table.row(
        names[0],
        "exit code 74, or 0; run again without it, the bytes are the same",
        |form| {
            let sizes = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];
            let cases: Vec<(usize, usize)> = [0, 1].into_iter().flat_map(|at| sizes.map(|size| (at, size))).collect();
            form.some(cases, 14)
        },
        |(at, size)| {
            let place = places[*at].copy();
            // Neither a trap nor a caught signal: the default for files beyond the limit is death.
            let ran = place.shell(&format!("ulimit -f {size}; halftone run pipeline.yaml --device cpu"));
            let what = format!("files of at most {size} KiB");
            ran.is_one_of(&[74, 0], &what)?;
            place.ends_as(&wanted[*at], &what)
        },
    );
    let done = tables.copy();
    done.run();
    done.write("bad.yaml", "name: bad\nstages:\n  a: {kind: pears}\n");
    table.row(names[1], "stdout that cannot be written is 74; stderr changes no exit code", streams, |case| {
        let place = done.copy();
        let ran = place.shell(&format!("halftone {} {}", case.command, case.redirect));
        ran.is_one_of(&[case.code], &format!("{} {}", case.command, case.redirect))
    });
    let stops = ("exit code 75, or 0; run again, the bytes are the same", [75, 0]);
    for (name, number, ignored, (wanted_of_it, codes)) in [
        (names[2], "15", "", stops),
        (names[3], "2", "", stops),
        (names[4], "1", "", stops),
        (names[5], "1", "ignored", ("exit code 0: the run goes on", [0, 0])),
    ] {
        table.row(
            name,
            wanted_of_it,
            |form| (0..form.pick(8, 100) as u64).collect(),
            |moment| {
                let at = usize::from(moment % 2 == 1);
                let place = places[at].copy();
                // Steps that grow, from when the program has begun.
                let wait = Duration::from_micros(moment * moment * 700);
                let (binary, wait) = (binary(), format!("{:.6}", wait.as_secs_f64()));
                let mut command = place.command("python3", &["-c", SEND, &wait, number, ignored]);
                command.arg(binary).args(["run", "pipeline.yaml", "--device", "cpu"]);
                let ran = finish(&mut command);
                let what = format!("signal {number} {ignored} after {wait} s");
                ran.is_one_of(&codes, &what)?;
                place.ends_as(&wanted[at], &what)
            },
        );
    }
}
