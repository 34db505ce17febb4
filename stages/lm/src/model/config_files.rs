//! Reading the form of a decoder from the files of a model, and writing it beside weights.

use crate::error::is_there;
use crate::model::config::{DecoderConfig, REWARD, without_head};
use crate::model::folder::{base_of, is_gguf, model_part, refuse_pointer};
use crate::model::gguf;
use crate::model::keys::Keys;
use crate::{DType, Error, Result, Text};
use models::ADAPTER_CONFIG;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// True where a folder holds a reward model: by its architecture, or an adapter with the head of one.
///
/// Errors name the file: missing or malformed.
pub fn is_reward_model(folder: &Path) -> Result<bool> {
    let read = |path: PathBuf| -> Result<Value> {
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map_err(Error::at(&path))
    };
    let base = base_of(folder)?;
    if base.is_some() && read(folder.join(ADAPTER_CONFIG))?["task_type"] == "SEQ_CLS" {
        return Ok(true);
    }
    let model = base.as_deref().unwrap_or(folder);
    if is_gguf(model) {
        return Ok(false);
    }
    let config = read(model.join("config.json"))?;
    let names = config["architectures"].as_array().into_iter().flatten();
    Ok(names.filter_map(Value::as_str).any(|name| name.ends_with(REWARD)))
}

impl DecoderConfig {
    /// Reads `config.json` (the base's, where the folder holds an adapter), in the old style (`rope_theta`,
    /// `rope_scaling`, `torch_dtype`) or the new one (`rope_parameters`, `dtype`, `layer_types`), and
    /// `generation_config.json` where it is there. Of a GGUF file, its head.
    ///
    /// Errors name the file and the key: a missing or unreadable file, an architecture, activation, rotary type or
    /// quantisation that this crate does not compute.
    pub fn from_folder(folder: &Path) -> Result<DecoderConfig> {
        let model = &model_part(folder)?;
        if is_gguf(model) { gguf::config_of(model) } else { DecoderConfig::from_files(model, false) }
    }

    /// The same of a reward model: `...ForSequenceClassification` with one output, or an adapter with such a head over
    /// that or a language model.
    ///
    /// Errors: as [`from_folder`](DecoderConfig::from_folder); a model with a language-model head, or several outputs.
    pub fn of_reward_model(folder: &Path) -> Result<DecoderConfig> {
        if is_gguf(folder) {
            return Err(Error::file(folder, "a GGUF file holds no reward model here; use the Hugging Face folder"));
        }
        match is_reward_model(folder)? && !is_reward_model(&model_part(folder)?)? {
            true => DecoderConfig::from_folder(folder)?.as_reward_model(Text::load(folder)?.pad_id()),
            false => DecoderConfig::from_files(&model_part(folder)?, true),
        }
    }

    /// The same of a folder whose states are wanted: also of a body without a head, such as `Qwen3Model`.
    pub(crate) fn of_body(folder: &Path) -> Result<DecoderConfig> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let mut json: Map<String, Value> = serde_json::from_str(&text).map_err(Error::at(&path))?;
        match without_head(&mut json) {
            true => DecoderConfig::read(json, false).map_err(Error::at(&path)),
            false => DecoderConfig::from_folder(folder),
        }
    }

    fn from_files(folder: &Path, reward: bool) -> Result<DecoderConfig> {
        let path = folder.join("config.json");
        refuse_pointer(&path)?;
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let json: Map<String, Value> = serde_json::from_str(&text).map_err(Error::at(&path))?;
        let mut config = DecoderConfig::read(json, reward).map_err(Error::at(&path))?;
        let path = folder.join("generation_config.json");
        if is_there(&path)? {
            let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
            let generation: Map<String, Value> = serde_json::from_str(&text).map_err(Error::at(&path))?;
            let eos = Keys(&generation).ids("eos_token_id").map_err(Error::at(&path))?;
            if !eos.is_empty() {
                config.eos_token_ids = eos;
            }
            config.generation = Some(generation);
        }
        Ok(config)
    }

    /// Writes `config.json` and `generation_config.json`: as they were read, with the dtype of the weights that are
    /// written beside them and whether the head is tied.
    pub fn save(&self, folder: &Path, dtype: DType) -> Result<()> {
        let mut json = self.json.clone();
        // Weights that are written are numbers.
        json.remove("quantization_config");
        let old_style = json.contains_key("torch_dtype") && !json.contains_key("dtype");
        json.insert(if old_style { "torch_dtype" } else { "dtype" }.to_owned(), json!(dtype_name(dtype)));
        if !old_style {
            json.remove("torch_dtype");
        }
        if let Some(Value::Object(inner)) = json.get_mut("text_config").filter(|_| self.wrapped) {
            for key in ["dtype", "torch_dtype"] {
                inner.entry(key).and_modify(|value| *value = json!(dtype_name(dtype)));
            }
        }
        if !self.reward {
            json.insert("tie_word_embeddings".to_owned(), json!(self.tied));
        }
        write_json(&folder.join("config.json"), &json)?;
        let generation = self.generation.clone().unwrap_or_else(|| {
            let mut generation = Map::new();
            for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
                if let Some(value) = self.json.get(key).filter(|value| !value.is_null()) {
                    generation.insert(key.to_owned(), value.clone());
                }
            }
            generation
        });
        write_json(&folder.join("generation_config.json"), &generation)
    }
}

/// The name of a dtype in `config.json`.
fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::F64 => "float64",
        _ => "float32",
    }
}

fn write_json(path: &Path, json: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_string_pretty(json).map_err(Error::at(path))?;
    std::fs::write(path, text + "\n").map_err(Error::io(path))
}
