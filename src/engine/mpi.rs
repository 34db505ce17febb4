//! Processes that `mpirun` or `srun` starts, one for each rank, over MPI.
//!
//! One thread of each speaks MPI, the clerk: it swaps the bytes that the rank orders, and between them it tells the
//! others that this rank is there and looks whether they are ([`Watch`]). Nothing that it calls waits, so that it keeps
//! its pulse beside a partner that is stuck.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use kit::{Collective, Error, Result};
use mpi::Threading;
use mpi::collective::CommunicatorCollectives;
use mpi::point_to_point::{Destination, Source};
use mpi::request::{Request, StaticScope};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::Equivalence;

use crate::engine::pulse::{BEAT, GRACE, Pulse, Watch};
use crate::engine::ranks::Processes;
use crate::exit;
use crate::streams::say;

/// Looks for a message that are made at once, before the clerk sleeps between them: MPI itself would never sleep, and
/// take the time of ranks that compute.
const EAGER: u32 = 200;
const SLEEP: Duration = Duration::from_micros(200);

/// Tags of messages.
const BYTES: i32 = 0;
const PULSE: i32 = 1;

/// The bytes of a beat, as long as the process: they may be on their way for any time.
static BEATS: [[u8; 1]; 3] = [[Pulse::Computes as u8], [Pulse::Waits as u8], [Pulse::Leaves as u8]];

/// All processes of this program that were started together.
pub struct World {
    rank: usize,
    size: usize,
    orders: Sender<Order>,
    answers: Mutex<Receiver<Result<Vec<u8>>>>,
    clerk: JoinHandle<()>,
}

/// What a rank asks of its clerk.
enum Order {
    Exchange { partner: usize, bytes: Vec<u8> },
    Leave,
    Abort(i32),
}

impl World {
    /// Joins the others. One that waits for others longer than it has `patience` fails.
    ///
    /// # Errors
    /// When MPI was begun already, or the system gives no thread.
    pub fn join(patience: Duration) -> Result<World> {
        let (orders, of_rank) = channel();
        let (to_rank, answers) = channel();
        let (says, who) = channel();
        let work = move || {
            // This thread alone calls it.
            let universe = mpi::initialize_with_threading(Threading::Funneled);
            let world = universe.as_ref().map(|(universe, _)| universe.world());
            // The rank waits for it.
            _ = says.send(world.as_ref().map(|world| (world.rank() as usize, world.size() as usize)));
            if let Some(world) = world {
                Clerk::of(world, patience, of_rank, to_rank).work();
            }
        };
        let clerk = Builder::new().name("mpi".to_owned()).spawn(work).map_err(Error::io("a thread"))?;
        let (rank, size) = who.recv().ok().flatten().ok_or_else(|| Error::internal("MPI was begun twice"))?;
        Ok(World { rank, size, orders, answers: Mutex::new(answers), clerk })
    }
}

impl Collective for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&self, partner: usize, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let gone = || Error::internal("the thread that speaks MPI has ended");
        self.orders.send(Order::Exchange { partner, bytes }).map_err(|_| gone())?;
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.recv().unwrap_or_else(|_| Err(gone()))
    }
}

impl Processes for World {
    fn abort(&self, code: i32) -> ! {
        // Without a clerk there is only one's own end.
        if self.orders.send(Order::Abort(code)).is_ok() {
            std::thread::sleep(GRACE);
        }
        signal_hook::low_level::exit(code)
    }

    fn leave(self: Box<Self>) {
        let World { orders, clerk, .. } = *self;
        if orders.send(Order::Leave).is_ok() {
            // Nothing of the work depends on it any more.
            _ = clerk.join();
        }
    }
}

/// The thread that speaks MPI.
struct Clerk {
    world: SimpleCommunicator,
    orders: Receiver<Order>,
    answers: Sender<Result<Vec<u8>>>,
    watch: Watch,
    /// The last beat, and what has not arrived of the beats.
    beat: Instant,
    beats: Vec<Request<'static, [u8; 1]>>,
    /// When others were found missing, and what about them.
    missing: Option<(Instant, String)>,
}

impl Clerk {
    fn of(
        world: SimpleCommunicator,
        patience: Duration,
        orders: Receiver<Order>,
        answers: Sender<Result<Vec<u8>>>,
    ) -> Clerk {
        let machines = machines(&world);
        let now = Instant::now();
        let watch = Watch::new(world.rank() as usize, machines, patience, now);
        Clerk { world, orders, answers, watch, beat: now, beats: Vec::new(), missing: None }
    }

