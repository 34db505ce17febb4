//! The token that the hub knows the user by.

use std::fs::File;
use std::io::Read;

use kit::{Error, Result};

use super::cache::home;

/// The longest file that is read for it.
const LONGEST: u64 = 64 << 10;

/// `HF_TOKEN`, else the file `token` in `HF_HOME`, where there is one.
///
/// # Errors
/// When the file is a pipe or a device, or too long.
pub fn token() -> Result<Option<String>> {
    let given = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    if let Some(token) = std::env::var("HF_TOKEN").ok().and_then(given) {
        return Ok(Some(token));
    }
    let path = home().join("token");
    let Ok(metadata) = path.metadata() else { return Ok(None) };
    let wrong = |what: &str| Err(Error::Pipeline(format!("{} holds no token: {what}", path.display())));
    if !metadata.is_file() {
        return wrong("it is no plain file; set HF_TOKEN, or log in to the hub again");
    }
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > LONGEST => wrong("it is too long"),
        Ok(_) => Ok(given(text)),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => wrong("it is not text"),
        Err(error) => Err(Error::io(&path)(error)),
    }
}
