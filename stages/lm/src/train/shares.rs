//! The optimizer's state in shares: of each trained tensor one rank holds the numbers of some rows, makes the step of
//! these, and sends them to the others. A step handles each number by itself, so that the bytes are those of one rank.

use crate::{DType, Device, Error, Result, Training};
use candle_core::Tensor;
use std::ops::Range;

/// Numbers of a rank that travel at once.
const STRETCH: usize = 1 << 20;

/// One of several ranks among which the state is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub rank: usize,
    /// Number of ranks.
    pub of: usize,
}

impl Share {
    /// All of it.
    pub const WHOLE: Share = Share { rank: 0, of: 1 };

    /// Its rows of so many.
    pub fn rows(self, all: usize) -> Range<usize> {
        all * self.rank / self.of..all * (self.rank + 1) / self.of
    }

    fn each(self) -> impl Iterator<Item = Share> {
        (0..self.of).map(move |rank| Share { rank, of: self.of })
    }

    /// Lets ranks swap their rows of a tensor of so many rows, some at once; `own` are those of this one. `gather` gives
    /// the numbers of each rank, in their order; `put` gets those of the others, by their first row.
    pub(crate) fn swap<E>(
        self,
        own: Option<&Tensor>,
        all: usize,
        width: usize,
        gather: &mut impl FnMut(&[f32]) -> std::result::Result<Vec<Vec<f32>>, E>,
        mut put: impl FnMut(usize, Vec<f32>) -> Result<()>,
    ) -> Result<std::result::Result<(), E>> {
        let most = self.each().map(|share| share.rows(all).len()).max().unwrap_or_default();
        let at_once = (STRETCH / width.max(1)).max(1);
        for first in (0..most).step_by(at_once) {
            let now = |share: Share| {
                let rows = share.rows(all);
                let start = (rows.start + first).min(rows.end);
                start..(start + at_once).min(rows.end)
            };
            let mine = now(self);
            let numbers = match own.filter(|_| !mine.is_empty()) {
                Some(own) => {
                    let part = own.narrow(0, mine.start - self.rows(all).start, mine.len())?;
                    part.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?
                }
                None => Vec::new(),
            };
            let theirs = match gather(&numbers) {
                Ok(theirs) => theirs,
                Err(error) => return Ok(Err(error)),
            };
            for (share, numbers) in self.each().zip(theirs).filter(|(share, _)| *share != self) {
                if numbers.len() != now(share).len() * width {
                    return Err(Error::internal("ranks swap rows of different tensors"));
                }
                if !numbers.is_empty() {
                    put(now(share).start, numbers)?;
                }
            }
        }
        Ok(Ok(()))
    }
}

impl Training {
    /// True where other ranks hold parts of the state.
    pub fn is_shared(&self) -> bool {
        self.share.of > 1
    }

    /// After a step: takes the rows of weights that other ranks made theirs of. `gather` gives the numbers of all ranks; up
    /// to its first error, which is given. Without shares there is nothing to do.
    ///
    /// Errors: the device's.
    pub fn spread<E>(
        &mut self,
        mut gather: impl FnMut(&[f32]) -> std::result::Result<Vec<Vec<f32>>, E>,
    ) -> Result<std::result::Result<(), E>> {
        if !self.is_shared() {
            return Ok(Ok(()));
        }
        let share = self.share;
        for parameter in self.decoder.parameters().into_iter().filter(|parameter| parameter.gradient.is_some()) {
            let value = &parameter.value;
            let (all, width) = rows_and_width(value);
            let rows = share.rows(all);
            let own = if rows.is_empty() { None } else { Some(value.narrow(0, rows.start, rows.len())?) };
            let put = |first, numbers| rows_into(value, first, numbers);
            if let Err(error) = share.swap(own.as_ref(), all, width, &mut gather, put)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}

/// The rows of a tensor, and the numbers of one.
pub(crate) fn rows_and_width(tensor: &Tensor) -> (usize, usize) {
    let rows = tensor.dims().first().copied().unwrap_or(1);
    (rows, tensor.elem_count() / rows.max(1))
}

/// Puts numbers in place of the rows from `first` on.
pub(crate) fn rows_into(tensor: &Tensor, first: usize, numbers: Vec<f32>) -> Result<()> {
    let (_, width) = rows_and_width(tensor);
    let mut shape = tensor.dims().to_vec();
    shape[0] = numbers.len() / width;
    let rows = Tensor::from_vec(numbers, shape, &Device::Cpu)?.to_dtype(tensor.dtype())?;
    Ok(tensor.slice_set(&rows.to_device(tensor.device())?, 0, first)?)
}
