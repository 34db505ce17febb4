//! Work that survives a kill: a stage's rows are computed and committed in shards.
//!
//! The work list is a pure function of the inputs, so a shard is one too; a shard whose record is on disk is never
//! computed again. The record is committed after the shard's files, so it never names a file that is not whole.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::commit::{commit_json, read_json};
use crate::context::Context;
use crate::error::Result;
use crate::event::Event;
use crate::row::Row;
use crate::rows::Reject;
use crate::write::{Part, part_name, write_part};

/// What a shard left on disk.
#[derive(Debug, Serialize, Deserialize)]
struct ShardRecord {
    /// Units of the work list.
    units: Range<usize>,
    ports: BTreeMap<String, Part>,
    rejects: BTreeMap<String, u64>,
}

/// Takes the rows of one shard.
pub struct ShardOutput<'a> {
    context: &'a Context<'a>,
    shard: usize,
    ports: BTreeMap<String, Part>,
    rejects: Vec<Reject>,
}

impl ShardOutput<'_> {
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

    /// Rejects a row.
    pub fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
    }
}

/// Cuts units into shards of at least `size` units without cutting a group; `groups` are the lengths of consecutive groups.
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

/// Computes every shard that is not committed yet, in order. `compute` gets the shard's range of the work list.
///
/// Rejects go to the port `rejects`. Gives the number of rejected rows over all shards. The stage calls
/// [`complete_port`] for its other ports afterwards.
///
/// # Errors
/// What `compute` gives, or when files cannot be written, or when a signal asks to stop between shards.
pub fn run_shards(
    context: &Context<'_>,
    unit: &'static str,
    ranges: &[Range<usize>],
    mut compute: impl FnMut(Range<usize>, &mut ShardOutput<'_>) -> Result<()>,
) -> Result<u64> {
    let total = ranges.last().map_or(0, |range| range.end) as u64;
    let record_of = |shard: usize| context.scratch().join(format!("shards/{shard:05}.json"));
    let mut rejected = BTreeMap::new();
    let mut resumed = 0;
    for (shard, range) in ranges.iter().enumerate() {
        let record = match read_json::<ShardRecord>(&record_of(shard))? {
            Some(record) if record.units == *range => {
                resumed += 1;
                record
            }
            _ => {
                if resumed > 0 {
                    context.emit(Event::Resumed { what: format!("{resumed} of {} shards", ranges.len()) });
                    resumed = 0;
                }
                context.interrupt.check()?;
                let mut output = ShardOutput { context, shard, ports: BTreeMap::new(), rejects: Vec::new() };
                compute(range.clone(), &mut output)?;
                let rejects = std::mem::take(&mut output.rejects);
                let mut counts = BTreeMap::new();
                rejects.iter().for_each(|reject| *counts.entry(reject.reason.clone()).or_insert(0) += 1);
                output.write("rejects", &rejects)?;
                let record = ShardRecord { units: range.clone(), ports: output.ports, rejects: counts };
                commit_json(&record_of(shard), &record)?;
                let rows = record.ports.values().map(|part| part.rows).sum();
                context.emit(Event::ShardCommitted { shard: shard as u64, shards: ranges.len() as u64, rows });
                record
            }
        };
        record.rejects.into_iter().for_each(|(reason, rows)| *rejected.entry(reason).or_insert(0) += rows);
        context.progress(range.end as u64, total, unit, String::new());
    }
    complete_port::<Reject>(context, "rejects")?;
    let all = rejected.values().sum();
    rejected.into_iter().for_each(|(reason, rows)| context.emit(Event::RowsRejected { reason, rows }));
    Ok(all)
}

/// Gives a port that no shard wrote to its one empty part, so that every port can be opened and shows its columns.
///
/// # Errors
/// When the part cannot be written.
pub fn complete_port<R: Row>(context: &Context<'_>, port: &str) -> Result<()> {
    let folder = context.port(port);
    if !folder.is_dir() || crate::read::parts_of(&folder).is_err() {
        write_part::<R>(&folder.join(part_name(0)), &[])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_whole() {
        assert_eq!(shard_ranges([3, 3, 1, 5, 1], 4), vec![0..6, 6..12, 12..13]);
        assert_eq!(shard_ranges([], 4), Vec::<Range<usize>>::new());
        assert_eq!(shard_ranges([9], 4), vec![0..9]);
    }
}
