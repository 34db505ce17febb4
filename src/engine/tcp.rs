//! Ranks that are processes and speak over TCP, a connection for each pair of them.
//!
//! A thread for each direction of a connection keeps the rank's own thread from waiting for anything else than bytes. One
//! more keeps the pulse: it tells the others that this rank is there and looks whether they are ([`Watch`]).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use kit::{Collective, Error, Result, lost};

use crate::engine::launch::Place;
use crate::engine::pulse::{BEAT, GRACE, Pulse, Watch};
use crate::engine::ranks::Processes;
use crate::engine::rendezvous::{Met, meet};
use crate::exit;
use crate::streams::say;

/// Between two looks of a rank that waits.
const LOOK: Duration = Duration::from_millis(100);
/// Time for the last words to leave this process.
const FAREWELL: Duration = Duration::from_millis(300);

/// Kinds of messages; a length of eight bytes follows, and as many bytes.
const BYTES: u8 = 0;
const PULSE: u8 = 1;
const END: u8 = 2;

/// All processes of this program that were started together.
pub struct World {
    rank: usize,
    /// The others, by rank; nothing in one's own place.
    peers: Vec<Option<Peer>>,
    known: Arc<Known>,
}

/// The way to another rank.
struct Peer {
    to: Sender<Vec<u8>>,
    from: Mutex<Receiver<Vec<u8>>>,
}

/// What the threads of this process know of the ranks.
struct Known {
    watch: Mutex<Watch>,
    /// Since when this rank waits for others.
    waits: Mutex<Option<Instant>>,
    /// When others were found missing, and what about them.
    missing: Mutex<Option<(Instant, String)>>,
    /// True once nothing but the farewell of others is waited for.
    leaves: AtomicBool,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Joins the others, by an address in `folder` under the name of the work. One that waits for others longer than it has
    /// `patience` fails; `say` is told where the start takes long.
    ///
    /// # Errors
    /// As [`meet`]; when the system gives no threads.
    pub fn join(folder: &Path, name: &str, place: &Place, patience: Duration, say: &dyn Fn(&str)) -> Result<World> {
        let Met { streams, machines } = meet(folder, name, place, patience, say)?;
        let watch = Watch::new(place.rank, machines, patience, Instant::now());
        let (waits, missing, leaves) = (Mutex::new(None), Mutex::new(None), AtomicBool::new(false));
        let known = Arc::new(Known { watch: Mutex::new(watch), waits, missing, leaves });
        let peer = |(rank, stream): (usize, Option<TcpStream>)| {
            stream.map(|stream| Peer::of(rank, stream, &known)).transpose()
        };
        let peers = streams.into_iter().enumerate().map(peer).collect::<Result<Vec<_>>>()?;
        let (to, of_pulse): (Vec<_>, _) = (peers.iter().flatten().map(|peer| peer.to.clone()).collect(), known.clone());
        thread("pulse", move || of_pulse.keep_pulse(&to))?;
        Ok(World { rank: place.rank, peers, known })
    }

    /// Looks until something is done that takes other ranks.
    ///
    /// # Errors
    /// That of the look; [`Error::Waiting`] where others are missing.
    pub fn wait(&self, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        const EAGER: u32 = 1000;
        let _waiting = self.known.waiting();
        let mut looks = 0;
        while !done()? {
            self.known.check()?;
            looks += 1;
            if looks > EAGER { std::thread::sleep(Duration::from_micros(50)) } else { std::thread::yield_now() }
        }
        Ok(())
    }

    fn tell(&self, kind: u8, body: &[u8]) {
        let message = message(kind, body);
        // One that is gone is missed elsewhere.
        self.peers.iter().flatten().for_each(|peer| _ = peer.to.send(message.clone()));
    }
}

impl Collective for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.peers.len()
    }

    fn exchange(&self, partner: usize, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let peer = self.peers[partner].as_ref().ok_or_else(|| Error::internal("a rank is not its own partner"))?;
        self.known.check()?;
        let _waiting = self.known.waiting();
        // One that is gone gives no answer, either.
        _ = peer.to.send(message(BYTES, &bytes));
        let from = held(&peer.from);
        loop {
            match from.recv_timeout(LOOK) {
                Ok(bytes) => return Ok(bytes),
                Err(RecvTimeoutError::Timeout) => self.known.check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(lost(partner)),
            }
        }
    }
}

