//! Threads that send requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kit::{Error, Result};

use crate::client::{Client, Reply, Sent, Settled};
use crate::protocol::Protocol;
use crate::questions::Questions;
use crate::usage::Usage;

/// Time that requests under way may take after a stop: their answers are paid for.
const GRACE: Duration = Duration::from_secs(5);
/// Time between two looks for a signal.
const POLL: Duration = Duration::from_millis(50);

/// A worker's task.
pub(crate) enum Job<P: Protocol> {
    /// To find out what the endpoint takes.
    Settle,
    /// The questions of one request.
    Ask(Questions<P>),
}

/// A worker's result.
pub(crate) enum WorkerResult<P: Protocol> {
    /// With the number of requests it took, and their tokens.
    Settled(std::result::Result<Settled, Reply<P::Answer>>, u32, Usage),
    Asked(Questions<P>, Sent<P::Answer>),
}

/// The threads. They are not waited for when this is dropped: one that waits for a slow endpoint would hold up the end.
pub(crate) struct Workers<P: Protocol> {
    jobs: Sender<Job<P>>,
    results: Receiver<WorkerResult<P>>,
    stop: Arc<AtomicBool>,
}

impl<P: Protocol> Drop for Workers<P> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl<P: Protocol> Workers<P> {
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn start(client: Client<P>, count: usize) -> Result<Workers<P>> {
        let client = Arc::new(client);
        let (jobs, waiting) = channel::<Job<P>>();
        let waiting = Arc::new(Mutex::new(waiting));
        let (done, results) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        for number in 0..count {
            let (client, waiting, done, stop) = (client.clone(), waiting.clone(), done.clone(), stop.clone());
            let worker = move || {
                loop {
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    let result = match job {
                        Job::Settle => {
                            let (result, sent, usage) = client.settle(&stop);
                            WorkerResult::Settled(result, sent, usage)
                        }
                        Job::Ask(questions) => {
                            let plain: Vec<P::Question> =
                                questions.iter().map(|(_, question)| question.clone()).collect();
                            WorkerResult::Asked(questions, client.ask(&plain, &stop))
                        }
                    };
                    // Here, so that no other worker sends one more until the failure is known.
                    let reply = match &result {
                        WorkerResult::Settled(Err(reply), ..) => Some(reply),
                        WorkerResult::Settled(Ok(_), ..) => None,
                        WorkerResult::Asked(_, sent) => Some(&sent.reply),
                    };
                    if reply.is_some_and(Reply::ends_all) {
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
        Ok(Workers { jobs, results, stop })
    }

    /// Hands out jobs.
    pub(crate) fn send(&self, jobs: Vec<Job<P>>) -> Result<()> {
        jobs.into_iter().try_for_each(|job| self.jobs.send(job).map_err(|_| gone()))
    }

    /// The next result, where one comes within a short time.
    pub(crate) fn receive(&self) -> Result<Option<WorkerResult<P>>> {
        match self.results.recv_timeout(POLL) {
            Ok(done) => Ok(Some(done)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }

    /// Sends no more requests, and says when those under way had their time since the first call.
    pub(crate) fn stop(&self, since: &mut Option<Instant>) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        since.get_or_insert_with(Instant::now).elapsed() > GRACE
    }
}

fn gone() -> Error {
    Error::internal("all workers are gone")
}
