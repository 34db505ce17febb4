//! Many requests at once, each answer recorded before it is used.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kit::{Context, Error, Result};

use crate::client::{Client, Reply, SERVER_ERROR};
use crate::config::Endpoint;
use crate::failing::Failing;
use crate::journal::Journal;
use crate::protocol::Protocol;

/// Time that requests under way may take after a stop: their answers are paid for.
const GRACE: Duration = Duration::from_secs(5);
/// Time between two looks for a signal.
const POLL: Duration = Duration::from_millis(50);

/// A worker's task.
enum Job<Q> {
    /// To find out what the endpoint takes.
    Settle,
    /// A question's digest and the question.
    Ask(String, Q),
}

/// A worker's result, with the number of requests it sent.
enum WorkerResult<A> {
    Settled(Option<Reply<A>>, u32),
    Asked(String, Reply<A>, u32),
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub enum RequestResult<A> {
    /// The evidence that the stage goes on with.
    Answer(A),
    /// None: reason and detail.
    Nothing(&'static str, String),
}

/// Worker threads that ask, and the journal.
///
/// The threads are not waited for when it is dropped: one that waits for a slow endpoint would hold up the end.
pub struct Asking<P: Protocol> {
    endpoint: Endpoint,
    journal: Journal<P::Answer>,
    failing: Failing,
    jobs: Sender<Job<P::Question>>,
    replies: Receiver<WorkerResult<P::Answer>>,
    settled: bool,
    stop: Arc<AtomicBool>,
    /// Requests that were answered in this process.
    pub answered: u64,
    /// Requests that were sent again.
    pub repeated: u64,
}

impl<P: Protocol> Drop for Asking<P> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl<P: Protocol> Asking<P> {
    /// Reads the key and the records, and starts the workers.
    ///
    /// # Errors
    /// When the key or a record cannot be read.
    pub fn open(endpoint: &Endpoint, protocol: P, context: &Context<'_>) -> Result<Asking<P>> {
        let client = Arc::new(Client::new(endpoint, Arc::new(protocol))?);
        let journal = Journal::open(context)?;
        let failing = Failing::open(context)?;
        let (jobs, waiting) = channel::<Job<P::Question>>();
        let waiting = Arc::new(Mutex::new(waiting));
        let (done, replies) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        for number in 0..endpoint.concurrency {
            let (client, waiting, done, stop) = (client.clone(), waiting.clone(), done.clone(), stop.clone());
            let worker = move || {
                loop {
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    let result = match job {
                        Job::Settle => {
                            let (reply, sent) = client.settle(&stop);
                            WorkerResult::Settled(reply, sent)
                        }
                        Job::Ask(request, question) => {
                            let (reply, sent) = client.ask(&[question], &stop);
                            WorkerResult::Asked(request, reply, sent)
                        }
                    };
                    // Here, so that no other worker sends one more until the failure is known.
                    let (WorkerResult::Settled(Some(reply), _) | WorkerResult::Asked(_, reply, _)) = &result else {
                        _ = done.send(result);
                        continue;
                    };
                    if matches!(reply, Reply::Hopeless(_) | Reply::Unreachable(_)) {
                        stop.store(true, Ordering::Relaxed);
                    }
                    if done.send(result).is_err() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("ask-{number}"));
            thread.spawn(worker).map_err(Error::io("a thread"))?;
        }
        let endpoint = endpoint.clone();
        Ok(Asking { endpoint, journal, failing, jobs, replies, stop, settled: false, answered: 0, repeated: 0 })
    }

    /// Number of requests that were answered before this process.
    pub fn remembered(&self) -> usize {
        self.journal.len()
    }

    /// The answer to each request (its digest and its question), from the journal or from the endpoint; none to those
    /// that fail while others are answered, which [`Asking::check`] reports. `progress` gets the number of finished
    /// requests.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when a request failed too often, [`Error::Pipeline`] when none can succeed,
    /// [`Error::Interrupted`]. Answers that came are in the journal.
    pub fn ask(
        &mut self,
        context: &Context<'_>,
        requests: BTreeMap<String, P::Question>,
        mut progress: impl FnMut(&Asking<P>, usize),
    ) -> Result<BTreeMap<String, RequestResult<P::Answer>>> {
        let mut results = BTreeMap::new();
        let mut open = Vec::new();
        for (request, question) in requests {
            match self.journal.get(&request) {
                Some(known) => _ = results.insert(request, RequestResult::Answer(known.clone())),
                None => open.push(Job::Ask(request, question)),
            }
        }
        if !open.is_empty() && !self.settled {
            self.work(context, vec![Job::Settle], |_, _, _| Ok(()))?;
            self.settled = true;
        }
        self.work(context, open, |asking, request, reply| {
            match reply {
                Reply::Answered(mut answers) => {
                    let answer = answers.pop().expect("one question was asked");
                    asking.answered += 1;
                    asking.journal.add(request.clone(), answer.clone())?;
                    results.insert(request, RequestResult::Answer(answer));
                }
                // Not recorded: another day the endpoint may answer it.
                Reply::Nothing(reason, detail) => _ = results.insert(request, RequestResult::Nothing(reason, detail)),
                Reply::Failing(why) => match asking.failing.note(&request, &why, asking.endpoint.give_up_after)? {
                    Some(runs) => {
                        let detail = format!("in {runs} runs, while other questions were answered: {why}");
                        results.insert(request, RequestResult::Nothing(SERVER_ERROR, detail));
                    }
                    None => return Ok(()),
                },
                Reply::Hopeless(_) | Reply::Unreachable(_) | Reply::Abandoned => return Ok(()),
            }
            progress(asking, results.len());
            Ok(())
        })?;
        self.journal.sync()?;
        Ok(results)
    }

    /// # Errors
    /// [`Error::Unreachable`] when requests failed while others were answered, and are to be asked again.
    pub fn check(&self) -> Result<()> {
        self.failing.check(&self.endpoint, &self.endpoint.shown(P::PATH), P::UNIT)
    }

    /// Has jobs done and takes what comes of them, until all are done or it makes no sense to go on.
    fn work(
        &mut self,
        context: &Context<'_>,
        jobs: Vec<Job<P::Question>>,
        mut take: impl FnMut(&mut Asking<P>, String, Reply<P::Answer>) -> Result<()>,
    ) -> Result<()> {
        let mut open = jobs.len();
        for job in jobs {
            self.jobs.send(job).map_err(|_| Error::internal("all workers are gone"))?;
        }
        let mut failure: Option<Error> = None;
        let mut stopped: Option<Instant> = None;
        while open > 0 {
            if failure.is_none() && context.interrupt.raised() {
                failure = Some(Error::Interrupted);
            }
            if failure.is_some() {
                self.stop.store(true, Ordering::Relaxed);
                if stopped.get_or_insert_with(Instant::now).elapsed() > GRACE {
                    break;
                }
            }
            let done = match self.replies.recv_timeout(POLL) {
                Ok(done) => done,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::internal("all workers are gone")),
            };
            open -= 1;
            let (request, reply, sent) = match done {
                WorkerResult::Settled(None, _) => continue,
                WorkerResult::Settled(Some(reply), sent) => (String::new(), reply, sent),
                WorkerResult::Asked(request, reply, sent) => (request, reply, sent),
            };
            self.repeated += u64::from(sent.saturating_sub(1));
            match &reply {
                Reply::Hopeless(text) if !matches!(failure, Some(Error::Pipeline(_))) => {
                    failure = Some(Error::Pipeline(text.clone()));
                }
                Reply::Unreachable(text) => {
                    let text = format!("{text}; what was answered is kept: run again to go on");
                    failure.get_or_insert(Error::Unreachable(text));
                }
                _ => {}
            }
            take(self, request, reply)?;
        }
        if failure.is_some() {
            self.journal.sync()?;
        }
        failure.map_or(Ok(()), Err)
    }
}
