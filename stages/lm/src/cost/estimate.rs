//! Estimates from a model's `config.json` alone: bytes of memory and arithmetic operations. No weights are read.

use serde_json::Value;
use std::path::Path;

use crate::encode::bert::Kin;
use crate::model::config::without_head;
use crate::model::family::{HeadNorms, Norms};
use crate::model::shapes::{is_linear, shapes};
use crate::ops::gpu_memory::{MOST_LOGITS, most_sums, rows_within};
use crate::ops::head::chunk_rows;
use crate::sample::generate::LOGITS as LOGITS_HELD;
use crate::{Bits, DecoderConfig, Dtype, Error, Lora, Memory, Precision, Result};

/// A schedule that was decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schedule {
    Keep {
        /// Those of the head too.
        logits: bool,
    },
    Boundaries,
    TwoPass,
}

// H hidden width, A query heads, G key-value heads, D head width, F feed-forward width.

/// A program without a model: its code, its threads and their buffers.
const PROGRAM: u64 = 80 << 20;
/// The key that names a file in place of a `config.json`.
const GGUF: &str = "gguf";
/// Logits are kept where they take no more than one part in so many of what the blocks keep.
const LOGITS_PART: u64 = 4;
/// The part of the machine's speed at matrix products of its width that a model reaches: norms, attention, activations
/// and the optimizer take the rest.
pub const EFFICIENCY: f64 = 0.55;

/// Tokens that go through a model.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Rows of the blocks.
    pub tokens: f64,
    /// Rows that meet the LM head.
    pub scored: f64,
    /// Tokens before a token, on average, that it looks at.
    pub context: f64,
}

/// The use that a model is loaded for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Purpose<'a> {
    /// Log-probabilities or states of so many tokens at once.
    Score {
        /// `tokens_per_batch`, or all there are.
        tokens_at_once: u64,
        /// Those of them that meet the LM head.
        scored_at_once: u64,
    },
    /// Responses, with the keys and values of so many tokens at once.
    Generate {
        /// `tokens_per_batch`, or all there are.
        tokens_at_once: u64,
        /// Responses that grow at once, at most.
        responses_at_once: u64,
    },
    /// Training.
    Train {
        /// Intermediate values kept between forward and backward.
        memory: Memory,
        /// Tokens of a batch.
        batch_tokens: u64,
        /// Tokens of the largest micro-batch.
        tokens_at_once: u64,
        /// Sets of gradients held at once: 1, and more where they are summed in an order of their own.
        gradient_sets: u64,
        /// Devices that share the optimizer's state.
        shares: u64,
        /// The adapter, where only that is trained.
        adapter: Option<&'a Lora>,
    },
}

impl Purpose<'_> {
    /// Log-probabilities or states of a load, so many of its tokens at once.
    pub fn score(load: Load, tokens_at_once: u64) -> Self {
        let share = if load.tokens > 0.0 { load.scored / load.tokens } else { 0.0 };
        Purpose::Score { tokens_at_once, scored_at_once: (tokens_at_once as f64 * share).ceil() as u64 }
    }
}

/// A model by its sizes: one of our decoders, or an encoder that is near enough to one.
#[derive(Debug, Clone)]
pub struct Estimate {
    config: DecoderConfig,
    /// Bytes of a number in weights and activations.
    size: u64,
    on_gpu: bool,
    decoder: bool,
    /// Bytes of linear layers' weights in few bits, of which one matrix after the other becomes numbers.
    few: Option<u64>,
}

