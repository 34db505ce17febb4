//! Judging through an endpoint that fails in every way it can.

mod answers;
mod batches;
mod failures;
mod faults;
mod modes;
mod requests;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::Place;
use harness::server::{self, Server, Treatment};
use judge::Judge;
use kit::rows::{Comparison, Message, Reject, SummaryRow, Verdict};
use kit::{Amount, Digest, Error, Event, Outcome, Result, Stage};
use serde_json::{Value, json};

const KEY: &str = "sk-canary-4fd1c0ffee";

/// The sides of a question are recognised by their text.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sides.jinja"), "{{ prompt }}|{{ a }}|{{ b }}").unwrap();
        std::fs::write(folder.path().join("key"), format!("{KEY}\n")).unwrap();
        Files { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn stage(&self, url: &str, endpoint: Value, more: Value) -> Judge {
        let settings = json!({
            "url": url, "model": "stub", "api_key_file": self.path("key"), "concurrency": 4, "timeout_seconds": 0.5,
            "retries": 8, "backoff_seconds": 0.002, "max_rejects": 1.0,
        });
        let all = json!({
            "comparisons": "data", "endpoint": harness::with(settings, &endpoint), "template": self.path("sides.jinja"), "debias": "logit",
            "max_low_mass": 1.0,
        });
        let stage: Judge = serde_json::from_value(harness::with(all, &more)).unwrap();
        assert_eq!(stage.check(), []);
        stage
    }
}

fn comparisons(count: usize) -> Vec<Comparison> {
    let row = |number: usize| {
        let prompt = format!("p{:03}", number / 2);
        let (a, b) = (format!("a{number:03}"), format!("b{number:03}"));
        Comparison {
            comparison_id: kit::ids::comparison_id((&prompt, &a), (&prompt, &b)),
            form: "same".to_owned(),
            a_prompt_id: prompt.clone(),
            a_response_id: a.clone(),
            a_prompt: vec![Message::new("user", &prompt)],
            a_response: vec![Message::new("assistant", a + &".".repeat(number % 7))],
            b_prompt_id: prompt.clone(),
            b_response_id: b.clone(),
            b_prompt: vec![Message::new("user", &prompt)],
            b_response: vec![Message::new("assistant", b + &".".repeat(number % 5))],
            source_file: Some("data.jsonl".to_owned()),
            source_line: Some(number as u64 + 1),
        }
    };
    (0..count).map(row).collect()
}

fn place(rows: Vec<Comparison>) -> Place {
    Place::new().table("comparisons", rows)
}

fn run(place: &Place, name: &str, stage: &Judge) -> Result<Outcome> {
    let outcome = place.stage(name, stage)?;
    assert_eq!(outcome.balance[0].kept as usize, place.rows::<Verdict>(&format!("{name}/verdicts")).len());
    Ok(outcome)
}

/// A number in [0, 1) that depends on the words only.
fn draw(words: &[&str]) -> f64 {
    let digest = Digest::of(words.join("\n").as_bytes());
    f64::from(u32::from_le_bytes(digest.bytes()[..4].try_into().unwrap())) / 4_294_967_296.0
}

fn sides(question: &str) -> (&str, &str) {
    let mut parts = question.split('|').skip(1);
    (parts.next().unwrap(), parts.next().unwrap())
}

/// Advantage of a response over another, in log-odds; antisymmetric.
fn logit(one: &str, other: &str) -> f64 {
    4.0 * (draw(&["quality", one]) - draw(&["quality", other]))
}

/// Log-probs of A and B with `mass` together and these log-odds, and what is left on another token.
fn top(logit: f64, mass: f64) -> Vec<(String, f64)> {
    let p = 1.0 / (1.0 + (-logit).exp());
    let entry = |token: &str, p: f64| (token.to_owned(), p.ln());
    let mut top = vec![entry("A", mass * p), entry("B", mass * (1.0 - p)), entry("The", 1.0 - mass)];
    top.sort_by(|one, other| other.1.total_cmp(&one.1));
    top
}

fn honest(question: &str) -> Treatment {
    if question == server::PROBE {
        return Treatment::Answer(top(0.0, 0.9));
    }
    let (first, second) = sides(question);
    Treatment::Answer(top(logit(first, second), 0.9))
}

fn summary(place: &Place, name: &str) -> BTreeMap<String, SummaryRow> {
    let rows = place.rows::<SummaryRow>(&format!("{name}/summary"));
    rows.into_iter().map(|row| (row.metric.clone(), row)).collect()
}

/// No file below a folder holds the text.
fn assert_nowhere(folder: &Path, text: &str) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_nowhere(&path, text);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(text.len()).any(|part| part == text.as_bytes()), "{}", path.display());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}
