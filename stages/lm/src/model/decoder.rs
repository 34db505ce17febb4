//! The decoder: weights, and the states and log-probabilities they give to token sequences.

use crate::model::adapter_folder::{StoredAdapter, model_part};
use crate::model::block::{Block, RowContext};
use crate::model::config::DecoderConfig;
use crate::model::family::HeadNorms;
use crate::model::forest::{Forest, Part, Want, forests};
use crate::model::gguf::{Quantised, is_gguf};
use crate::model::lora::{BaseAdapter, Lora};
use crate::model::parameter::{Linear, Norm, Parameter};
use crate::model::weights;
use crate::ops::attention::{Shape, tiles};
use crate::ops::head::{HeadScores, Target};
use crate::ops::matrix::Products;
use crate::ops::rope::{RopeTable, RopeTables};
use crate::ops::{embed, head, scaled};
use crate::{DType, Device, Dtype, Error, Result, Sequence, random};
use candle_core::Tensor;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The log-probabilities of one sequence, natural logarithms; or anything that there is one of for each of the two,
/// such as a loss's derivatives by them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LogProbs {
    /// Sum over the completion tokens.
    pub response: f64,
    /// Sum over the prompt tokens but the first, which nothing predicts; 0 where it was not asked for.
    pub prompt: f64,
}

/// A language model of one of the families that the README of this crate lists.
///
/// One decoder serves all work: it scores sequences here, is trained by [`Training`](crate::Training), and generates.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    device: Device,
    dtype: DType,
    /// The precision of the operands of matrix products. Where they are rounded to bf16, weights are kept in f32.
    pub(crate) products: Products,
    /// [V, H]
    pub(crate) embed: Parameter,
    /// None where the blocks are quantised.
    pub(crate) blocks: Vec<Block>,
    quantised: Option<Quantised>,
    /// [H]
    pub(crate) norm: Norm,
    /// [V, H]; absent where the embedding table serves.
    pub(crate) head: Option<Parameter>,
    /// The head of a reward model [1, H], in place of that of a language model.
    pub(crate) score: Option<Parameter>,
    /// The form of the adapter beside the linear layers, where there is one.
    pub(crate) lora: Option<Lora>,
    /// The adapter of the base that the one beside the linear layers is trained over.
    pub(crate) base_adapter: Option<BaseAdapter>,
    /// The base's tensors that the folder of an adapter replaces, by name (PEFT's `modules_to_save`).
    pub(crate) saved_modules: Vec<String>,
    /// The folder with the tensors that stand beside the decoder, where there are some.
    source: Option<PathBuf>,
    /// Of long texts the second ones.
    tables: Mutex<[Option<Arc<RopeTables>>; 2]>,
}

impl Decoder {
    /// Reads a Hugging Face folder, to compute in f32.
    ///
    /// Errors name the file: what is missing, damaged, or of an architecture that is not computed here.
    pub fn load(folder: &Path, device: &Device) -> Result<Decoder> {
        Decoder::load_in(folder, device, Dtype::F32)
    }

    /// Reads a Hugging Face folder, to compute in a precision.
    pub fn load_in(folder: &Path, device: &Device, dtype: Dtype) -> Result<Decoder> {
        Decoder::computing(dtype, device, |dtype| Decoder::load_as(folder, device, dtype))
    }

    /// A decoder that computes in a precision, given how one is loaded with tensors of a dtype.
    pub(crate) fn computing(
        dtype: Dtype,
        device: &Device,
        load: impl FnOnce(DType) -> Result<Decoder>,
    ) -> Result<Decoder> {
        match (dtype, device) {
            (Dtype::F32, _) => load(DType::F32),
            (Dtype::Bf16, Device::Cpu) => Ok(load(DType::F32)?.rounded()),
            (Dtype::Bf16, _) => load(DType::BF16),
        }
    }

    /// The same with the numbers of matrix products rounded to bf16.
    fn rounded(mut self) -> Decoder {
        self.products = Products::Rounded;
        for linear in self.blocks.iter_mut().flat_map(Block::linears_mut) {
            linear.products = Products::Rounded;
        }
        self
    }

