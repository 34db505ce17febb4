//! The workloads, each a stage (or a command) with its unit.

use std::path::Path;

use crate::material::{self, Material};
use crate::peer::Peer;
use crate::stage::{Timed, timed, whole};

/// Something that is measured.
pub struct Workload {
    /// Its name on the command line.
    pub name: &'static str,
    /// Unit of the speed, per second.
    pub unit: &'static str,
    /// Does it.
    pub measure: fn(&Material) -> Figures,
    /// Who does the same.
    pub peers: &'static [Peer],
}

/// Measurements of a workload.
pub struct Figures {
    /// Units a second.
    pub rate: f64,
    /// Seconds of work.
    pub seconds: f64,
    /// Largest resident memory.
    pub mib: f64,
    /// Multiplications and additions of the model's matrices, at the least, in billions.
    pub gflop: Option<f64>,
}

const TORCH: Peer = Peer::new("torch", "torch_dpo.py", |material| &material.pairs, &["float32"]);
const TORCH_SHARED: Peer = Peer::new("torch", "torch_dpo.py", |material| &material.shared, &["float32"]);
const TORCH_BF16: Peer = Peer::new("torch", "torch_dpo.py", |material| &material.pairs, &["bfloat16"]);
const TORCH_SHARED_BF16: Peer = Peer::new("torch", "torch_dpo.py", |material| &material.shared, &["bfloat16"]);
const TRL_BF16: Peer = Peer::new("TRL", "trl_dpo.py", |material| &material.pairs, &["bfloat16"]);
const TRL: Peer = Peer::new("TRL", "trl_dpo.py", |material| &material.pairs, &["float32"]);
const TRL_LORA: Peer = Peer::new("TRL", "trl_dpo.py", |material| &material.pairs, &["float32", "lora"]);
const TRL_LORA_BF16: Peer = Peer::new("TRL", "trl_dpo.py", |material| &material.pairs, &["bfloat16", "lora"]);
const TRL_SHARED: Peer = Peer::new("TRL", "trl_dpo.py", |material| &material.shared, &["float32"]);
const TRANSFORMERS: Peer = Peer::new("transformers", "judge.py", |material| &material.pairs, &["float32"]);
const TRANSFORMERS_BF16: Peer = Peer::new("transformers", "judge.py", |material| &material.pairs, &["bfloat16"]);
const SENTENCES: Peer = Peer::new("sentence-transformers", "embed.py", |material| &material.texts, &[]);

/// All workloads.
pub const WORKLOADS: [Workload; 19] = [
    Workload {
        name: "training",
        unit: "pairs/s",
        measure: |m| training(m, &m.pairs, "pairs: 8", KEEP),
        peers: &[TORCH, TRL],
    },
    Workload {
        name: "training-bf16",
        unit: "pairs/s",
        measure: |m| training(m, &m.pairs, "pairs: 8", Way { dtype: "bf16", ..KEEP }),
        peers: &[TORCH_BF16, TRL_BF16],
    },
    Workload {
        name: "training-recompute",
        unit: "pairs/s",
        measure: |m| training(m, &m.pairs, "pairs: 8", LEAN),
        peers: &[TRL],
    },
    Workload {
        name: "training-recompute-bf16",
        unit: "pairs/s",
        measure: |m| training(m, &m.pairs, "pairs: 8", Way { dtype: "bf16", ..LEAN }),
        peers: &[TRL_BF16],
    },
    Workload {
        name: "training-lora",
        unit: "pairs/s",
        measure: |m| training(m, &m.pairs, "pairs: 8", Way { lora: true, ..LEAN }),
        peers: &[TRL_LORA],
    },
    Workload {
        name: "training-lora-bf16",
        unit: "pairs/s",
        measure: |m| training(m, &m.pairs, "pairs: 8", Way { lora: true, dtype: "bf16", ..LEAN }),
        peers: &[TRL_LORA_BF16],
    },
    Workload {
        name: "training-shared",
        unit: "pairs/s",
        measure: |m| training(m, &m.shared, "prompts: 2", KEEP),
        peers: &[TORCH_SHARED, TRL_SHARED],
    },
    Workload {
        name: "training-shared-bf16",
        unit: "pairs/s",
        measure: |m| training(m, &m.shared, "prompts: 2", Way { dtype: "bf16", ..KEEP }),
        peers: &[TORCH_SHARED_BF16],
    },
    Workload { name: "judge", unit: "comparisons/s", measure: |m| judge(m, "f32"), peers: &[TRANSFORMERS] },
    Workload { name: "judge-bf16", unit: "comparisons/s", measure: |m| judge(m, "bf16"), peers: &[TRANSFORMERS_BF16] },
    Workload { name: "embed", unit: "texts/s", measure: |m| embed(m, "f32"), peers: &[SENTENCES] },
    Workload { name: "embed-bf16", unit: "texts/s", measure: |m| embed(m, "bf16"), peers: &[] },
    Workload { name: "sample", unit: "responses/s", measure: sample, peers: &[] },
    Workload { name: "ingest", unit: "rows/s", measure: ingest, peers: &[] },
    Workload { name: "pairs", unit: "pairs/s", measure: pairs, peers: &[] },
    Workload { name: "nearest", unit: "prompts/s", measure: |m| nearest(m, "exact"), peers: &[] },
    Workload { name: "nearest-ivf", unit: "prompts/s", measure: |m| nearest(m, "{ivf: {}}"), peers: &[] },
    Workload { name: "cached-run", unit: "runs/s", measure: cached_run, peers: &[] },
    Workload { name: "plan-200", unit: "plans/s", measure: plan, peers: &[] },
];

