//! Tables whose rows are made of rows of others, in another order.

use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::ArrayRef;
use rayon::prelude::*;

use crate::contract::context::Context;
use crate::contract::expected::Expected;
use crate::error::{Error, Result};
use crate::table::cached_rows::CachedRows;
use crate::table::read::BatchReader;
use crate::table::row::Row;
use crate::table::spilled::Spilled;
use crate::table::write::{ROWS_PER_GROUP, ROWS_PER_PART, write_columns};

/// Memory for the input rows that are held at once, bytes.
const HELD_BYTES: usize = 512 << 20;
/// Buckets that entries are sorted into at most, while a bucket is no more than a part: each is a file.
const BUCKETS: usize = 256;

/// Writes a port whose rows are made of rows of the inputs: `entries` in their order, each from the input rows it
/// `needs`, numbered from 0 over all sources of the inputs `keys`. `columns` makes the output's columns for some
/// entries from the cached rows.
///
/// Where the input rows do not fit into memory they are read once and sorted into files of the stage's scratch folder,
/// one for some consecutive entries: compressed, gone once they are used.
///
/// # Errors
/// When an input cannot be read or the port not written, or what `columns` gives, or when a signal asks to stop.
pub fn write_gathered<R: Row, O: Row, E>(
    context: &Context<'_>,
    keys: &[&'static str],
    port: &str,
    entries: &[E],
    needs: impl Fn(&E) -> [Option<u32>; 2] + Sync,
    columns: impl Fn(&CachedRows, &[E]) -> Result<Vec<ArrayRef>> + Sync,
) -> Result<()>
where
    E: Sync,
{
    let each = entries.first().map_or(1, |entry| needs(entry).into_iter().flatten().count());
    let held = HELD_BYTES / bytes_of_row::<R>(context, keys)? / each.max(1);
    Gathering { context, keys, port, entries, needs, columns, done: AtomicU64::new(0) }.write::<R, O>(held)
}

/// Memory for the input rows that [`write_gathered`] holds of a table, bytes.
pub fn held_bytes(table: &Expected) -> u64 {
    table.bytes().unwrap_or(0).min(HELD_BYTES as u64)
}

struct Gathering<'a, E, N, C> {
    context: &'a Context<'a>,
    keys: &'a [&'static str],
    port: &'a str,
    entries: &'a [E],
    needs: N,
    columns: C,
    done: AtomicU64,
}

