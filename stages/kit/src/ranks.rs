//! Ranks: several threads or processes that compute one job together, each on a device of its own.
//!
//! All they ask of a transport is [`Collective::exchange`]: two ranks swap bytes. What is gathered and summed over all
//! ranks follows from it in log2(ranks) rounds, in an order that depends on nothing else.

use std::io;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use crate::contract::context::Context;
use crate::contract::outcome::Outcome;
use crate::error::{Error, Result};

/// Numbers that travel at once.
const STRETCH: usize = 1 << 22;

/// Ranks may recurse deeper than the two MiB of a plain thread allow.
const STACK: usize = 16 << 20;

/// One rank's way to the others. All ranks call its methods in the same order.
pub trait Collective: Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks, a power of two.
    fn size(&self) -> usize;

    /// Swaps bytes with another rank, which calls this too.
    ///
    /// # Errors
    /// [`Error::Waiting`] where the other one has ended.
    fn exchange(&self, partner: usize, bytes: Vec<u8>) -> Result<Vec<u8>>;
}

impl dyn Collective + '_ {
    /// This rank's share of so many pieces of work, a multiple of the number of ranks.
    pub fn share(&self, pieces: usize) -> Range<usize> {
        let each = pieces / self.size();
        self.rank() * each..(self.rank() + 1) * each
    }

    /// The numbers of each rank, in the order of ranks, on all of them.
    ///
    /// # Errors
    /// Where one or more ranks have an error in place of numbers, all ranks get that of the first such rank; an
    /// interrupt comes after other errors.
    pub fn gather(&self, own: Result<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
        if self.size() == 1 {
            return Ok(vec![own?]);
        }
        let mut all = encoded(own);
        for bit in self.bits() {
            let theirs = self.exchange(self.rank() ^ bit, all.clone())?;
            all = if self.rank() & bit == 0 { [all, theirs] } else { [theirs, all] }.concat();
        }
        let (mut numbers, mut failed) = (Vec::with_capacity(self.size()), None);
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            match decoded(&mut rest).ok_or_else(|| Error::internal("a rank sent bytes that are no message"))? {
                Ok(own) => numbers.push(own),
                Err(error) if matches!(failed, None | Some(Error::Interrupted)) => failed = Some(error),
                Err(_) => {}
            }
        }
        failed.map_or(Ok(numbers), Err)
    }

    /// The numbers of each rank, in the order of ranks, on all of them; as [`Collective::gather`] for many numbers.
    ///
    /// # Errors
    /// As [`Collective::exchange`].
    pub fn gather_many(&self, own: &[f32]) -> Result<Vec<Vec<f32>>> {
        let message = |numbers: &[f32]| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            [&(bytes.len() as u64).to_le_bytes()[..], &bytes].concat()
        };
        let mut all = message(own);
        for bit in self.bits() {
            let theirs = self.exchange(self.rank() ^ bit, all.clone())?;
            all = if self.rank() & bit == 0 { [all, theirs] } else { [theirs, all] }.concat();
        }
        let (mut numbers, mut rest) = (Vec::with_capacity(self.size()), all.as_slice());
        while let Some((length, tail)) = rest.split_first_chunk::<8>() {
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let cut = tail.split_at_checked(length);
            let (body, tail) = cut.ok_or_else(|| Error::internal("a rank sent bytes that are no message"))?;
            let number = |four: &[u8]| f32::from_le_bytes(four.try_into().expect("four bytes"));
            numbers.push(body.chunks_exact(4).map(number).collect());
            rest = tail;
        }
        Ok(numbers)
    }

    /// Adds up the numbers of all ranks, as a balanced tree over the ranks: the same bits on all of them.
    ///
    /// # Errors
    /// As [`Collective::exchange`].
    pub fn sum(&self, numbers: &mut [f32]) -> Result<()> {
        for bit in self.bits() {
            for stretch in numbers.chunks_mut(STRETCH) {
                let mut bytes = vec![0; 4 * stretch.len()];
                bytes.chunks_exact_mut(4).zip(&*stretch).for_each(|(to, x)| to.copy_from_slice(&x.to_le_bytes()));
                let theirs = self.exchange(self.rank() ^ bit, bytes)?;
                if theirs.len() != 4 * stretch.len() {
                    return Err(Error::internal("ranks add up different numbers of numbers"));
                }
                // Both partners add the same two numbers, in either order to the same bits.
                for (x, theirs) in stretch.iter_mut().zip(theirs.chunks_exact(4)) {
                    *x += f32::from_le_bytes(theirs.try_into().expect("four bytes"));
                }
            }
        }
        Ok(())
    }

    /// In each round a rank meets the one whose number differs in this bit.
    fn bits(&self) -> impl Iterator<Item = usize> {
        (0..self.size().trailing_zeros()).map(|round| 1 << round)
    }
}

