//! Many requests at once, each answer recorded before it is used.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kit::{Context, Error, Result};

use crate::client::{Client, Reply};
use crate::endpoint::Endpoint;
use crate::journal::Journal;
use crate::labels::Labels;
use crate::reply::Heard;

/// How long requests under way may go on after a stop: what they are answered is paid for.
const GRACE: Duration = Duration::from_secs(5);
/// How often a signal is looked for.
const POLL: Duration = Duration::from_millis(50);

/// A request: its digest and its body.
type Job = (String, String);

/// Worker threads that ask, and the journal.
///
/// The threads are not waited for when it is dropped: one that waits for a slow endpoint would hold up the end.
pub(crate) struct Asking {
    journal: Journal,
    jobs: Sender<Job>,
    replies: Receiver<(String, Reply, u32)>,
    stop: Arc<AtomicBool>,
    /// Requests that were answered in this process.
    pub(crate) answered: u64,
    /// Requests that were sent again.
    pub(crate) repeated: u64,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Asking {
    /// Reads the key and the journal, and starts the workers.
    ///
    /// # Errors
    /// When the key or the journal cannot be read.
    pub(crate) fn open(endpoint: &Endpoint, labels: &Labels, journal: &Path) -> Result<Asking> {
        let client = Arc::new(Client::new(endpoint, labels)?);
        let journal = Journal::open(journal)?;
        let (jobs, waiting) = channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        let (done, replies) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        for number in 0..endpoint.concurrency {
            let (client, waiting, done, stop) = (client.clone(), waiting.clone(), done.clone(), stop.clone());
            let worker = move || {
                loop {
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((request, body)) = job else { return };
                    let (reply, sent) = client.ask(&body, &stop);
                    // Here, so that no other worker sends one more until the failure is heard of.
                    if matches!(reply, Reply::Hopeless(_) | Reply::Unreachable(_)) {
                        stop.store(true, Ordering::Relaxed);
                    }
                    if done.send((request, reply, sent)).is_err() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("ask-{number}"));
            thread.spawn(worker).map_err(Error::io("a thread"))?;
        }
        Ok(Asking { journal, jobs, replies, stop, answered: 0, repeated: 0 })
    }

    /// How many requests were answered before this process.
    pub(crate) fn remembered(&self) -> usize {
        self.journal.len()
    }

    /// The answer to each request, from the journal or from the endpoint. `tell` gets the number of answers so far.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when a request failed too often, [`Error::Pipeline`] when none can succeed,
    /// [`Error::Interrupted`]. Answers that came are in the journal.
    pub(crate) fn ask(
        &mut self,
        context: &Context<'_>,
        requests: BTreeMap<String, String>,
        mut tell: impl FnMut(&Asking, usize),
    ) -> Result<BTreeMap<String, Heard>> {
        let mut heard = BTreeMap::new();
        let mut open = 0;
        for (request, body) in requests {
            match self.journal.get(&request) {
                Some(known) => {
                    heard.insert(request, known.clone());
                }
                None => {
                    open += 1;
                    self.jobs.send((request, body)).map_err(|_| Error::internal("all workers are gone"))?;
                }
            }
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
            let (request, reply, sent) = match self.replies.recv_timeout(POLL) {
                Ok(reply) => reply,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::internal("all workers are gone")),
            };
            open -= 1;
            self.repeated += u64::from(sent.saturating_sub(1));
            match reply {
                Reply::Answered(said) => {
                    self.answered += 1;
                    self.journal.add(request.clone(), said.clone())?;
                    heard.insert(request, said);
                    tell(self, heard.len());
                }
                // It cost nothing, so it is not recorded: another day the endpoint may take it.
                Reply::Refused(reason, detail) => {
                    heard.insert(request, Heard::Nothing(reason, detail));
                }
                Reply::Hopeless(text) => {
                    if !matches!(failure, Some(Error::Pipeline(_))) {
                        failure = Some(Error::Pipeline(text));
                    }
                }
                Reply::Unreachable(text) => {
                    let text = format!("{text}; what was answered is kept: run again to go on");
                    failure.get_or_insert(Error::Unreachable(text));
                }
                Reply::Abandoned => {}
            }
        }
        self.journal.sync()?;
        failure.map_or(Ok(heard), Err)
    }
}
