//! Facts about a model folder or a GGUF file, from everything but the weights' numbers.

use crate::cost::estimate::{Estimate, Purpose};
use crate::encode::encoder::{check_encoder, transformer_of};
use crate::model::families;
use crate::model::folder::{base_of, is_gguf, model_part};
use crate::model::usable::{check_decoder, check_reward_model, in_few_bits};
use crate::model::weights;
use crate::text::special::read_json;
use crate::{Bits, DecoderConfig, Dtype, Error, Lora, Memory, Precision, Result, Text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A model as its files describe it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// `model_type` of its configuration, or `architecture` of a GGUF file; empty where neither is there.
    pub family: String,
    /// The base, of an adapter.
    pub base: Option<PathBuf>,
    /// True for a GGUF file.
    pub gguf: bool,
    /// True where weights are stored in few bits, which are frozen: in GGUF files, and in NF4; of an adapter its base's.
    pub few_bits: bool,
    /// The form of a decoder that is computed here.
    pub form: Option<ModelForm>,
    /// `config.json` of what embeds texts, for estimates.
    encoder: Option<Value>,
    /// Bytes of its weight files, those of an adapter's base left out.
    pub weight_bytes: u64,
    /// The type that a folder's weights are stored in, such as `bf16`; none where it cannot be said.
    pub stored: Option<&'static str>,
    /// Its chat template; none where it has none.
    pub template: Option<TemplateFacts>,
    /// Names, texts and ids of its special tokens: `bos_token`, ..., and each end of a generation as `end`.
    pub special_tokens: Vec<(String, String, Option<u32>)>,
    /// The reason why a decoder of it cannot be computed.
    pub no_decoder: Option<String>,
    /// The reason why it does not embed texts.
    pub no_encoder: Option<String>,
    /// The reason why it gives no rewards.
    pub no_reward: Option<String>,
}

/// Sizes of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelForm {
    /// Numbers in all weights, a tied head counted once.
    pub parameters: u64,
    /// Blocks.
    pub layers: u64,
    /// Width of the states between blocks.
    pub width: u64,
    /// Query heads.
    pub heads: u64,
    /// Heads of keys and values.
    pub kv_heads: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: u64,
    /// The longest sequence, tokens.
    pub positions: u64,
    /// `config.json`, or the name of the GGUF file, for estimates.
    config: Value,
}

/// A chat template by its properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFacts {
    /// True where `{% generation %}` says what is scored.
    pub marks_scored: bool,
    /// The reason why it takes no conversation, where it fails for the shortest one.
    pub fails: Option<String>,
}

/// A use whose memory is estimated, at a number of tokens at once (score, generate) or in a batch (train).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Judging, or scoring a reference.
    Score,
    /// Sampling responses.
    Generate,
    /// Training all weights.
    Train,
    /// Training an adapter of this rank over all linear layers, whose weights may be put into few bits.
    TrainAdapter {
        /// Rows of A.
        rank: usize,
        /// Bits of the weights beneath.
        bits: Option<Bits>,
    },
    /// Embedding texts.
    Embed,
}

impl ModelFacts {
    /// Reads a folder (model, adapter, sentence encoder) or a GGUF file.
    ///
    /// # Errors
    /// Where it is neither, or the system cannot read it. A model that is not computed here is no error: the facts say
    /// why.
    pub fn read(path: &Path) -> Result<ModelFacts> {
        let gguf = is_gguf(path);
        if !gguf && !models::is_model(path) && !path.join("modules.json").is_file() {
            let text = "no model: it has no config.json, adapter_config.json or modules.json, and is no GGUF file";
            return Err(Error::file(path, text));
        }
        let base = base_of(path).ok().flatten();
        let text = Text::load(path).ok();
        let no_encoder = match gguf {
            true => Some("a GGUF file embeds no texts here; use the Hugging Face folder".to_owned()),
            false => reason(check_encoder(path))?,
        };
        let family = family_of(path)?;
        let no_decoder = match reason(check_decoder(path).map(drop))? {
            Some(_) if no_encoder.is_none() && families::named(Some(&family)).is_err() => {
                Some("a sentence encoder has no head for tokens: it embeds texts only".to_owned())
            }
            Some(_) if no_encoder.is_none() && transformer_of(path)? != path => {
                let place = transformer_of(path)?;
                Some(format!("modules.json makes it a sentence encoder; the language model is {}", place.display()))
            }
            reason => reason,
        };
        let encoder = match no_encoder {
            None => Some(read_json(&config_of(path)?)?),
            Some(_) => None,
        };
        Ok(ModelFacts {
            family,
            gguf,
            few_bits: read_or_none(in_few_bits(path))?.unwrap_or(false),
            form: read_or_none(form_of(path))?,
            weight_bytes: weight_bytes(path)?,
            stored: weights_part(path).ok().filter(|_| !gguf).and_then(|folder| stored(&folder)),
            template: text.as_ref().and_then(Text::template_facts),
            special_tokens: text.as_ref().map(Text::named_tokens).unwrap_or_default(),
            no_decoder,
            no_encoder,
            encoder,
            no_reward: reason(check_reward_model(path).map(drop))?,
            base,
        })
    }

