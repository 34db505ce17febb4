//! Language models and reward models: which one a stage takes, and the way on from the other.

use std::path::Path;

use kit::{Error, InputPort, Result};
use lm::{LANGUAGE_MODEL, Precision, REWARD_MODEL, Usable};

use crate::error::lm_error;

/// The setting of the ports that carry models.
const KIND: &str = "model";

/// The way on of a stage that takes language models alone.
pub const REWARDS_ELSEWHERE: &str =
    "`judge` takes it as `reward`, `train` and `evaluate` take it with the objective `reward`";

fn is_reward(instead: &str) -> String {
    format!("it is a reward model, which gives one number for a text and no next token; {instead}")
}

fn is_language(instead: &str) -> String {
    format!("it is a language model, which gives no number for a text; {instead}")
}

/// The port of a language model, a folder or a GGUF file; `instead` says in a lowercase fragment what can be done with a reward model.
pub fn language_model(port: InputPort, instead: &str) -> InputPort {
    port.or_gguf().refuses(KIND, REWARD_MODEL, is_reward(instead))
}

/// The port of a reward model; `instead` says what can be done with a language model.
pub fn reward_model(port: InputPort, instead: &str) -> InputPort {
    port.refuses(KIND, LANGUAGE_MODEL, is_language(instead))
}

/// Checks a language model, from everything but its weights.
///
/// # Errors
/// A reward model, and what loading it would stop with.
pub fn check_language_model(model: &Path, precision: Precision, instead: &str) -> Result<Usable> {
    refuse_rewards(model, instead)?;
    let usable = lm::check_decoder(model).map_err(lm_error)?;
    lm::check_bits(model, precision.bits).map_err(lm_error)?;
    Ok(usable)
}

/// Checks a reward model, from everything but its weights.
///
/// # Errors
/// A language model, and what loading it would stop with.
pub fn check_reward_model(model: &Path, precision: Precision, instead: &str) -> Result<Usable> {
    let usable = lm::check_reward_model(model);
    if usable.is_err() && lm::check_decoder(model).is_ok() {
        return Err(Error::Data(format!("`{}`: {}", model.display(), is_language(instead))));
    }
    let usable = usable.map_err(lm_error)?;
    lm::check_bits(model, precision.bits).map_err(lm_error)?;
    Ok(usable)
}

/// Refuses a reward model where something else is wanted.
///
/// # Errors
/// That it is one.
pub fn refuse_rewards(model: &Path, instead: &str) -> Result<()> {
    match lm::is_reward_model(model) {
        Ok(true) => {
            // A classifier of several classes is none.
            lm::check_reward_model(model).map_err(lm_error)?;
            Err(Error::Data(format!("`{}`: {}", model.display(), is_reward(instead))))
        }
        // What is wrong with it is said by whoever reads it.
        _ => Ok(()),
    }
}
