//! Shards of a stage, computed beside other processes that do the same.
//!
//! Whoever computes a shard gives it the same bytes, and it is committed in one step. So locks only keep two processes
//! from doing the same work; where a file system has none, nothing but time is lost.

use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kit::{Context, Job, Seed, compute_shards};

use crate::engine::work::{POLL, Work, cpu_level, wait};
use crate::error::Result;
use crate::progress::Event;
use crate::store::{Attempt, Condition, Lock};

/// A choice of a stage's shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shards {
    /// All of them.
    All,
    /// These, in this order.
    These(Vec<Range<usize>>),
    /// Part `part` of `parts` of about the same length, from 0.
    Part { part: usize, parts: usize },
}

impl FromStr for Shards {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Shards, String> {
        let wanted = || format!("`{text}` is no choice of shards: wanted `all`, `3`, `3-7`, `0,3-7`, or `2/16`");
        let number = |text: &str| text.parse::<usize>().map_err(|_| wanted());
        if text == "all" {
            return Ok(Shards::All);
        }
        if let Some((part, parts)) = text.split_once('/') {
            let (part, parts) = (number(part)?, number(parts)?);
            return match part < parts {
                true => Ok(Shards::Part { part, parts }),
                false => Err(format!("`{text}`: parts count from 0, so the last one is {}", parts.saturating_sub(1))),
            };
        }
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (number(first)?, number(last)?);
            if first <= last { Ok(first..last + 1) } else { Err(wanted()) }
        };
        Ok(Shards::These(text.split(',').map(range).collect::<std::result::Result<_, _>>()?))
    }
}

impl Shards {
    /// The numbers of the chosen ones among `count`.
    ///
    /// # Errors
    /// When there is no such shard.
    pub fn of(&self, count: usize) -> std::result::Result<Vec<usize>, String> {
        match self {
            Shards::All => Ok((0..count).collect()),
            Shards::Part { part, parts } => Ok((count * part / parts..count * (part + 1) / parts).collect()),
            Shards::These(ranges) => match ranges.iter().map(|range| range.end).max() {
                Some(end) if end > count && count == 0 => Err("it has no shards: its input has no rows".to_owned()),
                Some(end) if end > count => {
                    Err(format!("there is no shard {}; the last one is {}", end - 1, count - 1))
                }
                _ => Ok(ranges.iter().cloned().flatten().collect()),
            },
        }
    }
}

/// The outcome of work on shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardsOutcome {
    /// Shards of the stage.
    pub shards: usize,
    /// Those that were chosen.
    pub chosen: usize,
    /// Those of them that were computed now; the others were there.
    pub computed: usize,
}

