//! The form of a model's name on the hub.

use std::fmt;
use std::path::Path;

/// A model on the hub: `org/name`, with a revision where it is not `main`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelName {
    /// `org/name`, or `name` alone for the oldest ones.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

impl ModelName {
    /// The prefix of a name on the hub, where a folder could be meant too.
    pub const PREFIX: &'static str = "hf:";

    /// Reads `hf:org/name`, `hf:org/name@revision`, or plain `org/name` where neither such a path nor a folder `org`
    /// is here; nothing where a path is meant.
    ///
    /// # Errors
    /// When it begins with `hf:` and is no name.
    pub fn read(text: &str) -> Result<Option<ModelName>, String> {
        let Some(named) = text.strip_prefix(ModelName::PREFIX) else {
            let here = text.split('/').next().is_some_and(|first| Path::new(first).exists());
            let parts = text.split('/').count();
            return Ok(if parts == 2 && !here && !text.starts_with('~') { ModelName::parse(text) } else { None });
        };
        match ModelName::parse(named) {
            Some(name) => Ok(Some(name)),
            None => Err(format!("`{text}` names no model; wanted `hf:org/name` or `hf:org/name@revision`")),
        }
    }

    fn parse(text: &str) -> Option<ModelName> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let parts: Vec<&str> = id.split('/').collect();
        let good = |part: &&str| {
            !part.is_empty()
                && part.len() <= 96
                && !part.starts_with(['.', '-'])
                && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
        };
        let fits = parts.len() <= 2 && parts.iter().all(good) && revision.split('/').all(|part| good(&part));
        fits.then(|| ModelName { id: id.to_owned(), revision: revision.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_distinguished() {
        let read = |text: &str| ModelName::read(text).map(|name| name.map(|name| name.to_string()));
        assert_eq!(read("Qwen/Qwen2.5-0.5B"), Ok(Some("Qwen/Qwen2.5-0.5B".to_owned())));
        assert_eq!(read("hf:gpt2"), Ok(Some("gpt2".to_owned())));
        assert_eq!(read("hf:org/name@refs/pr/1"), Ok(Some("org/name@refs/pr/1".to_owned())));
        for path in ["./org/name", "/org/name", "../name", "~/name", "a/b/c", "org/", "src/nothing", "org/na me"] {
            assert_eq!(read(path), Ok(None), "{path}");
        }
        for wrong in ["hf:", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a/b@../../x", "hf:a/b@"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
