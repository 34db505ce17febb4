//! Frozen matrices in few bits, which become numbers each time that they are used.

use crate::model::ggml::Ggml;
use crate::model::nf4::Nf4;
use crate::ops::{change, view};
use crate::{Bits, DType, Device, Error, Result};
use candle_core::Tensor;
use std::sync::{Arc, Mutex, PoisonError};

// N outputs, K inputs.

/// A tensor as a model's files or a choice of bits give it.
#[derive(Debug)]
pub(crate) enum Held {
    Numbers(Tensor),
    Ggml(Ggml),
    Nf4(Nf4),
}

impl Held {
    /// A matrix put into few bits.
    pub fn in_bits(matrix: &Tensor, bits: Bits, device: &Device) -> Result<Held> {
        Ok(match bits {
            Bits::Four => Held::Nf4(Nf4::of(matrix, device)?),
            Bits::Eight => Held::Ggml(Ggml::of_eight_bits(matrix, device)?),
        })
    }

    /// The tensor, where it is not in few bits.
    pub fn whole(self) -> Result<Tensor> {
        match self {
            Held::Numbers(tensor) => Ok(tensor),
            _ => Err(Error::internal("numbers are wanted and a matrix in few bits is there")),
        }
    }

    /// Its sizes.
    pub fn dims(&self) -> Vec<usize> {
        let of = |(rows, columns)| vec![rows, columns];
        match self {
            Held::Numbers(tensor) => tensor.dims().to_vec(),
            Held::Ggml(blocks) => of(blocks.shape()),
            Held::Nf4(blocks) => of(blocks.shape()),
        }
    }

    fn write(&self, into: &mut [f32]) -> Result<()> {
        match self {
            Held::Numbers(tensor) => {
                let wide = tensor.to_dtype(DType::F32)?.contiguous()?;
                into.copy_from_slice(&view::<f32>(&wide)?);
                Ok(())
            }
            Held::Ggml(blocks) => blocks.write(into),
            Held::Nf4(blocks) => blocks.write(into),
        }
    }

    fn numbers(&self, device: &Device) -> Result<Tensor> {
        match self {
            Held::Numbers(tensor) => Ok(tensor.to_dtype(DType::F32)?.to_device(device)?),
            Held::Ggml(blocks) => blocks.numbers(device),
            Held::Nf4(blocks) => blocks.numbers(),
        }
    }
}

/// Room for the numbers of one matrix at a time, shared by all matrices of a decoder.
pub(crate) type Scratch = Arc<Mutex<Option<Tensor>>>;

/// A frozen matrix [N, K], of one or more that are always used together, their rows one after the other.
#[derive(Debug, Clone)]
pub(crate) struct FewBits {
    /// The tensors of model files that it consists of, with their rows, from the top.
    pub parts: Vec<(String, usize)>,
    held: Arc<Vec<Held>>,
    inputs: usize,
    /// The dtype of its numbers, and their device.
    pub dtype: DType,
    device: Device,
    scratch: Scratch,
}

impl FewBits {
    /// A matrix of tensors with the names that model files have for them.
    ///
    /// Errors: tensors that are no matrices of one width.
    pub fn new(names: &[String], held: Vec<Held>, dtype: DType, device: &Device, scratch: &Scratch) -> Result<FewBits> {
        let mut parts = Vec::new();
        let mut inputs = None;
        for (name, held) in names.iter().zip(&held) {
            match held.dims()[..] {
                [rows, columns] if inputs.is_none_or(|inputs| inputs == columns) => {
                    inputs = Some(columns);
                    parts.push((name.clone(), rows));
                }
                ref other => return Err(Error::internal(format!("{name} is {other:?}, which stands beside others"))),
            }
        }
        let (inputs, device) = (inputs.unwrap_or(0), device.clone());
        Ok(FewBits { parts, held: Arc::new(held), inputs, dtype, device, scratch: scratch.clone() })
    }

    /// N and K.
    pub fn shape(&self) -> (usize, usize) {
        (self.parts.iter().map(|(_, rows)| rows).sum(), self.inputs)
    }

    /// Works with the numbers [N, K]. On a CPU in f32 they stand in the room that all matrices share, for as long as the
    /// work takes: it must keep nothing of them.
    pub fn with<T>(&self, work: impl FnOnce(&Tensor) -> Result<T>) -> Result<T> {
        if !self.device.is_cpu() || self.dtype != DType::F32 {
            return work(&self.numbers()?);
        }
        let (rows, inputs) = self.shape();
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if scratch.as_ref().is_none_or(|room| room.elem_count() < rows * inputs) {
            // The smaller room goes first.
            *scratch = None;
            *scratch = Some(Tensor::zeros(rows * inputs, DType::F32, &Device::Cpu)?);
        }
        let room = scratch.as_ref().ok_or_else(|| Error::internal("room was made"))?.narrow(0, 0, rows * inputs)?;
        let mut written = Ok(());
        change::<f32>(&room, |mut room| {
            for held in self.held.iter() {
                let (own, rest) = room.split_at_mut(held.dims().iter().product());
                written = std::mem::replace(&mut written, Ok(())).and_then(|()| held.write(own));
                room = rest;
            }
        })?;
        written?;
        work(&room.reshape((rows, inputs))?)
    }

    /// The numbers [N, K], in its dtype on its device.
    pub fn numbers(&self) -> Result<Tensor> {
        let parts = self.held.iter().map(|held| held.numbers(&self.device)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 0)?.to_dtype(self.dtype)?)
    }
}
