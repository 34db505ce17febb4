//! Sentence encoders: one vector of unit length per text.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use rayon::prelude::*;
use serde_json::Value as Json;
use tokenizers::normalizers::{Lowercase, Sequence as NormalizerSequence};
use tokenizers::{NormalizerWrapper, Tokenizer, TruncationParams};

use crate::encode::bert::{Bert, Kin};
use crate::encode::form::bert_config;
use crate::encode::modernbert::{ModernBert, ModernForm};
use crate::encode::parts::Source;
use crate::encode::pooling::{self, Pooling};
use crate::error::{Error, Result, is_there};
use crate::model::decoder::Decoder;
use crate::model::families;
use crate::model::folder::{model_part, tokenizer_part};
use crate::model::tensor_file;
use crate::model::weights::{self, Holding};
use crate::ops::rounded::Products;
use crate::text::special::read_json;
use crate::text::tokenizer_files::load_tokenizer;
use crate::{DType, DecoderConfig, Device, Dtype};

/// Turns texts into vectors of unit length.
///
/// A folder in the sentence-transformers layout (`modules.json`) over a BERT model is followed to the letter: its
/// pooling, its `max_seq_length` (longer texts lose their end), its lower-casing. A BERT folder without that layout is
/// mean-pooled, as sentence-transformers does. A folder of one of our decoders gives its final states, pooled as its
/// `modules.json` says, else by the mean over all tokens.
pub struct SentenceEncoder {
    model: Model,
    tokenizer: Tokenizer,
    pooling: Vec<Pooling>,
    max_tokens: usize,
    default_prompt: Option<String>,
}

enum Model {
    Bert(Box<Bert>),
    Modern(Box<ModernBert>),
    Decoder(Box<Decoder>),
}

impl SentenceEncoder {
    /// Reads a folder, to compute in f32.
    ///
    /// # Errors
    /// As [`SentenceEncoder::load_in`].
    pub fn load(folder: &Path, device: &Device) -> Result<SentenceEncoder> {
        SentenceEncoder::load_in(folder, device, Dtype::F32)
    }

