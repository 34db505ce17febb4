//! The policy as a folder: its weights or its adapter, the tokenizer, and the way to the base.

use std::path::{Path, PathBuf};

use kit::{Context, Error, Result};
use lm::{Kept, Training};
use tokens::lm_error;

use crate::config::Train;

impl Train {
    /// Writes the policy as it is now into an empty folder. Gives the share of the updates that `save.dtype` leaves,
    /// where it is less precise than the training.
    pub(crate) fn write_policy(
        &self,
        context: &Context<'_>,
        training: &Training,
        folder: &Path,
    ) -> Result<Option<Kept>> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let base = context.model("model")?;
        let kept = match &self.adapter {
            None => training.save(folder, self.save.dtype, &base.path),
            Some(_) => {
                // The digest ties the folder's bytes to the weights that the adapter was trained beside.
                let path = folder.join("base_digest.txt");
                std::fs::write(&path, format!("{}\n", base.digest)).map_err(Error::io(&path))?;
                if let Some(inside) = inside_of_store(&base.path, &context.folder) {
                    let path = folder.join(lm::BASE_INSIDE);
                    std::fs::write(&path, format!("{}\n", inside.display())).map_err(Error::io(&path))?;
                }
                training.save_adapter(folder, self.save.dtype, &base.path).map(|()| None)
            }
        }
        .map_err(lm_error)?;
        lm::copy_tokenizer(&base.path, folder).map_err(lm_error)?;
        Ok(kept)
    }
}

/// What there is to say to a `model` that is an adapter.
pub(crate) fn from_adapter(folder: &dyn std::fmt::Display) -> String {
    format!(
        "`model` is an adapter ({folder}); training starts from whole weights: merge it with `halftone export model \
         {folder} --to FOLDER` and name that folder"
    )
}

/// The way from an adapter to its base, where that is another result of the same store: it stays right when the store is
/// moved. `entry` is the stage's folder, STORE/ENTRY; the adapter lies in STORE/ENTRY/PORT.
fn inside_of_store(base: &Path, entry: &Path) -> Option<PathBuf> {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let store = whole(entry).parent().map(Path::to_owned)?;
    whole(base).strip_prefix(store).ok().map(|inside| Path::new("../..").join(inside))
}
