//! Where models compute.

use crate::error::{Error, Result};

/// The device that `--device` means: `auto` is a GPU where one works, else the CPU.
///
/// # Errors
/// When the device is not there, or the word is none of `auto`, `cpu`, `cuda:N`.
pub fn resolve(word: &str) -> Result<String> {
    reference::resolve_device(word).map_err(|error| Error::Usage(format!("--device {word}: {error}")))
}

/// Refuses words that cannot be a device, without looking for one.
///
/// # Errors
/// When the word is none of `auto`, `cpu`, `cuda:N`.
pub fn check(word: &str) -> Result<()> {
    let is_gpu = word.strip_prefix("cuda:").is_some_and(|number| number.parse::<usize>().is_ok());
    if is_gpu || ["auto", "cpu"].contains(&word) {
        return Ok(());
    }
    Err(Error::Usage(format!("--device {word}: there are `auto`, `cpu` and `cuda:0`")))
}
