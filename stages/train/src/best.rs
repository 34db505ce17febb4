//! Choosing the policy by held-out pairs: the weights of the best evaluations, and the end of training that no longer
//! helps.
//!
//! All decisions are functions of the metrics so far, which checkpoints hold: a resumed run decides alike.

use std::path::{Path, PathBuf};

use kit::commit::{Sealed, commit_sealed, read_sealed, sync_folder};
use kit::rows::Metric;
use kit::{Context, Error, Part, Result};
use lm::Kept;
use serde::{Deserialize, Serialize};

use crate::config::{BestOptions, EvalMetric};
use crate::folder::sync_files;

/// The port of the policy of a rank, from 0: `policy`, `policy_2`, `policy_3`.
pub(crate) fn port(rank: usize) -> String {
    if rank == 0 { "policy".to_owned() } else { format!("policy_{}", rank + 1) }
}

impl EvalMetric {
    /// The value in a row of metrics; more is better. Nothing where the row is no evaluation, or had no weight.
    fn goodness(self, metric: &Metric) -> Option<f64> {
        match self {
            EvalMetric::Loss => metric.eval_loss.map(|loss| -loss),
            EvalMetric::Accuracies => metric.eval_rewards_accuracies,
            EvalMetric::Margins => metric.eval_rewards_margins,
        }
        .filter(|value| value.is_finite())
    }
}

impl BestOptions {
    /// The steps of the best evaluations, at most `keep`, best first; of equal ones the earlier.
    pub(crate) fn ranking(&self, metrics: &[Metric]) -> Vec<u64> {
        let value = |metric: &Metric| self.metric.goodness(metric).map(|value| (value, metric.step));
        let mut evaluations: Vec<(f64, u64)> = metrics.iter().filter_map(value).collect();
        evaluations.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        evaluations.into_iter().take(self.keep).map(|(_, step)| step).collect()
    }

    /// True after `patience` evaluations in a row that were not better than the best before them by `min_delta`.
    pub(crate) fn stops(&self, metrics: &[Metric]) -> bool {
        let Some(patience) = self.patience else { return false };
        let (mut best, mut waited) = (f64::NEG_INFINITY, 0);
        for value in metrics.iter().filter_map(|metric| self.metric.goodness(metric)) {
            if value > best && value - best > self.min_delta {
                (best, waited) = (value, 0);
            } else {
                waited += 1;
            }
            if waited >= patience {
                return true;
            }
        }
        false
    }
}

/// The seal of a kept policy, written after it.
#[derive(Serialize, Deserialize)]
struct Record {
    files: Vec<Part>,
    /// Weights that training changed, and those whose change `save.dtype` leaves.
    changed: Option<(u64, u64)>,
}

/// The policies of the best evaluations, in the scratch folder until the training is done.
pub(crate) struct BestPolicies<'a> {
    options: &'a BestOptions,
    folder: PathBuf,
}

impl<'a> BestPolicies<'a> {
    pub(crate) fn open(options: &'a BestOptions, context: &Context<'_>) -> BestPolicies<'a> {
        BestPolicies { options, folder: context.scratch().join("best") }
    }

    fn policy(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{step:012}"))
    }

    fn record(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{step:012}.json"))
    }

    /// Keeps the policy where the latest row of metrics is one of the best evaluations. `write` fills a folder.
    pub(crate) fn keep(&self, metrics: &[Metric], write: impl FnOnce(&Path) -> Result<Option<Kept>>) -> Result<()> {
        let Some(step) = metrics.last().map(|metric| metric.step) else { return Ok(()) };
        if !self.options.ranking(metrics).contains(&step) {
            return Ok(());
        }
        let partial = self.folder.join(".partial");
        for old in [&partial, &self.policy(step)] {
            if old.exists() {
                std::fs::remove_dir_all(old).map_err(Error::io(old))?;
            }
        }
        std::fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
        let kept = write(&partial)?;
        let record = Record { files: sync_files(&partial)?, changed: kept.map(|kept| (kept.changed, kept.kept)) };
        let policy = self.policy(step);
        std::fs::rename(&partial, &policy).map_err(Error::io(&policy))?;
        sync_folder(&self.folder)?;
        commit_sealed(&self.record(step), &record)
    }

    /// Drops what is no longer among the best. A run goes on from its latest checkpoint, so this comes after one: what it
    /// needs again is still there.
    pub(crate) fn prune(&self, metrics: &[Metric]) -> Result<()> {
        let best = self.options.ranking(metrics);
        for metric in metrics.iter().filter(|metric| !best.contains(&metric.step)) {
            let (policy, record) = (self.policy(metric.step), self.record(metric.step));
            if record.exists() {
                std::fs::remove_file(&record).map_err(Error::io(&record))?;
            }
            if policy.exists() {
                std::fs::remove_dir_all(&policy).map_err(Error::io(&policy))?;
            }
        }
        Ok(())
    }

    /// The first damage to a kept policy that a run going on from these metrics needs.
    pub(crate) fn damage(&self, metrics: &[Metric]) -> Result<Option<String>> {
        for step in self.options.ranking(metrics) {
            let damage = match read_sealed::<Record>(&self.record(step))? {
                Sealed::Whole(record) => {
                    let folder = self.policy(step);
                    let damages = record.files.iter().map(|part| {
                        let damage = part.damage(&folder)?;
                        Ok(damage.map(|damage| format!("{} {damage}", part.file)))
                    });
                    damages.collect::<Result<Vec<_>>>()?.into_iter().flatten().next()
                }
                Sealed::Missing => Some("has no record".to_owned()),
                Sealed::Damaged(damage) => Some(format!("has a record that {damage}")),
            };
            if let Some(damage) = damage {
                return Ok(Some(format!("needs the policy of step {step}, which is not as it was written: {damage}")));
            }
        }
        Ok(None)
    }

    /// Puts the kept policies into their ports, best first. Gives the steps that they are of, and the share of the best
    /// one's updates that `save.dtype` leaves.
    pub(crate) fn publish(&self, context: &Context<'_>, metrics: &[Metric]) -> Result<(Vec<u64>, Option<Kept>)> {
        let best = self.options.ranking(metrics);
        let (wanted, got) = (self.options.keep, best.len());
        if got < wanted {
            return Err(Error::Pipeline(format!(
                "`best.keep` wants the policies of {wanted} evaluations; {got} gave `{}`: lower `eval_every`, or `keep`",
                self.options.metric.name()
            )));
        }
        let mut share = None;
        for (rank, &step) in best.iter().enumerate().rev() {
            if let Sealed::Whole(Record { changed: Some((changed, kept)), .. }) = read_sealed(&self.record(step))? {
                share = Some(Kept { changed, kept });
            }
            let to = context.port(&port(rank));
            if to.exists() {
                std::fs::remove_dir_all(&to).map_err(Error::io(&to))?;
            }
            link_folder(&self.policy(step), &to)?;
        }
        Ok((best, share))
    }
}

/// Puts the files of a folder into a new one, as links where the file system has them. The first folder stays whole: a
/// run that is killed here goes on from it.
fn link_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(Error::io(to))?;
    for entry in std::fs::read_dir(from).map_err(Error::io(from))? {
        let from = entry.map_err(Error::io(from))?.path();
        let to = to.join(from.file_name().expect("an entry has a name"));
        if std::fs::hard_link(&from, &to).is_err() {
            std::fs::copy(&from, &to).map_err(Error::io(&to))?;
        }
    }
    Ok(())
}
