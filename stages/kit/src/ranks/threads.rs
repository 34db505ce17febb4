//! Ranks that are threads of one process.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use super::collective::Collective;
use crate::error::{Error, Result};

/// Ranks may recurse deeper than the two MiB of a plain thread allow.
const STACK: usize = 16 << 20;

/// A rank that is a thread of this process. When it ends, the channels to the others close.
struct Thread {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Collective for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(&self, partner: usize, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.to[partner].send(bytes).map_err(|_| lost(partner))?;
        let from = self.from[partner].lock().unwrap_or_else(PoisonError::into_inner);
        from.recv().map_err(|_| lost(partner))
    }
}

/// The error where a rank that is needed has ended.
pub fn lost(rank: usize) -> Error {
    Error::Waiting(format!("rank {rank} has ended; run the same command again to go on from the latest checkpoint"))
}

/// Does something in so many threads, the ranks, and gives what rank 0 gave.
///
/// # Errors
/// The error that came first; those of ranks that lost another one come last. A panic goes on in the caller.
pub fn in_threads<T: Send>(size: usize, work: impl Fn(&dyn Collective) -> Result<T> + Sync) -> Result<T> {
    let mut members: Vec<Thread> = (0..size).map(|rank| Thread { rank, to: Vec::new(), from: Vec::new() }).collect();
    for from in 0..size {
        for to in 0..size {
            let (sender, receiver) = channel();
            members[from].to.push(sender);
            members[to].from.push(Mutex::new(receiver));
        }
    }
    let results = std::thread::scope(|scope| {
        let work = &work;
        let start = |member: Thread| {
            let thread = Builder::new().name(format!("rank {}", member.rank)).stack_size(STACK);
            thread.spawn_scoped(scope, move || work(&member)).map_err(Error::io("a thread"))
        };
        // Those that began see that one is missing, where the system gives no more threads.
        let threads = members.into_iter().map(start).collect::<Result<Vec<_>>>()?;
        Ok::<_, Error>(threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>())
    })?;
    let results: Vec<Result<T>> =
        results.into_iter().map(|result| result.unwrap_or_else(|panic| resume_unwind(panic))).collect();
    let is_loss = |result: &Result<T>| matches!(result, Err(Error::Waiting(_)));
    let mut results = results.into_iter();
    let first = results.next().ok_or_else(|| Error::internal("no rank"))?;
    results.fold(first, |kept, next| match (&kept, &next) {
        (Ok(_), Err(_)) => next,
        (Err(_), Err(_)) if is_loss(&kept) => next,
        _ => kept,
    })
}

/// Does something in so many threads, the ranks, each of which computes with so many threads of its own.
///
/// # Errors
/// As [`in_threads`]; when the system gives no more threads.
pub fn in_pools<T: Send>(size: usize, threads: usize, work: impl Fn(&dyn Collective) -> Result<T> + Sync) -> Result<T> {
    in_threads(size, |ranks| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK).build();
        let pool = pool.map_err(|error| Error::io("threads to compute with")(io::Error::other(error)))?;
        pool.install(|| work(ranks))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ranks_gather_is_the_same_on_all_in_the_order_of_ranks() {
        for size in [1, 2, 4, 8] {
            in_threads(size, |ranks| {
                let rank = ranks.rank();
                let all = ranks.gather(Ok(vec![rank as f64; rank])).unwrap();
                assert_eq!(all, (0..size).map(|rank| vec![rank as f64; rank]).collect::<Vec<_>>());
                let many = ranks.gather_many(&vec![rank as f32; 3 - rank.min(3)]).unwrap();
                assert_eq!(many, (0..size).map(|rank| vec![rank as f32; 3 - rank.min(3)]).collect::<Vec<_>>());
                assert_eq!(ranks.share(16), rank * 16 / size..(rank + 1) * 16 / size);
                Ok(())
            })
            .unwrap();
        }
    }

    #[test]
    fn an_error_of_one_rank_is_that_of_all() {
        let check = |of: fn(usize) -> Result<Vec<f64>>, wanted: &str| {
            let failed = in_threads(4, |ranks| {
                let error = ranks.gather(of(ranks.rank())).unwrap_err();
                assert_eq!(error.to_string(), wanted);
                Err::<(), _>(error)
            });
            assert_eq!(failed.unwrap_err().to_string(), wanted);
        };
        check(|rank| if rank == 2 { Err(Error::data("row 7")) } else { Ok(Vec::new()) }, "row 7");
        check(|rank| if rank == 2 { Err(Error::data("row 7")) } else { Err(Error::Interrupted) }, "row 7");
        let full = |_| Err(Error::Io { path: "a/b".into(), source: io::Error::other("full") });
        check(full, "a/b: full");
        check(|rank| if rank == 3 { Err(Error::Interrupted) } else { Ok(vec![1.0]) }, &Error::Interrupted.to_string());
    }

    #[test]
    fn a_rank_that_ends_ends_all_and_its_error_is_the_one_told() {
        let failed = in_threads(4, |ranks| match ranks.rank() {
            2 => Err(Error::data("no such row")),
            _ => ranks.gather(Ok(vec![1.0])),
        });
        assert!(matches!(failed, Err(Error::Data(text)) if text == "no such row"));
        let panicked = std::panic::catch_unwind(|| {
            in_threads(2, |ranks| {
                if ranks.rank() == 1 {
                    resume_unwind(Box::new("gone"));
                }
                let error = ranks.exchange(1, Vec::new()).unwrap_err();
                assert!(matches!(&error, Error::Waiting(text) if text.starts_with("rank 1 has ended")));
                Err::<(), _>(error)
            })
        });
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"gone"));
    }
}