impl Estimate {
    /// The estimate for what `config.json` holds, or for a GGUF file, `{"gguf": PATH}`, on a device such as `cpu` or
    /// `cuda:0`.
    ///
    /// # Errors
    /// When it is neither a decoder nor an encoder that is computed here.
    pub fn of(config: &Value, precision: impl Into<Precision>, device: &str) -> Result<Estimate> {
        let Precision { dtype, bits } = precision.into();
        let on_gpu = device != "cpu";
        let size = if dtype == Dtype::Bf16 && on_gpu { 2 } else { 4 };
        let mut json = config.as_object().cloned().ok_or_else(|| Error::input("config.json holds no object"))?;
        if let Some(path) = json.get(GGUF).and_then(Value::as_str).map(Path::new) {
            let config = DecoderConfig::from_folder(path)?;
            let few = Some(std::fs::metadata(path).map_err(Error::io(path))?.len());
            return Ok(Estimate { config, size, on_gpu, decoder: true, few });
        }
        let kind = json.get("model_type").and_then(Value::as_str);
        let of_bert = kind.and_then(Kin::named).is_some();
        let decoder = !of_bert && kind != Some("modernbert");
        if !decoder {
            let inner = json.get("intermediate_size").and_then(Value::as_u64).unwrap_or_default();
            // BERT has two matrices in its feed-forward part where Llama has three.
            let inner = if of_bert { inner * 2 / 3 } else { inner };
            for (key, value) in [
                ("model_type", Value::from("llama")),
                ("intermediate_size", Value::from(inner)),
                ("hidden_act", Value::from("silu")),
                ("architectures", Value::Null),
                ("tie_word_embeddings", Value::from(true)),
            ] {
                json.insert(key.to_owned(), value);
            }
        }
        without_head(&mut json);
        let mut config = DecoderConfig::of_either(json)?;
        config.assume_ties();
        let bits = bits.or(config.nf4.then_some(Bits::Four));
        let few = bits.map(|bits| (linear_numbers(&config) as f64 * bits.bytes()) as u64);
        Ok(Estimate { config, size, on_gpu, decoder, few })
    }

    /// The longest sequence.
    pub fn positions(&self) -> u64 {
        self.config.max_positions as u64
    }

    /// The width of its matrices.
    pub fn width(&self) -> u64 {
        self.config.hidden_size as u64
    }

    /// Floating-point operations of a forward pass: two for each weight and token, and those of attention.
    pub fn forward(&self, load: Load) -> f64 {
        let config = &self.config;
        let embeddings = (config.vocab_size * config.hidden_size) as f64;
        let tables = if config.tied || !self.decoder { 1.0 } else { 2.0 };
        let blocks = config.parameter_count() as f64 - tables * embeddings;
        let attention = 4.0 * (config.layers * config.heads * config.head_dim) as f64 * load.context;
        let head = if self.decoder { 2.0 * embeddings * load.scored } else { 0.0 };
        load.tokens * (2.0 * blocks + attention) + head
    }

    /// Operations of a forward and a backward pass, which costs twice as much, or, where only an adapter is trained, as
    /// much; without kept activations one more forward.
    pub fn forward_and_backward(&self, load: Load, memory: Memory, batch_tokens: u64, adapter: bool) -> f64 {
        let passes = if adapter { 2.0 } else { 3.0 };
        let kept = matches!(self.schedule(memory, batch_tokens, batch_tokens), Schedule::Keep { .. });
        let again = if kept { 0.0 } else { 1.0 };
        (passes + again) * self.forward(load)
    }