    /// Reads a Hugging Face folder, with tensors of `dtype`. A PEFT folder is read as its base with the adapter beside
    /// it. A GGUF file is read to score with.
    pub fn load_as(folder: &Path, device: &Device, dtype: DType) -> Result<Decoder> {
        if is_gguf(folder) {
            return Decoder::load_gguf(folder, device, dtype);
        }
        let model = model_part(folder)?;
        let mut config = DecoderConfig::from_folder(&model)?;
        if model == folder {
            return Decoder::load_model(config, &model, device, dtype);
        }
        let tensors = weights::load(&model, &mut config, dtype, device)?;
        let mut decoder = Decoder::with_adapter(config, tensors, folder, device, dtype)?;
        decoder.keep_others(&model);
        Ok(decoder)
    }

    /// A base with the adapter of a PEFT folder beside it.
    pub(crate) fn with_adapter(
        mut config: DecoderConfig,
        mut tensors: HashMap<String, Tensor>,
        folder: &Path,
        device: &Device,
        dtype: DType,
    ) -> Result<Decoder> {
        let adapter = StoredAdapter::read(folder)?;
        adapter.replace_modules(&mut config, &mut tensors)?;
        let mut decoder = Decoder::assemble(config, tensors, device, dtype)?;
        decoder.take_adapter(adapter)?;
        Ok(decoder)
    }

    pub(crate) fn load_model(
        mut config: DecoderConfig,
        folder: &Path,
        device: &Device,
        dtype: DType,
    ) -> Result<Decoder> {
        let tensors = weights::load(folder, &mut config, dtype, device)?;
        let mut decoder = Decoder::assemble(config, tensors, device, dtype)?;
        decoder.keep_others(folder);
        Ok(decoder)
    }

    /// Notes where the tensors are that stand beside the decoder.
    fn keep_others(&mut self, folder: &Path) {
        self.source = Some(folder.to_owned()).filter(|_| self.config.wrapped);
    }

    /// A fresh model in f32, initialised as transformers does: weights and embeddings normal with the config's
    /// deviation, norms so that they multiply with 1, biases and the padding token's embedding 0. The same seed gives
    /// the same weights.
    pub fn init(config: DecoderConfig, seed: u64, device: &Device) -> Result<Decoder> {
        let mut tensors = HashMap::new();
        for (name, shape) in weights::shapes(&config) {
            let n = shape.iter().product();
            let mut numbers = match () {
                () if name.ends_with(".bias") => vec![0.0; n],
                () if name.ends_with("norm.weight") => vec![config.family.norm.fresh(); n],
                () => random::normal(seed, &name, n, config.initializer_range),
            };
            if let Some(pad) = config.pad_token_id
                && name.ends_with("embed_tokens.weight")
                && (pad as usize) < config.vocab_size
            {
                numbers[pad as usize * config.hidden_size..][..config.hidden_size].fill(0.0);
            }
            tensors.insert(name, Tensor::from_vec(numbers, shape, device)?);
        }
        Decoder::assemble(config, tensors, device, DType::F32)
    }

    /// A model with normal weights that are made on the device, for measurements.
    #[cfg(feature = "cuda")]
    pub(crate) fn random(config: DecoderConfig, device: &Device, dtype: DType) -> Result<Decoder> {
        let mut tensors = HashMap::new();
        for (name, shape) in weights::shapes(&config) {
            let tensor = match name.ends_with("norm.weight") {
                true => (Tensor::zeros(shape, dtype, device)? + f64::from(config.family.norm.fresh()))?,
                false => Tensor::randn(0f32, 0.02, shape, device)?.to_dtype(dtype)?,
            };
            tensors.insert(name, tensor);
        }
        Decoder::assemble(config, tensors, device, dtype)
    }

    fn assemble(
        config: DecoderConfig,
        mut tensors: HashMap<String, Tensor>,
        device: &Device,
        dtype: DType,
    ) -> Result<Decoder> {
        let mut take = |names: &[String]| -> Result<Parameter> {
            let mut values = Vec::new();
            for name in names {
                let value = tensors.remove(name);
                values.push(value.ok_or_else(|| Error::internal(format!("tensor {name} was not prepared")))?);
            }
            joined(names, values)
        };
        let blocks = (0..config.layers).map(|layer| block_of(&config, layer, &mut take)).collect::<Result<_>>()?;
        Decoder::around(config, take, blocks, device, dtype)
    }

