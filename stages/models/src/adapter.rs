//! The files of a model folder: those of a full model, or of an adapter that names its base.

use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cache::snapshot;

/// The file that makes a folder an adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The file with the way from an adapter to its base inside one store, which stays right wherever the store is.
pub const BASE_INSIDE: &str = "base_in_store.txt";

const CONFIG: &str = "config.json";

/// An adapter whose base cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file could not be looked at.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The adapter is at fault.
    #[error("{path}: {text}")]
    Adapter {
        /// Its configuration.
        path: PathBuf,
        /// The fault and the way out.
        text: String,
    },
}

/// True where a folder holds a model or an adapter.
pub fn is_model(folder: &Path) -> bool {
    folder.join(CONFIG).is_file() || folder.join(ADAPTER_CONFIG).is_file()
}

/// True where a path is a GGUF file.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("gguf"))
}

/// The folder of the base model, or its GGUF file, where a folder holds an adapter; none where it holds a model of its own.
///
/// # Errors
/// When the adapter's configuration cannot be read, names no base, or names one that is not there or is an adapter too.
pub fn base_of(folder: &Path) -> Result<Option<PathBuf>, Problem> {
    let path = folder.join(ADAPTER_CONFIG);
    if !is_there(&path)? {
        return Ok(None);
    }
    let wrong = |text: String| Problem::Adapter { path: path.clone(), text };
    let text = std::fs::read(&path).map_err(|source| Problem::Io { path: path.clone(), source })?;
    let config: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let Some(named) = config["base_model_name_or_path"].as_str().filter(|name| !name.is_empty()) else {
        let text = "`base_model_name_or_path` is missing; write the base model's folder there";
        return Err(wrong(text.to_owned()));
    };
    let base = place_of(folder, named, config["revision"].as_str());
    if is_there(&base.join(ADAPTER_CONFIG))? {
        return Err(wrong(format!(
            "its base `{named}` is an adapter itself; merge that one first (`halftone export model`)"
        )));
    }
    let is_file = is_gguf(&base) && is_there(&base)?;
    if !is_file && !is_there(&base.join(CONFIG))? {
        return Err(wrong(format!(
            "this adapter's base model `{named}` is not there (no config.json in it); put it there, or write the folder \
             where it is now into `base_model_name_or_path`"
        )));
    }
    Ok(Some(base))
}

/// The first place of a base that has a model: inside the store that the adapter lies in, from the adapter's folder, as
/// the name stands, in the cache of the hub.
fn place_of(folder: &Path, named: &str, revision: Option<&str>) -> PathBuf {
    let inside = std::fs::read_to_string(folder.join(BASE_INSIDE)).ok();
    let places = [inside.map(|way| folder.join(way.trim_end())), Some(folder.join(named)), Some(PathBuf::from(named))];
    let mut places = places.into_iter().flatten().chain(snapshot(named, revision));
    places
        .find(|place| place.join(CONFIG).is_file() || is_gguf(place) && place.is_file())
        .unwrap_or_else(|| PathBuf::from(named))
}

/// True where a file is there. One that the system cannot look at is an error: it is not absent.
fn is_there(path: &Path) -> Result<bool, Problem> {
    match path.metadata() {
        Ok(found) => Ok(found.is_file()),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(false),
        Err(source) => Err(Problem::Io { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_names_its_base() {
        let folder = tempfile::tempdir().unwrap();
        let (base, adapter) = (folder.path().join("base"), folder.path().join("adapter"));
        std::fs::create_dir_all(&base).unwrap();
        std::fs::create_dir_all(&adapter).unwrap();
        let write = |config: &str| std::fs::write(adapter.join(ADAPTER_CONFIG), config).unwrap();
        let refused = || base_of(&adapter).unwrap_err().to_string();
        assert!(!is_model(&base) && base_of(&base).unwrap().is_none());
        write(&serde_json::json!({"base_model_name_or_path": base}).to_string());
        assert!(is_model(&adapter));
        let text = refused();
        assert!(text.contains("is not there") && text.contains("base_model_name_or_path"), "{text}");
        std::fs::write(base.join(CONFIG), "{}").unwrap();
        assert_eq!(base_of(&adapter).unwrap(), Some(base.clone()));
        write(r#"{"base_model_name_or_path": "../base"}"#);
        assert_eq!(base_of(&adapter).unwrap(), Some(adapter.join("../base")));
        // A store that was moved: the way inside it leads, whatever path the configuration names.
        write(r#"{"base_model_name_or_path": "/nowhere/base"}"#);
        std::fs::write(adapter.join(BASE_INSIDE), "../base\n").unwrap();
        assert_eq!(base_of(&adapter).unwrap(), Some(adapter.join("../base")));
        let file = folder.path().join("model.gguf");
        std::fs::write(adapter.join(BASE_INSIDE), "../model.gguf\n").unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(base_of(&adapter).unwrap(), Some(adapter.join("../model.gguf")));
        std::fs::write(adapter.join(BASE_INSIDE), "../base\n").unwrap();
        std::fs::write(base.join(ADAPTER_CONFIG), "{}").unwrap();
        assert!(refused().contains("is an adapter itself"), "{}", refused());
        for broken in ["{}", r#"{"base_model_name_or_path": ""}"#] {
            write(broken);
            assert!(refused().contains("`base_model_name_or_path` is missing"), "{}", refused());
        }
        write("{");
        assert!(refused().contains("adapter_config.json: EOF"), "{}", refused());
    }
}
