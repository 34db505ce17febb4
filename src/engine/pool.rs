//! A pool on this machine: processes that compute shards of a stage, or threads that are the ranks of one, each on its
//! device.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use kit::{
    Collective, Context, Error, Event, Job, Outcome, Ranked, Result, Sharded, compute_shards, finish_shards, in_pools,
    ranks,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::engine::device;
use crate::engine::executor::Executor;
use crate::engine::nccl::Between;
use crate::engine::work::POLL;
use crate::exit;

/// Starts processes that compute the shards of row-wise stages, `halftone shard`, and ends the stages here. Work of ranks
/// is done in threads. Stages on whole tables, and those of one shard, are computed here.
pub struct Pool {
    /// The device of each process.
    pub workers: Vec<String>,
    /// Threads of each.
    pub threads: usize,
    /// The pipeline file and its overrides.
    pub file: PathBuf,
    pub set: Vec<String>,
    /// The folder for results.
    pub work: PathBuf,
}

/// A line or the end of a worker.
enum Message {
    Event(Value),
    Ended { worker: usize, stderr: String },
}

impl Executor for Pool {
    fn execute(&self, stage: &str, job: Job<'_>, context: &Context<'_>) -> Result<Outcome> {
        let mut work = match job {
            Job::Sharded(work) if work.shards().len() > 1 => work,
            Job::Ranked(work) if self.ranks(&*work) > 1 => return self.in_ranks(&*work, context),
            job => return job.run(context),
        };
        let shards = work.shards();
        self.compute(stage, &*work, &shards, context)?;
        // What the workers committed is read once more; a shard that is damaged is computed here.
        let rejected = compute_shards(context, &mut *work, 0..shards.len())?;
        finish_shards(context, &mut *work, rejected)
    }
}

impl Pool {
    /// The ranks that do such work.
    fn ranks(&self, work: &dyn Ranked) -> usize {
        ranks(work.most_ranks(), self.workers.len())
    }

    /// Does work in threads of this process, each with a device and threads of its own.
    fn in_ranks(&self, work: &dyn Ranked, context: &Context<'_>) -> Result<Outcome> {
        let (size, workers) = (self.ranks(work), self.workers.len());
        if size < workers {
            let most = work.most_ranks();
            context
                .note(format!("{size} of {workers} workers compute: a power of two, at most `batch.ranks` ({most})"));
        }
        let between = Between::of(&self.workers[..size], context);
        in_pools(size, self.threads * workers / size, |ranks| {
            let device =
                device::resolve(&self.workers[ranks.rank()]).map_err(|error| Error::Pipeline(error.to_string()))?;
            let compute = |ranks: &dyn Collective| work.compute(&context.of_rank(ranks.rank(), &device), ranks);
            match &between {
                Some(between) => between.work(ranks, &device, compute),
                None => compute(ranks),
            }
        })
    }