impl<E, N, C> Gathering<'_, E, N, C>
where
    E: Sync,
    N: Fn(&E) -> [Option<u32>; 2] + Sync,
    C: Fn(&CachedRows, &[E]) -> Result<Vec<ArrayRef>> + Sync,
{
    /// Writes all parts, with the rows of `held` entries in memory.
    fn write<R: Row, O: Row>(&self, held: usize) -> Result<()> {
        let folder = self.context.port(self.port);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        let parts = self.entries.len().div_ceil(ROWS_PER_PART).max(1);
        if self.entries.len() <= held {
            let mut wanted = vec![false; self.context.count_rows_of(self.keys)? as usize];
            self.entries.iter().flat_map(&self.needs).flatten().for_each(|row| wanted[row as usize] = true);
            let cached = CachedRows::read(self.context.batches::<R>(self.keys)?, &wanted)?;
            let chunks = |part| self.starts(part).map(|start| self.chunk(&cached, start));
            return in_parallel(0..parts, |part| write_columns::<O>(&folder, part, chunks(part)).map(drop));
        }
        let threads = rayon::current_num_threads();
        // Whole row groups, and a whole number of buckets in a part.
        let bucket = (held / threads).max(self.entries.len() / BUCKETS) / ROWS_PER_GROUP;
        let per_part = (ROWS_PER_PART / ROWS_PER_GROUP).div_ceil(bucket.max(1));
        let bucket = (ROWS_PER_PART / ROWS_PER_GROUP).div_ceil(per_part) * ROWS_PER_GROUP;
        let bucket_of = |entry: usize| entry / ROWS_PER_PART * per_part + entry % ROWS_PER_PART / bucket;
        let needs = self.entries.par_iter().enumerate().flat_map_iter(|(at, entry)| {
            let bucket = bucket_of(at) as u32;
            (self.needs)(entry).into_iter().flatten().map(move |row| (row, bucket))
        });
        let table = self.context.batches::<R>(self.keys)?;
        let spilled = Spilled::write(self.context, table, needs.collect(), parts * per_part)?;
        let at_once = (held / bucket).clamp(1, threads);
        for first in (0..parts).step_by(at_once) {
            in_parallel(first..parts.min(first + at_once), |part| {
                let mut cached: Option<(usize, CachedRows)> = None;
                let chunk = |start: usize| {
                    let bucket = bucket_of(start);
                    if cached.as_ref().is_none_or(|(held, _)| *held != bucket) {
                        cached = None;
                        cached = Some((bucket, spilled.read(bucket)?));
                    }
                    self.chunk(&cached.as_ref().expect("just filled").1, start)
                };
                write_columns::<O>(&folder, part, self.starts(part).map(chunk)).map(drop)
            })?;
        }
        spilled.remove()
    }

    /// The first entry of each row group of a part.
    fn starts(&self, part: usize) -> impl Iterator<Item = usize> {
        (part * ROWS_PER_PART..self.entries.len().min((part + 1) * ROWS_PER_PART)).step_by(ROWS_PER_GROUP)
    }

    /// The columns of a row group.
    fn chunk(&self, cached: &CachedRows, start: usize) -> Result<Vec<ArrayRef>> {
        self.context.interrupt.check()?;
        let chunk = &self.entries[start..self.entries.len().min(start + ROWS_PER_GROUP)];
        let made = (self.columns)(cached, chunk);
        let done = self.done.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
        self.context.progress(done, self.entries.len() as u64, "rows", String::new());
        made
    }
}

/// Does something with each part; the first error by place, whatever thread met it.
fn in_parallel(parts: std::ops::Range<usize>, work: impl Fn(usize) -> Result<()> + Sync + Send) -> Result<()> {
    parts.into_par_iter().map(work).collect::<Vec<_>>().into_iter().collect()
}

