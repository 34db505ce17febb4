//! Gradients one after the other as flat stretches of numbers, the buckets in which ranks add them up.

use crate::ops::{change, view};
use crate::{DType, Device, Error, Result, Training};
use candle_core::Tensor;
use std::ops::Range;

/// Some of the gradients' numbers, in f32, on the device that has them.
#[derive(Debug)]
pub struct Bucket {
    numbers: Tensor,
    /// On a GPU: a place for numbers that are to be added.
    beside: Option<Tensor>,
}

/// Where a GPU sends numbers from and takes as many others to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The driver's handle of the stream that orders all work on the numbers.
    pub stream: u64,
    /// Of the first number that is sent.
    pub from: u64,
    /// Of the place for the first one that comes.
    pub to: u64,
}

impl Bucket {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.numbers.elem_count()
    }

    /// Some of the numbers, as bytes, lowest first.
    ///
    /// Errors: the device's.
    pub fn bytes(&self, of: Range<usize>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; size_of::<f32>() * of.len()];
        if !of.is_empty() {
            let part = self.part(&of)?.to_device(&Device::Cpu)?;
            let numbers = view::<f32>(&part)?;
            let places = bytes.as_chunks_mut::<4>().0;
            places.iter_mut().zip(numbers.iter()).for_each(|(place, x)| *place = x.to_le_bytes());
        }
        Ok(bytes)
    }

    /// Takes such bytes for the numbers of a range, or adds them to these.
    ///
    /// Errors: the device's, and those of another count of numbers.
    pub fn take(&mut self, into: Range<usize>, bytes: &[u8], added: bool) -> Result<()> {
        if bytes.len() != size_of::<f32>() * into.len() {
            return Err(Error::internal("ranks add up different counts of numbers"));
        }
        if into.is_empty() {
            return Ok(());
        }
        let part = self.part(&into)?;
        let theirs = bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four));
        match (part.device(), added) {
            (Device::Cpu, true) => change::<f32>(&part, |part| part.iter_mut().zip(theirs).for_each(|(x, y)| *x += y)),
            (Device::Cpu, false) => change::<f32>(&part, |part| part.iter_mut().zip(theirs).for_each(|(x, y)| *x = y)),
            (device, added) => {
                let theirs = Tensor::from_vec(theirs.collect(), into.len(), device)?;
                let new = if added { (&part + theirs)? } else { theirs };
                Ok(self.numbers.slice_set(&new, 0, into.start)?)
            }
        }
    }

    /// On a GPU, the addresses of numbers to be sent and of a place for those that come, for a range of these; `None` on a
    /// CPU. When they are there, [`taken`](Bucket::taken) follows.
    ///
    /// Errors: the device's.
    pub fn addresses(&mut self, sent: &Range<usize>, taken: &Range<usize>, added: bool) -> Result<Option<Addresses>> {
        if self.numbers.device().is_cpu() {
            return Ok(None);
        }
        let (from, to) = (self.part(sent)?, self.place(taken, added)?);
        gpu::addresses(&from, &to).map(Some)
    }

    /// After numbers came to the place that was given for them: adds them to those of a range, where they are to be added.
    ///
    /// Errors: the device's.
    pub fn taken(&mut self, into: &Range<usize>, added: bool) -> Result<()> {
        if added && !into.is_empty() {
            let new = (self.part(into)? + self.place(into, added)?)?;
            self.numbers.slice_set(&new, 0, into.start)?;
        }
        Ok(())
    }

    /// The place for numbers of a range that come: their own, or one beside them.
    fn place(&mut self, taken: &Range<usize>, added: bool) -> Result<Tensor> {
        if !added {
            return self.part(taken);
        }
        let beside = match self.beside.take().filter(|beside| beside.elem_count() >= taken.len()) {
            Some(beside) => beside,
            None => Tensor::zeros(taken.len(), DType::F32, self.numbers.device())?,
        };
        let place = beside.narrow(0, 0, taken.len())?;
        self.beside = Some(beside);
        Ok(place)
    }

    fn part(&self, of: &Range<usize>) -> Result<Tensor> {
        Ok(self.numbers.narrow(0, of.start, of.len())?)
    }
}

impl Training {
    /// Lends the gradients to `work`, in the decoder's order and at most so many numbers at once, which may change them; up
    /// to its first error, which is given.
    ///
    /// Errors: the device's, and a decoder that computes in f64.
    pub fn each_bucket<E>(
        &mut self,
        most: usize,
        mut work: impl FnMut(&mut Bucket) -> std::result::Result<(), E>,
    ) -> Result<std::result::Result<(), E>> {
        let mut flat = Vec::new();
        for gradient in self.decoder.parameters().into_iter().filter_map(|parameter| parameter.gradient.as_ref()) {
            if gradient.dtype() != DType::F32 {
                return Err(Error::internal("gradients in f64 are lent to nobody"));
            }
            flat.push(gradient.flatten_all()?);
        }
        let counts: Vec<usize> = flat.iter().map(Tensor::elem_count).collect();
        let most = most.min(counts.iter().sum());
        let whole = Tensor::zeros(most, DType::F32, self.decoder.device())?;
        let mut beside = None;
        for pieces in filled(&counts, most) {
            let count = pieces.iter().map(|piece| piece.range.len()).sum();
            let mut bucket = Bucket { numbers: whole.narrow(0, 0, count)?, beside };
            for piece in &pieces {
                let numbers = flat[piece.of].narrow(0, piece.range.start, piece.range.len())?;
                bucket.numbers.slice_set(&numbers, 0, piece.at)?;
            }
            if let Err(error) = work(&mut bucket) {
                return Ok(Err(error));
            }
            for piece in &pieces {
                let numbers = bucket.numbers.narrow(0, piece.at, piece.range.len())?;
                flat[piece.of].slice_set(&numbers, 0, piece.range.start)?;
            }
            beside = bucket.beside;
        }
        Ok(Ok(()))
    }
}