    /// A GGUF file: its blocks become numbers one after the other, each time that they are computed.
    fn load_gguf(path: &Path, device: &Device, dtype: DType) -> Result<Decoder> {
        let (config, quantised) = Quantised::read(path, dtype, device)?;
        let take = |names: &[String]| joined(names, quantised.tensors(names)?);
        let decoder = Decoder::around(config, take, Vec::new(), device, dtype)?;
        Ok(Decoder { quantised: Some(quantised), ..decoder })
    }

    fn around(
        config: DecoderConfig,
        mut take: impl FnMut(&[String]) -> Result<Parameter>,
        blocks: Vec<Block>,
        device: &Device,
        dtype: DType,
    ) -> Result<Decoder> {
        Ok(Decoder {
            embed: take(&[format!("{}embed_tokens.weight", config.body())])?,
            norm: norm_of(&config, config.states_eps(), take(&[format!("{}norm.weight", config.body())])?),
            head: if config.tied { None } else { Some(take(&["lm_head.weight".to_owned()])?) },
            score: if config.reward { Some(take(&["score.weight".to_owned()])?) } else { None },
            blocks,
            quantised: None,
            config,
            device: device.clone(),
            dtype,
            products: Products::Exact,
            lora: None,
            base_adapter: None,
            saved_modules: Vec::new(),
            source: None,
            tables: Mutex::default(),
        })
    }

    /// The form of the model.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Another form of the same body.
    pub(crate) fn set_config(&mut self, config: DecoderConfig) {
        self.config = config;
    }

    /// Device of its weights.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype of its tensors.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The longest sequence, in tokens.
    pub fn max_positions(&self) -> usize {
        self.config.max_positions
    }