impl Work<'_> {
    /// Computes the chosen shards of a row-wise stage that are not committed yet. Any number of processes may do so at
    /// once. A run of the stage goes on from there. None where the stage's whole result is there.
    ///
    /// # Errors
    /// The error of the work; a stage that works on whole tables; a damaged input; unfinished work of another device.
    pub fn shards(&self, chosen: &Shards) -> Result<Option<ShardsOutcome>> {
        let store = self.run.store;
        let entry = self.recipe.entry();
        let failed = |source| self.stage_error(source);
        let (_lock, worker) = self.lock_beside(&entry)?;
        if let Condition::Whole(_) = store.condition(&self.recipe).map_err(failed)? {
            return Ok(None);
        }
        if let Some((_, damage)) = self.damaged_input()? {
            return Err(failed(kit::Error::Data(format!(
                "an input is damaged: {damage}; run the stages before it again"
            ))));
        }
        let device = self.device();
        let folder = store.join(&entry, device, cpu_level()).map_err(failed)?;
        let name = self.node.name.as_str();
        let (computed, silent) = (AtomicUsize::new(0), AtomicBool::new(worker));
        let events = |event: kit::Event| {
            computed.fetch_add(usize::from(matches!(event, kit::Event::ShardCommitted { .. })), Ordering::Relaxed);
            // The run that started this worker reads the inputs too and has said what there is to say of them.
            if !silent.load(Ordering::Relaxed) {
                self.run.reporter.report(Some(name), &Event::Work(event));
            }
        };
        let context = Context {
            seed: Seed(self.recipe.seed.unwrap_or_default()),
            device,
            folder: &folder,
            inputs: self.sources.clone(),
            events: &events,
            interrupt: self.run.interrupt.clone(),
        };
        self.guarded(|| {
            let Job::Sharded(mut work) = self.node.stage.job(&context)? else {
                return Err(kit::Error::Pipeline(format!(
                    "works on whole tables and has no shards; `halftone run --only {name}` does its work"
                )));
            };
            if !self.node.stage.is_row_wise() {
                return Err(kit::Error::Pipeline(format!(
                    "asks an endpoint, of whose answers one process keeps the journal; `halftone run --only {name}` asks \
                     side by side"
                )));
            }
            silent.store(false, Ordering::Relaxed);
            let shards = work.shards().len();
            let mut open = chosen.of(shards).map_err(kit::Error::Pipeline)?;
            let chosen = open.len();
            while !open.is_empty() {
                let before = open.len();
                let mut busy = Vec::new();
                for shard in open {
                    context.interrupt.check()?;
                    match store.lock_shard(&entry, shard)? {
                        Attempt::Held(_lock) => _ = compute_shards(&context, &mut *work, shard..shard + 1)?,
                        Attempt::Busy(_) => busy.push(shard),
                    }
                }
                if busy.len() == before {
                    std::thread::sleep(POLL);
                }
                open = busy;
            }
            Ok(Some(ShardsOutcome { shards, chosen, computed: computed.load(Ordering::Relaxed) }))
        })
    }

    /// A share of the entry's lock, which keeps runs of the stage away; none, and true, where the run that started this
    /// process holds it.
    fn lock_beside(&self, entry: &str) -> Result<(Option<Lock>, bool)> {
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        let mut waited = false;
        loop {
            match self.run.store.lock_beside(entry).map_err(|source| self.stage_error(source))? {
                Attempt::Held(lock) => return Ok((Some(lock), false)),
                Attempt::Busy(Some(owner)) if Some(owner.pid) == parent => {
                    end_with_parent().map_err(|source| self.stage_error(source))?;
                    return Ok((None, true));
                }
                Attempt::Busy(owner) => wait(self.run, &self.node.name, owner, &mut waited)?,
            }
        }
    }
}

/// Lets this process get SIGTERM when the one that started it ends, whose lock it works under.
fn end_with_parent() -> kit::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|errno| kit::Error::io("this process")(errno.into()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, count: usize, wanted: &[usize]) {
        assert_eq!(text.parse::<Shards>().unwrap().of(count).unwrap(), wanted, "{text}");
    }

    #[test]
    fn choices() {
        check("all", 3, &[0, 1, 2]);
        check("2", 3, &[2]);
        check("3-5", 9, &[3, 4, 5]);
        check("4-5,0", 9, &[4, 5, 0]);
        check("all", 0, &[]);
    }

    #[test]
    fn parts_are_all_shards_once() {
        for (shards, parts) in [(16, 4), (7, 3), (2, 5), (0, 2)] {
            let of = |part| format!("{part}/{parts}").parse::<Shards>().unwrap().of(shards).unwrap();
            let all: Vec<usize> = (0..parts).flat_map(of).collect();
            assert_eq!(all, (0..shards).collect::<Vec<_>>());
        }
    }

    #[test]
    fn other_words_are_refused() {
        for text in ["", "x", "3-", "5-3", "1,", "3/3", "1/0", "-1"] {
            assert!(text.parse::<Shards>().is_err(), "{text}");
        }
        let beyond = "3-7".parse::<Shards>().unwrap();
        assert_eq!(beyond.of(5).unwrap_err(), "there is no shard 7; the last one is 4");
        assert!(beyond.of(0).unwrap_err().contains("no rows"));
    }
}