/// A range of one of several tensors, and its place in a bucket.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    of: usize,
    range: Range<usize>,
    at: usize,
}

/// Tensors of so many numbers, cut into buckets of `most`; the last one may have less.
fn filled(counts: &[usize], most: usize) -> Vec<Vec<Piece>> {
    let (mut buckets, mut bucket, mut at) = (Vec::new(), Vec::new(), 0);
    for (of, count) in counts.iter().enumerate() {
        let mut start = 0;
        while start < *count {
            let end = (*count).min(start + most - at);
            bucket.push(Piece { of, range: start..end, at });
            (at, start) = (at + end - start, end);
            if at == most {
                buckets.push(std::mem::take(&mut bucket));
                at = 0;
            }
        }
    }
    if !bucket.is_empty() {
        buckets.push(bucket);
    }
    buckets
}

#[cfg(not(feature = "cuda"))]
mod gpu {
    use super::*;

    pub(super) fn addresses(_from: &Tensor, _to: &Tensor) -> Result<Addresses> {
        Err(Error::internal("numbers on a GPU in a build without GPU support"))
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    use super::*;
    use candle_core::Storage;
    use candle_core::cuda_backend::cudarc::driver::DevicePtr;

    /// The one stream of a device orders all work, so that addresses outlive the guards that give them.
    pub(super) fn addresses(from: &Tensor, to: &Tensor) -> Result<Addresses> {
        let stream = from.device().as_cuda_device()?.cuda_stream();
        let address = |tensor: &Tensor| -> Result<u64> {
            let (storage, layout) = tensor.storage_and_layout();
            let Storage::Cuda(storage) = &*storage else {
                return Err(Error::internal("numbers of one bucket on two devices"));
            };
            let start = storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0;
            Ok(start + (layout.start_offset() * size_of::<f32>()) as u64)
        };
        Ok(Addresses { stream: stream.cu_stream() as u64, from: address(from)?, to: address(to)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::gradient_tests::{config, gradients, numbers, training};
    use crate::{Decoder, Memory};
    use serde_json::json;

    fn begun() -> Training {
        let decoder = Decoder::init(config(json!({"model_type": "llama"})), 5, &Device::Cpu).unwrap();
        let mut training = training(decoder, Memory::Keep, 1000);
        gradients(&mut training, &[0, 1]);
        training
    }

    #[test]
    fn tensors_fill_buckets_in_their_order() {
        let piece = |of, range, at| Piece { of, range, at };
        let wanted = [vec![piece(0, 0..3, 0), piece(2, 0..1, 3)], vec![piece(2, 1..5, 0)], vec![piece(2, 5..6, 0)]];
        assert_eq!(filled(&[3, 0, 6], 4), wanted);
        assert_eq!(filled(&[2, 2], 4), [vec![piece(0, 0..2, 0), piece(1, 0..2, 2)]]);
        assert!(filled(&[], 4).is_empty());
    }

    #[test]
    fn numbers_that_came_to_their_place_are_added_or_stand_there() {
        let mut bucket = Bucket { numbers: Tensor::new(&[1f32, 2.0, 3.0, 4.0], &Device::Cpu).unwrap(), beside: None };
        for (into, numbers, added, wanted) in [
            (1..3, vec![10f32, 20.0], true, [1., 12., 23., 4.]),
            (3..4, vec![7.], false, [1., 12., 23., 7.]),
            (0..4, vec![1.; 4], true, [2., 13., 24., 8.]),
            (0..1, vec![1.], true, [3., 13., 24., 8.]),
            (2..2, vec![], true, [3., 13., 24., 8.]),
        ] {
            assert_eq!(bucket.addresses(&(0..1), &into, added).unwrap(), None, "there is no GPU");
            if !numbers.is_empty() {
                let came = Tensor::new(numbers, &Device::Cpu).unwrap();
                bucket.place(&into, added).unwrap().slice_set(&came, 0, 0).unwrap();
            }
            bucket.taken(&into, added).unwrap();
            assert_eq!(bucket.numbers.to_vec1::<f32>().unwrap(), wanted, "{into:?}");
        }
    }

    #[test]
    fn what_gradients_become_on_loan_is_what_steps_use() {
        let before: Vec<f64> = numbers(&begun()).into_iter().flat_map(|(_, numbers)| numbers).collect();
        for most in [7, 1000, usize::MAX] {
            let (mut training, mut lent) = (begun(), 0);
            let twice_and_one = |bucket: &mut Bucket| {
                lent += bucket.count();
                let (first, rest) = (0..1, 1..bucket.count());
                let bytes = bucket.bytes(rest.clone()).unwrap();
                bucket.take(rest, &bytes, true).unwrap();
                bucket.take(first, &1f32.to_le_bytes(), false).unwrap();
                assert!(bucket.take(0..1, &[0; 3], true).is_err());
                Ok::<_, Error>(())
            };
            training.each_bucket(most, twice_and_one).unwrap().unwrap();
            assert_eq!(lent, before.len());
            let after = numbers(&training).into_iter().flat_map(|(_, numbers)| numbers);
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                assert_eq!(after, if i % most == 0 { 1.0 } else { 2.0 * before }, "{i} of {most}");
            }
            assert_eq!(training.each_bucket(most, |_| Err("no")).unwrap(), Err("no"));
        }
    }
}
