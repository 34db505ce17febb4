//! A trained model as a folder of its own.

use std::path::Path;

use kit::Result;

use crate::lm_error;

/// Writes the model of a folder into another, existing one: config, weights in the type they are stored in, tokenizer
/// and template. It loads in transformers and stands alone.
///
/// # Errors
/// When the folder holds no model of the families that are computed here, or reading or writing fails.
pub fn export_model(from: &Path, to: &Path) -> Result<()> {
    lm::export(from, to).map_err(lm_error)
}