    /// Reads a folder, to compute in a precision.
    ///
    /// # Errors
    /// Names the file: missing, damaged, of an architecture or with a module that is not computed here.
    pub fn load_in(folder: &Path, device: &Device, dtype: Dtype) -> Result<SentenceEncoder> {
        let layout = Layout::read(folder)?;
        let config_file = model_part(&layout.transformer)?.join("config.json");
        let config = read_json(&config_file)?;
        let kind = config["model_type"].as_str();
        let described = (&config, &*config_file);
        let (model, positions) = match (kind.and_then(Kin::named), kind) {
            (Some(kin), _) => load_bert(kin, read(&layout.transformer)?, described, device, dtype)?,
            (None, Some("modernbert")) => load_modern(read(&layout.transformer)?, described, device, dtype)?,
            (None, kind) if families::named(kind).is_ok() => {
                let decoder = load_body(&layout.transformer, device, dtype)?;
                let positions = decoder.max_positions();
                (Model::Decoder(Box::new(decoder)), positions)
            }
            (None, other) => return Err(unknown(other, &config_file)),
        };
        let mut tokenizer = load_tokenizer(&tokenizer_part(&layout.transformer)?)?;
        if layout.lower_case && !tokenizer.get_normalizer().is_some_and(lowers) {
            let mut normalizers = vec![NormalizerWrapper::Lowercase(Lowercase)];
            normalizers.extend(tokenizer.get_normalizer().cloned());
            let tokenizer_file = layout.transformer.join("tokenizer.json");
            let lower = tokenizer.with_normalizer(Some(NormalizerSequence::new(normalizers)));
            lower.map_err(|error| Error::file(tokenizer_file, format!("lower case cannot be added: {error}")))?;
        }
        let max_tokens = layout.max_tokens.unwrap_or(positions).min(positions);
        let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|error| {
            let what = format!("texts cannot be cut to {max_tokens} tokens: {error}");
            Error::file(layout.transformer.join("tokenizer.json"), what)
        })?;
        let default_prompt = layout.default_prompt;
        Ok(SentenceEncoder { model, tokenizer, pooling: layout.pooling, max_tokens, default_prompt })
    }

    /// One vector per text, in the order of the texts. At most `budget_tokens` tokens go through the model at a time; a
    /// single text may be longer.
    ///
    /// # Errors
    /// A text without any token (only a decoder can give none), or numbers that are not finite.
    pub fn encode(&self, texts: &[&str], budget_tokens: usize) -> Result<Vec<Vec<f32>>> {
        self.encode_tokens(&self.tokens(texts)?, budget_tokens)
    }

    /// The tokens of each text, special tokens included, cut to those that fit the model.
    ///
    /// # Errors
    /// A text without any token (only a decoder can give none).
    pub fn tokens(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>> {
        let tokens = |(index, text): (usize, &&str)| {
            let encoding = self.tokenizer.encode_fast(*text, true);
            let encoding = encoding.map_err(|error| Error::input(format!("tokenising text {index}: {error}")))?;
            if encoding.get_ids().is_empty() {
                return Err(Error::input(format!("text {index} is empty: it has no token to embed")));
            }
            Ok(encoding.get_ids().to_vec())
        };
        let ids: Vec<Result<Vec<u32>>> = texts.par_iter().enumerate().map(tokens).collect();
        ids.into_iter().collect()
    }

    /// As [`encode`](SentenceEncoder::encode), given the tokens of the texts.
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn encode_tokens(&self, ids: &[Vec<u32>], budget_tokens: usize) -> Result<Vec<Vec<f32>>> {
        let embeddings = match &self.model {
            Model::Bert(bert) => self.encode_packed(|texts| bert.states(texts), ids, budget_tokens)?,
            Model::Modern(bert) => self.encode_packed(|texts| bert.states(texts), ids, budget_tokens)?,
            Model::Decoder(decoder) => {
                let ids = ids.iter().map(Vec::as_slice).collect::<Vec<_>>();
                self.encode_decoder(decoder, &ids, budget_tokens)?
            }
        };
        match embeddings.iter().position(|embedding| embedding.iter().any(|x| !x.is_finite())) {
            Some(index) => Err(Error::NotFinite(format!(
                "the embedding of text {index} is not finite; the model's weights may be damaged"
            ))),
            None => Ok(embeddings),
        }
    }

    /// The text that the folder puts before each text by default (`default_prompt_name`), where it names one. [`encode`]
    /// leaves it to the caller.
    ///
    /// [`encode`]: SentenceEncoder::encode
    pub fn default_prompt(&self) -> Option<&str> {
        self.default_prompt.as_deref()
    }

    /// Texts are cut to this many tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn encode_packed(
        &self,
        states: impl Fn(&[&[u32]]) -> Result<Tensor>,
        ids: &[Vec<u32>],
        budget_tokens: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let mut embeddings = Vec::with_capacity(ids.len());
        let mut rest = ids;
        while !rest.is_empty() {
            let (group, after) = rest.split_at(fitting(rest, budget_tokens));
            rest = after;
            let texts: Vec<&[u32]> = group.iter().map(Vec::as_slice).collect();
            let states = states(&texts)?;
            let width = states.dim(1)?;
            let states = states.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            let mut first = 0;
            for ids in texts {
                embeddings.push(pooling::embed(&self.pooling, &states[first * width..][..ids.len() * width], width));
                first += ids.len();
            }
        }
        Ok(embeddings)
    }

    fn encode_decoder(&self, decoder: &Decoder, ids: &[&[u32]], budget_tokens: usize) -> Result<Vec<Vec<f32>>> {
        // Bounded groups, so that the states of all texts never exist together.
        let mut embeddings = Vec::with_capacity(ids.len());
        let mut rest = ids;
        while !rest.is_empty() {
            let (group, after) = rest.split_at(fitting(rest, budget_tokens));
            rest = after;
            for states in decoder.states(group, budget_tokens)? {
                let width = states.dim(1)?;
                let states = states.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                embeddings.push(pooling::embed(&self.pooling, &states, width));
            }
        }
        Ok(embeddings)
    }
}

impl std::fmt::Debug for SentenceEncoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let debug = &mut formatter.debug_struct("SentenceEncoder");
        debug.field("pooling", &self.pooling).field("max_tokens", &self.max_tokens).finish_non_exhaustive()
    }
}

/// Checks a folder of an encoder, all but its weights.
pub(crate) fn check_encoder(folder: &Path) -> Result<()> {
    let layout = Layout::read(folder)?;
    let config_file = model_part(&layout.transformer)?.join("config.json");
    let config = read_json(&config_file)?;
    load_tokenizer(&tokenizer_part(&layout.transformer)?)?;
    let (described, cpu) = ((&config, &*config_file), &Device::Cpu);
    match (config["model_type"].as_str().and_then(Kin::named), config["model_type"].as_str()) {
        (Some(kin), _) => load_bert(kin, listed(&layout.transformer)?, described, cpu, Dtype::F32).map(drop),
        (None, Some("modernbert")) => load_modern(listed(&layout.transformer)?, described, cpu, Dtype::F32).map(drop),
        (None, kind) if families::named(kind).is_ok() => {
            let model = model_part(&layout.transformer)?;
            weights::check(&model, &mut DecoderConfig::of_body(&model)?).map(drop)
        }
        (None, other) => Err(unknown(other, &config_file)),
    }
}