/// Memory of a row, by the first rows of each source.
fn bytes_of_row<R: Row>(context: &Context<'_>, keys: &[&'static str]) -> Result<usize> {
    let (mut rows, mut bytes) = (0, 0);
    for source in keys.iter().flat_map(|key| context.sources(key)) {
        if let Some(batch) = BatchReader::open::<R>(&[&source.path])?.next().transpose()? {
            rows += batch.batch.num_rows();
            bytes += batch.batch.get_array_memory_size();
        }
    }
    Ok((bytes / rows.max(1)).max(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::contract::context::{Interrupt, Source};
    use crate::contract::event::Event;
    use crate::contract::port::Table;
    use crate::digest::Digest;
    use crate::seed::Seed;
    use crate::table::rows::{Message, Prompt};
    use crate::table::write::{TableWriter, read_port};

    const ROWS: u32 = 20_000;

    /// The digest of a table made of pairs of rows of another, with so many of its rows in memory.
    fn gathered(folder: &Path, entries: &[(u32, Option<u32>)], held: usize, threads: usize) -> Digest {
        let source = |table: &str| Source {
            path: folder.join(table),
            table: Table::Prompts,
            digest: Digest::of(b""),
            name: table.to_owned(),
        };
        let context = Context {
            seed: Seed(1),
            device: "cpu",
            folder: &folder.join("out"),
            inputs: BTreeMap::from([("one", vec![source("a"), source("b")]), ("two", vec![source("c")])]),
            events: &|_: Event| {},
            interrupt: Interrupt::default(),
        };
        let gathering = Gathering {
            context: &context,
            keys: &["one", "two"],
            port: "prompts",
            entries,
            needs: |entry: &(u32, Option<u32>)| [Some(entry.0), entry.1],
            columns: |held: &CachedRows, entries: &[(u32, Option<u32>)]| {
                let first = held.places(entries.iter().map(|entry| entry.0));
                let second = held.places(entries.iter().map(|entry| entry.1.unwrap_or(entry.0)));
                Ok(vec![
                    held.gather("prompt_id", &first)?,
                    held.gather("messages", &second)?,
                    held.gather("source_file", &second)?,
                    held.gather("source_line", &first)?,
                ])
            },
            done: AtomicU64::new(0),
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| gathering.write::<Prompt, Prompt>(held)).unwrap();
        assert!(!context.scratch().join("spilled").exists());
        read_port(&context.port("prompts"), Table::Prompts).unwrap().digest()
    }

    /// Tables of [`ROWS`] rows together.
    fn tables() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (table, rows) in [("a", 0..1), ("b", 1..12_345), ("c", 12_345..ROWS)] {
            let mut writer = TableWriter::create(&folder.path().join(table)).unwrap();
            let prompt = |row: u32| Prompt {
                prompt_id: format!("p{row}"),
                messages: vec![Message::new("user", format!("m{row}")); (row % 3) as usize],
                source_file: (!row.is_multiple_of(2)).then(|| format!("f{row}")),
                source_line: Some(row.into()),
            };
            writer.extend(rows.map(prompt)).unwrap();
            writer.finish().unwrap();
        }
        folder
    }

    #[test]
    fn what_is_held_at_once_does_not_matter() {
        let folder = tables();
        // A part and some rows, in no order of rows; some rows are in many entries and some in none.
        let entry =
            |at: u32| (at.wrapping_mul(7919) % ROWS, (!at.is_multiple_of(3)).then_some(at.wrapping_mul(31) % 9000));
        let entries: Vec<_> = (0..ROWS_PER_PART as u32 + 10_000).map(entry).collect();
        let whole = gathered(folder.path(), &entries, usize::MAX, 2);
        for (held, threads) in [(1, 3), (40_000, 1), (ROWS_PER_PART + 9_999, 2)] {
            assert_eq!(gathered(folder.path(), &entries, held, threads), whole, "{held} held, {threads} threads");
        }
        let few = &entries[..3];
        assert_eq!(gathered(folder.path(), few, 1, 2), gathered(folder.path(), few, 3, 2));
        assert_eq!(gathered(folder.path(), &[], 0, 2), gathered(folder.path(), &[], 1, 2));
    }

    /// The test that follows runs as a process of its own that may have few open files.
    #[test]
    fn there_may_be_more_files_than_can_be_open() {
        let script = "ulimit -n 48 && exec \"$0\" --exact table::gathered::tests::many_files --ignored";
        let test = std::env::current_exe().unwrap();
        let output = std::process::Command::new("sh").args(["-c", script]).arg(test).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "run by the test above"]
    fn many_files() {
        let folder = tables();
        let entries: Vec<_> = (0..ROWS_PER_PART as u32).map(|at| (at % ROWS, None)).collect();
        assert_eq!(gathered(folder.path(), &entries, 1, 4), gathered(folder.path(), &entries, usize::MAX, 4));
    }

    #[test]
    fn a_row_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TableWriter::create(&folder.path().join("a")).unwrap();
        let prompt =
            |id: &str| Prompt { prompt_id: id.to_owned(), messages: Vec::new(), source_file: None, source_line: None };
        writer.extend([prompt("p"), prompt("q")]).unwrap();
        writer.finish().unwrap();
        let source = Source {
            path: folder.path().join("a"),
            table: Table::Prompts,
            digest: Digest::of(b""),
            name: String::new(),
        };
        let context = Context {
            seed: Seed(1),
            device: "cpu",
            folder: folder.path(),
            inputs: BTreeMap::from([("one", vec![source])]),
            events: &|_: Event| {},
            interrupt: Interrupt::default(),
        };
        let table = || context.batches::<Prompt>(&["one"]).unwrap();
        let error = Spilled::write(&context, table(), vec![(2, 0)], 1).err().unwrap().to_string();
        assert_eq!(error, "prompts: changed while read");
        let spilled = Spilled::write(&context, table(), vec![(1, 0), (1, 0)], 1).unwrap();
        spilled.read(0).unwrap();
        assert!(matches!(spilled.read(0), Err(Error::Io { .. })), "a bucket is read once");
    }
}
