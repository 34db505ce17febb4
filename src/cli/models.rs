//! `models`: a model by its files: family, size, what stages can do with it, the memory they need.

use std::path::{Path, PathBuf};

use clap::Args;
use reference::{Bits, Dtype, ModelFacts, TemplateFacts, Use, describe};
use serde_json::{Value, json};

use crate::engine::{device, machine};
use crate::error::{Error, Result};
use crate::hub::{self, Cache, ModelName};
use crate::progress::aligned;
use crate::streams::{print, visible};
use crate::units::{grouped, size};

#[derive(Debug, Args)]
pub struct Models {
    /// Model folders, adapters, sentence encoders, GGUF files, or names on the hub that are in the cache
    #[arg(required = true, value_name = "FOLDER")]
    pub models: Vec<String>,
    /// Tokens of a batch that memory is estimated for
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub tokens: u64,
    /// Precision that memory is estimated for: f32 or bf16 (smaller on a GPU alone)
    #[arg(long, default_value = "f32", value_parser = dtype)]
    pub dtype: Dtype,
    /// Device that memory is estimated for, here or elsewhere: auto, cpu or cuda:N
    #[arg(long, default_value = "auto", env = "HALFTONE_DEVICE", hide_env_values = true)]
    pub device: String,
    /// Memory of that device in GiB; without it, what the system says
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub memory: Option<u64>,
    /// One line of JSON for each model
    #[arg(long)]
    pub json: bool,
}

/// Rank of the adapter that memory is estimated for.
const RANK: usize = 16;

fn dtype(word: &str) -> std::result::Result<Dtype, String> {
    serde_json::from_value(Value::from(word)).map_err(|_| "known are f32 and bf16".to_owned())
}

/// Prints the facts about each model.
pub fn models(args: Models) -> Result<()> {
    device::check(&args.device)?;
    let device = device::resolve(&args.device).unwrap_or_else(|_| args.device.clone());
    let memory = args.memory.map(|gib| gib << 30).or_else(|| machine::memory_of(&device));
    for (number, name) in args.models.iter().enumerate() {
        let path = place_of(name)?;
        let facts = describe(&path)?;
        let place = Place {
            tokens: args.tokens,
            dtype: args.dtype,
            device: device.clone(),
            memory,
            prefix: format!("{}/", path.display()),
        };
        let needs = Needs::of(&facts, &place);
        let text = match args.json {
            true => format!("{}\n", as_json(name, &facts, &needs)),
            false => {
                let gap = if number == 0 { "" } else { "\n" };
                let rows = rows(&facts, &needs, &place);
                format!("{gap}{name}\n{}", aligned(&rows, &[]))
            }
        };
        print(&visible(&text))?;
    }
    Ok(())
}

/// The folder or file that a text means: a path, or a model in the cache of the hub.
fn place_of(text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    if path.exists() {
        return Ok(path.to_owned());
    }
    let name = ModelName::read(text).map_err(Error::Usage)?;
    let Some(name) = name else { return Err(Error::Usage(format!("there is no file or folder `{text}`"))) };
    let cache = Cache::of_user();
    cache.find(&name).ok_or_else(|| {
        let fetched = if hub::offline() { "" } else { "; a run that names it fetches it" };
        Error::Usage(format!(
            "there is no folder `{text}`, and no such model in the cache {}{fetched}",
            cache.folder().display()
        ))
    })
}

/// The batch and the device that memory is estimated for.
struct Place {
    tokens: u64,
    dtype: Dtype,
    device: String,
    /// Bytes of the device, where the system says.
    memory: Option<u64>,
    /// The path of the model with a slash behind it.
    prefix: String,
}

impl Place {
    /// A reason without the path of the model, which stands above it.
    fn of_model<'r>(&self, reason: &'r str) -> &'r str {
        reason.strip_prefix(&self.prefix).unwrap_or(reason)
    }
}

/// Peak memory of each use, bytes; none where it is refused or not known.
struct Needs {
    score: Option<u64>,
    generate: Option<u64>,
    train: Option<u64>,
    adapter: Option<u64>,
    /// An adapter over weights in four bits.
    adapter_over_four_bits: Option<u64>,
    embed: Option<u64>,
}

impl Needs {
    fn of(facts: &ModelFacts, place: &Place) -> Needs {
        let bytes = |purpose| facts.bytes(purpose, place.tokens, place.dtype, &place.device);
        Needs {
            score: bytes(Use::Score),
            generate: bytes(Use::Generate),
            train: bytes(Use::Train),
            adapter: bytes(Use::TrainAdapter { rank: RANK, bits: None }),
            adapter_over_four_bits: match facts.few_bits {
                true => None,
                false => bytes(Use::TrainAdapter { rank: RANK, bits: Some(Bits::Four) }),
            },
            embed: bytes(Use::Embed),
        }
    }
}

