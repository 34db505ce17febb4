//! The record of answered requests, so that none is paid for twice.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kit::{Digest, Error, Result};

use crate::reply::Answer;

/// Time whose answers a power cut may cost; a kill costs none.
const SYNC: Duration = Duration::from_secs(1);

/// An append-only file with a line for each answered request: a checksum, a space, and the request's digest with the
/// answer as JSON. Nothing else is kept: what was no answer today may be one tomorrow.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    answers: HashMap<String, Answer>,
    synced: Instant,
}

impl Journal {
    /// Opens the journal or begins it. What a kill left of a last line is cut off; a line whose checksum is wrong is
    /// as if it were not there, and so is one that an earlier version wrote in another form.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn open(path: &Path) -> Result<Journal> {
        let failed = || Error::io(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed())?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed())?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(failed())?;
        }
        let answers = bytes[..whole].split(|byte| *byte == b'\n').filter_map(read_line).collect();
        Ok(Journal { path: path.to_owned(), file, answers, synced: Instant::now() })
    }

    /// The answer to a request, where there is one.
    pub(crate) fn get(&self, request: &str) -> Option<&Answer> {
        self.answers.get(request)
    }

    /// Number of answered requests.
    pub(crate) fn len(&self) -> usize {
        self.answers.len()
    }

    /// Records an answer before anything is made of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn add(&mut self, request: String, answer: Answer) -> Result<()> {
        let json = serde_json::to_string(&(&request, &answer)).expect("an answer can be written as JSON");
        let line = format!("{} {json}\n", check(json.as_bytes()));
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path))?;
        self.answers.insert(request, answer);
        if self.synced.elapsed() >= SYNC {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes all of it durable.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.synced = Instant::now();
        self.file.sync_data().map_err(Error::io(&self.path))
    }
}

fn check(bytes: &[u8]) -> String {
    Digest::of(bytes).short(16)
}

fn read_line(line: &[u8]) -> Option<(String, Answer)> {
    let (sum, json) = (line.get(..16)?, line.get(17..)?);
    if sum != check(json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::LabelLogps;

    fn labels(first: f64) -> Answer {
        let labels = LabelLogps { first, second: -1.0 / 3.0, first_bounded: true, second_bounded: false };
        Answer { labels: Some(labels), likeliest: ("B".to_owned(), -1.0 / 3.0), alternatives: 20 }
    }

    #[test]
    fn answers_come_back_and_a_torn_or_flipped_line_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/journal");
        let mut journal = Journal::open(&path).unwrap();
        let neither = Answer { labels: None, likeliest: ("line\nbreak".to_owned(), -0.5), alternatives: 1 };
        journal.add("one".to_owned(), labels(-0.1)).unwrap();
        journal.add("two".to_owned(), neither.clone()).unwrap();
        journal.add("three".to_owned(), labels(-2.5)).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let lines: Vec<usize> =
            whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            let kept = lines.iter().filter(|end| **end <= length).count();
            assert_eq!(journal.len(), kept, "{length}");
            assert_eq!(journal.get("one"), (kept > 0).then(|| labels(-0.1)).as_ref());
            assert_eq!(journal.get("two"), (kept > 1).then_some(&neither));
            // It goes on after the last whole line.
            journal.add("four".to_owned(), labels(-4.0)).unwrap();
            drop(journal);
            assert_eq!(Journal::open(&path).unwrap().len(), kept + 1);
        }
        let mut flipped = whole.clone();
        flipped[lines[0] + 20] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert!(journal.get("two").is_none() && journal.get("three") == Some(&labels(-2.5)));
    }

    #[test]
    fn what_earlier_versions_wrote_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let lines = [
            r#"["one",{"nothing":["bad_answer","no `choices`"]}]"#,
            r#"["two",{"labels":{"first":-9.0,"second":-10.0,"first_bounded":false,"second_bounded":false}}]"#,
        ];
        std::fs::write(&path, lines.map(|json| format!("{} {json}\n", check(json.as_bytes()))).concat()).unwrap();
        assert_eq!(Journal::open(&path).unwrap().len(), 0);
    }
}
