//! Quantised models in GGUF files, to score with; candle-transformers computes them.

use crate::{Device, Error, Result, Sequence};
use candle_core::Tensor;
use candle_core::quantized::gguf_file::Content;
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The positions that candle's quantised Llama has angles for.
const LLAMA_POSITIONS: usize = quantized_llama::MAX_SEQ_LEN;

/// A quantised model of the Llama (with Mistral), Qwen2 or Qwen3 family. Its tokenizer stands beside it, as
/// `tokenizer.json`.
pub struct GgufModel {
    model: Mutex<Model>,
    device: Device,
}

/// candle's models keep the keys and values of what they have seen.
enum Model {
    Llama(quantized_llama::ModelWeights),
    Qwen2(quantized_qwen2::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
}

impl Model {
    fn forget(&mut self) {
        match self {
            Model::Llama(model) => model.clear_kv_cache(),
            Model::Qwen2(model) => model.clear_kv_cache(),
            Model::Qwen3(model) => model.clear_kv_cache(),
        }
    }

    /// Logits after the last of some tokens, the first of which stands at `position`. [V]
    fn forward(&mut self, ids: &[u32], position: usize, device: &Device) -> Result<Vec<f32>> {
        let tokens = Tensor::new(ids, device)?.unsqueeze(0)?; // [1, T]
        let logits = match self {
            Model::Llama(model) => model.forward(&tokens, position)?,
            Model::Qwen2(model) => model.forward(&tokens, position)?,
            Model::Qwen3(model) => model.forward(&tokens, position)?,
        };
        Ok(logits.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1()?)
    }
}

/// Whether a path is a GGUF file.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("gguf"))
}

impl GgufModel {
    /// Reads the file.
    ///
    /// # Errors
    /// Name the file: damaged, or of a form that is not computed here.
    pub fn load(path: &Path, device: &Device) -> Result<GgufModel> {
        let (content, family) = open(path)?;
        let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
        let model = match family {
            "llama" => quantized_llama::ModelWeights::from_gguf(content, &mut file, device).map(Model::Llama),
            "qwen2" => quantized_qwen2::ModelWeights::from_gguf(content, &mut file, device).map(Model::Qwen2),
            _ => quantized_qwen3::ModelWeights::from_gguf(content, &mut file, device).map(Model::Qwen3),
        };
        Ok(GgufModel { model: Mutex::new(model.map_err(Error::at(path))?), device: device.clone() })
    }

    /// The longest sequence that a file's model takes; only its head is read.
    ///
    /// # Errors
    /// As [`GgufModel::load`].
    pub fn positions(path: &Path) -> Result<usize> {
        let (content, family) = open(path)?;
        let key = format!("{family}.context_length");
        let positions = content.metadata.get(&key).and_then(|value| value.to_u32().ok());
        let positions = positions.ok_or_else(|| Error::file(path, format!("no `{key}`")))? as usize;
        Ok(if family == "llama" { positions.min(LLAMA_POSITIONS) } else { positions })
    }

    /// The log-prob of each sequence's completion. Sequences that follow each other and have their prompt in common
    /// compute it once.
    ///
    /// # Errors
    /// A sequence without prompt or completion; what the tensor library says.
    pub fn score(&self, sequences: &[&Sequence]) -> Result<Vec<f64>> {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scores = Vec::with_capacity(sequences.len());
        let mut known: Option<(&[u32], Vec<f32>)> = None;
        for sequence in sequences {
            let (prompt, completion) = sequence.ids.split_at(sequence.start);
            if prompt.is_empty() || completion.is_empty() {
                return Err(Error::input("a sequence to score needs a prompt and a completion"));
            }
            let (before, again) = match known.take() {
                Some((same, logits)) if same == prompt => (logits, completion.len() > 1),
                _ => {
                    model.forget();
                    (model.forward(prompt, 0, &self.device)?, false)
                }
            };
            if again {
                // Keys and values of the completion before are still there.
                model.forget();
                model.forward(prompt, 0, &self.device)?;
            }
            let mut total = log_prob(&before, completion[0])?;
            for at in 1..completion.len() {
                let logits = model.forward(&completion[at - 1..at], prompt.len() + at - 1, &self.device)?;
                total += log_prob(&logits, completion[at])?;
            }
            scores.push(total);
            known = Some((prompt, before));
        }
        Ok(scores)
    }
}

/// The log of the softmax at one token.
fn log_prob(logits: &[f32], token: u32) -> Result<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    let logit = logits.get(token as usize).ok_or_else(|| {
        Error::input(format!("token {token} of the tokenizer is beyond the model's {} tokens", logits.len()))
    })?;
    Ok(f64::from(logit - largest) - sum.ln())
}

/// The head of a file, and its family.
fn open(path: &Path) -> Result<(Content, &'static str)> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let content = crate::device::quietly(|| Content::read(&mut file))
        .ok_or_else(|| Error::file(path, "not a GGUF file"))?
        .map_err(Error::at(path))?;
    let text = |key: &str| content.metadata.get(key).and_then(|value| value.to_string().ok().cloned());
    let architecture = text("general.architecture").unwrap_or_default();
    let Some(family) = ["llama", "qwen2", "qwen3"].into_iter().find(|family| *family == architecture) else {
        let what = format!("the architecture `{architecture}` is not computed; there are llama, qwen2 and qwen3");
        return Err(Error::file(path, what));
    };
    let scaling = text(&format!("{family}.rope.scaling.type")).filter(|kind| kind != "none");
    if scaling.is_some() || content.tensor_infos.contains_key("rope_freqs.weight") {
        return Err(Error::file(
            path,
            "scaled rotary positions are not computed for GGUF; use the Hugging Face folder",
        ));
    }
    Ok((content, family))
}
