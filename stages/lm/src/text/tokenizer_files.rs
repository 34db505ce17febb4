//! The files that make a tokenizer, for model folders that are written.

use crate::error::is_there;
use crate::model::adapter_folder::tokenizer_part;
use crate::{Error, Result};
use std::path::Path;

/// Files of a tokenizer and its chat template in a folder, and of what models of images have beside them.
const FILES: [&str; 12] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "preprocessor_config.json",
    "processor_config.json",
];

/// Copies the tokenizer and chat template of one model folder into another: those of the known files that are there.
/// (`additional_chat_templates` are never rendered here, and stay behind.)
///
/// Errors name the file: no `tokenizer.json`, or reading and writing failed.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    let from = &tokenizer_part(from)?;
    if !is_there(&from.join(FILES[0]))? {
        return Err(Error::file(from, "no tokenizer.json here"));
    }
    for name in FILES {
        copy(&from.join(name), &to.join(name))?;
    }
    Ok(())
}

/// Copies a file that may be absent. Content only: a read-only original gives a copy that can be replaced.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if is_there(from)? {
        let bytes = std::fs::read(from).map_err(Error::io(from))?;
        std::fs::write(to, bytes).map_err(Error::io(to))?;
    }
    Ok(())
}
