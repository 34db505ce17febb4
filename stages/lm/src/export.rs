//! Model folders that stand alone.

use crate::adapter_folder::{base_of, model_part};
use crate::{DType, Decoder, Device, Result, copy_tokenizer, weights};
use std::path::Path;

/// Writes the decoder of a folder into another, existing one, in the dtype of its weights, with tokenizer and template. An
/// adapter is merged into its base: W + (alpha / rank) B A, computed in f32.
///
/// Errors name the file: what is missing, damaged, or of an architecture that is not computed here.
pub fn export(from: &Path, to: &Path) -> Result<()> {
    let dtype = weights::stored_dtype(&model_part(from)?)?;
    match base_of(from)? {
        Some(_) => Decoder::load_as(from, &Device::Cpu, DType::F32)?.merged()?.cast(dtype)?.save(to)?,
        None => Decoder::load_as(from, &Device::Cpu, dtype)?.save(to)?,
    }
    copy_tokenizer(from, to)
}
