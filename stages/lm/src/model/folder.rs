//! Places of a model's parts: its own folder, the base's of an adapter, the one that a GGUF file stands in.

use crate::error::is_there;
use crate::{Error, Result};
pub use models::is_gguf;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The folder of the base model, where a folder holds an adapter; none where it holds a model of its own.
///
/// Errors name the file: no base is named, or it is not there.
pub fn base_of(folder: &Path) -> Result<Option<PathBuf>> {
    models::base_of(folder).map_err(|problem| match problem {
        models::Problem::Io { path, source } => Error::io(&path)(source),
        models::Problem::Adapter { path, text } => Error::file(&path, text),
    })
}

/// The folder that holds config and weights of a model: the base's for an adapter.
pub(crate) fn model_part(folder: &Path) -> Result<PathBuf> {
    Ok(base_of(folder)?.unwrap_or_else(|| folder.to_owned()))
}

/// The folder that holds the tokenizer: its own, the base's for an adapter without one, or the one of a GGUF file.
pub(crate) fn tokenizer_part(folder: &Path) -> Result<PathBuf> {
    let folder = folder_of(folder);
    match is_there(&folder.join("tokenizer.json"))? {
        true => Ok(folder.to_owned()),
        false => Ok(folder_of(&model_part(folder)?).to_owned()),
    }
}

/// The folder that has the tokenizer of a model: the one that a GGUF file stands in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    if is_gguf(path) { path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")) } else { path }
}

/// Refuses the text that Git LFS leaves in place of a file that was not fetched.
pub(crate) fn refuse_pointer(path: &Path) -> Result<()> {
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
    let mut start = Vec::with_capacity(POINTER.len());
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(POINTER.len() as u64).read_to_end(&mut start).map_err(Error::io(path))?;
    match start == POINTER {
        false => Ok(()),
        true => {
            let text = "a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, or fetch it anew";
            Err(Error::file(path, text))
        }
    }
}