    /// Does what the rank orders, up to its end.
    fn work(mut self) {
        loop {
            match self.orders.recv_timeout(BEAT.saturating_sub(self.beat.elapsed())) {
                Ok(Order::Exchange { partner, bytes }) => {
                    let theirs = self.exchange(partner, &bytes);
                    // The rank waits for it.
                    _ = self.answers.send(Ok(theirs));
                }
                Ok(Order::Abort(code)) => self.world.abort(code),
                Ok(Order::Leave) => return self.leave(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.keep_pulse(Pulse::Computes, None);
            if self.missing.as_ref().is_some_and(|(since, _)| since.elapsed() > GRACE) {
                self.give_up();
            }
        }
    }

    fn exchange(&mut self, partner: usize, bytes: &[u8]) -> Vec<u8> {
        let since = Instant::now();
        let other = SimpleCommunicator::world();
        let other = other.process_at_rank(partner as i32);
        mpi::request::scope(|scope| {
            let mut sent = Some(other.immediate_send_with_tag(scope, bytes, BYTES));
            let mut found = None;
            self.wait(Pulse::Waits, since, |_| {
                sent = sent.take().and_then(|request| request.test().err());
                found = found.take().or_else(|| other.immediate_matched_probe_with_tag(BYTES));
                found.is_some()
            });
            let (message, status) = found.expect("it was waited for");
            let mut theirs = vec![0; status.count(u8::equivalent_datatype()) as usize];
            mpi::request::scope(|scope| {
                let mut received = Some(message.immediate_matched_receive_into(scope, &mut theirs[..]));
                self.wait(Pulse::Waits, since, |_| {
                    sent = sent.take().and_then(|request| request.test().err());
                    received = received.take().and_then(|request| request.test().err());
                    sent.is_none() && received.is_none()
                });
            });
            theirs
        })
    }

    /// Tells the others that no beat follows, and waits until all have said so: then no message is on its way.
    fn leave(mut self) {
        self.tell(Pulse::Leaves);
        self.wait(Pulse::Leaves, Instant::now(), |clerk| clerk.beats.is_empty() && clerk.watch.is_last());
    }

    /// Looks until something is done. Where others are missing, the rank gets the error as its answer, and this thread has
    /// nothing else to do than to end the process: messages are on their way for good.
    fn wait(&mut self, pulse: Pulse, since: Instant, mut done: impl FnMut(&Clerk) -> bool) {
        let mut looks = 0;
        while !done(self) {
            looks += 1;
            if looks > EAGER {
                std::thread::sleep(SLEEP)
            } else {
                std::thread::yield_now()
            }
            if looks > EAGER || looks % 32 == 0 {
                self.keep_pulse(pulse, Some(since));
            }
            if let Some((_, text)) = &self.missing {
                // One that left waits for no answer.
                if pulse != Pulse::Leaves {
                    _ = self.answers.send(Err(Error::Waiting(text.clone())));
                    if let Ok(Order::Abort(code)) = self.orders.recv_timeout(GRACE) {
                        self.world.abort(code);
                    }
                }
                self.give_up();
            }
        }
    }

    /// Where it is time: tells the others how this rank is, and looks how they are.
    fn keep_pulse(&mut self, pulse: Pulse, waits: Option<Instant>) {
        if pulse == Pulse::Leaves || self.beat.elapsed() >= BEAT {
            if pulse != Pulse::Leaves {
                self.tell(pulse);
            }
            let now = Instant::now();
            while let Some((message, status)) = self.world.any_process().immediate_matched_probe_with_tag(PULSE) {
                let mut byte = [0u8];
                // It is there, as a whole.
                message.matched_receive_into(&mut byte[..]);
                let pulse = Pulse::of(byte[0]).expect("a rank sends no other beats");
                self.watch.hear(status.source_rank() as usize, pulse, now);
            }
            let found = self.watch.look(waits, now);
            self.missing = self.missing.take().or_else(|| found.map(|text| (now, text)));
        }
        self.beats = std::mem::take(&mut self.beats).into_iter().filter_map(|request| request.test().err()).collect();
    }

    fn tell(&mut self, pulse: Pulse) {
        self.beat = Instant::now();
        for rank in (0..self.world.size()).filter(|rank| *rank != self.world.rank()) {
            let other = self.world.process_at_rank(rank);
            self.beats.push(other.immediate_send_with_tag(StaticScope, &BEATS[pulse as usize], PULSE));
        }
    }

    /// Ends all processes in place of the rank, which did not come here in time.
    fn give_up(&mut self) -> ! {
        let (_, text) = self.missing.take().expect("others are missing");
        say(&format!("error: {text}"));
        self.world.abort(exit::AGAIN)
    }
}

/// The machine of each rank. All ranks meet here: the start of a process that fails is seen by what starts them.
fn machines(world: &SimpleCommunicator) -> Vec<String> {
    const LONGEST: usize = 64;
    let name = mpi::environment::processor_name().unwrap_or_default();
    let mut own = name.into_bytes();
    own.resize(LONGEST, 0);
    let mut all = vec![0; LONGEST * world.size() as usize];
    world.all_gather_into(&own[..], &mut all[..]);
    let text = |name: &[u8]| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
    all.chunks(LONGEST).map(text).collect()
}
