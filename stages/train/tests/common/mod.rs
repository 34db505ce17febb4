//! A `train` stage on the oracle's rows, run as the engine would.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kit::rows::{Embedding, Item, Message, Pair, ReferenceRow};
use kit::{
    Context, Digest, Events, Forecast, Interrupt, Job, Outcome, Ranked, Result, Seed, Source, Stage, Table, ids,
    in_pools, write_part,
};
use lm::{Decoder, Device, Dtype, Precision, PromptMismatch, Sequence, SpecialText, Text, TextRules, TooLong, Turn};
use serde_json::{Value, json};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/oracles")
}

pub fn model() -> PathBuf {
    fixtures().join("llama")
}

pub fn json_lines(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The rows of `pairs.jsonl` or `joint.jsonl`, in chat form.
pub fn pairs(name: &str) -> Vec<Pair> {
    let side = |row: &Value, side: &str| {
        let text = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
        let id = text(&format!("{side}_prompt_id")).or(text("prompt_id")).unwrap();
        let prompt = text(&format!("{side}_prompt")).or(text("prompt")).unwrap();
        let response = vec![Message::new("assistant", text(side).unwrap())];
        (id.clone(), ids::response_id(&id, &response), vec![Message::new("user", prompt)], response)
    };
    let rows = json_lines(name).into_iter().enumerate().map(|(line, row)| {
        let (chosen_prompt_id, chosen_response_id, chosen_prompt, chosen) = side(&row, "chosen");
        let (rejected_prompt_id, rejected_response_id, rejected_prompt, rejected) = side(&row, "rejected");
        let id = ids::pair_id((&chosen_prompt_id, &chosen_response_id), (&rejected_prompt_id, &rejected_response_id));
        Pair {
            pair_id: id,
            comparison_id: None,
            form: if chosen_prompt_id == rejected_prompt_id { "same" } else { "joint" }.to_owned(),
            chosen_prompt_id,
            chosen_response_id,
            chosen_prompt,
            chosen,
            rejected_prompt_id,
            rejected_response_id,
            rejected_prompt,
            rejected,
            p_hat: row["p_hat"].as_f64().unwrap(),
            weight: 1.0,
            source_file: Some(name.to_owned()),
            source_line: Some(line as u64 + 1),
        }
    });
    rows.collect()
}

/// Each pair as a desirable and an undesirable item; the mismatched responses are those of the next pair's chosen side.
pub fn items(pairs: &[Pair]) -> Vec<Item> {
    let mut items = Vec::new();
    for (i, pair) in pairs.iter().enumerate() {
        let mismatched = &pairs[(i + 1) % pairs.len()].chosen[0];
        for (label, id, response) in
            [(1.0, &pair.chosen_response_id, &pair.chosen), (0.0, &pair.rejected_response_id, &pair.rejected)]
        {
            items.push(Item {
                item_id: ids::item_id(&pair.chosen_prompt_id, id, label),
                prompt_id: pair.chosen_prompt_id.clone(),
                response_id: id.clone(),
                prompt: pair.chosen_prompt.clone(),
                response: response.clone(),
                label,
                weight: 1.0,
                kl_response_id: Some(ids::response_id(&pair.chosen_prompt_id, std::slice::from_ref(mismatched))),
                kl_response: Some(mismatched.content.clone()),
                kl_group: Some(i as u64 / 2),
                source_file: None,
                source_line: None,
            });
        }
    }
    items
}

fn turns(messages: &[Message]) -> Vec<Turn<'_>> {
    messages
        .iter()
        .map(|message| Turn { role: &message.role, content: &message.content, extra: message.extra.as_deref() })
        .collect()
}

pub const RULES: TextRules = TextRules {
    special_text: SpecialText::Escape,
    too_long: TooLong::Reject,
    on_prefix_mismatch: PromptMismatch::Keep,
};

