//! Work that survives a kill: a stage's rows are computed and committed in shards.
//!
//! The work list is a pure function of the inputs, so a shard is one too; a shard whose record is on disk is not
//! computed again. The record is committed after the shard's files, so it never names a file that is not whole. What is
//! taken up is compared with what was written; a shard that is damaged is set aside and computed again.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::commit::batches::Batches;
use crate::commit::{Sealed, commit_file, commit_sealed, read_json, read_sealed};
use crate::contract::context::{Context, SCRATCH};
use crate::contract::event::Event;
use crate::contract::outcome::Outcome;
use crate::error::{Error, Result};
use crate::ranks::collective::{Alone, Ranked};
use crate::table::row::Row;
use crate::table::rows::Reject;
use crate::table::write::{Part, part_name, part_record, write_part};

/// The record of a committed shard.
#[derive(Debug, Serialize, Deserialize)]
struct ShardRecord {
    /// Units of the work list.
    units: Range<usize>,
    /// The number of all shards; 0 in records of earlier versions.
    #[serde(default)]
    of: usize,
    ports: BTreeMap<String, Part>,
    rejects: BTreeMap<String, u64>,
}

/// Takes the rows of one shard.
pub struct ShardOutput<'a> {
    context: &'a Context<'a>,
    shard: usize,
    units: Range<usize>,
    batches: Option<Batches<'a>>,
    ports: BTreeMap<String, Part>,
    rejects: Vec<Reject>,
}

impl ShardOutput<'_> {
    /// The result of the shard's next batch: as a killed process left it, else computed now and recorded. A shard is
    /// cut into the same batches in every process on one kind of device; a result comes back from its JSON as it was.
    ///
    /// # Errors
    /// As [`Batches::next`].
    pub fn batch<T: Serialize + DeserializeOwned>(&mut self, compute: impl FnOnce() -> Result<T>) -> Result<T> {
        let batches = match &mut self.batches {
            Some(batches) => batches,
            None => {
                let kind = if self.context.device == "cpu" { "" } else { ".gpu" };
                let (name, work) = (format!("{:05}{kind}.jsonl", self.shard), format!("{:?}", self.units));
                self.batches.insert(Batches::open(self.context, &name, &work)?)
            }
        };
        batches.next(compute)
    }

    /// Commits the shard's rows of one port; called once per port. Without rows no file is written.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write<R: Row>(&mut self, port: &str, rows: &[R]) -> Result<()> {
        if !rows.is_empty() {
            let part = write_part(&self.context.port(port).join(part_name(self.shard)), rows)?;
            let before = self.ports.insert(port.to_owned(), part);
            assert!(before.is_none(), "a shard writes each port once");
        }
        Ok(())
    }

    /// Keeps a value for [`Sharded::finish`], which takes it from [`kept`]; called once. It is no output, is committed
    /// and checked as the shard's files are, and comes back from its JSON as it was.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&mut self, value: &impl Serialize) -> Result<()> {
        let path = kept_path(self.context, self.shard);
        let json = serde_json::to_vec(value).map_err(|error| Error::internal(error.to_string()))?;
        commit_file(&path, |file| file.write_all(&json).map_err(Error::io(&path)))?;
        let before = self.ports.insert(kept_port(), part_record(&path, 0)?);
        assert!(before.is_none(), "a shard keeps one value");
        Ok(())
    }

    /// Rejects a row.
    pub fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
    }
}

/// The value that a committed shard kept.
///
/// # Errors
/// When its file cannot be read.
pub fn kept<T: DeserializeOwned>(context: &Context<'_>, shard: usize) -> Result<T> {
    let path = kept_path(context, shard);
    read_json(&path)?.ok_or_else(|| Error::data(format!("{}: is missing; run the same command again", path.display())))
}

/// The folder of what shards keep, within the stage's folder.
fn kept_port() -> String {
    format!("{SCRATCH}/kept")
}

fn kept_path(context: &Context<'_>, shard: usize) -> PathBuf {
    context.port(&kept_port()).join(format!("{shard:05}.json"))
}