fn unknown(model_type: Option<&str>, config_file: &Path) -> Error {
    let text = format!(
        "model_type {} is not a sentence encoder known here; known are bert, roberta, xlm-roberta, \
         camembert, mpnet, modernbert, and the decoders {}",
        model_type.unwrap_or("(none)"),
        families::names()
    );
    Error::file(config_file, text)
}

/// Number of the first texts that have at most so many tokens together; at least one.
fn fitting<T: AsRef<[u32]>>(texts: &[T], budget_tokens: usize) -> usize {
    let mut tokens = 0;
    let fits = |ids: &&T| {
        tokens += ids.as_ref().len();
        tokens <= budget_tokens
    };
    texts.iter().take_while(fits).count().max(1)
}

/// The layout of an encoder, as the files around the weights state it.
struct Layout {
    transformer: PathBuf,
    pooling: Vec<Pooling>,
    max_tokens: Option<usize>,
    lower_case: bool,
    default_prompt: Option<String>,
}

impl Layout {
    fn read(folder: &Path) -> Result<Layout> {
        let modules_file = folder.join("modules.json");
        let mut transformer = folder.to_owned();
        let mut pooling = vec![Pooling::Mean];
        for (kind, place) in modules(folder)? {
            match &*kind {
                TRANSFORMER => transformer = place,
                "Pooling" => {
                    let file = place.join("config.json");
                    pooling = Pooling::read(&read_json(&file)?, &file)?;
                }
                // Every embedding is made unit length here.
                "Normalize" => {}
                other => {
                    let what = format!("module {other} is not known here; known are Transformer, Pooling, Normalize");
                    return Err(Error::file(&modules_file, what));
                }
            }
        }
        let optional = |file: &str| {
            let file = transformer.join(file);
            if is_there(&file)? { read_json(&file) } else { Ok(Json::Null) }
        };
        let settings = optional("sentence_bert_config.json")?;
        let tokenizer = optional("tokenizer_config.json")?;
        // Without a limit the tokenizer's own holds; "none" is written as a number that no usize can be.
        let limit = |value: &Json| value.as_u64().and_then(|limit| usize::try_from(limit).ok());
        let max_tokens = limit(&settings["max_seq_length"]).or_else(|| limit(&tokenizer["model_max_length"]));
        let lower_case = settings["do_lower_case"].as_bool().unwrap_or(false);
        let default_prompt = default_prompt(&folder.join("config_sentence_transformers.json"))?;
        Ok(Layout { transformer, pooling, max_tokens, lower_case, default_prompt })
    }
}

/// The kind of the module that has the weights.
const TRANSFORMER: &str = "Transformer";

/// The modules that `modules.json` lists, by kind and folder; none where it is not there.
fn modules(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let file = folder.join("modules.json");
    if !is_there(&file)? {
        return Ok(Vec::new());
    }
    let modules = read_json(&file)?;
    let modules = modules.as_array().ok_or_else(|| Error::file(&file, "is not a list of modules"))?;
    let read = |module: &Json| {
        let (Some(kind), Some(path)) = (module["type"].as_str(), module["path"].as_str()) else {
            return Err(Error::file(&file, "has a module without `type` or `path`"));
        };
        let place = if path.is_empty() { folder.to_owned() } else { folder.join(path) };
        Ok((kind.rsplit('.').next().unwrap_or(kind).to_owned(), place))
    };
    modules.iter().map(read).collect()
}

/// The folder with config and weights: the one that `modules.json` names, else the folder itself.
pub(crate) fn transformer_of(folder: &Path) -> Result<PathBuf> {
    let transformer = modules(folder)?.into_iter().rfind(|(kind, _)| kind == TRANSFORMER);
    Ok(transformer.map_or_else(|| folder.to_owned(), |(_, place)| place))
}

/// A decoder to take states from; its head may be missing.
fn load_body(folder: &Path, device: &Device, dtype: Dtype) -> Result<Decoder> {
    if model_part(folder)? != folder {
        return Decoder::load_in(folder, device, dtype);
    }
    let load =
        |dtype| Decoder::load_model(DecoderConfig::of_body(folder)?, folder, Holding { dtype, device, bits: None });
    Decoder::computing(dtype, device, load)
}

/// The default prompt that a file of sentence-transformers names.
fn default_prompt(file: &Path) -> Result<Option<String>> {
    if !is_there(file)? {
        return Ok(None);
    }
    let settings = read_json(file)?;
    let Some(name) = settings["default_prompt_name"].as_str() else { return Ok(None) };
    match settings["prompts"][name].as_str() {
        Some(prompt) => Ok(Some(prompt.to_owned())),
        None => Err(Error::file(file, format!("`default_prompt_name` is {name:?}, which is none of its `prompts`"))),
    }
}

