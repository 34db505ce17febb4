//! Bytes that change on the disk: in results, in their records, and in unfinished work.

use std::collections::BTreeMap;

use kit::Digest;

use crate::place::Place;
use crate::table::{Form, Table};

/// A file that is to be damaged.
struct Flip {
    /// The state of the folder.
    state: usize,
    name: String,
    damage: Damage,
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    /// A bit of the byte at this share of the file.
    Bit(f64),
    /// The file ends at this share of it.
    Cut(f64),
}

impl Damage {
    fn all(count: usize) -> Vec<Damage> {
        let place = |at: usize| (at as f64 + 0.5) / count as f64;
        (0..count).map(|at| Damage::Bit(place(at))).chain([Damage::Cut(0.6)]).collect()
    }

    fn apply(self, place: &Place, name: &str) {
        let path = place.path(".halftone").join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = |share: f64| (bytes.len() as f64 * share) as usize;
        match self {
            Damage::Bit(share) => {
                let at = at(share);
                bytes[at] ^= 1 << (at % 8);
            }
            Damage::Cut(share) => bytes.truncate(at(share)),
        }
        std::fs::write(path, bytes).unwrap();
    }
}

/// A state of a folder in which files can be damaged.
struct State {
    name: String,
    place: Place,
}

impl State {
    fn flips(&self, state: usize, wanted: impl Fn(&str) -> bool, count: usize) -> Vec<Flip> {
        let names = self.place.names("").into_iter().filter(|name| wanted(name));
        let names = names.filter(|name| {
            self.place.path(".halftone").join(name).metadata().is_ok_and(|it| it.len() > 0 && it.is_file())
        });
        let of =
            |name: String| Damage::all(count).into_iter().map(move |damage| Flip { state, name: name.clone(), damage });
        names.flat_map(of).collect()
    }
}

/// Unfinished work of every kind that leaves some.
fn unfinished() -> Vec<State> {
    let whole = Place::models();
    let at = [
        ("imitation", "checkpoint_written", 2),
        ("imitation", "checkpoint_written", 5),
        ("samples", "shard_committed", 2),
        ("verdicts", "shard_committed", 3),
        ("reference", "shard_committed", 2),
        ("embeddings", "shard_committed", 2),
        ("policy", "checkpoint_written", 2),
    ];
    let mut states = Vec::new();
    for (stage, event, times) in at {
        // The stage may be done before the kill arrives.
        for _ in 0..20 {
            let place = whole.copy();
            if place.kill_at(stage, event, times) {
                states.push(State { name: format!("{stage} after {times}"), place });
                break;
            }
        }
    }
    assert!(states.len() > 4, "only {} kills came in time", states.len());
    states
}

/// Work that was complete when its process died, but for its name.
fn unnamed(done: &Place) -> State {
    let place = done.copy();
    for entry in std::fs::read_dir(place.path(".halftone/store")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::rename(&path, format!("{}.partial", path.display())).unwrap();
    }
    State { name: "complete and without a name".to_owned(), place }
}

/// As [`check`], of a folder whose files have been read before they change.
fn check_known(states: &[State], wanted: &BTreeMap<String, Digest>, flip: &Flip) -> Result<(), String> {
    let place = states[flip.state].place.copy();
    place.halftone(&["verify"]).is_one_of(&[0], "verify before the flip")?;
    flip.damage.apply(&place, &flip.name);
    place.ends_as(wanted, &format!("{} {:?}", flip.name, flip.damage))
}

fn check(states: &[State], wanted: &BTreeMap<String, Digest>, flip: &Flip) -> Result<(), String> {
    let state = &states[flip.state];
    let place = state.place.copy();
    flip.damage.apply(&place, &flip.name);
    place.ends_as(wanted, &format!("{}: {} {:?}", state.name, flip.name, flip.damage))
}

/// Fills the rows.
pub fn fill(table: &mut Table) {
    let names = [
        "flips in unfinished work",
        "flips in complete work without a name",
        "flips in results",
        "flips in results, seen by verify",
        "flips in records",
    ];
    if !names.iter().any(|name| table.wants(name)) {
        return;
    }
    let done = Place::models();
    let ran = done.run();
    assert_eq!(ran.code, 0, "{}", ran.err);
    let wanted = done.results();
    if table.wants(names[0]) {
        let states = unfinished();
        let cases = |form: Form| {
            let of = |(at, state): (usize, &State)| {
                // Temporary files are of work that nobody goes on with, and TensorBoard's tell times.
                let counts = |name: &str| {
                    name.contains(".partial/") && !name.contains("/.tmp") && !name.contains("/.tensorboard/")
                };
                form.some(state.flips(at, counts, form.pick(1, 6)), 3)
            };
            states.iter().enumerate().flat_map(of).collect()
        };
        table.row(names[0], "run again, the bytes are those of an undisturbed run", cases, |flip| {
            check(&states, &wanted, flip)
        });
    }
    let states = [unnamed(&done), State { name: "done".to_owned(), place: done.copy() }];
    let in_store = |name: &str| name.starts_with("store/") && !name.contains("/.tensorboard/");
    table.row(
        names[1],
        "run again, the bytes are those of an undisturbed run",
        |form| form.some(states[0].flips(0, in_store, form.pick(1, 4)), 12),
        |flip| check(&states, &wanted, flip),
    );
    table.row(
        names[2],
        "run again, the bytes are those of an undisturbed run",
        |form| form.some(states[1].flips(1, in_store, form.pick(1, 4)), 12),
        |flip| check_known(&states, &wanted, flip),
    );
    table.row(
        names[3],
        "exit code 65, and the entry is named",
        |form| form.some(states[1].flips(1, in_store, form.pick(1, 6)), 40),
        |flip| {
            let place = states[1].place.copy();
            flip.damage.apply(&place, &flip.name);
            let what = format!("{} {:?}", flip.name, flip.damage);
            let ran = place.halftone(&["verify"]);
            ran.is_one_of(&[65], &what)?;
            let entry = flip.name.split('/').nth(1).unwrap();
            if ran.err.contains(entry) { Ok(()) } else { Err(format!("{what}: {entry} is not named: {}", ran.said())) }
        },
    );
    let record = |name: &str| !name.starts_with("store/") && !name.ends_with(".html");
    table.row(
        names[4],
        "the next run works and its bytes are the same",
        |form| form.some(states[1].flips(1, record, form.pick(2, 20)), 10),
        |flip| check(&states, &wanted, flip),
    );
}
