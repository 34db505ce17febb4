//! The cache of the hub, in the layout that `huggingface_hub` reads and writes.

use std::path::{Path, PathBuf};

/// The folder of the user's cache: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
pub fn hub_cache() -> PathBuf {
    given("HF_HUB_CACHE").unwrap_or_else(|| hub_home().join("hub"))
}

/// `HF_HOME`, else the folder that stands for it.
pub fn hub_home() -> PathBuf {
    given("HF_HOME").unwrap_or_else(|| {
        let cache = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
        cache.unwrap_or_else(|| PathBuf::from(".cache")).join("huggingface")
    })
}

/// The name and the commit of a model in the cache: CACHE/models--ORG--NAME/snapshots/COMMIT.
pub fn hub_name(folder: &Path) -> Option<(String, String)> {
    let whole = folder.canonicalize().ok()?;
    let commit = whole.file_name()?.to_str()?;
    let snapshots = whole.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let name = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    Some((name.replace("--", "/"), commit.to_owned()))
}

/// The folder that the cache would have for a model of this name, without a revision that of `main`; none for a path.
pub(crate) fn snapshot(name: &str, revision: Option<&str>) -> Option<PathBuf> {
    if name.split('/').count() > 2 || name.starts_with(['.', '/', '~']) {
        return None;
    }
    let model = hub_cache().join(format!("models--{}", name.replace('/', "--")));
    let revision = revision.unwrap_or("main");
    let commit = std::fs::read_to_string(model.join("refs").join(revision));
    Some(model.join("snapshots").join(commit.as_deref().map_or(revision, str::trim)))
}

fn given(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
