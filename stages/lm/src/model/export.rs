//! Model folders that stand alone.

use crate::model::folder::{base_of, is_gguf, model_part};
use crate::model::weights::Holding;
use crate::{DType, Decoder, DecoderConfig, Device, Result, SavedDtype, copy_tokenizer, is_reward_model};
use std::path::Path;

/// Writes the decoder of a folder into another, existing one, with tokenizer and template. An adapter is merged into
/// its base: W + (alpha / rank) B A, computed in f32. Without a dtype the weights are written in the one that they
/// have, and merged ones in f32: half of it would leave most of what an adapter adds out. Weights in few bits become
/// numbers, in f32 too; a GGUF file has its tokenizer beside it.
///
/// Errors name the file: what is missing, damaged, or of an architecture that is not computed here.
pub fn export(from: &Path, to: &Path, dtype: Option<SavedDtype>) -> Result<()> {
    let model = model_part(from)?;
    let few = is_gguf(&model) || DecoderConfig::from_folder(&model).is_ok_and(|config| config.nf4);
    let changed = few || base_of(from)?.is_some();
    let own = if changed { SavedDtype::F32 } else { SavedDtype::AsLoaded };
    let dtype = dtype.unwrap_or(own).of(from)?;
    let load = |dtype| match is_reward_model(from)? {
        true => Decoder::load_reward_model_as(from, Holding::of(dtype)),
        false => Decoder::load_as(from, &Device::Cpu, dtype),
    };
    match changed {
        true => load(DType::F32)?.merged()?.cast(dtype)?.save(to)?,
        false => load(dtype)?.save(to)?,
    }
    copy_tokenizer(from, to)
}