    /// Peak memory in bytes, to be right within a third or too high: 0.9 to 1.4 times the peak resident set of
    /// training, scoring and sampling with models of 0.35 and 15.7 million parameters on a CPU.
    pub fn bytes(&self, purpose: Purpose<'_>) -> u64 {
        let config = &self.config;
        let parameters = config.parameter_count() as u64;
        let weights = match self.few {
            None => parameters * self.size,
            Some(bytes) => {
                let others = parameters.saturating_sub(linear_numbers(config));
                bytes + (others + largest_matrix(config)) * self.size
            }
        };
        // While a tensor is read, its bytes stand beside the numbers made of them, and beside the few bits of these.
        let reading = weights + 2 * largest_tensor(config) * self.size;
        // While a block is computed, what it makes of its rows comes and goes.
        let passing = |rows: u64| rows * per_row(config) * self.size * 3 / 2;
        // Logits of a chunk, in f32.
        let chunk = |rows: u64| self.chunk_rows(rows) * config.vocab_size as u64 * 4;
        let held = match purpose {
            Purpose::Score { tokens_at_once, scored_at_once } => {
                weights + passing(tokens_at_once) + chunk(scored_at_once)
            }
            Purpose::Generate { tokens_at_once, responses_at_once } => {
                let keys = 2 * (config.layers * config.kv_heads * config.head_dim) as u64;
                // Logits are held as they are computed and once more as they are drawn from.
                let rows = (LOGITS_HELD as u64 / config.vocab_size as u64).clamp(1, responses_at_once.max(1));
                let logits = 4 * rows * config.vocab_size as u64 * 4;
                // Prompts take half of the budget at most, and go through the blocks all at once.
                weights + tokens_at_once * keys * self.size + passing(tokens_at_once.div_ceil(2)) + logits
            }
            Purpose::Train { memory, batch_tokens, tokens_at_once, gradient_sets, shares, adapter } => {
                let trained = adapter.map_or(parameters, |lora| numbers_of(lora, config));
                let full = if self.size < 4 { 4 } else { 0 };
                // Gradients, a share of two moments and the master; a checkpoint holds weights and moments once more.
                let shared = (trained * (8 + full)).div_ceil(shares);
                let state = trained * 4 * gradient_sets + shared + trained * (self.size + 8 + full);
                let kept = match self.schedule(memory, batch_tokens, tokens_at_once) {
                    Schedule::Keep { .. } => {
                        let blocks = batch_tokens * config.layers as u64 * per_row(config) * self.size;
                        blocks + (batch_tokens * config.vocab_size as u64 * self.size).min(blocks / LOGITS_PART)
                    }
                    Schedule::Boundaries => batch_tokens * (config.layers * config.hidden_size) as u64 * self.size,
                    Schedule::TwoPass => tokens_at_once * config.layers as u64 * per_row(config) * self.size,
                };
                // Logits and their gradients; on a GPU also what several blocks give the same keys.
                let head = chunk(tokens_at_once) + chunk(tokens_at_once) * self.size / 4;
                let sums = if self.on_gpu { most_sums(config.head_dim) as u64 } else { 0 };
                weights + state + kept + 2 * passing(tokens_at_once) + head + sums
            }
        };
        PROGRAM + held.max(reading)
    }

    /// Rows whose logits are held at once, of so many that are scored; a chunk of the CPU is small and is not cut.
    fn chunk_rows(&self, rows: u64) -> u64 {
        match self.on_gpu {
            true => rows.min(rows_within(MOST_LOGITS, self.config.vocab_size) as u64),
            false => chunk_rows(self.config.vocab_size) as u64,
        }
    }

    /// The schedule that training will take.
    fn schedule(&self, memory: Memory, batch_tokens: u64, tokens_at_once: u64) -> Schedule {
        // How many rows are scored is not known ahead.
        let rows = Rows { all: batch_tokens, most: tokens_at_once, scored: 0 };
        schedule(&self.config, self.config.layers as u64, self.size, rows, memory)
    }
}

/// Numbers that a block keeps of a row between forward and backward; see `Saved`.
fn per_row(config: &DecoderConfig) -> u64 {
    let (hidden, heads) = (config.hidden_size as u64, config.heads as u64);
    let queries = heads * config.head_dim as u64;
    let qkv = queries + 2 * (config.kv_heads * config.head_dim) as u64;
    let normed = u64::from(config.head_norm != HeadNorms::None);
    // What went into the norms after the parts of a block.
    let after = if config.family.norms == Norms::Before { 0 } else { 2 * hidden + 2 };
    2 * hidden + 2 + after + qkv * (1 + normed) + queries + heads + 2 * config.intermediate_size as u64
}

/// The rows of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub all: u64,
    /// Those of its largest micro-batch.
    pub most: u64,
    /// Those that meet the LM head.
    pub scored: u64,
}

/// The schedule for a choice: where it is free, the fastest one whose activations fit. Rows go through `blocks` blocks
/// in numbers of `size` bytes. Logits are kept with the blocks' activations where they are small beside them.
pub(crate) fn schedule(
    config: &DecoderConfig,
    blocks: u64,
    size: u64,
    Rows { all: rows, most, scored }: Rows,
    memory: Memory,
) -> Schedule {
    let block = per_row(config);
    let kept = rows * blocks * block * size;
    let logits = scored * config.vocab_size as u64 * size;
    let small = logits <= kept / LOGITS_PART;
    let budget = match memory {
        Memory::Keep => return Schedule::Keep { logits: small },
        Memory::Boundaries => return Schedule::Boundaries,
        Memory::TwoPass => return Schedule::TwoPass,
        Memory::Auto { bytes } => bytes,
    };
    // While a block is computed forward or backward, about as much again comes and goes.
    let passing = 2 * most * block * size;
    // Where nothing fits, what keeps less: two passes keep all of a micro-batch.
    let (between, again) = (rows * blocks * config.hidden_size as u64 * size, most * blocks * block * size);
    match budget {
        _ if kept + logits + passing <= budget && small => Schedule::Keep { logits: true },
        _ if kept + passing <= budget => Schedule::Keep { logits: false },
        _ if between + passing <= budget || between <= again => Schedule::Boundaries,
        _ => Schedule::TwoPass,
    }
}