/// Both sides of each pair as tokens.
pub fn tokenise(pairs: &[Pair]) -> Vec<(Sequence, Sequence)> {
    let text = Text::load(&model()).unwrap();
    let tokenise = |pair: &Pair| {
        let chosen = (&*turns(&pair.chosen_prompt), &*turns(&pair.chosen));
        let rejected = (&*turns(&pair.rejected_prompt), &*turns(&pair.rejected));
        text.pair(chosen, rejected, &RULES, 1024).unwrap().unwrap()
    };
    pairs.iter().map(tokenise).collect()
}

/// The rows that `reference` writes for these pairs.
pub fn reference(pairs: &[Pair]) -> Vec<ReferenceRow> {
    reference_in(pairs, Dtype::F32)
}

/// The same in some precision.
pub fn reference_in(pairs: &[Pair], dtype: Dtype) -> Vec<ReferenceRow> {
    reference_of(pairs, &model(), dtype.into())
}

/// The same under some model with the same tokenizer.
pub fn reference_of(pairs: &[Pair], folder: &Path, precision: Precision) -> Vec<ReferenceRow> {
    let tokens = tokenise(pairs);
    let sequences: Vec<&Sequence> = tokens.iter().flat_map(|(chosen, rejected)| [chosen, rejected]).collect();
    let names = pairs.iter().flat_map(|pair| {
        [
            (pair.chosen_prompt_id.clone(), pair.chosen_response_id.clone()),
            (pair.rejected_prompt_id.clone(), pair.rejected_response_id.clone()),
        ]
    });
    score(&sequences, names.collect(), folder, precision)
}

/// The same for items and their mismatched responses.
pub fn reference_of_items(items: &[Item]) -> Vec<ReferenceRow> {
    let text = Text::load(&model()).unwrap();
    let mut sequences = Vec::new();
    let mut names = Vec::new();
    for item in items {
        let mismatched = vec![Message::new("assistant", item.kl_response.clone().unwrap())];
        for (id, response) in
            [(&item.response_id, &item.response), (item.kl_response_id.as_ref().unwrap(), &mismatched)]
        {
            sequences.push(text.single(&turns(&item.prompt), &turns(response), &RULES, 1024).unwrap().unwrap());
            names.push((item.prompt_id.clone(), id.clone()));
        }
    }
    score(&sequences.iter().collect::<Vec<_>>(), names, &model(), Dtype::F32.into())
}

fn score(
    sequences: &[&Sequence],
    names: Vec<(String, String)>,
    folder: &Path,
    precision: Precision,
) -> Vec<ReferenceRow> {
    let decoder = Decoder::load_in(folder, &Device::Cpu, precision).unwrap();
    let log_probs = decoder.score(sequences, true, 4096).unwrap();
    let rows = names.into_iter().zip(sequences).zip(log_probs).map(|(((prompt_id, response_id), sequence), scored)| {
        ReferenceRow {
            prompt_id,
            response_id,
            completion_start: sequence.start as u32,
            logp: scored.response,
            prompt_logp: Some(scored.prompt),
            prompt_tokens: sequence.start as u32,
            completion_tokens: (sequence.ids.len() - sequence.start) as u32,
            dtype: Some(precision.name()),
        }
    });
    rows.collect()
}

