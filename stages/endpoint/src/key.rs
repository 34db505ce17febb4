//! The key that opens an endpoint; no message and no file shows it.

use kit::{Error, Result};

use crate::config::{Endpoint, is_authorization};

/// The longest file that can hold a key, bytes.
const LONGEST_KEY: u64 = 1 << 16;

/// A secret that only the endpoint gets.
pub(crate) struct Key(pub(crate) String);

impl Key {
    /// The value of a header that carries it.
    pub(crate) fn in_header(&self, header: &str) -> String {
        if is_authorization(header) { format!("Bearer {}", self.0) } else { self.0.clone() }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Endpoint {
    /// Reads the key by its name.
    ///
    /// # Errors
    /// When there is none under that name, or when it cannot stand in a header; the text does not show it.
    pub(crate) fn key(&self) -> Result<Option<Key>> {
        let (text, place) = match (&self.api_key_env, &self.api_key_file) {
            (Some(name), _) => {
                let text = std::env::var(name).map_err(|_| {
                    Error::Pipeline(format!("the environment variable `{name}`, named by `api_key_env`, is not set"))
                })?;
                (text, format!("the environment variable `{name}`"))
            }
            (None, Some(path)) => (kit::read_small(path, LONGEST_KEY)?, format!("the file {}", path.display())),
            (None, None) => return Ok(None),
        };
        let text = text.trim().to_owned();
        if text.is_empty() || !text.chars().all(|letter| letter.is_ascii_graphic()) {
            return Err(Error::Pipeline(format!("{place} holds no key: wanted one word of visible ASCII")));
        }
        kit::keep_secret(&text, "[the key]");
        Ok(Some(Key(text)))
    }
}