    /// Peak memory of a use, in bytes, with so many tokens in a batch; of training, the least that a schedule takes; none where the form is not known.
    pub fn bytes(&self, purpose: Use, tokens: u64, dtype: Dtype, device: &str) -> Option<u64> {
        let config = match purpose {
            Use::Embed => self.encoder.as_ref()?,
            _ => &self.form.as_ref()?.config,
        };
        let bits = if let Use::TrainAdapter { bits, .. } = purpose { bits } else { None };
        let estimate = Estimate::of(config, Precision { dtype, bits }, device).ok()?;
        let lora;
        let memory = Memory::Boundaries;
        let train = |adapter| Purpose::Train {
            memory,
            batch_tokens: tokens,
            tokens_at_once: tokens,
            gradient_sets: 1,
            shares: 1,
            adapter,
        };
        Some(estimate.bytes(match purpose {
            Use::Score => Purpose::Score { tokens_at_once: tokens, scored_at_once: tokens },
            Use::Embed => Purpose::Score { tokens_at_once: tokens, scored_at_once: 0 },
            Use::Generate => Purpose::Generate { tokens_at_once: tokens, responses_at_once: 32 },
            Use::Train => train(None),
            Use::TrainAdapter { rank, .. } => {
                lora = Lora::new(rank, 2.0 * rank as f64, &["all-linear".to_owned()]).ok()?;
                train(Some(&lora))
            }
        }))
    }
}

/// The text of an error about the model; one of the system stays an error.
fn reason(checked: Result<()>) -> Result<Option<String>> {
    match checked {
        Ok(()) => Ok(None),
        Err(error @ Error::Io { .. }) if !is_absence(&error) => Err(error),
        Err(error) => Ok(Some(error.to_string())),
    }
}

fn read_or_none<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error @ Error::Io { .. }) if !is_absence(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

fn is_absence(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

fn form_of(path: &Path) -> Result<ModelForm> {
    let reward = check_reward_model(path).is_ok();
    let mut config = if reward { DecoderConfig::of_reward_model(path)? } else { DecoderConfig::from_folder(path)? };
    let model = model_part(path)?;
    let json = match is_gguf(&model) {
        true => json!({"gguf": model}),
        false => {
            let mut json = read_json(&model.join("config.json"))?;
            // Where there is no head, the table is it, whatever is said.
            if !reward && weights::check(&model, &mut config).is_ok() {
                json["tie_word_embeddings"] = json!(config.tied);
            }
            json
        }
    };
    Ok(ModelForm {
        parameters: config.parameter_count() as u64,
        layers: config.layers as u64,
        width: config.hidden_size as u64,
        heads: config.heads as u64,
        kv_heads: config.kv_heads as u64,
        vocabulary: config.vocab_size as u64,
        positions: config.max_positions as u64,
        config: json,
    })
}

fn family_of(path: &Path) -> Result<String> {
    if is_gguf(&read_or_none(model_part(path))?.unwrap_or_default()) {
        return Ok(DecoderConfig::from_folder(path).map_or_else(|_| String::new(), |config| config.family.name.into()));
    }
    let config = read_or_none(config_of(path).and_then(|file| read_json(&file)))?;
    Ok(config.map_or_else(String::new, |config| config["model_type"].as_str().unwrap_or_default().to_owned()))
}

/// The folder with the weights: of an encoder the one that its modules name, of an adapter its base.
fn weights_part(path: &Path) -> Result<PathBuf> {
    model_part(&transformer_of(path)?)
}

fn config_of(path: &Path) -> Result<PathBuf> {
    Ok(weights_part(path)?.join("config.json"))
}

fn weight_bytes(path: &Path) -> Result<u64> {
    if path.is_file() {
        return Ok(std::fs::metadata(path).map_err(Error::io(path))?.len());
    }
    let path = &read_or_none(transformer_of(path))?.unwrap_or_else(|| path.to_owned());
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let file = entry.map_err(Error::io(path))?.path();
        if file.extension().is_some_and(|kind| kind == "safetensors") {
            bytes += std::fs::metadata(&file).map_err(Error::io(&file))?.len();
        }
    }
    Ok(bytes)
}

fn stored(folder: &Path) -> Option<&'static str> {
    weights::stored_dtype(folder).ok().map(|dtype| dtype.as_str())
}
