//! The files that make a tokenizer, read and written.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::error::{Error, Result, is_there};
use crate::model::folder::{refuse_pointer, tokenizer_part};
use crate::panics::quietly;

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

/// The error where there is no tokenizer, with the next step.
const NO_TOKENIZER: &str = "is not there; transformers makes it of other files, such as tokenizer.model: \
                            `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`";

/// Copies the tokenizer and chat template of one model folder into another: those of the known files that are there.
/// (`additional_chat_templates` are never rendered here, and stay behind.)
///
/// Errors name the file: no `tokenizer.json`, or reading and writing failed.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    let from = &tokenizer_part(from)?;
    if !is_there(&from.join(FILES[0]))? {
        return Err(Error::file(from.join(FILES[0]), NO_TOKENIZER));
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

/// Reads tokenizer.json without truncation and padding (`transformers` switches both off for a plain call).
///
/// Some malformed files make the library panic; that is the same error here as a parse error, and says nothing on stderr.
pub(crate) fn load_tokenizer(folder: &Path) -> Result<Tokenizer> {
    let file = folder.join("tokenizer.json");
    if !is_there(&file)? {
        return Err(Error::file(&file, NO_TOKENIZER));
    }
    refuse_pointer(&file)?;
    let bytes = std::fs::read(&file).map_err(Error::io(&file))?;
    let wrong = |problem: &str| Error::file(&file, format!("not a tokenizer: {problem}"));
    // The trial shows parts that only fail when they are used; an error is no verdict, since `x` may be unknown.
    let trial = || Tokenizer::from_bytes(&bytes).inspect(|tokenizer| drop(tokenizer.encode_fast("x", true)));
    let mut tokenizer = match quietly(trial) {
        Some(Ok(tokenizer)) => tokenizer,
        Some(Err(error)) => return Err(wrong(&error.to_string())),
        None => return Err(wrong("its parts contradict each other (the tokenizers library gave up on it)")),
    };
    if tokenizer.get_vocab_size(true) == 0 {
        return Err(wrong("its vocabulary is empty"));
    }
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| wrong(&error.to_string()))?;
    Ok(tokenizer)
}
