//! Content digests: of values, of files, of folders, and the ids made from them.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file::open_file;

/// A BLAKE3 digest, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a JSON value, whatever the order of its keys.
    pub fn of_value(value: &serde_json::Value) -> Digest {
        Digest::of(canonical(value).as_bytes())
    }

    /// The digest of several named digests. Names are part of it, their order is not.
    pub fn of_named<'a>(parts: impl IntoIterator<Item = (&'a str, Digest)>) -> Digest {
        let mut parts: Vec<_> = parts.into_iter().collect();
        parts.sort();
        let mut hasher = blake3::Hasher::new();
        for (name, digest) in parts {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&digest.0);
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// The first `digits` hexadecimal digits.
    pub fn short(&self, digits: usize) -> String {
        self.to_string()[..digits].to_owned()
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = blake3::Hash::from_hex(&text).map_err(serde::de::Error::custom)?;
        Ok(Digest(*hash.as_bytes()))
    }
}

/// JSON with sorted keys and no spaces: equal values give equal texts.
pub fn canonical(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            let fields: Vec<_> = keys
                .into_iter()
                .map(|key| format!("{}:{}", Value::String(key.clone()), canonical(&map[key])))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// An id made from content: 24 hexadecimal digits (96 bits). Parts are kept apart, so ("ab", "c") differs from ("a",
/// "bc").
pub fn id_of<S: AsRef<str>>(parts: &[S]) -> String {
    hash_of(parts).to_hex()[..24].to_owned()
}

/// The 96 bits behind [`id_of`].
pub fn id_bits<S: AsRef<str>>(parts: &[S]) -> [u8; 12] {
    hash_of(parts).as_bytes()[..12].try_into().expect("12 of 32 bytes")
}

/// The id of some bits, as [`id_of`] gives it.
pub fn id_text(bits: [u8; 12]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).expect("half a byte");
    bits.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn hash_of<S: AsRef<str>>(parts: &[S]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize()
}

/// The digest of a file's bytes.
///
/// # Errors
/// When the file cannot be read.
pub fn digest_file(path: &Path) -> Result<Digest> {
    digest_reader(open_file(path)?).map_err(Error::io(path))
}

/// The digest of what a reader gives.
///
/// # Errors
/// The reader's.
pub fn digest_reader(reader: impl std::io::Read) -> std::io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(reader)?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// The digest of all files below a folder, by their relative names; hidden files are left out.
///
/// # Errors
/// When a file cannot be read.
pub fn digest_folder(folder: &Path) -> Result<Digest> {
    let mut files = Vec::new();
    walk(folder, "", &mut files)?;
    let digests: Vec<_> =
        files.iter().map(|name| Ok((name.as_str(), digest_file(&folder.join(name))?))).collect::<Result<_>>()?;
    Ok(Digest::of_named(digests))
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<()> {
    let here = folder.join(prefix);
    for entry in std::fs::read_dir(&here).map_err(Error::io(&here))? {
        let entry = entry.map_err(Error::io(&here))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        if entry.path().is_dir() {
            walk(folder, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_parts_apart() {
        assert_ne!(id_of(&["ab", "c"]), id_of(&["a", "bc"]));
        assert_eq!(id_of(&["ab", "c"]).len(), 24);
    }

    #[test]
    fn key_order_does_not_matter() {
        let a = serde_json::json!({"b": 1, "a": [1.5, {"y": 0, "x": null}]});
        let b = serde_json::json!({"a": [1.5, {"x": null, "y": 0}], "b": 1});
        assert_eq!(Digest::of_value(&a), Digest::of_value(&b));
        assert_eq!(canonical(&a), r#"{"a":[1.5,{"x":null,"y":0}],"b":1}"#);
    }

    #[test]
    fn digests_survive_json() {
        let digest = Digest::of(b"halftone");
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&text).unwrap(), digest);
    }
}
