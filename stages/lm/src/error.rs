//! What can go wrong with a language model.

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
        /// What was found, what was wanted, and what to do.
        what: String,
    },
    /// The token sequences, texts or settings given to the model are at fault.
    #[error("{0}")]
    Input(String),
    /// The asked device is not there or not supported by this build.
    #[error("device `{name}`: {what}")]
    Device {
        /// The name as it was asked for.
        name: String,
        /// Why it cannot be opened, and what to do.
        what: String,
    },
    /// A number that must be finite is not.
    #[error("{0}")]
    NotFinite(String),
    /// The tensor library failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
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

    /// The given sequences, texts or settings are at fault.
    pub fn input(text: impl Into<String>) -> Error {
        Error::Input(text.into())
    }

    /// A promise of our own was broken.
    pub fn internal(text: impl Into<String>) -> Error {
        Error::Internal(text.into())
    }

    /// Whether the user can mend it: false for failures of the tensor library and bugs of our own.
    pub fn is_data(&self) -> bool {
        !matches!(self, Error::Tensor(_) | Error::Internal(_))
    }
}
