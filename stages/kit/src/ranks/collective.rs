//! What ranks ask of a transport, and what follows from it: numbers gathered on all of them, and the exchanges of sums.
//!
//! A transport has [`Collective::exchange`]: two ranks swap bytes. All else is done in log2(ranks) rounds, in an order
//! that depends on nothing else.

use std::ops::Range;

use super::messages::{decoded, encoded};
use super::turns::{Turn, bits, turns};
use crate::contract::context::Context;
use crate::contract::outcome::Outcome;
use crate::error::{Error, Result};

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

    /// A way between the GPUs of ranks, where there is one.
    fn gpus(&self) -> Option<&dyn BetweenGpus> {
        None
    }
}

/// A way between the GPUs of ranks.
pub trait BetweenGpus {
    /// Swaps memory of this rank's GPU with that of another one, which calls this too, and waits for the end.
    ///
    /// # Errors
    /// [`Error::Waiting`] where the other one has ended.
    fn swap(&self, partner: usize, swap: &GpuSwap) -> Result<()>;
}

/// Memory of a GPU that is sent and taken, after the work that a stream was given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSwap {
    /// The driver's handle of the stream.
    pub stream: u64,
    /// The address of what is sent.
    pub from: u64,
    /// Bytes that are sent.
    pub sent: usize,
    /// The address of the place for what comes.
    pub to: u64,
    /// Bytes that come.
    pub taken: usize,
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

    /// The exchanges in which ranks add up so many numbers; see [`Turn`].
    pub fn turns(&self, numbers: usize) -> Vec<Turn> {
        turns(self.rank(), self.size(), numbers)
    }

    fn bits(&self) -> impl Iterator<Item = usize> {
        bits(self.size())
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