fn figures(timed: &Timed, units: f64, gflop: Option<f64>) -> Figures {
    Figures { rate: units / timed.seconds, seconds: timed.seconds, mib: timed.mib, gflop }
}

fn quoted(path: &Path) -> String {
    serde_json::to_string(path).unwrap()
}

/// Memory and numbers of a training.
#[derive(Clone, Copy)]
struct Way {
    schedule: &'static str,
    /// Tokens computed at once.
    tokens: usize,
    dtype: &'static str,
    /// Rank 16 on all linear layers, in place of all weights.
    lora: bool,
}

const KEEP: Way = Way { schedule: "keep", tokens: 16_384, dtype: "f32", lora: false };
/// In little memory.
const LEAN: Way = Way { schedule: "boundaries", tokens: 1024, ..KEEP };

/// DPO on all pairs, once.
fn training(material: &Material, data: &Path, batch: &str, way: Way) -> Figures {
    let Way { schedule, tokens, dtype, lora } = way;
    let adapter = if lora { "\n    adapter: {rank: 16, alpha: 32, targets: [all-linear]}" } else { "" };
    let room = material.room(&format!("training-{schedule}-{dtype}-{lora}-{}", batch.replace(": ", "-")));
    let model = quoted(&material.model);
    let yaml = format!(
        "name: training\nseed: 1\nstages:\n  \
         data: {{kind: ingest, files: {data}, form: text, on_bad_row: fail}}\n  \
         reference: {{kind: reference, from: data.pairs, model: {model}, dtype: {dtype}}}\n  \
         policy:\n    kind: train\n    from: data.pairs\n    reference: reference\n    model: {model}\n    \
         objective: {{name: dpo, beta: 0.1}}\n    optimizer: {{lr: 1.0e-6}}\n    \
         batch: {{{batch}, shuffle: false, tokens_per_micro_batch: {tokens}}}\n    \
         memory: {{schedule: {schedule}}}\n    dtype: {dtype}\n    epochs: 1{adapter}\n",
        data = quoted(data)
    );
    let reference = timed(&room, &yaml, Some("data"), "reference");
    let policy = timed(&room, &yaml, None, "policy");
    let pairs = std::fs::read_to_string(data).unwrap().lines().count() as f64;
    let tokens = reference.figures["tokens, shared prefixes once"].as_f64().unwrap();
    figures(&policy, pairs, Some(6.0 * block_parameters(&material.model) * tokens / 1e9))
}