/// True where a normalizer makes lower case already.
fn lowers(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::Lowercase(_) => true,
        NormalizerWrapper::BertNormalizer(bert) => bert.lowercase,
        NormalizerWrapper::Sequence(sequence) => sequence.as_ref().iter().any(lowers),
        _ => false,
    }
}

/// The file of an encoder's weights, whole by its header.
fn weights_of(folder: &Path) -> Result<PathBuf> {
    let weights = folder.join("model.safetensors");
    if !is_there(&weights)? {
        let text = "is missing; weights in another format (pytorch_model.bin, shards) are not read";
        return Err(Error::file(&weights, text));
    }
    tensor_file::check_file(&weights)?;
    Ok(weights)
}

/// A model of BERT's kin, and its number of positions.
fn load_bert(
    kin: Kin,
    (weights, tensors): (PathBuf, Source),
    (config, file): (&Json, &Path),
    device: &Device,
    dtype: Dtype,
) -> Result<(Model, usize)> {
    let bert = bert_config(config, file)?;
    let positions = kin.positions(&bert);
    fits(bert.hidden_size, bert.num_attention_heads, device, file)?;
    let model = Bert::new(kin, &bert, tensors, &weights, computing(device, dtype))?;
    Ok((Model::Bert(Box::new(model)), positions))
}

/// Refuses heads that a GPU has no kernel for.
fn fits(hidden: usize, heads: usize, device: &Device, file: &Path) -> Result<()> {
    #[cfg(any(feature = "cuda", test))]
    if !matches!(device, Device::Cpu) {
        let width = hidden / heads.max(1);
        if !crate::ops::cuda::encode::fits(width) {
            let text = format!("heads of {width} columns are not computed on a GPU; use `cpu`");
            return Err(Error::file(file, text));
        }
    }
    #[cfg(not(any(feature = "cuda", test)))]
    let _ = (hidden, heads, device, file);
    Ok(())
}

/// A ModernBERT model, and its number of positions.
fn load_modern(
    (weights, tensors): (PathBuf, Source),
    (config, file): (&Json, &Path),
    device: &Device,
    dtype: Dtype,
) -> Result<(Model, usize)> {
    let form = ModernForm::read(config, file)?;
    let positions = form.positions;
    fits(form.hidden, form.heads, device, file)?;
    let model = ModernBert::new(form, tensors, &weights, computing(device, dtype))?;
    Ok((Model::Modern(Box::new(model)), positions))
}

/// The file of an encoder's weights and its tensors, on the CPU.
fn read(folder: &Path) -> Result<(PathBuf, Source)> {
    let weights = weights_of(folder)?;
    let tensors = Source::Read(tensor_file::read_all(&weights)?);
    Ok((weights, tensors))
}

/// The same by the header of the file.
fn listed(folder: &Path) -> Result<(PathBuf, Source)> {
    let weights = weights_of(folder)?;
    let header = tensor_file::header(&weights)?;
    header.iter().try_for_each(|(name, stored)| tensor_file::dtype_of(&weights, name, stored.dtype).map(drop))?;
    Ok((weights, Source::Listed(header)))
}

/// Where an encoder computes and in which precision: a CPU keeps f32 and rounds where it multiplies.
fn computing(device: &Device, dtype: Dtype) -> (&Device, DType, Products) {
    match (dtype, device) {
        (Dtype::F32, _) => (device, DType::F32, Products::Exact),
        (Dtype::Bf16, Device::Cpu) => (device, DType::F32, Products::Rounded),
        (Dtype::Bf16, _) => (device, DType::BF16, Products::Exact),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cuda::emulator::emulated;

    /// The whole of an encoder by the kernels of a GPU.
    #[test]
    fn encoders_on_a_gpu_are_those_of_the_cpu() {
        let fixtures = harness::root().join("stages/lm/tests/fixtures");
        let long = "Write a short poem about rain on a tin roof. ".repeat(3);
        for name in ["bert", "encoders/xlm-roberta", "encoders/mpnet", "encoders/modernbert"] {
            let encoder = SentenceEncoder::load(&fixtures.join(name), &Device::Cpu).unwrap();
            let encode = || encoder.encode(&["Hello", &long, "The café opens at nine."], 100).unwrap();
            let Some(there) = emulated(encode) else { return };
            for (got, want) in there.iter().flatten().zip(encode().iter().flatten()) {
                assert!((got - want).abs() < 1e-4, "{name}: {got}, {want} on the CPU");
            }
        }
    }
}
