//! Keeps the events of a run in `events.jsonl`.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kit::{Error, Result};

use super::event::{Event, Reporter};

/// Progress of a stage is kept at most this often.
const EVERY: Duration = Duration::from_secs(1);

/// Appends events to a file.
pub struct Recorder {
    state: Mutex<(File, HashMap<String, Instant>)>,
}

impl Recorder {
    /// A recorder that writes to `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Recorder> {
        let file = File::create(path).map_err(Error::io(path))?;
        Ok(Recorder { state: Mutex::new((file, HashMap::new())) })
    }
}

impl Reporter for Recorder {
    fn report(&self, stage: Option<&str>, event: &Event) {
        let mut state = self.state.lock().expect("no thread panics while it records");
        let (file, last) = &mut *state;
        if let (Event::Work(kit::Event::Progressed { done, total, .. }), Some(stage)) = (event, stage) {
            let early = last.get(stage).is_some_and(|written| written.elapsed() < EVERY);
            if early && done < total {
                return;
            }
            last.insert(stage.to_owned(), Instant::now());
        }
        // A record that cannot be written does not stop the work it is about.
        let _ = file.write_all(format!("{}\n", event.json(stage)).as_bytes());
    }
}
