//! Processes that `mpirun` or `srun` starts, one for each rank, over MPI.

use std::time::Duration;

use kit::{Collective, Error, Result};
use mpi::Threading;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::Equivalence;

/// Looks for a message that are made at once, before a rank sleeps between them: MPI itself would never sleep, and take
/// the time of ranks that compute.
const EAGER: u32 = 200;
const SLEEP: Duration = Duration::from_micros(200);

/// All processes of this program that were started together.
pub struct World {
    rank: usize,
    size: usize,
    universe: Option<Universe>,
}

impl World {
    /// Joins the others.
    ///
    /// # Errors
    /// When MPI gives no calls from several threads, or was begun already.
    pub fn join() -> Result<World> {
        // One thread at a time calls it, and not always the same one.
        let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Serialized) else {
            return Err(Error::internal("MPI was begun twice"));
        };
        let world = universe.world();
        let world = World { rank: world.rank() as usize, size: world.size() as usize, universe: Some(universe) };
        if threading < Threading::Serialized {
            return Err(Error::Pipeline("this MPI has no calls from several threads".to_owned()));
        }
        Ok(world)
    }

    /// Ends this process and all others with an exit code, without waiting for them.
    pub fn abort(&self, code: i32) -> ! {
        SimpleCommunicator::world().abort(code)
    }

    /// Leaves once all others do.
    pub fn leave(mut self) {
        drop(self.universe.take());
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
        let world = SimpleCommunicator::world();
        let other = world.process_at_rank(partner as i32);
        // A partner that is lost ends all: whoever started the processes sees to it.
        Ok(mpi::request::scope(|scope| {
            let (mut sent, mut theirs) = (Some(other.immediate_send(scope, &bytes[..])), None);
            for look in 0.. {
                sent = sent.and_then(|request| request.test().err());
                if theirs.is_none() {
                    theirs = other.immediate_matched_probe().map(|(message, status)| {
                        let mut theirs = vec![0; status.count(u8::equivalent_datatype()) as usize];
                        message.matched_receive_into(&mut theirs[..]);
                        theirs
                    });
                }
                if sent.is_none() && theirs.is_some() {
                    break;
                }
                if look > EAGER { std::thread::sleep(SLEEP) } else { std::thread::yield_now() }
            }
            theirs.unwrap_or_default()
        }))
    }
}