    /// Writes `config.json`, `model.safetensors` and `generation_config.json` into an existing folder, in the format
    /// that transformers reads. The dtype is that of its tensors; a tied head is not written twice.
    ///
    /// Errors: an adapter, which has a form of its own; see [`save_adapter`](Decoder::save_adapter) and
    /// [`merged`](Decoder::merged).
    pub fn save(&self, to: &Path) -> Result<()> {
        self.whole()?;
        if self.lora.is_some() {
            return Err(Error::internal("a decoder with an adapter is saved merged, or as its adapter"));
        }
        self.config.save(to, self.dtype)?;
        let mut tensors = Vec::new();
        for parameter in self.parameters() {
            tensors.extend(parameter.named()?);
        }
        let others = self.others()?;
        tensors.extend(others.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())));
        weights::save_model(&to.join("model.safetensors"), &self.config, &tensors)
    }

    /// The tensors of its folder that stand beside the decoder, as they are stored there.
    pub(crate) fn others(&self) -> Result<Vec<(String, Tensor)>> {
        self.source.as_ref().map_or_else(|| Ok(Vec::new()), |folder| weights::others(folder, &self.config))
    }

    /// The log-probabilities of sequences, in their order. Shared prefixes are computed once, at most `budget_tokens`
    /// rows at a time. The prompt part is summed where `prompt_part` asks for it.
    ///
    /// Errors: a sequence with no token before its completion, longer than the model's positions or with tokens
    /// outside the vocabulary, and log-probabilities that are not finite.
    pub fn score(&self, sequences: &[&Sequence], prompt_part: bool, budget_tokens: usize) -> Result<Vec<LogProbs>> {
        self.speaking()?;
        let mut sums = vec![LogProbs::default(); sequences.len()];
        for forest in self.forests(sequences, Want::Scores { prompt_part }, budget_tokens)? {
            let rows = self.states_of(&forest, Some(&forest.scored_rows))?; // [R, H]
            let (h, _) = self.head_input(&rows)?;
            let scores = head::forward(&h, self.head_weight(), &targets(&forest), self.head_form())?;
            add_scores(&forest, &scores, &mut sums)?;
        }
        Ok(sums)
    }

    /// The final states, after the last norm, of all tokens of each sequence: [n, H] each, in the model's dtype.
    /// Shared prefixes are computed once, at most `budget_tokens` rows at a time.
    pub fn states(&self, sequences: &[&[u32]], budget_tokens: usize) -> Result<Vec<Tensor>> {
        let owned: Vec<Sequence> = sequences.iter().map(|ids| Sequence::new(ids.to_vec(), ids.len())).collect();
        let mut states = vec![None; sequences.len()];
        for forest in self.forests(&owned.iter().collect::<Vec<_>>(), Want::States, budget_tokens)? {
            let (normed, _) = self.last_norm(&self.states_of(&forest, None)?)?;
            for &(index, end) in &forest.ends {
                let rows = Tensor::new(forest.path_rows(end), &self.device)?;
                states[index] = Some(normed.index_select(&rows, 0)?);
            }
        }
        states.into_iter().map(|s| s.ok_or_else(|| Error::internal("a sequence without states"))).collect()
    }

    /// The most likely token after some, and its log-probability.
    pub fn likeliest(&self, ids: &[u32]) -> Result<(u32, f64)> {
        self.speaking()?;
        let states = self.states(&[ids], ids.len())?.remove(0); // [n, H]
        let last = states.narrow(0, ids.len() - 1, 1)?.to_dtype(DType::F32)?;
        let last = scaled(&last, self.head_scale())?;
        let logits = last.matmul(&self.head_weight().to_dtype(DType::F32)?.t()?)?; // [1, V]
        let logits = head::capped(logits, self.config.logits_cap)?;
        let logits = logits.flatten_all()?.to_vec1::<f32>()?;
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let token = logits.iter().position(|logit| *logit == largest);
        let token = token.ok_or_else(|| Error::NotFinite("the logits after a text are not finite".to_owned()))?;
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        Ok((u32::try_from(token).expect("a token id"), -sum.ln()))
    }

    /// Micro-batches of sequences, each checked against the model's positions.
    pub(crate) fn forests(&self, sequences: &[&Sequence], want: Want, budget_tokens: usize) -> Result<Vec<Forest>> {
        let limit = self.config.max_positions;
        if let Some((i, s)) = sequences.iter().enumerate().find(|(_, s)| s.ids.len() > limit) {
            let len = s.ids.len();
            return Err(Error::input(format!("sequence {i} has {len} tokens; the model has {limit} positions")));
        }
        let pack = |sequences: &[&Sequence]| forests(sequences, want, self.config.vocab_size, budget_tokens);
        let Some(beyond) = self.config.long_beyond() else { return pack(sequences) };
        // Long texts have another rotation, so that they share no rows with others.
        let mut all = Vec::new();
        for long in [false, true] {
            let chosen: Vec<usize> =
                (0..sequences.len()).filter(|&i| (sequences[i].ids.len() > beyond) == long).collect();
            for mut forest in pack(&chosen.iter().map(|&i| sequences[i]).collect::<Vec<_>>())? {
                forest.long = long;
                forest.ends.iter_mut().for_each(|(index, _)| *index = chosen[*index]);
                let owners = forest.scored.iter_mut().flat_map(|scored| &mut scored.owners);
                owners.for_each(|(index, _)| *index = chosen[*index]);
                all.push(forest);
            }
        }
        Ok(all)
    }

    /// The states after the last block, before the last norm: of all rows [T, H], or of some of them [R, H].
    pub(crate) fn states_of(&self, forest: &Forest, rows: Option<&[u32]>) -> Result<Tensor> {
        let tables = self.tables_for(forest)?;
        let context = RowContext { tables: &tables, depths: &forest.depths, tiles: &tiles(forest) };
        let mut x = self.embedded(&forest.ids)?;
        for layer in 0..self.config.layers {
            x = self.block(layer)?.forward(&x, &context, rows.filter(|_| self.is_last(layer)))?;
        }
        Ok(x)
    }

    /// The states below the first block [T, H].
    pub(crate) fn embedded(&self, ids: &[u32]) -> Result<Tensor> {
        scaled(&embed::forward(&self.embed.value, ids)?, self.config.embedding_scale(self.dtype))
    }

    /// States after the last norm [R, H] of those before it, and 1 / rms of these [R].
    pub(crate) fn last_norm(&self, rows: &Tensor) -> Result<(Tensor, Tensor)> {
        self.norm.forward(rows)
    }

    /// The same as the LM head takes them: divided by what logits are divided by.
    pub(crate) fn head_input(&self, rows: &Tensor) -> Result<(Tensor, Tensor)> {
        let (normed, rms) = self.last_norm(rows)?;
        Ok((scaled(&normed, self.head_scale())?, rms))
    }

    /// How logits are computed from what the LM head takes.
    pub(crate) fn head_form(&self) -> head::Form {
        head::Form { products: self.products, cap: self.config.logits_cap }
    }

    /// Factor of the states between the last norm and the LM head.
    pub(crate) fn head_scale(&self) -> f64 {
        1.0 / self.config.multipliers.logits
    }

    fn block(&self, layer: usize) -> Result<Cow<'_, Block>> {
        let Some(quantised) = &self.quantised else { return Ok(Cow::Borrowed(&self.blocks[layer])) };
        let mut block = block_of(&self.config, layer, &mut |names| joined(names, quantised.tensors(names)?))?;
        block.linears_mut().into_iter().for_each(|linear| linear.products = self.products);
        Ok(Cow::Owned(block))
    }

    /// Refuses a GGUF file, whose blocks are there to score with alone.
    pub(crate) fn whole(&self) -> Result<()> {
        match &self.quantised {
            None => Ok(()),
            Some(_) => Err(Error::input("a GGUF file is only scored with; use the Hugging Face folder")),
        }
    }

    /// True where a block is the last one, which computes only the requested rows.
    pub(crate) fn is_last(&self, layer: usize) -> bool {
        layer + 1 == self.config.layers
    }

    /// The parameter of the LM head, tied or not.
    pub(crate) fn head(&self) -> &Parameter {
        self.head.as_ref().unwrap_or(&self.embed)
    }

    /// The matrix of the LM head [V, H], tied or not.
    pub(crate) fn head_weight(&self) -> &Tensor {
        &self.head().value
    }

    /// Rotary tables that cover a forest.
    pub(crate) fn tables_for(&self, forest: &Forest) -> Result<Arc<RopeTables>> {
        self.tables(forest.depths.iter().max().map_or(1, |&depth| depth as usize + 1), forest.long)
    }

    /// Rotary tables for at least `positions` positions, of long texts or of others.
    pub(crate) fn tables(&self, positions: usize, long: bool) -> Result<Arc<RopeTables>> {
        let mut tables = self.tables.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = &mut tables[usize::from(long)];
        match known {
            Some(tables) if tables.every.positions() >= positions => Ok(tables.clone()),
            _ => {
                let positions = positions.next_power_of_two().max(256);
                let DecoderConfig { rope, windowed_rope, head_dim, .. } = &self.config;
                let table = |rope| RopeTable::new(rope, *head_dim, long, positions, self.dtype, &self.device);
                let windowed = windowed_rope.as_ref().filter(|windowed| *windowed != rope).map(table).transpose()?;
                let fresh = Arc::new(RopeTables { every: table(rope)?, windowed });
                *known = Some(fresh.clone());
                Ok(fresh)
            }
        }
    }

    /// The same model in f64, with biases and norms moved off 0 and 1 so that mistakes show.
    #[cfg(test)]
    pub(crate) fn for_checks(mut self) -> Decoder {
        self.dtype = DType::F64;
        for parameter in self.parameters_mut() {
            let value = parameter.value.to_dtype(DType::F64).expect("a cast");
            let jitter = random::normal(1, &parameter.parts[0].0, value.elem_count(), 0.1);
            let jitter = Tensor::from_vec(jitter, value.shape(), value.device()).expect("as many numbers");
            parameter.value = (value + jitter.to_dtype(DType::F64).expect("a cast")).expect("the same shape");
        }
        self
    }

    /// A copy of its own.
    #[cfg(test)]
    pub(crate) fn duplicate(&self) -> Decoder {
        let mut tensors = HashMap::new();
        for parameter in self.parameters() {
            for (name, tensor) in parameter.named().expect("parts of a parameter") {
                tensors.insert(name.to_owned(), tensor.copy().expect("a copy"));
            }
        }
        Decoder::assemble(self.config.clone(), tensors, &self.device, self.dtype).expect("the same tensors")
    }

    /// The same model in another dtype.
    pub(crate) fn cast(mut self, dtype: DType) -> Result<Decoder> {
        for parameter in self.parameters_mut() {
            parameter.value = parameter.value.to_dtype(dtype)?;
        }
        Ok(Decoder { dtype, tables: Mutex::default(), ..self })
    }

    /// All parameters, in a fixed order.
    pub(crate) fn parameters(&self) -> Vec<&Parameter> {
        let mut all = vec![&self.embed];
        all.extend(self.blocks.iter().flat_map(|block| block.parameters()));
        all.push(&self.norm.weight);
        all.extend(&self.head);
        all.extend(&self.score);
        all
    }

    /// The same in the same order, to change.
    pub(crate) fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        let mut all = vec![&mut self.embed];
        all.extend(self.blocks.iter_mut().flat_map(|block| block.parameters_mut()));
        all.push(&mut self.norm.weight);
        all.extend(&mut self.head);
        all.extend(&mut self.score);
        all
    }
}

