//! The models and numbers of `tests/fixtures/oracles`, made with PyTorch and transformers.

use std::path::{Path, PathBuf};

use kit::rows::{Message, Pair};
use serde_json::Value;

/// The folder of the repository: `HALFTONE_TEST_ROOT`, for tests that run elsewhere than they were built, or where it was
/// at build time.
pub fn root() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("HALFTONE_TEST_ROOT").map_or_else(built, PathBuf::from)
}

/// The folder of the oracles.
pub fn oracles() -> PathBuf {
    root().join("tests/fixtures/oracles")
}

/// A file or model folder of the oracles.
pub fn oracle(name: impl AsRef<Path>) -> PathBuf {
    oracles().join(name)
}

/// The rows of a JSON Lines file of the oracles.
pub fn lines(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(oracle(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The oracles' pairs, `same` or `joint`, as chat or as raw text.
pub fn pairs(form: &str, chat: bool) -> Vec<Pair> {
    let (ask, answer) = if chat { ("user", "assistant") } else { ("text", "text") };
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = lines(if form == "joint" { "joint.jsonl" } else { "pairs.jsonl" });
    let pair = |(index, row): (usize, Value)| {
        let (c, r) = if form == "joint" { ("chosen_", "rejected_") } else { ("", "") };
        let (chosen_id, rejected_id) = (text(&row, &format!("{c}prompt_id")), text(&row, &format!("{r}prompt_id")));
        Pair {
            pair_id: format!("{form}{index:02}"),
            comparison_id: None,
            form: form.to_owned(),
            chosen_response_id: format!("{chosen_id}-chosen"),
            chosen_prompt_id: chosen_id,
            chosen_prompt: vec![Message::new(ask, text(&row, &format!("{c}prompt")))],
            chosen: vec![Message::new(answer, text(&row, "chosen"))],
            rejected_response_id: format!("{rejected_id}-rejected"),
            rejected_prompt_id: rejected_id,
            rejected_prompt: vec![Message::new(ask, text(&row, &format!("{r}prompt")))],
            rejected: vec![Message::new(answer, text(&row, "rejected"))],
            p_hat: row["p_hat"].as_f64().unwrap(),
            weight: 1.0,
            source_file: Some("pairs.jsonl".to_owned()),
            source_line: Some(index as u64 + 1),
        }
    };
    rows.into_iter().enumerate().map(pair).collect()
}
