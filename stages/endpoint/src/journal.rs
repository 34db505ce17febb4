//! The record of answered requests, so that none is paid for twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kit::{Context, Digest, Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::usage::Usage;

/// Time whose answers a power cut may cost; a kill costs none.
const SYNC: Duration = Duration::from_secs(1);

/// The file's name in the stage's folder.
const NAME: &str = ".work/journal";

/// An append-only file with a line for each answered question: a checksum, a space, and as JSON the question's digest
/// with the answer, and the tokens of the request where the server counted some. Tokens without an answer have a line
/// of their own. Nothing else is kept: what was no answer today may be one tomorrow.
pub(crate) struct Journal<A> {
    path: PathBuf,
    file: File,
    answers: HashMap<String, A>,
    usage: Usage,
    answered: Usage,
    synced: Instant,
}

impl<A: Serialize + DeserializeOwned> Journal<A> {
    /// Opens the journal of a stage or begins it. What a kill left of a last line is cut off. Where a line has other
    /// bytes than were written, the file is set aside and the answers of its other lines go on; one that an earlier
    /// version wrote in another form is asked again.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn open(context: &Context<'_>) -> Result<Journal<A>> {
        let path = context.folder.join(NAME);
        let (mut file, bytes) = kit::commit::open_appending(&path)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(Error::io(&path))?;
        }
        let (mut good, mut answers, mut damaged, mut older) = (Vec::new(), HashMap::new(), Vec::new(), 0_u64);
        let (mut usage, mut answered) = (Usage::default(), Usage::default());
        for (number, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            match read_line(&line[..line.len() - 1]) {
                Line::Entry(request, answer, tokens) => {
                    usage += tokens;
                    if let Some(answer) = answer {
                        answered += tokens;
                        answers.insert(request, answer);
                    }
                }
                Line::Older => older += 1,
                Line::Damaged => {
                    damaged.push(number + 1);
                    continue;
                }
            }
            good.extend_from_slice(line);
        }
        if let Some(first) = damaged.first() {
            let (lines, kept) = (damaged.len(), answers.len());
            let damage = format!("has other bytes than were written, lines: {lines}, the first of them {first}");
            context.set_aside(NAME, &format!("{damage} ({kept} answers of other lines are kept)"))?;
            file = kit::commit::open_appending(&path)?.0;
            file.write_all(&good).and_then(|()| file.sync_data()).map_err(Error::io(&path))?;
        }
        if older > 0 {
            context.warn(format!("{older} answers in {NAME} are of another version; these are asked again"));
        }
        Ok(Journal { path, file, answers, usage, answered, synced: Instant::now() })
    }

    /// The answer to a request, where there is one.
    pub(crate) fn get(&self, request: &str) -> Option<&A> {
        self.answers.get(request)
    }

    /// Number of answered requests.
    pub(crate) fn len(&self) -> usize {
        self.answers.len()
    }

    /// Any of the answers.
    pub(crate) fn any(&self) -> Option<&A> {
        self.answers.values().next()
    }

    /// Tokens of the requests that were answered.
    pub(crate) fn answered(&self) -> Usage {
        self.answered
    }

    /// Tokens of all requests, those of probes and of failures too.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Records an answer before anything is made of it, with tokens that are recorded with no other.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn add(&mut self, request: String, answer: A, usage: Usage) -> Result<()> {
        let json = match usage.is_nothing() {
            true => serde_json::to_string(&(&request, &answer)),
            false => serde_json::to_string(&(&request, &answer, usage)),
        };
        self.write(&json.expect("an answer can be written as JSON"))?;
        self.usage += usage;
        self.answered += usage;
        self.answers.insert(request, answer);
        Ok(())
    }

    /// Records tokens that brought no answer.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn spend(&mut self, usage: Usage) -> Result<()> {
        if !usage.is_nothing() {
            self.write(&serde_json::to_string(&("", (), usage)).expect("numbers can be written as JSON"))?;
            self.usage += usage;
        }
        Ok(())
    }

    fn write(&mut self, json: &str) -> Result<()> {
        let line = format!("{} {json}\n", check(json.as_bytes()));
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path))?;
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

/// A line of the journal.
enum Line<A> {
    /// A question's digest with its answer, and tokens.
    Entry(String, Option<A>, Usage),
    /// Text of another version.
    Older,
    /// Other bytes than were written.
    Damaged,
}

