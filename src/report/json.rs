//! Events as JSON lines on stdout, for machines.

use std::sync::OnceLock;

use super::event::{Happened, Reporter};
use crate::error::Result;
use crate::streams;

/// Prints every event.
#[derive(Default)]
pub struct Json {
    /// Why the first event that could not be printed was not.
    failed: OnceLock<std::io::Error>,
}

impl Json {
    /// Whether every event was printed. A run goes on without; only in the end it has not done all that was asked for.
    ///
    /// # Errors
    /// When stdout is closed, or full.
    pub fn written(&self) -> Result<()> {
        match self.failed.get() {
            None => Ok(()),
            Some(error) => {
                let source = std::io::Error::new(error.kind(), error.to_string());
                Err(kit::Error::Io { path: "stdout".into(), source }.into())
            }
        }
    }
}

impl Reporter for Json {
    fn tell(&self, stage: Option<&str>, happened: &Happened) {
        if let Err(error) = streams::print(&format!("{}\n", happened.json(stage))) {
            let _ = self.failed.set(error);
        }
    }
}
