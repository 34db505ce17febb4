//! Where a shared store keeps its objects.

use std::fs::File;
use std::path::Path;

use kit::{Error, Result};

/// Attempts of a conditional put of which nobody knows how it ended.
const ATTEMPTS: usize = 4;

/// A place for objects, a bucket or a folder. An object appears whole under its key or not at all.
pub trait Objects: Send + Sync {
    /// Its address, without secrets: `s3://bucket/prefix`.
    fn address(&self) -> &str;

    /// The bytes of a small object; none where there is none.
    ///
    /// # Errors
    /// When the place cannot be reached, or refuses.
    fn read(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// The size of an object in bytes; none where there is none.
    ///
    /// # Errors
    /// As [`Objects::read`].
    fn size(&self, key: &str) -> Result<Option<u64>>;

    /// Writes an object of `bytes` bytes into a file. An object of another size gives other bytes.
    ///
    /// # Errors
    /// As [`Objects::read`]; when the file cannot be written.
    fn fetch(&self, key: &str, bytes: u64, file: &mut File) -> Result<()>;

    /// Puts the bytes of a file under a key, in place of what may be there.
    ///
    /// # Errors
    /// As [`Objects::read`]; when the file cannot be read.
    fn put(&self, key: &str, from: &Path) -> Result<()>;

    /// Puts bytes under a key where nothing is.
    ///
    /// # Errors
    /// As [`Objects::read`].
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Created>;
}

/// The end of a conditional put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The bytes are there.
    New,
    /// Something was there before.
    Taken,
    /// Nobody knows: the connection broke off, for this reason.
    Unsure(String),
}

/// Puts bytes under a key where nothing is, and gives what is there afterwards. Where a connection broke off, what is
/// there is read: a put that timed out may have been done.
pub(super) fn create(objects: &dyn Objects, key: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut reason = String::new();
    for _ in 0..ATTEMPTS {
        match objects.create(key, bytes)? {
            Created::New => return Ok(bytes.to_vec()),
            Created::Taken => {}
            Created::Unsure(why) => reason = why,
        }
        if let Some(there) = objects.read(key)? {
            return Ok(there);
        }
    }
    let text = format!("{}/{key} could not be put there: {reason}; run again", objects.address());
    Err(Error::Unreachable(text))
}
