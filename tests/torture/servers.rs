//! A judge's endpoint that answers three requests in four as it should.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use harness::server::{Server, Treatment};
use kit::rows::Verdict;

use crate::place::{Place, binary, finish};
use crate::table::Table;

/// Pairs to judge: each is asked about twice.
const PAIRS: usize = 24;
/// Requests in flight.
const AT_ONCE: usize = 4;

fn place(url: &str) -> Place {
    let place = Place::empty();
    let row =
        |row: usize| format!("{{\"prompt\": \"p{row}\", \"chosen\": \"good {row}\", \"rejected\": \"bad {row}\"}}\n");
    place.write("pairs.jsonl", &(0..PAIRS).map(row).collect::<String>());
    place.write(
        "pipeline.yaml",
        &format!(
            "name: torture\nstages:\n  data: {{kind: ingest, files: ./pairs.jsonl, form: chat}}\n  verdicts: {{kind: judge, \
             comparisons: data.comparisons, endpoint: {{url: \"{url}\", model: stub, concurrency: {AT_ONCE}, retries: 3, \
             backoff_seconds: 0.01}}, template: helpful, debias: logit, shard_rows: 8}}\n"
        ),
    );
    place
}

/// A number that depends on the words alone.
fn drawn(words: &[&str]) -> u64 {
    u64::from_le_bytes(kit::Digest::of(words.join("\n").as_bytes()).bytes()[..8].try_into().unwrap())
}

fn answer(question: &str) -> Treatment {
    let share = (drawn(&[question]) % 1000) as f64 / 1000.0;
    let top = vec![("A".to_owned(), -0.2 - share), ("B".to_owned(), -2.0 + share), ("C".to_owned(), -9.0)];
    Treatment::Answer(top)
}

fn labels(place: &Place) -> BTreeMap<String, f64> {
    let folder = place.path(".halftone/runs/torture/verdicts/verdicts");
    let rows: Vec<Verdict> = kit::read_rows(&folder).unwrap();
    rows.into_iter().map(|row| (row.comparison_id, row.p_hat)).collect()
}

/// Fills the row.
pub fn fill(table: &mut Table) {
    const NAME: &str = "endpoint with faults, killed";
    if !table.wants(NAME) {
        return;
    }
    let well = Server::start(|question, _, _| answer(question));
    let undisturbed = place(&well.url);
    let ran = undisturbed.run();
    assert_eq!(ran.code, 0, "{}", ran.err);
    let wanted = labels(&undisturbed);
    assert_eq!(wanted.len(), PAIRS);
    table.row(
        NAME,
        "exit code 0 or 69; all labels right; paid twice: only what was in flight",
        |form| (0..form.pick(3, 60)).collect(),
        |seed| {
            let seed = *seed;
            let server = Server::start(move |question, before, _| {
                let draw = drawn(&[question, &before.to_string(), &seed.to_string()]);
                match draw % 16 {
                    0 => Treatment::Status(429, "slow down".to_owned(), Some("0".to_owned())),
                    1 => Treatment::Status(500 + (draw / 16 % 5) as u16, "oops".to_owned(), None),
                    2 => Treatment::Reset,
                    3 => Treatment::BreakOff,
                    _ => answer(question),
                }
            });
            let place = place(&server.url);
            let mut kills = 0;
            for attempt in 0..40 {
                if attempt < 3 {
                    let mut command = place.command(binary(), &["run", "pipeline.yaml"]);
                    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                    std::thread::sleep(Duration::from_millis(40 + drawn(&[&format!("{seed} {attempt}")]) % 200));
                    kills += usize::from(child.try_wait().unwrap().is_none());
                    child.kill().unwrap();
                    child.wait().unwrap();
                    continue;
                }
                let ran = finish(&mut place.command(binary(), &["run", "pipeline.yaml"]));
                ran.is_one_of(&[0, 69], &format!("seed {seed}"))?;
                if ran.code == 0 {
                    break;
                }
            }
            if labels(&place) != wanted {
                return Err(format!("seed {seed}: other labels than of a server that is well"));
            }
            let (paid, most) = (server.billed().len(), 2 * PAIRS + kills * AT_ONCE);
            if paid > most { Err(format!("seed {seed}: {paid} answers paid, {most} can be told")) } else { Ok(()) }
        },
    );
}