fn rows(facts: &ModelFacts, needs: &Needs, place: &Place) -> Vec<Vec<String>> {
    let mut rows = vec![("family", family(facts))];
    if let Some(base) = &facts.base {
        rows.push(("adapter over", base.display().to_string()));
    }
    if let Some(form) = &facts.form {
        let [parameters, vocabulary, positions] =
            [form.parameters, form.vocabulary, form.positions].map(|number| grouped(number, ','));
        rows.push(("size", format!("{parameters} parameters, {} blocks of width {}", form.layers, form.width)));
        rows.push(("heads", format!("{} for queries, {} for keys and values", form.heads, form.kv_heads)));
        rows.push(("vocabulary", format!("{vocabulary} tokens, sequences up to {positions}")));
    }
    let stored = facts.stored.map_or(String::new(), |dtype| format!(", stored as {dtype}"));
    rows.push(("weights", format!("{}{stored}", size(facts.weight_bytes))));
    let template = match &facts.template {
        None => "none: prompts are raw text (`form: text`)".to_owned(),
        Some(TemplateFacts { fails: Some(reason), .. }) => format!("fails: {}", place.of_model(reason)),
        Some(template) if template.marks_scored => "chat, with {% generation %} marks".to_owned(),
        Some(_) => "chat".to_owned(),
    };
    rows.push(("template", template));
    let tokens = facts.special_tokens.iter().map(|(name, text, id)| {
        let id = id.map_or("not in the vocabulary".to_owned(), |id| id.to_string());
        format!("{} {text:?} ({id})", name.trim_end_matches("_token"))
    });
    rows.extend(tokens.enumerate().map(|(number, token)| (if number == 0 { "tokens" } else { "" }, token)));
    rows.extend(uses(facts, needs, place));
    rows.into_iter().map(|(name, text)| vec![format!("  {name}"), text]).collect()
}

/// The uses that stages have for it, with the memory that they need, and the reasons against others.
fn uses(facts: &ModelFacts, needs: &Needs, place: &Place) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let needed = |least: &str, bytes: Option<u64>| match (bytes, place.memory) {
        (None, _) => "yes".to_owned(),
        (Some(bytes), Some(memory)) if bytes > memory => {
            format!("yes, {least}{}: more than the {} of {}", size(bytes), size(memory), place.device)
        }
        (Some(bytes), _) => format!("yes, {least}{}", size(bytes)),
    };
    let refused = |reason: &str| format!("no: {}", place.of_model(reason));
    match &facts.no_decoder {
        None => {
            rows.push(("judge, reference", needed("", needs.score)));
            rows.push(("sample", needed("", needs.generate)));
            // Where there is more memory, training keeps more and is faster.
            let adapter = |bytes| format!("{}, rank {RANK}", needed("from ", bytes));
            match facts.few_bits {
                true => rows
                    .push(("train", "no: weights in few bits are frozen; an adapter over them is trained".to_owned())),
                false => rows.push(("train", needed("from ", needs.train))),
            }
            rows.push(("train an adapter", adapter(needs.adapter)));
            if !facts.few_bits {
                rows.push(("over 4 bits", adapter(needs.adapter_over_four_bits)));
            }
        }
        // A reward model is none and need not be.
        Some(_) if facts.no_reward.is_none() => {}
        Some(reason) => rows.push(("judge, sample, train", refused(reason))),
    }
    if facts.no_reward.is_none() {
        rows.push(("judge by rewards", needed("", needs.score)));
    }
    rows.push(("embed", facts.no_encoder.as_deref().map_or_else(|| needed("", needs.embed), refused)));
    if needs.score.or(needs.embed).is_some() {
        let tokens = grouped(place.tokens, ',');
        rows.push(("memory is for", format!("{tokens} tokens at once, {}, {}", word(place.dtype), place.device)));
    }
    rows
}

fn family(facts: &ModelFacts) -> String {
    let name = if facts.family.is_empty() { "not named" } else { &facts.family };
    let kind = match (facts.gguf, facts.no_decoder.is_none(), facts.no_reward.is_none(), facts.no_encoder.is_none()) {
        (true, ..) => "GGUF file, a language model in few bits",
        (_, true, ..) => "language model",
        (_, _, true, _) => "reward model",
        (_, _, _, true) => "sentence encoder",
        _ => "not computed here",
    };
    format!("{name}, {kind}")
}

fn word(dtype: Dtype) -> String {
    serde_json::to_value(dtype).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn as_json(name: &str, facts: &ModelFacts, needs: &Needs) -> Value {
    let form = facts.form.as_ref().map(|form| {
        json!({
            "parameters": form.parameters, "layers": form.layers, "width": form.width, "heads": form.heads,
            "kv_heads": form.kv_heads, "vocabulary": form.vocabulary, "positions": form.positions,
        })
    });
    let tokens: Vec<Value> =
        facts.special_tokens.iter().map(|(name, text, id)| json!({"name": name, "text": text, "id": id})).collect();
    json!({
        "model": name,
        "family": facts.family,
        "gguf": facts.gguf,
        "few_bits": facts.few_bits,
        "base": facts.base,
        "form": form,
        "weight_bytes": facts.weight_bytes,
        "stored": facts.stored,
        "chat_template": facts.template.as_ref().map(|it| json!({"marks_scored": it.marks_scored, "fails": it.fails})),
        "special_tokens": tokens,
        "refused": {"decoder": facts.no_decoder, "encoder": facts.no_encoder, "reward": facts.no_reward},
        "bytes": {
            "score": needs.score, "generate": needs.generate, "train": needs.train,
            "train_adapter": needs.adapter, "train_adapter_over_4_bits": needs.adapter_over_four_bits,
            "embed": needs.embed,
        },
    })
}