impl Processes for World {
    fn abort(&self, code: i32) -> ! {
        self.tell(END, &code.to_le_bytes());
        std::thread::sleep(FAREWELL);
        signal_hook::low_level::exit(code)
    }

    fn leave(self: Box<Self>) {
        self.known.leaves.store(true, Ordering::Relaxed);
        self.tell(PULSE, &[Pulse::Leaves as u8]);
        let _waiting = self.known.waiting();
        // Nothing of the work depends on it any more.
        while !held(&self.known.watch).is_last() && self.known.check().is_ok() {
            std::thread::sleep(LOOK / 10);
        }
        std::thread::sleep(FAREWELL);
    }
}

impl Peer {
    fn of(rank: usize, stream: TcpStream, known: &Arc<Known>) -> Result<Peer> {
        let (to, messages) = channel::<Vec<u8>>();
        let (bytes, from) = channel();
        let (mut writes, mut reads) = (stream.try_clone().map_err(Error::io("a connection of ranks"))?, stream);
        thread("writes", move || {
            // Where the other one is gone, the thread that reads sees it.
            for message in messages {
                if writes.write_all(&message).is_err() {
                    return;
                }
            }
        })?;
        let known = known.clone();
        thread("reads", move || {
            while let Ok((kind, body)) = receive(&mut reads) {
                match kind {
                    // The rank may have ended its work.
                    BYTES => _ = bytes.send(body),
                    PULSE => known.hear(rank, body.first().copied()),
                    _ => signal_hook::low_level::exit(code_of(&body)),
                }
            }
            known.gone(rank);
        })?;
        Ok(Peer { to, from: Mutex::new(from) })
    }
}

impl Known {
    /// Says that this rank waits, as long as what is given lives.
    fn waiting(&self) -> Waiting<'_> {
        *held(&self.waits) = Some(Instant::now());
        Waiting(&self.waits)
    }

    fn check(&self) -> Result<()> {
        let missing = held(&self.missing);
        missing.as_ref().map_or(Ok(()), |(_, text)| Err(Error::Waiting(text.clone())))
    }

    fn miss(&self, text: String) {
        held(&self.missing).get_or_insert((Instant::now(), text));
    }

    fn hear(&self, rank: usize, byte: Option<u8>) {
        if let Some(pulse) = byte.and_then(Pulse::of) {
            held(&self.watch).hear(rank, pulse, Instant::now());
        }
    }

    /// The connection to a rank has ended.
    fn gone(&self, rank: usize) {
        if !held(&self.watch).has_left(rank) {
            self.miss(lost(rank).to_string());
        }
    }

    /// Tells the others how this rank is and looks how they are, once a beat, up to the end of the process. Ends it where
    /// others are missing and the rank does not come to its end in time.
    fn keep_pulse(&self, to: &[Sender<Vec<u8>>]) {
        let tell = |kind, body: &[u8]| to.iter().for_each(|to| _ = to.send(message(kind, body)));
        loop {
            std::thread::sleep(BEAT);
            let waits = *held(&self.waits);
            let leaves = self.leaves.load(Ordering::Relaxed);
            let pulse = if leaves {
                Pulse::Leaves
            } else if waits.is_some() {
                Pulse::Waits
            } else {
                Pulse::Computes
            };
            tell(PULSE, &[pulse as u8]);
            let found = held(&self.watch).look(waits, Instant::now());
            found.into_iter().for_each(|text| self.miss(text));
            if let Some((_, text)) = held(&self.missing).take_if(|(since, _)| since.elapsed() > GRACE) {
                say(&format!("error: {text}"));
                tell(END, &exit::AGAIN.to_le_bytes());
                std::thread::sleep(FAREWELL);
                signal_hook::low_level::exit(exit::AGAIN);
            }
        }
    }
}

/// As long as it lives the rank waits.
struct Waiting<'a>(&'a Mutex<Option<Instant>>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *held(self.0) = None;
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u64).to_le_bytes(), body].concat()
}

fn receive(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = u64::from_le_bytes(head[1..].try_into().expect("eight bytes"));
    let mut body = Vec::new();
    if stream.take(length).read_to_end(&mut body)? as u64 != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok((head[0], body))
}

/// The exit code that another rank ends with.
fn code_of(body: &[u8]) -> i32 {
    body.try_into().map_or(exit::INTERNAL, i32::from_le_bytes)
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = Builder::new().name(name.to_owned()).stack_size(256 << 10);
    thread.spawn(work).map(drop).map_err(Error::io("a thread"))
}
