//! Questions to which an endpoint fails while it answers others, and the number of runs in which it did.
//!
//! The journal keeps answers only. This record keeps no answer: it separates a question that will never be answered
//! from one that was asked at a bad time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kit::commit::{Sealed, commit_sealed, read_sealed};
use kit::{Context, Error, Result};

use crate::config::Endpoint;

/// Its name among a stage's records.
const NAME: &str = ".work/failing.json";

pub(crate) struct Failing {
    path: PathBuf,
    /// Runs in which a request failed, this one included, by the request's digest.
    runs: BTreeMap<String, u32>,
    /// Requests that failed in this run.
    now: BTreeSet<String>,
    /// Those of them that are to be asked again, and why the last one failed.
    open: BTreeSet<String>,
    last: String,
}

impl Failing {
    /// # Errors
    /// When the record cannot be read.
    pub(crate) fn open(context: &Context<'_>) -> Result<Failing> {
        let path = context.folder.join(NAME);
        let runs = match read_sealed(&path)? {
            Sealed::Whole(runs) => runs,
            Sealed::Missing => BTreeMap::new(),
            Sealed::Damaged(damage) => {
                context.set_aside(NAME, &damage)?;
                BTreeMap::new()
            }
        };
        Ok(Failing { path, runs, now: BTreeSet::new(), open: BTreeSet::new(), last: String::new() })
    }

    /// Takes note of a request that failed as often as it may, and gives the number of runs in which it did where it is
    /// given up.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(crate) fn note(&mut self, request: &str, why: &str, give_up_after: u32) -> Result<Option<u32>> {
        let runs = self.runs.entry(request.to_owned()).or_default();
        if self.now.insert(request.to_owned()) {
            *runs = runs.saturating_add(1);
        }
        let runs = *runs;
        commit_sealed(&self.path, &self.runs)?;
        if runs >= give_up_after {
            return Ok(Some(runs));
        }
        self.open.insert(request.to_owned());
        why.clone_into(&mut self.last);
        Ok(None)
    }

    /// True where requests are to be asked again.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    /// # Errors
    /// [`Error::Unreachable`] when requests failed that are not given up.
    pub(crate) fn check(&self, endpoint: &Endpoint, shown: &str, unit: &str) -> Result<()> {
        let count = self.open.len();
        if count == 0 {
            return Ok(());
        }
        let runs = self.open.iter().map(|request| self.runs[request]).max().unwrap_or_default();
        Err(Error::Unreachable(format!(
            "{shown} answers other questions and failed to answer {count} of them {} times each; the last: {}. What was \
             answered is kept: run again to go on. A {unit} whose question fails in {} runs is rejected \
             (`endpoint.give_up_after`); this was run {runs} of them",
            endpoint.retries.saturating_add(1),
            self.last,
            endpoint.give_up_after
        )))
    }
}
