//! A run without a model: judged comparisons, gold labels for them, and figures.

use harness::Project;

const PIPELINE: &str = "
name: test
seed: 17
stages:
  data: {kind: ingest, files: ./data.jsonl, form: text}
  gold: {kind: ingest, files: ./gold.jsonl, form: text}
  verdicts: {kind: calibrate, verdicts: data.verdicts, gold: gold.pairs, method: platt, folds: 2}
  pairs: {kind: pairs, from: verdicts, ties: keep}
  figures: {kind: evaluate, verdicts: verdicts, policy_side: a, ties: half}
";

/// Judged comparisons with labels all over [0, 1].
pub fn judged(rows: usize, label: impl Fn(usize) -> f64) -> String {
    let row = |n: usize| {
        let (one, two) = (format!("one {n} and some more words of it"), format!("two {n}"));
        format!(
            "{{\"prompt\": \"question {n}\", \"response_0\": \"{one}\", \"response_1\": \"{two}\", \"p_hat\": {}}}\n",
            label(n)
        )
    };
    (0..rows).map(row).collect()
}

/// The project, before its first run.
pub fn project() -> Project {
    let judge = judged(100, |n| 0.02 + 0.96 * n as f64 / 99.0);
    let gold = judged(100, |n| f64::from(u8::from(n % 10 < n / 10)));
    Project::new(&[("pipeline.yaml", PIPELINE), ("data.jsonl", &judge), ("gold.jsonl", &gold)])
}
