//! The Hugging Face cache on disk, in the layout that `huggingface_hub` reads and writes.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ModelName;

/// `models--org--name/{blobs,refs,snapshots}` below a folder.
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The user's: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub fn of_user() -> Cache {
        Cache { folder: models::hub_cache() }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a model.
    pub fn of(&self, name: &ModelName) -> PathBuf {
        self.folder.join(format!("models--{}", name.id.replace('/', "--")))
    }

    /// The snapshot of a model, where all that it takes to read it is there.
    pub fn find(&self, name: &ModelName) -> Option<PathBuf> {
        let model = self.of(name);
        let commit = match std::fs::read_to_string(model.join("refs").join(&name.revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => name.revision.clone(),
        };
        let snapshot = model.join("snapshots").join(commit);
        is_whole(&snapshot).then_some(snapshot)
    }
}

/// The files that a model needs beside its weights.
pub const DESCRIPTIONS: [&str; 2] = ["config.json", "tokenizer.json"];

/// True where a folder has a configuration, a tokenizer and all the weights that its index names.
fn is_whole(folder: &Path) -> bool {
    if DESCRIPTIONS.iter().any(|file| !folder.join(file).is_file()) {
        return false;
    }
    match std::fs::read(folder.join("model.safetensors.index.json")) {
        Ok(index) => shards(&index).is_some_and(|shards| shards.iter().all(|shard| folder.join(shard).is_file())),
        Err(_) => folder.join("model.safetensors").is_file(),
    }
}

/// The weight files that an index names, sorted.
pub fn shards(index: &[u8]) -> Option<Vec<String>> {
    let index: Value = serde_json::from_slice(index).ok()?;
    let files = index.get("weight_map")?.as_object()?.values();
    let mut files: Vec<String> = files.map(|file| file.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    files.sort();
    files.dedup();
    Some(files)
}
