//! Events as JSON lines on stdout, for machines.

use std::io::Write;

use super::event::{Happened, Reporter};

/// Prints every event.
pub struct Json;

impl Reporter for Json {
    fn tell(&self, stage: Option<&str>, happened: &Happened) {
        let line = format!("{}\n", happened.json(stage));
        // A reader that went away does not stop the run.
        let _ = std::io::stdout().write_all(line.as_bytes());
    }
}