/// Ranks that so many workers make for work of at most `most`: the largest power of two that is neither more than these
/// nor than those.
pub fn ranks(most: usize, workers: usize) -> usize {
    1 << most.min(workers).max(1).ilog2()
}

/// Work that ranks do together.
pub trait Ranked: Sync {
    /// Ranks at most, a power of two. Any smaller power of two gives the same bytes.
    fn most_ranks(&self) -> usize;

    /// Does the part of one rank, on the device of its context. Rank 0 alone writes and gives the outcome.
    ///
    /// # Errors
    /// Whatever went wrong on any rank.
    fn compute(&self, context: &Context<'_>, ranks: &dyn Collective) -> Result<Outcome>;
}

/// The only rank.
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&self, _partner: usize, _bytes: Vec<u8>) -> Result<Vec<u8>> {
        Err(Error::internal("a rank that is alone has no partner"))
    }
}

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

/// A message: a word for its kind, its length, and numbers or the text of an error.
fn encoded(own: Result<Vec<f64>>) -> Vec<u8> {
    let (kind, body) = match own {
        Ok(numbers) => (b'n', numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Err(Error::Data(text)) => (b'd', text.into_bytes()),
        Err(Error::Pipeline(text)) => (b'p', text.into_bytes()),
        Err(Error::Unreachable(text)) => (b'u', text.into_bytes()),
        Err(Error::Waiting(text)) => (b'w', text.into_bytes()),
        Err(Error::Interrupted) => (b'i', Vec::new()),
        Err(Error::Io { path, source }) => (b'o', format!("{}\0{source}", path.display()).into_bytes()),
        Err(Error::Internal(text)) => (b'b', text.into_bytes()),
    };
    [&[kind][..], &(body.len() as u64).to_le_bytes(), &body].concat()
}

/// The first of several messages; nothing where there is none.
fn decoded(rest: &mut &[u8]) -> Option<Result<Vec<f64>>> {
    let (head, tail) = rest.split_first_chunk::<9>()?;
    let length = u64::from_le_bytes(head[1..].try_into().ok()?);
    let (body, tail) = tail.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = tail;
    let text = || String::from_utf8_lossy(body).into_owned();
    Some(Err(match head[0] {
        b'n' => {
            let number = |eight: &[u8]| f64::from_le_bytes(eight.try_into().expect("eight bytes"));
            return Some(Ok(body.chunks_exact(8).map(number).collect()));
        }
        b'd' => Error::Data(text()),
        b'p' => Error::Pipeline(text()),
        b'u' => Error::Unreachable(text()),
        b'w' => Error::Waiting(text()),
        b'i' => Error::Interrupted,
        b'o' => {
            let text = text();
            let (path, source) = text.split_once('\0')?;
            Error::Io { path: path.into(), source: io::Error::other(source) }
        }
        b'b' => Error::Internal(text()),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ranks_gather_and_sum_is_the_same_on_all_in_the_order_of_ranks() {
        for size in [1, 2, 4, 8] {
            let seen = Mutex::new(Vec::new());
            in_threads(size, |ranks| {
                let rank = ranks.rank();
                let all = ranks.gather(Ok(vec![rank as f64; rank])).unwrap();
                assert_eq!(all, (0..size).map(|rank| vec![rank as f64; rank]).collect::<Vec<_>>());
                let many = ranks.gather_many(&vec![rank as f32; 3 - rank.min(3)]).unwrap();
                assert_eq!(many, (0..size).map(|rank| vec![rank as f32; 3 - rank.min(3)]).collect::<Vec<_>>());
                // More than one stretch, of numbers whose sum depends on its order.
                let mut numbers = vec![0.1f32 * (rank as f32 + 1.0).powi(9); STRETCH + 1];
                ranks.sum(&mut numbers).unwrap();
                assert!(numbers.iter().all(|x| x.to_bits() == numbers[0].to_bits()));
                seen.lock().unwrap().push(numbers[0].to_bits());
                assert_eq!(ranks.share(16), rank * 16 / size..(rank + 1) * 16 / size);
                Ok(())
            })
            .unwrap();
            let mut tree: Vec<f32> = (0..size).map(|rank| 0.1f32 * (rank as f32 + 1.0).powi(9)).collect();
            while tree.len() > 1 {
                tree = tree.chunks(2).map(|two| two[0] + two[1]).collect();
            }
            assert_eq!(seen.into_inner().unwrap(), vec![tree[0].to_bits(); size], "{size}");
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
                let error = ranks.sum(&mut [1.0]).unwrap_err();
                assert!(matches!(&error, Error::Waiting(text) if text.starts_with("rank 1 has ended")));
                Err::<(), _>(error)
            })
        });
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"gone"));
    }
}