/// The parameters of the model's blocks: what every token meets. Attention and the head come on top.
fn block_parameters(model: &Path) -> f64 {
    let text = std::fs::read_to_string(model.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |key: &str| config[key].as_f64().unwrap();
    let (width, heads) = (number("hidden_size"), number("num_attention_heads"));
    let head = config["head_dim"].as_f64().unwrap_or(width / heads);
    let attention = width * head * (2.0 * heads + 2.0 * number("num_key_value_heads"));
    number("num_hidden_layers") * (attention + 3.0 * width * number("intermediate_size"))
}

fn on_pairs(material: &Material, name: &str, stage: &str) -> Timed {
    let yaml = format!(
        "name: {name}\nseed: 1\nstages:\n  \
         data: {{kind: ingest, files: {}, form: text, on_bad_row: fail}}\n  {name}: {stage}\n",
        quoted(&material.pairs)
    );
    timed(&material.room(name), &yaml, Some("data"), name)
}

fn judge(material: &Material, dtype: &str) -> Figures {
    let stage = format!(
        "{{kind: judge, comparisons: data.comparisons, model: {}, template: {}, asks_for: better, form: text, \
         labels: {{first: [\" A\"], second: [\" B\"]}}, debias: probability, least_mass: 0, dtype: {dtype}}}",
        quoted(&material.model),
        quoted(&material.question)
    );
    let timed = on_pairs(material, &format!("judge-{dtype}"), &stage);
    figures(&timed, timed.rows, None)
}

/// All distinct texts of the pairs.
fn embed(material: &Material, dtype: &str) -> Figures {
    let model = quoted(material.encoder.as_ref().unwrap_or(&material.model));
    let yaml = format!(
        "name: embed\nseed: 1\nstages:\n  data: {{kind: ingest, files: {}, form: text, on_bad_row: fail}}\n  \
         embed: {{kind: embed, from: data.prompts, model: {model}, dtype: {dtype}}}\n",
        quoted(&material.texts)
    );
    let timed = timed(&material.room(&format!("embed-{dtype}")), &yaml, Some("data"), "embed");
    figures(&timed, timed.rows, None)
}

fn sample(material: &Material) -> Figures {
    let model = quoted(&material.model);
    let stage = format!("{{kind: sample, from: data.pairs, model: {model}, k: 4, temperature: 1.0, max_tokens: 32}}");
    let timed = on_pairs(material, "sample", &stage);
    figures(&timed, timed.rows, None)
}

const JUDGED: &str = "name: judged\nseed: 1\nstages:\n  \
                      data: {kind: ingest, files: ./judged.jsonl, form: text, on_bad_row: fail}\n  \
                      pairs: {kind: pairs, from: data.verdicts, ties: drop}\n";

fn judged(material: &Material) -> std::path::PathBuf {
    let room = material.room("judged");
    let file = room.join("judged.jsonl");
    if !file.exists() {
        material::comparisons(&file);
    }
    room
}

fn ingest(material: &Material) -> Figures {
    let timed = timed(&judged(material), JUDGED, None, "data");
    figures(&timed, material::COMPARISONS as f64, None)
}

fn pairs(material: &Material) -> Figures {
    let timed = timed(&judged(material), JUDGED, Some("data"), "pairs");
    figures(&timed, timed.rows, None)
}

fn nearest(material: &Material, neighbours: &str) -> Figures {
    let room = material.room("nearest");
    material::prompts(&room.join("responses.jsonl"), &room.join("embeddings"));
    let joint = "kind: compare, from: data.responses, embeddings: ./embeddings, joint: {nearest: 4}";
    let yaml = format!(
        "name: nearest\nseed: 1\nstages:\n  \
         data: {{kind: ingest, files: ./responses.jsonl, form: text, on_bad_row: fail}}\n  \
         joint: {{{joint}, neighbours: {neighbours}}}\n"
    );
    let timed = timed(&room, &yaml, Some("data"), "joint");
    figures(&timed, material::PROMPTS as f64, None)
}

/// A chain of `pairs` stages behind an `ingest`.
fn chain(material: &Material, stages: usize) -> std::path::PathBuf {
    let room = material.room(&format!("chain-{stages}"));
    std::fs::write(room.join("data.jsonl"), "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n").unwrap();
    let mut yaml =
        "name: chain\nseed: 1\nstages:\n  data: {kind: ingest, files: ./data.jsonl, form: text, on_bad_row: fail}\n"
            .to_owned();
    for stage in 1..stages {
        let from = if stage == 1 { "data.pairs".to_owned() } else { format!("s{}", stage - 1) };
        yaml.push_str(&format!(
            "  s{stage}: {{kind: pairs, from: {from}, ties: keep, cap_per_prompt: {}}}\n",
            1000 + stage
        ));
    }
    std::fs::write(room.join("pipeline.yaml"), yaml).unwrap();
    room
}

fn cached_run(material: &Material) -> Figures {
    let room = chain(material, 10);
    whole(&room, &["run", "pipeline.yaml"]);
    command(&room, &["run", "pipeline.yaml"])
}

fn plan(material: &Material) -> Figures {
    command(&chain(material, 200), &["plan", "pipeline.yaml"])
}

fn command(room: &Path, args: &[&str]) -> Figures {
    let (seconds, mib) = whole(room, args);
    Figures { rate: 1.0 / seconds, seconds, mib, gflop: None }
}