/// A block of the tensors that `take` gives for their names in model files.
fn block_of(
    config: &DecoderConfig,
    layer: usize,
    take: &mut impl FnMut(&[String]) -> Result<Parameter>,
) -> Result<Block> {
    let name = |name: &str| format!("{}layers.{layer}.{name}", config.body());
    let mut linear = |names: &[&str], bias: bool| -> Result<Linear> {
        let of = |kind: &str| names.iter().map(|n| name(&format!("{n}_proj.{kind}"))).collect::<Vec<_>>();
        let weight = take(&of("weight"))?;
        let bias = if bias { Some(take(&of("bias"))?) } else { None };
        Ok(Linear { weight, bias, adapters: Vec::new(), products: Products::Exact })
    };
    let (qkv, gate_up): (&[&str], &[&str]) = match config.family.fused {
        false => (&["self_attn.q", "self_attn.k", "self_attn.v"], &["mlp.gate", "mlp.up"]),
        true => (&["self_attn.qkv"], &["mlp.gate_up"]),
    };
    let qkv = linear(qkv, config.qkv_bias)?;
    let output = linear(&["self_attn.o"], config.output_bias)?;
    let gate_up = linear(gate_up, config.mlp_bias)?;
    let down = linear(&["mlp.down"], config.mlp_bias)?;
    let mut head_norm = |of: &str| -> Result<Option<Norm>> {
        let names = [name(&format!("self_attn.{of}_norm.weight"))];
        let there = config.head_norm != HeadNorms::None;
        there.then(|| Ok(norm_of(config, config.rms_norm_eps, take(&names)?))).transpose()
    };
    let (query_norm, key_norm) = (head_norm("q")?, head_norm("k")?);
    // What is added to the states after a norm is not divided by what multiplies that; no family has both.
    let mut states_norm = |of: Option<&str>, eps: f64| -> Result<Option<Norm>> {
        of.map(|of| Ok(norm_of(config, eps, take(&[name(&format!("{of}.weight"))])?))).transpose()
    };
    let [before, after, before_mlp, after_mlp] = config.family.norms.names();
    Ok(Block {
        shape: Shape::of(config, layer),
        rotated: config.rotated[layer],
        query_scale: config.query_scale,
        activation: config.family.activation,
        input_norm: states_norm(before, config.states_eps())?,
        qkv,
        head_norms: config.head_norm,
        query_norm,
        key_norm,
        output,
        output_norm: states_norm(after, config.rms_norm_eps)?,
        post_norm: states_norm(before_mlp, config.states_eps())?,
        gate_up,
        down,
        down_norm: states_norm(after_mlp, config.rms_norm_eps)?,
    })
}

