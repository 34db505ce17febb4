//! Many writers at once, and the speed of transfers: the figures of `src/remote/README.md`.

use std::process::{Command, Output};
use std::time::Instant;

use harness::{Project, ran, states};
use serde_json::Value;

use crate::bucket::Bucket;
use crate::folder::place;
use crate::{RUN, TABLES, all, machine};

/// Machines that begin at once.
const WRITERS: usize = 32;
/// Rows of the large table, of 2000 letters each, which stand in it twice.
const ROWS: usize = 60_000;

const LARGE: &str = "\
name: large
seed: 1
stages:
  data: {kind: ingest, files: ./data.jsonl, form: text, on_bad_row: fail}
";

/// A place for shared stores: its address, a command of a machine that uses it, and the manifests that lie there.
struct Place<'a> {
    address: String,
    command: &'a dyn Fn(&Project) -> Command,
    entries: &'a dyn Fn() -> usize,
}

#[test]
#[ignore = "a minute, for figures"]
fn many_writers_and_large_results() {
    println!("| place | 32 writers of four results, s | push, MB/s | fetch, MB/s |\n| --- | --- | --- | --- |");
    let (folder, address) = place();
    let command = |project: &Project| project.command(&RUN);
    let entries = || folder.files("shared/entries", ".json").len();
    measure("`file:`", &Place { address, command: &command, entries: &entries });
    let Some(moto) = Bucket::moto() else { return };
    let command = |project: &Project| moto.command(project, &RUN);
    let entries = || moto.keys();
    measure("moto", &Place { address: moto.address.to_owned(), command: &command, entries: &entries });
}

fn measure(name: &str, place: &Place<'_>) {
    let machines: Vec<Project> = (0..WRITERS).map(|_| machine(TABLES, &place.address, 300)).collect();
    let began = Instant::now();
    let started: Vec<_> = machines.iter().map(|machine| (place.command)(machine).spawn().unwrap()).collect();
    for child in started {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", all(&output));
    }
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!((place.entries)(), 4);
    assert!(machines.iter().all(|machine| machine.store(".halftone") == machines[0].store(".halftone")));

    let [first, second] = [(); 2].map(|()| large(&place.address));
    let pushes = (place.command)(&first).output().unwrap();
    assert_eq!(ran(&pushes).len(), 1, "{}", all(&pushes));
    let fetches = (place.command)(&second).output().unwrap();
    assert_eq!(states(&fetches)["data"], "reused", "{}", all(&fetches));
    assert_eq!(first.store(".halftone"), second.store(".halftone"));
    let [(pushed, push), (fetched, fetch)] = [rate(&pushes, "result_pushed"), rate(&fetches, "result_fetched")];
    assert!(pushed > 1e8 && fetched > 1e8, "{pushed} and {fetched} bytes travelled");
    println!("| {name} | {seconds:.0} | {:.0} | {:.0} |", pushed / push / 1e6, fetched / fetch / 1e6);
}

/// A machine with texts that do not compress well.
fn large(address: &str) -> Project {
    let project = Project::new(&[("pipeline.yaml", &format!("store: {{remote: \"{address}\"}}\n{LARGE}"))]);
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        char::from(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[(word >> 58) as usize])
    };
    let mut data = String::new();
    for row in 0..ROWS {
        let text: String = (0..2000).map(|_| letter()).collect();
        data.push_str(&format!("{{\"prompt\": \"question {row}\", \"response\": \"{text}\"}}\n"));
    }
    project.write("data.jsonl", &data);
    project
}

/// Bytes and seconds of the transfers of a run.
fn rate(output: &Output, event: &str) -> (f64, f64) {
    let text = String::from_utf8_lossy(&output.stdout);
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let transfers = events.filter(|found| found["event"] == event);
    transfers.fold((0.0, 0.0), |(bytes, seconds), found| {
        (bytes + found["bytes"].as_f64().unwrap(), seconds + found["seconds"].as_f64().unwrap())
    })
}