/// Cuts units into shards of at least `size` units without cutting a group; `groups` are the lengths of consecutive
/// groups.
pub fn shard_ranges(groups: impl IntoIterator<Item = usize>, size: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut end) = (0, 0);
    for group in groups {
        end += group;
        if end - start >= size {
            ranges.push(start..end);
            start = end;
        }
    }
    if end > start {
        ranges.push(start..end);
    }
    ranges
}

/// Row-wise work: a list of units that is a pure function of the inputs, cut into shards. Any process can compute any
/// shard, in any order.
pub trait Sharded {
    /// The word for units, such as `sequences`.
    fn unit(&self) -> &'static str;

    /// The shards as consecutive ranges of units.
    fn shards(&self) -> Vec<Range<usize>>;

    /// Computes one of them: writes the rows of each port, rejects the others.
    ///
    /// # Errors
    /// Whatever went wrong; shards that were committed stay.
    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()>;

    /// The stage's outcome, once every shard is there; `rejected` counts the rejected rows of all. Ports that no shard
    /// wrote are completed here, and work on whole tables is done with what the shards [kept](ShardOutput::keep).
    ///
    /// # Errors
    /// When the ports cannot be read or written.
    fn finish(&mut self, rejected: u64) -> Result<Outcome>;
}

/// The work of a stage: whole, in shards, or by ranks.
pub enum Job<'a> {
    /// Work on whole tables.
    Whole(Box<dyn FnOnce() -> Result<Outcome> + 'a>),
    /// Work row by row.
    Sharded(Box<dyn Sharded + 'a>),
    /// Work that several ranks can do together.
    Ranked(Box<dyn Ranked + 'a>),
}

impl<'a> Job<'a> {
    /// Work on whole tables.
    pub fn whole(work: impl FnOnce() -> Result<Outcome> + 'a) -> Job<'a> {
        Job::Whole(Box::new(work))
    }

    /// Work row by row.
    pub fn sharded(work: impl Sharded + 'a) -> Job<'a> {
        Job::Sharded(Box::new(work))
    }

    /// Work that several ranks can do together.
    pub fn ranked(work: impl Ranked + 'a) -> Job<'a> {
        Job::Ranked(Box::new(work))
    }

    /// Does all of it in this process, shard after shard.
    ///
    /// # Errors
    /// As [`Sharded::compute`] and [`Ranked::compute`].
    pub fn run(self, context: &Context<'_>) -> Result<Outcome> {
        match self {
            Job::Whole(work) => work(),
            Job::Ranked(work) => work.compute(context, &Alone),
            Job::Sharded(mut work) => {
                let shards = work.shards().len();
                let rejected = compute_shards(context, &mut *work, 0..shards)?;
                finish_shards(context, &mut *work, rejected)
            }
        }
    }
}

/// Computes those of some shards that are not committed yet, in order. Gives the rejected rows of all of them by
/// reason.
///
/// # Errors
/// The error of the work, or when files cannot be written, or when a signal asks to stop between shards.
pub fn compute_shards(
    context: &Context<'_>,
    work: &mut dyn Sharded,
    which: Range<usize>,
) -> Result<BTreeMap<String, u64>> {
    let (unit, ranges) = (work.unit(), work.shards());
    let total = ranges.last().map_or(0, |range| range.end) as u64;
    let mut rejected = BTreeMap::new();
    let mut resumed = 0;
    for shard in which {
        let range = &ranges[shard];
        let record = match whole_shard(context, shard, range)? {
            Some(record) => {
                resumed += 1;
                record
            }
            None => {
                if resumed > 0 {
                    context.emit(Event::Resumed { what: format!("{resumed} of {} shards", ranges.len()) });
                    resumed = 0;
                }
                context.interrupt.check()?;
                let (units, batches) = (range.clone(), None);
                let mut output =
                    ShardOutput { context, shard, units, batches, ports: BTreeMap::new(), rejects: Vec::new() };
                work.compute(range.clone(), &mut output)?;
                let rejects = std::mem::take(&mut output.rejects);
                let mut counts = BTreeMap::new();
                rejects.iter().for_each(|reject| *counts.entry(reject.reason.clone()).or_insert(0) += 1);
                output.write("rejects", &rejects)?;
                let (units, of) = (range.clone(), ranges.len());
                let record = ShardRecord { units, of, ports: output.ports, rejects: counts };
                commit_sealed(&context.folder.join(record_of(shard)), &record)?;
                output.batches.map_or(Ok(()), Batches::finish)?;
                let rows = record.ports.values().map(|part| part.rows).sum();
                context.emit(Event::ShardCommitted { shard: shard as u64, shards: ranges.len() as u64, rows });
                record
            }
        };
        record.rejects.into_iter().for_each(|(reason, rows)| *rejected.entry(reason).or_insert(0) += rows);
        context.progress(range.end as u64, total, unit, String::new());
    }
    Ok(rejected)
}

/// Ends work of which every shard is committed.
///
/// # Errors
/// As [`Sharded::finish`].
pub fn finish_shards(
    context: &Context<'_>,
    work: &mut dyn Sharded,
    rejected: BTreeMap<String, u64>,
) -> Result<Outcome> {
    complete_port::<Reject>(context, "rejects")?;
    let all = rejected.values().sum();
    rejected.into_iter().for_each(|(reason, rows)| context.emit(Event::RowsRejected { reason, rows }));
    work.finish(all)
}

/// The shards whose records lie in the folder of unfinished work, by number; none before the first is committed, which
/// says how many there are. Their files are not read.
///
/// # Errors
/// When a record cannot be read.
pub fn committed_shards(folder: &Path) -> Result<Option<Vec<bool>>> {
    let records = folder.join(SCRATCH).join("shards");
    let entries = match std::fs::read_dir(&records) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(&records)(error)),
    };
    let (mut found, mut of) = (Vec::new(), 0);
    for entry in entries {
        let path = entry.map_err(Error::io(&records))?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")?.parse::<usize>().ok());
        let Some(number) = number else { continue };
        // One that is damaged counts as missing.
        if let Sealed::Whole(record) = read_sealed::<ShardRecord>(&path)? {
            found.push(number);
            of = of.max(record.of);
        }
    }
    let mut shards = vec![false; of];
    found.into_iter().filter(|number| *number < of).for_each(|number| shards[number] = true);
    Ok((of > 0).then_some(shards))
}

/// The name of a shard's record in the stage's folder.
fn record_of(shard: usize) -> String {
    format!("{SCRATCH}/shards/{shard:05}.json")
}

/// The record of a shard that was committed and whose files are as they were then.
fn whole_shard(context: &Context<'_>, shard: usize, range: &Range<usize>) -> Result<Option<ShardRecord>> {
    let name = record_of(shard);
    let record = match read_sealed::<ShardRecord>(&context.folder.join(&name))? {
        Sealed::Whole(record) if record.units == *range => record,
        Sealed::Whole(_) | Sealed::Missing => return Ok(None),
        Sealed::Damaged(damage) => {
            context.set_aside(&name, &damage)?;
            return Ok(None);
        }
    };
    for (port, part) in &record.ports {
        if let Some(damage) = part.damage(&context.port(port))? {
            context.set_aside(&format!("{port}/{}", part.file), &damage)?;
            return Ok(None);
        }
    }
    Ok(Some(record))
}

/// Gives a port that no shard wrote to its one empty part, so that every port can be opened and shows its columns.
///
/// # Errors
/// When the part cannot be written.
pub fn complete_port<R: Row>(context: &Context<'_>, port: &str) -> Result<()> {
    let folder = context.port(port);
    if !folder.is_dir() || crate::table::parts::parts_of(&folder).is_err() {
        write_part::<R>(&folder.join(part_name(0)), &[])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::context::Interrupt;
    use crate::seed::Seed;
    use crate::table::rows::{Prompt, Reject};

    /// Computes three shards of two prompts each in a folder; gives the shards that were computed and the events.
    fn three_shards(folder: &Path) -> (Vec<usize>, Vec<Event>) {
        let events = std::sync::Mutex::new(Vec::new());
        let told = |event| events.lock().unwrap().push(event);
        let context = Context {
            seed: Seed(1),
            device: "cpu",
            folder,
            inputs: BTreeMap::new(),
            events: &told,
            interrupt: Interrupt::default(),
        };
        let mut work = Rows { computed: Vec::new(), context: &context };
        let rejected = compute_shards(&context, &mut work, 0..3).unwrap();
        let outcome = finish_shards(&context, &mut work, rejected).unwrap();
        assert_eq!(outcome.figures["rejected"], 3);
        (work.computed, events.into_inner().unwrap())
    }

    /// Rows in shards of two, of which the first is rejected; and the shards that were computed.
    struct Rows<'a> {
        computed: Vec<usize>,
        context: &'a Context<'a>,
    }

    impl Sharded for Rows<'_> {
        fn unit(&self) -> &'static str {
            "rows"
        }

        fn shards(&self) -> Vec<Range<usize>> {
            vec![0..2, 2..4, 4..6]
        }

        fn compute(&mut self, range: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
            self.computed.push(range.start / 2);
            let prompt = |row: usize| Prompt {
                prompt_id: format!("p{row}"),
                messages: Vec::new(),
                source_file: None,
                source_line: None,
            };
            output.reject(Reject {
                input: "from".to_owned(),
                row_id: format!("r{}", range.start),
                reason: "odd".to_owned(),
                detail: String::new(),
                source_file: None,
                source_line: None,
            });
            output.keep(&(range.start, -1.0 / 3.0))?;
            output.write("prompts", &range.map(prompt).collect::<Vec<_>>())
        }

        fn finish(&mut self, rejected: u64) -> Result<Outcome> {
            let kept = (0..3).map(|shard| kept::<(usize, f64)>(self.context, shard));
            assert_eq!(kept.collect::<Result<Vec<_>>>()?, [0, 2, 4].map(|start| (start, -1.0 / 3.0)));
            Ok(Outcome::default().figure("rejected", rejected))
        }
    }

    #[test]
    fn shards_can_be_computed_in_any_order_by_anyone() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("sample-1.partial");
        std::fs::create_dir(&folder).unwrap();
        let silent = |_| {};
        let context = Context {
            seed: Seed(1),
            device: "cpu",
            folder: &folder,
            inputs: BTreeMap::new(),
            events: &silent,
            interrupt: Interrupt::default(),
        };
        assert_eq!(committed_shards(&folder).unwrap(), None);
        for (which, there) in [(2..3, [false, false, true]), (0..2, [true; 3])] {
            compute_shards(&context, &mut Rows { computed: Vec::new(), context: &context }, which).unwrap();
            assert_eq!(committed_shards(&folder).unwrap(), Some(there.to_vec()));
        }
        assert_eq!(three_shards(&folder).0, Vec::<usize>::new());
    }

    #[test]
    fn a_damaged_shard_is_named_set_aside_and_computed_again() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("sample-1.partial");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(three_shards(&folder).0, [0, 1, 2]);
        assert_eq!(three_shards(&folder).0, Vec::<usize>::new());
        let tables = ["prompts/part-00001.parquet", "rejects/part-00001.parquet"];
        let files = [tables[0], tables[1], ".work/kept/00001.json", ".work/shards/00001.json"];
        let good = files.map(|file| std::fs::read(folder.join(file)).unwrap());
        for (number, (file, whole)) in files.iter().zip(&good).enumerate() {
            let mut bytes = whole.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            std::fs::write(folder.join(file), &bytes).unwrap();
            let (computed, events) = three_shards(&folder);
            assert_eq!(computed, [1], "{file}");
            let named = |event: &Event| matches!(event, Event::Warned { text } if text.contains(file));
            assert!(events.iter().any(named), "{file} is not named: {events:?}");
            let aside = store.path().join(format!("sample-1.damaged-{}", number + 1)).join(file);
            assert_eq!(std::fs::read(aside).unwrap(), bytes);
            assert_eq!(files.map(|file| std::fs::read(folder.join(file)).unwrap()), good);
        }
        std::fs::remove_file(folder.join(files[0])).unwrap();
        assert_eq!(three_shards(&folder).0, [1], "a missing file is damage, too");
    }

    #[test]
    fn groups_stay_whole() {
        assert_eq!(shard_ranges([3, 3, 1, 5, 1], 4), vec![0..6, 6..12, 12..13]);
        assert_eq!(shard_ranges([], 4), Vec::<Range<usize>>::new());
        assert_eq!(shard_ranges([9], 4), vec![0..9]);
    }
}