fn norm_of(config: &DecoderConfig, eps: f64, weight: Parameter) -> Norm {
    Norm { weight, kind: config.family.norm, eps }
}

/// Tensors that are held as one.
fn joined(names: &[String], mut values: Vec<Tensor>) -> Result<Parameter> {
    let parts = names.iter().cloned().zip(values.iter().map(|value| value.dims()[0])).collect();
    let value = if values.len() == 1 { values.remove(0) } else { Tensor::cat(&values, 0)? };
    Ok(Parameter { parts, value: value.contiguous()?, gradient: None })
}

/// The tokens that a forest asks the head for.
pub(crate) fn targets(forest: &Forest) -> Vec<Target> {
    forest.scored.iter().map(|scored| Target { row: scored.row, token: scored.target }).collect()
}

/// Adds the scores of a forest to the sums of its sequences.
pub(crate) fn add_scores(forest: &Forest, scores: &HeadScores, sums: &mut [LogProbs]) -> Result<()> {
    for (scored, &logp) in forest.scored.iter().zip(&scores.logps) {
        if !logp.is_finite() {
            let (token, index) = (scored.target, scored.owners[0].0);
            return Err(Error::NotFinite(format!(
                "the log-probability of token {token} in sequence {index} is {logp}; the model's weights may be damaged or have diverged"
            )));
        }
        for &(index, part) in &scored.owners {
            match part {
                Part::Prompt => sums[index].prompt += logp,
                Part::Response => sums[index].response += logp,
            }
        }
    }
    Ok(())
}
