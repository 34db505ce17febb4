//! The files of a model folder: those of a full model, or of an adapter that names its base.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, Result};

const ADAPTER: &str = "adapter_config.json";

/// True where a folder holds a model or an adapter.
pub fn is_model(folder: &Path) -> bool {
    folder.join("config.json").is_file() || folder.join(ADAPTER).is_file()
}

/// The way from an adapter to its base inside one store, in a file beside it.
const INSIDE: &str = "base_in_store.txt";

/// The folder of the base model, where a folder holds an adapter: the one inside the store that `base_in_store.txt` leads
/// to, the path that its configuration names, from the adapter's own folder or as it stands, or the model of that name in
/// the hub's cache; the first that is there.
///
/// # Errors
/// When the adapter's configuration cannot be read, names no base, or names one that is not there.
pub fn base_of(folder: &Path) -> Result<Option<PathBuf>> {
    let path = folder.join(ADAPTER);
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read(&path).map_err(Error::io(&path))?;
    let config: Value =
        serde_json::from_slice(&text).map_err(|error| Error::data(format!("{}: {error}", path.display())))?;
    let base = config["base_model_name_or_path"].as_str().unwrap_or_default();
    let inside = std::fs::read_to_string(folder.join(INSIDE)).ok().map(|way| folder.join(way.trim_end()));
    let places = inside.into_iter().chain([folder.join(base), PathBuf::from(base)]);
    let found =
        places.chain(in_cache(base, config["revision"].as_str())).find(|path| path.join("config.json").is_file());
    let Some(found) = found.filter(|_| !base.is_empty()) else {
        return Err(Error::data(format!(
            "{}: the adapter's base model `{base}` is not there (no config.json in it); put it there, or write the \
             folder where it is now into `base_model_name_or_path`",
            path.display()
        )));
    };
    Ok(Some(found))
}

/// Folder of a model in the hub's cache: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
fn in_cache(name: &str, revision: Option<&str>) -> Option<PathBuf> {
    if name.split('/').count() > 2 || name.starts_with(['.', '/', '~']) {
        return None;
    }
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || {
        let cache = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
        given("HF_HOME").or_else(|| cache.map(|cache| cache.join("huggingface")))
    };
    let cache = given("HF_HUB_CACHE").or_else(|| home().map(|home| home.join("hub")))?;
    let model = cache.join(format!("models--{}", name.replace('/', "--")));
    let revision = revision.unwrap_or("main");
    let commit = std::fs::read_to_string(model.join("refs").join(revision));
    Some(model.join("snapshots").join(commit.as_deref().map_or(revision, str::trim)))
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
        assert!(!is_model(&base) && base_of(&base).unwrap().is_none());
        let config = serde_json::json!({"base_model_name_or_path": base}).to_string();
        std::fs::write(adapter.join(ADAPTER), config).unwrap();
        assert!(is_model(&adapter));
        let text = base_of(&adapter).unwrap_err().to_string();
        assert!(text.contains("is not there") && text.contains("base_model_name_or_path"), "{text}");
        std::fs::write(base.join("config.json"), "{}").unwrap();
        assert_eq!(base_of(&adapter).unwrap(), Some(base));
        std::fs::write(adapter.join(ADAPTER), r#"{"base_model_name_or_path": "../base"}"#).unwrap();
        assert_eq!(base_of(&adapter).unwrap(), Some(adapter.join("../base")));
        std::fs::write(adapter.join(ADAPTER), "{}").unwrap();
        assert!(base_of(&adapter).is_err());
    }
}
