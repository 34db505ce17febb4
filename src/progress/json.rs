//! Events as JSON lines on stdout, for machines.

use std::sync::{Mutex, PoisonError};

use super::event::{Event, Reporter};
use crate::error::{Error, Result};
use crate::streams;

/// Prints every event.
#[derive(Default)]
pub struct Json {
    /// Error of the first event that could not be printed.
    failed: Mutex<Option<Error>>,
}

impl Json {
    /// Checks that every event was printed. A run goes on without; in the end it fails, as it has not done all that was
    /// requested.
    ///
    /// # Errors
    /// When stdout is closed, or full.
    pub fn written(&self) -> Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take().map_or(Ok(()), Err)
    }
}

impl Reporter for Json {
    fn report(&self, stage: Option<&str>, event: &Event) {
        if let Err(error) = streams::print(&format!("{}\n", event.json(stage))) {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}
