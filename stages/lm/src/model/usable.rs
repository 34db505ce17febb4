//! Checks that a model can be computed, from all of it but its weights: the errors that a run would stop with before
//! its first number.

use crate::encode::encoder::check_encoder;
use crate::model::adapter_folder::check_adapter;
use crate::model::folder::{base_of, is_gguf, model_part};
use crate::model::gguf;
use crate::model::reward::of_base;
use crate::model::shapes::{is_linear, shapes};
use crate::model::weights;
use crate::{Bits, DecoderConfig, Error, Result, Text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The uses of a decoder folder or a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usable {
    /// The reason why it takes no conversations, where it takes none: it has no chat template, or one that fails.
    pub no_messages: Option<String>,
}

/// The results of the process so far, by the use and the path: a matrix of stages names one model many times. A file that
/// the system refused is checked again.
static SEEN: Mutex<BTreeMap<(bool, PathBuf), Result<Usable, String>>> = Mutex::new(BTreeMap::new());

/// Checks the configuration, the tokenizer, the template and the headers of the weights of a decoder.
///
/// Errors have the text that loading it would have.
pub fn check_decoder(path: &Path) -> Result<Usable> {
    remembered(path, false)
}

/// The same of a reward model: `...ForSequenceClassification` with one output.
///
/// Errors have the text that loading it would have.
pub fn check_reward_model(folder: &Path) -> Result<Usable> {
    remembered(folder, true)
}

/// Checks that the weights of a model's linear layers can be put into so many bits.
///
/// Errors: weights that are stored in few bits, rows that are no whole blocks.
pub fn check_bits(path: &Path, bits: Option<Bits>) -> Result<()> {
    let Some(bits) = bits else { return Ok(()) };
    if in_few_bits(path)? {
        let text = format!("its weights are in few bits already: `bits: {}` has no effect, leave it out", bits.count());
        return Err(Error::file(path, text));
    }
    let config = DecoderConfig::from_folder(path).or_else(|_| DecoderConfig::of_reward_model(path))?;
    let wide = |(name, shape): &(String, Vec<usize>)| is_linear(name) && !shape[1].is_multiple_of(Bits::BLOCK);
    match shapes(&config).into_iter().find(wide).filter(|_| bits == Bits::Eight) {
        Some((name, shape)) => {
            let (width, block) = (shape[1], Bits::BLOCK);
            let text = format!("{name} has rows of {width} numbers; 8 bits want a multiple of {block}: take 4 bits");
            Err(Error::file(path, text))
        }
        None => Ok(()),
    }
}

/// True where a model's weights are stored in few bits, or those of an adapter's base: they are frozen.
///
/// Errors: a configuration that cannot be read.
pub fn in_few_bits(path: &Path) -> Result<bool> {
    let model = model_part(path)?;
    let nf4 = || DecoderConfig::from_folder(&model).or_else(|_| DecoderConfig::of_reward_model(&model));
    Ok(is_gguf(&model) || nf4()?.nf4)
}

/// The same for a sentence encoder.
pub fn check_sentence_encoder(path: &Path) -> Result<()> {
    check_encoder(path)
}

fn remembered(path: &Path, reward: bool) -> Result<Usable> {
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (reward, path.to_owned());
    if let Some(known) = seen.get(&key) {
        return known.clone().map_err(Error::Input);
    }
    let found = look(path, reward);
    match &found {
        Err(Error::Io { .. }) => {}
        Err(error) => _ = seen.insert(key, Err(error.to_string())),
        Ok(usable) => _ = seen.insert(key, Ok(usable.clone())),
    }
    found
}

fn look(path: &Path, reward: bool) -> Result<Usable> {
    let mut config = if reward { DecoderConfig::of_reward_model(path)? } else { DecoderConfig::from_folder(path)? };
    let text = Text::load(path)?;
    let model = model_part(path)?;
    if reward && model != path {
        config = of_base(&model)?;
    }
    match is_gguf(&model) {
        true => gguf::check(&model)?,
        false => drop(weights::check(&model, &mut config)?),
    }
    if base_of(path)?.is_some() {
        check_adapter(path, &config, reward)?;
    }
    Ok(Usable { no_messages: text.no_messages().as_ref().map(Error::to_string) })
}
