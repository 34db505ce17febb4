//! The environment of tasks: names in scripts, values in a file that only the user can read.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kit::{Error, Result};
use serde_json::Value;

use crate::cluster::command::quoted;
use crate::pipeline::graph::Graph;
use crate::remote::{Scheme, VARIABLES};

/// What every task needs: programs such as `scontrol`, and the cache of the hub with its token.
const ALWAYS: [&str; 8] =
    ["PATH", "HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN"];

/// The names of the variables that tasks need: those of every task, those that the frozen pipeline names, further ones.
pub fn names(graph: &Graph, frozen: &str, further: &[String]) -> Vec<String> {
    let mut names: BTreeSet<String> = ALWAYS.iter().map(|name| (*name).to_owned()).collect();
    names.extend(further.iter().cloned());
    names.extend(referenced(frozen));
    let buckets = graph.remote.iter().filter(|remote| remote.scheme != Scheme::File);
    names.extend(buckets.flat_map(|_| VARIABLES).map(str::to_owned));
    graph.nodes.iter().for_each(|node| keys_of_endpoints(&node.settings, &mut names));
    names.into_iter().collect()
}

/// The names in `${env:NAME}`.
fn referenced(text: &str) -> impl Iterator<Item = String> + '_ {
    text.match_indices("${env:").filter_map(|(at, begin)| {
        let escaped = text[..at].ends_with('$');
        let name = text[at + begin.len()..].split('}').next().filter(|_| !escaped)?;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (plain && !name.is_empty()).then(|| name.to_owned())
    })
}

fn keys_of_endpoints(settings: &Value, names: &mut BTreeSet<String>) {
    match settings {
        Value::Object(map) => {
            names.extend(map.get("api_key_env").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| keys_of_endpoints(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| keys_of_endpoints(value, names)),
        _ => {}
    }
}

/// Writes the values of the variables that are set, as lines of bash, in a file of mode 0600.
///
/// # Errors
/// When the file system refuses.
pub fn write(path: &Path, names: &[String]) -> Result<()> {
    let mut text = String::new();
    for name in names {
        let Some(value) = std::env::var_os(name) else { continue };
        text.push_str(&format!("export {name}={}\n", quoted(&value.to_string_lossy())));
    }
    let new = path.with_extension("new");
    // A file that is there may have other rights.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&new)(error)),
        _ => {}
    }
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let mut file = file.map_err(Error::io(&new))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io(&new))?;
    std::fs::rename(&new, path).map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_references_are_found() {
        let text = "a: ${env:A_1}\nb: x${env:B}y $${env:C} ${env:} ${vars.d}\n";
        assert_eq!(referenced(text).collect::<Vec<_>>(), ["A_1", "B"]);
    }

    #[test]
    fn the_file_is_for_the_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("environment");
        for _ in 0..2 {
            write(&path, &["PATH".to_owned(), "HALFTONE_NO_SUCH".to_owned()]).unwrap();
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("export PATH=") && !text.contains("NO_SUCH"), "{text}");
    }
}
