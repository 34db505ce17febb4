//! A tensor on its way into a safetensors file.

use crate::{DType, Device, Error, Result};
use candle_core::{Tensor, WithDType};
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;
use std::cell::RefCell;
use std::path::Path;

/// A tensor that becomes bytes when it is written.
pub(crate) struct Written<'e> {
    tensor: Tensor,
    dtype: Dtype,
    /// The error of one that could not be read, for the library takes bytes alone.
    unread: &'e RefCell<Option<Error>>,
}

impl Written<'_> {
    /// Errors: a dtype that weights never have.
    pub(crate) fn new(tensor: Tensor, unread: &RefCell<Option<Error>>) -> Result<Written<'_>> {
        let dtype = match tensor.dtype() {
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
            DType::I64 => Dtype::I64,
            other => return Err(Error::internal(format!("weights of dtype {other:?} are not written"))),
        };
        Ok(Written { tensor, dtype, unread })
    }

    /// Little-endian.
    fn bytes(&self) -> Result<Vec<u8>> {
        let flat = self.tensor.to_device(&Device::Cpu)?.flatten_all()?;
        match self.tensor.dtype() {
            DType::F64 => bytes_of(&flat, f64::to_le_bytes),
            DType::BF16 => bytes_of(&flat, half::bf16::to_le_bytes),
            DType::F16 => bytes_of(&flat, half::f16::to_le_bytes),
            DType::I64 => bytes_of(&flat, i64::to_le_bytes),
            _ => bytes_of(&flat, f32::to_le_bytes),
        }
    }
}

fn bytes_of<T: WithDType, const N: usize>(flat: &Tensor, bytes: impl Fn(T) -> [u8; N]) -> Result<Vec<u8>> {
    let numbers = flat.to_vec1::<T>()?;
    let mut all = Vec::with_capacity(numbers.len() * N);
    numbers.into_iter().for_each(|number| all.extend_from_slice(&bytes(number)));
    Ok(all)
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.tensor.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.bytes().unwrap_or_else(|error| {
            *self.unread.borrow_mut() = Some(error);
            vec![0; self.data_len()]
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.elem_count() * self.tensor.dtype().size_in_bytes()
    }
}

/// Tensors in the dtype that they are saved in. A number that is finite stays so.
pub(crate) fn rounded<'a>(path: &Path, tensors: &[(&'a str, Tensor)], dtype: DType) -> Result<Vec<(&'a str, Tensor)>> {
    let round = |(name, tensor): &(&'a str, Tensor)| -> Result<(&'a str, Tensor)> {
        let saved = tensor.to_dtype(dtype)?;
        let largest = saved.to_dtype(DType::F32)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        if !largest.is_finite() {
            let text = format!("tensor {name} has numbers beyond what {dtype:?} holds; save in f32");
            return Err(Error::file(path, text));
        }
        Ok((name, saved))
    };
    tensors.iter().map(round).collect()
}
