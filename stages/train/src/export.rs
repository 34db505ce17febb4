//! A trained model as a folder of its own.

use std::path::Path;

use kit::Result;
use lm::SavedDtype;
use tokens::lm_error;

/// Writes the model of a folder into another, existing one: config, weights, tokenizer and template. It loads in
/// transformers and stands alone. Without a dtype, weights keep the one that they are stored in; merged ones are f32.
///
/// # Errors
/// When the folder holds no model of the families that are computed here, or reading or writing fails.
pub fn export_model(from: &Path, to: &Path, dtype: Option<SavedDtype>) -> Result<()> {
    lm::export(from, to, dtype).map_err(lm_error)
}