/// Numbers in the weights of linear layers.
fn linear_numbers(config: &DecoderConfig) -> u64 {
    let linear = shapes(config).into_iter().filter(|(name, _)| is_linear(name));
    linear.map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
}

/// Numbers of the largest matrix that is used as one.
fn largest_matrix(config: &DecoderConfig) -> u64 {
    let outputs = (config.heads + 2 * config.kv_heads) * config.head_dim;
    (config.hidden_size * outputs.max(2 * config.intermediate_size)) as u64
}

/// Numbers of the largest tensor in files.
fn largest_tensor(config: &DecoderConfig) -> u64 {
    shapes(config).iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).max().unwrap_or(0)
}

/// Numbers in an adapter.
fn numbers_of(lora: &Lora, config: &DecoderConfig) -> u64 {
    let targeted = |name: &str| lora.targets.iter().any(|target| name.ends_with(&format!(".{target}.weight")));
    let shapes = shapes(config).into_iter().filter(|(name, _)| targeted(name));
    shapes.map(|(_, shape)| (lora.rank * shape.iter().sum::<usize>()) as u64).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A Llama of 1.24 billion parameters.
    fn llama() -> Value {
        json!({
            "model_type": "llama", "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192,
            "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
            "tie_word_embeddings": true
        })
    }

    fn estimate(dtype: Dtype, device: &str) -> Estimate {
        Estimate::of(&llama(), dtype, device).unwrap()
    }

    #[test]
    fn operations_are_two_for_each_weight_and_token() {
        let model = estimate(Dtype::F32, "cpu");
        let weights = model.config.parameter_count() as f64;
        let all = model.forward(Load { tokens: 100.0, scored: 100.0, context: 0.0 });
        assert!((all / (200.0 * weights) - 1.0).abs() < 1e-3, "{all}");
        let load = Load { tokens: 100.0, scored: 10.0, context: 50.0 };
        let once = model.forward(load);
        let keeping = model.forward_and_backward(load, Memory::Keep, 100, false);
        assert_eq!(keeping, 3.0 * once);
        assert_eq!(model.forward_and_backward(load, Memory::TwoPass, 100, false), 4.0 * once);
        assert_eq!(model.forward_and_backward(load, Memory::Keep, 100, true), 2.0 * once);
    }

    #[test]
    fn memory_grows_with_what_is_held() {
        let of = |gradient_sets, shares, memory, adapter| Purpose::Train {
            memory,
            batch_tokens: 40_000,
            tokens_at_once: 8_000,
            gradient_sets,
            shares,
            adapter,
        };
        let train = |memory, adapter| of(1, 1, memory, adapter);
        let model = estimate(Dtype::F32, "cpu");
        let weights = model.config.parameter_count() as u64 * 4;
        let scoring = |scored_at_once| Purpose::Score { tokens_at_once: 8_000, scored_at_once };
        let score = model.bytes(scoring(8_000));
        let [two_pass, boundaries, keep] =
            [Memory::TwoPass, Memory::Boundaries, Memory::Keep].map(|memory| model.bytes(train(memory, None)));
        assert!(weights < score && score < two_pass && boundaries < two_pass && two_pass < keep);
        // Two means of f32, of which three quarters are with other devices.
        assert_eq!(keep - model.bytes(of(1, 4, Memory::Keep, None)), 2 * weights * 3 / 4);
        let lora = Lora::new(8, 16.0, &["q_proj".to_owned()]).unwrap();
        assert!(model.bytes(train(Memory::Keep, Some(&lora))) < keep - 4 * weights);
        let half = estimate(Dtype::Bf16, "cuda:0");
        assert!(half.bytes(scoring(0)) < score * 6 / 10);
        assert_eq!(estimate(Dtype::Bf16, "cpu").bytes(scoring(8_000)), score);
        // A GPU holds the f32 logits of thousands of rows, of those that are scored.
        let more = |rows| half.bytes(scoring(rows)) - half.bytes(scoring(1000));
        let vocab = model.config.vocab_size;
        assert_eq!(more(1300), 300 * 4 * vocab as u64);
        assert_eq!(more(1 << 40), ((rows_within(MOST_LOGITS, vocab) - 1000) * 4 * vocab) as u64);
    }

    #[test]
    fn where_nothing_fits_the_schedule_that_keeps_less_is_taken() {
        let model = estimate(Dtype::F32, "cpu");
        let config = &model.config;
        let chosen = |all, most, bytes| {
            let rows = Rows { all, most, scored: 0 };
            schedule(config, config.layers as u64, 4, rows, Memory::Auto { bytes })
        };
        assert!(matches!(chosen(4096, 4096, 0), Schedule::Boundaries));
        assert!(matches!(chosen(200_000, 4096, 0), Schedule::TwoPass));
        assert!(matches!(chosen(200_000, 4096, 1 << 40), Schedule::Keep { .. }));
    }

    /// The shape of Llama 2 7B, an adapter of rank 16 over all linear layers, 4,096 tokens.
    #[test]
    fn seven_billion_weights_in_four_bits_are_trained_above_in_a_third_of_what_f32_takes() {
        let seven = json!({
            "model_type": "llama", "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008,
            "num_hidden_layers": 32, "num_attention_heads": 32
        });
        let lora = Lora::new(16, 32.0, &["all-linear".to_owned()]).unwrap();
        let memory = Memory::Boundaries;
        let (batch_tokens, tokens_at_once) = (4096, 4096);
        let (gradient_sets, shares) = (1, 1);
        let train =
            Purpose::Train { memory, batch_tokens, tokens_at_once, gradient_sets, shares, adapter: Some(&lora) };
        let gib = |bits| {
            let precision = Precision { dtype: Dtype::F32, bits };
            Estimate::of(&seven, precision, "cpu").unwrap().bytes(train) as f64 / f64::from(1 << 30)
        };
        let [f32, eight, four] = [None, Some(Bits::Eight), Some(Bits::Four)].map(gib);
        assert!(
            (30.0..40.0).contains(&f32) && eight < 16.0 && four < eight - 2.5 && four < 13.0,
            "{f32} {eight} {four}"
        );
        let mut nf4 = seven.clone();
        nf4["quantization_config"] =
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"});
        let stored = Estimate::of(&nf4, Dtype::F32, "cpu").unwrap();
        assert_eq!(stored.bytes(train) as f64 / f64::from(1 << 30), four);
    }

    #[test]
    fn an_encoder_is_estimated_and_an_unknown_model_is_not() {
        let bert = json!({
            "model_type": "bert", "vocab_size": 30_522, "hidden_size": 384, "intermediate_size": 1536,
            "num_hidden_layers": 6, "num_attention_heads": 12, "hidden_act": "gelu"
        });
        let bert = Estimate::of(&bert, Dtype::F32, "cpu").unwrap();
        let share = bert.config.parameter_count() as f64 / 22.7e6;
        assert!((share - 1.0).abs() < 0.05, "{share} of the true number of parameters");
        assert!(Estimate::of(&json!({"model_type": "mamba"}), Dtype::F32, "cpu").is_err());
        // Gemma 3 of 4 billion parameters says nothing of its head, which is its table.
        let text = json!({"hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 34});
        let images = json!({"model_type": "gemma3", "text_config": text});
        assert_eq!(Estimate::of(&images, Dtype::F32, "cpu").unwrap().config.parameter_count(), 3_880_263_168);
        let mut body = llama();
        body["architectures"] = json!(["LlamaModel"]);
        let body = Estimate::of(&body, Dtype::F32, "cpu").unwrap();
        assert_eq!(body.config.parameter_count(), estimate(Dtype::F32, "cpu").config.parameter_count());
    }
}
