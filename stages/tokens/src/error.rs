//! Errors of a model as errors of a stage.

use kit::Error;

/// A failure of `lm` as a stage reports it: the system's, the data's, or a bug.
pub fn lm_error(error: lm::Error) -> Error {
    match error {
        lm::Error::Io { path, source } => Error::io(path)(source),
        error if error.is_data() => Error::Data(error.to_string()),
        error => Error::Internal(error.to_string()),
    }
}

/// The same, with the row at fault in front.
pub(crate) fn of_row(row: &str, error: lm::Error) -> Error {
    match lm_error(error) {
        Error::Data(text) => Error::Data(format!("{row}: {text}")),
        other => other,
    }
}
