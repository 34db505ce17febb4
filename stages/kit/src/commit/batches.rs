//! Results of finished batches, so that a kill costs no more than the batch in work.
//!
//! Work that is cut into the same batches in every process records the result of each before it uses it, and takes up
//! what an earlier process recorded. A record is used only where its bytes are those that were written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::commit::open_appending;
use crate::contract::context::{Context, SCRATCH};
use crate::contract::event::Event;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// The time of batches that a power cut may cost; a kill costs none.
const SYNC: Duration = Duration::from_secs(1);

/// An append-only file with a line for each finished batch, in order: a checksum, a space, and the result as JSON.
pub struct Batches<'a> {
    context: &'a Context<'a>,
    /// The file's name in the stage's folder.
    name: String,
    /// The work that is cut into batches; part of each checksum.
    work: String,
    file: File,
    /// Lines of earlier processes that were not requested yet.
    known: VecDeque<Vec<u8>>,
    /// Batches that have a result.
    done: usize,
    /// Bytes of their lines.
    length: u64,
    synced: Instant,
}

impl<'a> Batches<'a> {
    /// Opens the record of a piece of work or begins it. `name` is its file's, `work` says what is cut into batches: a
    /// record of other work is damaged. What a kill left of a last line is cut off.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(context: &'a Context<'a>, name: &str, work: &str) -> Result<Batches<'a>> {
        let (name, work) = (format!("{SCRATCH}/batches/{name}"), work.to_owned());
        let (file, bytes) = open_appending(&context.folder.join(&name))?;
        let mut batches =
            Batches { context, name, work, file, known: VecDeque::new(), done: 0, length: 0, synced: Instant::now() };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            batches.file.set_len(whole as u64).map_err(Error::io(batches.path()))?;
        }
        for (number, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            match line.get(17..line.len() - 1) {
                Some(json) if line[..17] == *format!("{} ", batches.check(number, json)).as_bytes() => {
                    batches.known.push_back(json.to_vec());
                }
                _ => {
                    batches.set_aside(&format!("has other bytes than were written in line {}", number + 1))?;
                    break;
                }
            }
        }
        if !batches.known.is_empty() {
            let count = batches.known.len();
            let plural = if count == 1 { "" } else { "es" };
            context.emit(Event::Resumed { what: format!("{count} batch{plural} of unfinished work") });
        }
        Ok(batches)
    }

    /// The result of the next batch: as an earlier process recorded it, else computed and recorded.
    ///
    /// # Errors
    /// The error of `compute`, [`Error::Interrupted`] before a batch that has to be computed, or when the file cannot
    /// be written.
    pub fn next<T: Serialize + DeserializeOwned>(&mut self, compute: impl FnOnce() -> Result<T>) -> Result<T> {
        if let Some(json) = self.known.pop_front() {
            if let Ok(result) = serde_json::from_slice(&json) {
                self.end(&json);
                return Ok(result);
            }
            self.known.clear();
            self.file.set_len(self.length).map_err(Error::io(self.path()))?;
            self.context.warn(format!("unfinished work, {}, is of another version; computed again", self.name));
        }
        self.context.interrupt.check()?;
        let result = compute()?;
        let json = serde_json::to_vec(&result).map_err(|error| Error::internal(error.to_string()))?;
        let line = [self.check(self.done, &json).as_bytes(), b" ", &json, b"\n"].concat();
        self.file.write_all(&line).map_err(Error::io(self.path()))?;
        self.end(&json);
        if self.synced.elapsed() >= SYNC {
            self.file.sync_data().map_err(Error::io(self.path()))?;
            self.synced = Instant::now();
        }
        Ok(result)
    }

    /// Drops the record: what was made of the results is on disk.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn finish(self) -> Result<()> {
        std::fs::remove_file(self.path()).map_err(Error::io(self.path()))
    }

    fn path(&self) -> PathBuf {
        self.context.folder.join(&self.name)
    }

    fn check(&self, number: usize, json: &[u8]) -> String {
        let place = format!("{} {number} ", self.work);
        Digest::of(&[place.as_bytes(), json].concat()).short(16)
    }

    /// Counts a batch that has a result.
    fn end(&mut self, json: &[u8]) {
        self.done += 1;
        self.length += json.len() as u64 + 18;
    }

    /// Moves a damaged record out of the way, before any of it was used, and begins another.
    fn set_aside(&mut self, damage: &str) -> Result<()> {
        self.context.set_aside(&self.name, damage)?;
        self.known.clear();
        self.file = open_appending(&self.path())?.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;
    use crate::contract::context::Interrupt;
    use crate::seed::Seed;

    const NAME: &str = "00003.jsonl";
    const RESULTS: [&[f64]; 4] = [&[-1.0 / 3.0, 1e-310], &[], &[f64::MIN_POSITIVE], &[-0.0, 17.25]];

    /// Takes the first `count` results; gives the numbers of those that were computed, and the events.
    fn take(folder: &Path, work: &str, count: usize) -> (Vec<usize>, Vec<Event>) {
        let events = Mutex::new(Vec::new());
        let reported = |event| events.lock().unwrap().push(event);
        let context = Context {
            seed: Seed(1),
            device: "cpu",
            folder,
            inputs: BTreeMap::new(),
            events: &reported,
            interrupt: Interrupt::default(),
        };
        let mut batches = Batches::open(&context, NAME, work).unwrap();
        let mut computed = Vec::new();
        for (number, wanted) in RESULTS.iter().enumerate().take(count) {
            let result: Vec<f64> = batches
                .next(|| {
                    computed.push(number);
                    Ok(wanted.to_vec())
                })
                .unwrap();
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&result), bits(wanted));
        }
        drop(batches);
        drop(context);
        (computed, events.into_inner().unwrap())
    }

    #[test]
    fn whatever_byte_changes_or_is_missing_the_results_are_those_of_the_work() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("judge-1.partial");
        let path = folder.join(SCRATCH).join("batches").join(NAME);
        assert_eq!(take(&folder, "0..8", 3), (vec![0, 1, 2], Vec::new()));
        let (computed, events) = take(&folder, "0..8", 4);
        assert_eq!(computed, [3]);
        assert!(
            matches!(&events[..], [Event::Resumed { what }] if what == "3 batches of unfinished work"),
            "{events:?}"
        );
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (1..=whole.len()).filter(|end| whole[end - 1] == b'\n').collect();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (computed, events) = take(&folder, "0..8", 4);
            assert_eq!(computed.len(), ends.iter().filter(|end| **end > length).count(), "{length}");
            assert!(!events.iter().any(|event| matches!(event, Event::Warned { .. })), "{events:?}");
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            let (computed, events) = take(&folder, "0..8", 4);
            // Without its end the last line is what a kill leaves; anything else is named.
            let torn = at + 1 == whole.len();
            assert_eq!(computed, if torn { vec![3] } else { vec![0, 1, 2, 3] }, "{at}");
            let named = |event: &Event| matches!(event, Event::Warned { text } if text.contains(NAME));
            assert_eq!(events.iter().any(named), !torn, "{events:?}");
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let (computed, events) = take(&folder, "0..9", 1);
        assert_eq!(computed, [0], "the record of other work is not used");
        assert!(events.iter().any(|event| matches!(event, Event::Warned { text } if text.contains("line 1"))));
    }

    #[test]
    fn a_record_of_another_form_is_computed_again_from_there_on() {
        let folder = tempfile::tempdir().unwrap();
        let reported = Mutex::new(Vec::new());
        let events = |event| reported.lock().unwrap().push(event);
        let context = Context {
            seed: Seed(1),
            device: "cpu",
            folder: folder.path(),
            inputs: BTreeMap::new(),
            events: &events,
            interrupt: Interrupt::default(),
        };
        let mut batches = Batches::open(&context, NAME, "0..8").unwrap();
        assert_eq!(batches.next(|| Ok(1)).unwrap(), 1);
        assert_eq!(batches.next(|| Ok("text".to_owned())).unwrap(), "text");
        drop(batches);
        for computes in [true, false] {
            let mut batches = Batches::open(&context, NAME, "0..8").unwrap();
            assert_eq!(batches.next(|| Ok(9)).unwrap(), 1);
            assert_eq!(batches.next(|| if computes { Ok(2) } else { panic!("it is known") }).unwrap(), 2);
        }
        assert!(reported.lock().unwrap().iter().any(|event| matches!(event, Event::Warned { .. })));
        Batches::open(&context, NAME, "0..8").unwrap().finish().unwrap();
        assert!(!folder.path().join(SCRATCH).join("batches").join(NAME).exists());
    }
}
