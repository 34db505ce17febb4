//! The errors of a language model.

use std::path::{Path, PathBuf};

/// The result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure in this crate. The text is a fragment that reads well after "failed to ...: ".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of a model folder cannot be read, or does not hold what it should.
    #[error("{path}: {what}", path = path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The value found, the value wanted, and the remedy.
        what: String,
    },
    /// A file cannot be read or written, whatever it holds: a full disk, missing rights, a broken device.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The token sequences, texts or settings given to the model are at fault.
    #[error("{0}")]
    Input(String),
    /// The asked device is not there or not supported by this build.
    #[error("device `{name}`: {what}")]
    Device {
        /// The name as it was asked for.
        name: String,
        /// The reason why it cannot be opened, and the remedy.
        what: String,
    },
    /// A number that must be finite is not.
    #[error("{0}")]
    NotFinite(String),
    /// The tensor library failed.
    #[error("tensor operation: {0}")]
    Tensor(candle_core::Error),
    /// The device has no memory left.
    #[error("the device has no memory left ({0}); compute fewer tokens at once, or take a smaller model")]
    OutOfMemory(String),
    /// A promise of our own was broken.
    #[error("{0} (this is a bug in halftone)")]
    Internal(String),
}

impl Error {
    /// A file is at fault.
    pub fn file(path: impl AsRef<Path>, what: impl std::fmt::Display) -> Error {
        Error::File { path: path.as_ref().to_owned(), what: what.to_string() }
    }

    /// Wraps any error with the file it happened at: `.map_err(Error::at(path))`.
    pub fn at<E: std::fmt::Display>(path: impl AsRef<Path>) -> impl FnOnce(E) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::File { path, what: source.to_string() }
    }

    /// Wraps what the system says of a file: `.map_err(Error::io(path))`. A file that is not there is the user's to
    /// mend.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData => {
                Error::File { path, what: source.to_string() }
            }
            _ => Error::Io { path, source },
        }
    }

    /// The given sequences, texts or settings are at fault.
    pub fn input(text: impl Into<String>) -> Error {
        Error::Input(text.into())
    }

    /// A promise of our own was broken.
    pub fn internal(text: impl Into<String>) -> Error {
        Error::Internal(text.into())
    }

    /// True where the user can fix it; false for failures of the tensor library and bugs of our own.
    pub fn is_data(&self) -> bool {
        !matches!(self, Error::Tensor(_) | Error::Internal(_))
    }
}

/// The system's error while the tensor library read a file; none where the file's content is at fault.
pub(crate) fn system_error(error: &candle_core::Error) -> Option<std::io::Error> {
    use candle_core::Error::{Context, Io, WithBacktrace, WithPath};
    match error {
        // A file that ends too soon or holds something else is no failure of the system.
        Io(source) => source.raw_os_error().map(|_| std::io::Error::new(source.kind(), source.to_string())),
        Context { inner, .. } | WithPath { inner, .. } | WithBacktrace { inner, .. } => system_error(inner),
        _ => None,
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        let text = error.to_string();
        let lower = text.to_lowercase();
        if lower.contains("out_of_memory") || lower.contains("out of memory") {
            return Error::OutOfMemory(text.lines().next().unwrap_or_default().to_owned());
        }
        Error::Tensor(error)
    }
}

/// True where a file is there. A path that the system cannot look at is an error: its file may exist.
pub(crate) fn is_there(path: &Path) -> Result<bool> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match path.metadata() {
        Ok(found) => Ok(found.is_file()),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(false),
        Err(error) => Err(Error::io(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_fault_is_told_apart() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(matches!(Error::io("x")(full), Error::Io { .. }));
        let absent = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert!(matches!(Error::io("x")(absent), Error::File { .. }));
        let tensor = |text: &str| Error::from(candle_core::Error::Msg(text.to_owned()));
        let text = tensor("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        assert!(text.is_data() && text.to_string().contains("no memory left"), "{text}");
        assert!(!tensor("shape mismatch").is_data());
    }
}
