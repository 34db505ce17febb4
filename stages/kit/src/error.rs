//! Errors of a stage, by the user's remedy. The engine maps each case to an exit code.

use std::path::{Path, PathBuf};

/// The result of anything a stage does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a stage. The text is a fragment that reads well after "failed to run stage `x`: ".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data is at fault; the text names the file, row and column, what was found and what was wanted.
    #[error("{0}")]
    Data(String),
    /// The pipeline file is at fault in a way that only the data could show.
    #[error("{0}")]
    Pipeline(String),
    /// A remote service could not be reached; running again may help.
    #[error("{0}")]
    Unreachable(String),
    /// The work waits for something that the text names; running again goes on once it is there.
    #[error("{0}")]
    Waiting(String),
    /// The work was interrupted by a signal and can be taken up again.
    #[error("interrupted; run the same command again to go on")]
    Interrupted,
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A promise of our own was broken.
    #[error("{0} (this is a bug in halftone)")]
    Internal(String),
}

impl Error {
    /// Wraps an I/O error with the path it happened at: `.map_err(Error::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { path, source }
    }

    /// The base of an adapter cannot be had: `.map_err(Error::of_base)`.
    pub fn of_base(problem: models::Problem) -> Error {
        match problem {
            models::Problem::Io { path, source } => Error::Io { path, source },
            problem @ models::Problem::Adapter { .. } => Error::data(problem.to_string()),
        }
    }

    /// The data is at fault.
    pub fn data(text: impl Into<String>) -> Error {
        Error::Data(text.into())
    }

    /// A promise of our own was broken.
    pub fn internal(text: impl Into<String>) -> Error {
        Error::Internal(text.into())
    }
}
