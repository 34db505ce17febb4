//! Folders of a training's state, made durable.

use std::fs::File;
use std::path::Path;

use kit::commit::sync_folder;
use kit::{Error, Part, Result, part_record};

/// Makes the files of a folder durable, and the folder; takes stock of them.
pub(crate) fn sync_files(folder: &Path) -> Result<Vec<Part>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))?;
        files.push(part_record(&path, 0)?);
    }
    sync_folder(folder)?;
    Ok(files)
}