pub fn embeddings() -> Vec<Embedding> {
    let rows = json_lines("prompt_embeddings.jsonl").into_iter().map(|row| Embedding {
        prompt_id: row["prompt_id"].as_str().unwrap().to_owned(),
        embedding: row["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect(),
        source_file: None,
        source_line: None,
    });
    rows.collect()
}

/// A stage's surroundings: inputs on disk, and the folder that would become its store entry.
pub struct Bench {
    pub folder: tempfile::TempDir,
    inputs: BTreeMap<&'static str, Vec<Source>>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with_model(&model())
    }

    pub fn with_model(model: &Path) -> Bench {
        let mut bench = Bench { folder: tempfile::tempdir().unwrap(), inputs: BTreeMap::new() };
        bench.add("model", model.to_owned(), Table::Model);
        bench
    }

    pub fn table<R: kit::Row>(mut self, key: &'static str, rows: &[R]) -> Bench {
        let path = self.folder.path().join("inputs").join(key);
        write_part(&path.join("part-00000.parquet"), rows).unwrap();
        self.add(key, path, R::TABLE);
        self
    }

    fn add(&mut self, key: &'static str, path: PathBuf, table: Table) {
        let name = path.display().to_string();
        self.inputs.insert(key, vec![Source { path, table, digest: Digest::of(b""), name }]);
    }

    pub fn entry(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a configuration into an entry; inputs the stage calls idle are withheld.
    pub fn run(&self, config: &Value, entry: &str, events: &dyn Events, interrupt: &Interrupt) -> Result<Outcome> {
        self.with(config, entry, events, interrupt, |stage, context| stage.run(context))
    }

    /// The same by so many ranks, each a thread.
    pub fn run_in_ranks(
        &self,
        config: &Value,
        entry: &str,
        ranks: usize,
        events: &dyn Events,
        interrupt: &Interrupt,
    ) -> Result<Outcome> {
        self.of_ranks(config, entry, events, interrupt, |work, context| {
            in_pools(ranks, 1, |ranks| work.compute(&context.of_rank(ranks.rank(), "cpu"), ranks))
        })
    }

    /// Lends the work of ranks.
    pub fn of_ranks<T>(
        &self,
        config: &Value,
        entry: &str,
        events: &dyn Events,
        interrupt: &Interrupt,
        compute: impl FnOnce(&dyn Ranked, &Context<'_>) -> Result<T>,
    ) -> Result<T> {
        self.with(config, entry, events, interrupt, |stage, context| {
            let Job::Ranked(work) = stage.job(context)? else { panic!("training is work of ranks") };
            compute(&*work, context)
        })
    }

    /// The stage's forecast.
    pub fn forecast(&self, config: &Value) -> Result<Forecast> {
        self.with(config, "forecast", &|_| (), &Interrupt::default(), |stage, context| {
            stage
                .forecast(&kit::ForecastInputs::of(context))
                .map(|outlook| outlook.forecast.expect("the rows are there"))
        })
    }

    fn with<T>(
        &self,
        config: &Value,
        entry: &str,
        events: &dyn Events,
        interrupt: &Interrupt,
        work: impl FnOnce(&dyn Stage, &Context<'_>) -> Result<T>,
    ) -> Result<T> {
        let (stage, _) = (train::KIND.configure)(config.clone()).unwrap_or_else(|finding| panic!("{finding:?}"));
        assert_eq!(stage.check(), vec![], "{config}");
        let mut inputs = self.inputs.clone();
        let ports = stage.inputs();
        inputs.retain(|key, _| ports.iter().any(|port| port.key == *key && port.idle.is_none()));
        let folder = self.entry(entry);
        std::fs::create_dir_all(&folder).unwrap();
        let interrupt = interrupt.clone();
        let context = Context { seed: Seed(17), device: "cpu", folder: &folder, inputs, events, interrupt };
        work(stage.as_ref(), &context)
    }

    pub fn run_through(&self, config: &Value, entry: &str) -> Outcome {
        self.run(config, entry, &|_| (), &Interrupt::default()).unwrap()
    }
}

/// Six steps as the oracle took them.
pub fn config(objective: Value) -> Value {
    let mut config = json!({
        "from": "pairs",
        "model": "m/",
        "reference": "reference",
        "objective": objective,
        "optimizer": {"lr": 1e-4, "schedule": "constant", "clip_norm": 1.0},
        "batch": {"pairs": 4, "shuffle": false},
        "epochs": 1,
    });
    if config["objective"]["tau"].is_number() {
        config["embeddings"] = json!("embeddings");
    }
    config
}

/// Every file of an entry's ports with its bytes.
pub fn port_bytes(entry: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for port in std::fs::read_dir(entry).unwrap() {
        let port = port.unwrap();
        let name = port.file_name().into_string().unwrap();
        if name.starts_with('.') {
            continue;
        }
        for file in std::fs::read_dir(port.path()).unwrap() {
            let file = file.unwrap();
            let path = format!("{name}/{}", file.file_name().into_string().unwrap());
            files.insert(path, std::fs::read(file.path()).unwrap());
        }
    }
    files
}