    /// Lets the workers compute all shards.
    fn compute(&self, stage: &str, work: &dyn Sharded, shards: &[Range<usize>], context: &Context<'_>) -> Result<()> {
        let (sender, receiver) = channel();
        let count = self.workers.len().min(shards.len());
        let mut children = Children(Vec::new());
        for (worker, device) in self.workers.iter().take(count).enumerate() {
            children.0.push(self.start(stage, device, chosen(worker, count, shards.len()), worker, &sender)?);
        }
        drop(sender);
        let (total, mut done) = (shards.last().map_or(0, |range| range.end) as u64, 0);
        let (mut running, mut failed, mut stopping) = (count, None, false);
        let mut reported = BTreeSet::new();
        while running > 0 {
            match receiver.recv_timeout(POLL) {
                Ok(Message::Event(event)) => match of_worker(&event) {
                    Some(Event::ShardCommitted { shard, shards: all, rows }) => {
                        done += shards.get(usize::try_from(shard).unwrap_or(usize::MAX)).map_or(0, Range::len) as u64;
                        context.emit(Event::ShardCommitted { shard, shards: all, rows });
                        context.progress(done, total, work.unit(), format!("{running} processes"));
                    }
                    // Several workers may meet the same thing.
                    Some(event) if reported.insert(format!("{event:?}")) => context.emit(event),
                    _ => {}
                },
                Ok(Message::Ended { worker, stderr }) => {
                    running -= 1;
                    let code = children.0[worker].wait().map_err(Error::io("a worker"))?.code();
                    if code != Some(exit::DONE) && failed.is_none() && !stopping {
                        failed = Some(error_of(code, &stderr, stage));
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if !stopping && (failed.is_some() || context.interrupt.raised()) {
                stopping = true;
                children.stop();
            }
        }
        context.interrupt.check()?;
        failed.map_or(Ok(()), Err)
    }

    fn start(
        &self,
        stage: &str,
        device: &str,
        chosen: String,
        worker: usize,
        sender: &Sender<Message>,
    ) -> Result<Child> {
        let program = std::env::current_exe().map_err(Error::io("this program"))?;
        let mut command = Command::new(program);
        command.arg("--work").arg(&self.work).arg("shard").arg(&self.file);
        command.args(["--stage", stage, "--shards", &chosen, "--device", device, "--json"]);
        self.set.iter().for_each(|set| _ = command.arg("--set").arg(set));
        command.env("RAYON_NUM_THREADS", self.threads.to_string());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(Error::io("a worker"))?;
        let (stdout, stderr) = (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
        let sender = sender.clone();
        // Both pipes are read at once, so that neither fills up.
        let words = std::thread::spawn(move || {
            let mut text = Vec::new();
            _ = BufReader::new(stderr).read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    // The receiver waits for the end of every worker.
                    _ = sender.send(Message::Event(event));
                }
            }
            let stderr = words.join().unwrap_or_default();
            _ = sender.send(Message::Ended { worker, stderr });
        });
        Ok(child)
    }
}

/// The workers; those that still run are stopped when it is dropped.
struct Children(Vec<Child>);

impl Children {
    fn stop(&mut self) {
        for child in &mut self.0 {
            if let Ok(None) = child.try_wait()
                && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
            {
                // It may have ended meanwhile.
                _ = kill_process(pid, Signal::TERM);
            }
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.stop();
    }
}

/// All shards, each worker beginning at another: those that others compute are left to them.
fn chosen(worker: usize, workers: usize, shards: usize) -> String {
    match shards * worker / workers {
        0 => format!("0-{}", shards - 1),
        first => format!("{first}-{},0-{}", shards - 1, first - 1),
    }
}

/// What a worker did that the run reports; its progress is counted by shards.
fn of_worker(event: &Value) -> Option<Event> {
    let text = || event["text"].as_str().map(str::to_owned);
    let number = |key: &str| event[key].as_u64();
    match event["event"].as_str()? {
        "shard_committed" => {
            Some(Event::ShardCommitted { shard: number("shard")?, shards: number("shards")?, rows: number("rows")? })
        }
        "warned" => Some(Event::Warned { text: text()? }),
        "noted" => Some(Event::Noted { text: text()? }),
        _ => None,
    }
}

/// The error of a worker by its exit code, with its words.
fn error_of(code: Option<i32>, stderr: &str, stage: &str) -> Error {
    let prefix = format!("stage `{stage}`: ");
    let lines: Vec<&str> = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("error: "))
        .map(|line| line.strip_prefix(&prefix).unwrap_or(line))
        .collect();
    let text = lines.join("\n");
    match code {
        Some(exit::DATA) => Error::Data(text),
        Some(exit::PIPELINE | exit::USAGE) => Error::Pipeline(text),
        Some(exit::UNREACHABLE) => Error::Unreachable(text),
        Some(exit::AGAIN) if text.is_empty() => Error::Interrupted,
        Some(exit::AGAIN) => Error::Waiting(text),
        Some(exit::IO) => Error::Io { path: "a worker".into(), source: std::io::Error::other(text) },
        Some(code) => Error::internal(format!("a worker ended with {code}: {text}")),
        None => Error::Io {
            path: "a worker".into(),
            source: std::io::Error::other("was killed (perhaps for its memory); run the same command again"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_begins_elsewhere_and_takes_all() {
        assert_eq!([0, 1, 2].map(|worker| chosen(worker, 3, 7)), ["0-6", "2-6,0-1", "4-6,0-3"]);
        assert_eq!(chosen(1, 2, 2), "1-1,0-0");
    }

    #[test]
    fn a_worker_fails_with_its_own_words() {
        let error = error_of(Some(exit::DATA), "note: x\nerror: stage `judge`: row 7: no text\n", "judge");
        assert!(matches!(&error, Error::Data(text) if text == "row 7: no text"), "{error}");
        assert!(matches!(error_of(Some(exit::AGAIN), "", "judge"), Error::Interrupted));
        assert!(error_of(None, "", "judge").to_string().contains("killed"));
    }
}