fn read_line<A: DeserializeOwned>(line: &[u8]) -> Line<A> {
    match (line.get(..17), line.get(17..)) {
        (Some(sum), Some(json)) if sum == format!("{} ", check(json)).as_bytes() => {
            if let Ok((request, answer)) = serde_json::from_slice(json) {
                return Line::Entry(request, Some(answer), Usage::default());
            }
            match serde_json::from_slice(json) {
                Ok((request, answer, usage)) => Line::Entry(request, answer, usage),
                Err(_) => Line::Older,
            }
        }
        _ => Line::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Mutex;

    use kit::{Event, Interrupt, Seed};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Answer {
        labels: Option<(f64, f64)>,
        likeliest: String,
    }

    fn labels(first: f64) -> Answer {
        Answer { labels: Some((first, -1.0 / 3.0)), likeliest: "B".to_owned() }
    }

    /// The journal in `folder`, and what is said of it.
    fn open(folder: &Path) -> (Journal<Answer>, Vec<String>) {
        let warnings = Mutex::new(Vec::new());
        let events = |event: Event| {
            if let Event::Warned { text } = event {
                warnings.lock().unwrap().push(text);
            }
        };
        let (inputs, interrupt) = (BTreeMap::new(), Interrupt::default());
        let context = Context { seed: Seed(0), device: "cpu", folder, inputs, events: &events, interrupt };
        let journal = Journal::open(&context).unwrap();
        (journal, warnings.lock().unwrap().clone())
    }

    #[test]
    fn answers_come_back_and_a_torn_line_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let mut journal = open(folder.path()).0;
        let neither = Answer { labels: None, likeliest: "line\nbreak".to_owned() };
        journal.add("one".to_owned(), labels(-0.1), Usage::default()).unwrap();
        journal.add("two".to_owned(), neither.clone(), Usage::default()).unwrap();
        journal.add("three".to_owned(), labels(-2.5), Usage::default()).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let lines: Vec<usize> =
            whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (mut journal, warnings) = open(folder.path());
            let kept = lines.iter().filter(|end| **end <= length).count();
            assert_eq!((journal.len(), warnings), (kept, Vec::new()), "{length}");
            assert_eq!(journal.get("one"), (kept > 0).then(|| labels(-0.1)).as_ref());
            assert_eq!(journal.get("two"), (kept > 1).then_some(&neither));
            // It goes on after the last whole line.
            journal.add("four".to_owned(), labels(-4.0), Usage::default()).unwrap();
            drop(journal);
            assert_eq!(open(folder.path()).0.len(), kept + 1);
        }
    }

    #[test]
    fn a_damaged_journal_is_named_set_aside_and_goes_on_with_its_other_lines() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("entry");
        let mut journal = open(&folder).0;
        for (request, first) in [("one", -0.1), ("two", -1.5), ("three", -2.5)] {
            journal.add(request.to_owned(), labels(first), Usage::default()).unwrap();
        }
        drop(journal);
        let path = folder.join(NAME);
        let whole = std::fs::read(&path).unwrap();
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for at in [second, second + 16, second + 17, second + 40] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            let (journal, warnings) = open(&folder);
            assert!(journal.get("two").is_none() && journal.get("three") == Some(&labels(-2.5)), "{at}");
            let [warning] = &warnings[..] else { panic!("{at}: {warnings:?}") };
            assert!(warning.contains("journal has other bytes than were written, lines: 1, the first of them 2"));
            let moved = warning.split("moved to ").nth(1).unwrap().split(';').next().unwrap();
            assert_eq!(std::fs::read(moved).unwrap(), flipped);
            // Once is enough.
            drop(journal);
            let (mut journal, warnings) = open(&folder);
            assert_eq!((journal.len(), warnings), (2, Vec::new()));
            journal.add("two".to_owned(), labels(-1.5), Usage::default()).unwrap();
            assert_eq!(open(&folder).0.len(), 3);
        }
    }

    #[test]
    fn answers_of_earlier_versions_are_said_and_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [r#"["one",{"nothing":["bad_answer","no `choices`"]}]"#, r#"["two",{"labels":[-9.0,-10.0]}]"#];
        std::fs::create_dir(folder.path().join(".work")).unwrap();
        let text = lines.map(|json| format!("{} {json}\n", check(json.as_bytes()))).concat();
        std::fs::write(folder.path().join(NAME), text).unwrap();
        let (journal, warnings) = open(folder.path());
        assert_eq!(journal.len(), 0);
        assert_eq!(warnings, ["2 answers in .work/journal are of another version; these are asked again"]);
    }

    #[test]
    fn tokens_are_summed_over_processes() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = |input, output| Usage { input, output, cached: 1 };
        let mut journal = open(folder.path()).0;
        journal.add("one".to_owned(), labels(-0.1), tokens(10, 2)).unwrap();
        journal.add("two".to_owned(), labels(-0.2), Usage::default()).unwrap();
        journal.spend(tokens(5, 1)).unwrap();
        journal.spend(Usage::default()).unwrap();
        assert_eq!(journal.usage(), Usage { input: 15, output: 3, cached: 2 });
        drop(journal);
        let (journal, warnings) = open(folder.path());
        assert_eq!((journal.len(), journal.usage()), (2, Usage { input: 15, output: 3, cached: 2 }));
        assert_eq!(journal.answered(), tokens(10, 2));
        assert_eq!((warnings.len(), journal.get("one")), (0, Some(&labels(-0.1))));
    }
}
