//! Matrices in the blocks of llama.cpp's files.

use crate::ops::view;
use crate::{Bits, DType, Device, Error, Result};
use candle_core::Tensor;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use rayon::prelude::*;
use std::borrow::Cow;

/// Numbers of a tile on a CPU, at least one row: what one task turns into numbers.
const TILE: usize = 1 << 16;

/// A matrix [N, K], held in tiles of whole rows, so that many tasks turn it into numbers. On other devices one tile holds
/// all of it.
pub(crate) struct Ggml {
    shape: (usize, usize),
    tiles: Vec<QTensor>,
}

impl std::fmt::Debug for Ggml {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ggml").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Ggml {
    /// A matrix of a file, with its rows in another order where one is given: for each row its place in the file.
    pub fn of(stored: &QTensor, order: Option<&[usize]>, device: &Device) -> Result<Ggml> {
        let (shape, dtype, bytes) = (stored.shape().dims2()?, stored.dtype(), stored.data()?);
        let row = bytes.len() / shape.0.max(1);
        let bytes = match order {
            None => bytes,
            Some(order) => Cow::Owned(order.iter().flat_map(|&at| &bytes[at * row..][..row]).copied().collect()),
        };
        let rows = rows_of_tile(shape, device);
        let tile = |bytes: &[u8]| -> Result<QTensor> {
            let storage = QStorage::from_data(Cow::Owned(bytes.to_vec()), device, dtype)?;
            Ok(QTensor::new(storage, (bytes.len() / row.max(1), shape.1))?)
        };
        Ok(Ggml { shape, tiles: bytes.chunks((rows * row).max(1)).map(tile).collect::<Result<_>>()? })
    }

    /// Puts a matrix [N, K] into blocks of eight bits (Q8_0): 32 numbers with a scale.
    ///
    /// Errors: rows that are no whole blocks, a number that is not finite.
    pub fn of_eight_bits(matrix: &Tensor, device: &Device) -> Result<Ggml> {
        let (shape, wide) = (matrix.dims2()?, matrix.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()?);
        let block = Bits::BLOCK;
        if !shape.1.is_multiple_of(block) {
            let text = format!("rows of {} numbers: eight bits want a multiple of {block}; take 4 bits", shape.1);
            return Err(Error::input(text));
        }
        if !view::<f32>(&wide)?.iter().all(|number| number.is_finite()) {
            return Err(Error::input("numbers that are not finite cannot be put into few bits"));
        }
        let rows = rows_of_tile(shape, device);
        let tile = |start: usize| -> Result<QTensor> {
            // Of a part of a tensor, candle 0.11 would take the first numbers of the whole.
            let part = view::<f32>(&wide.narrow(0, start, rows.min(shape.0 - start))?)?.to_vec();
            let part = Tensor::from_vec(part, (rows.min(shape.0 - start), shape.1), &Device::Cpu)?;
            Ok(QTensor::quantize_onto(&part, GgmlDType::Q8_0, device)?)
        };
        let starts: Vec<usize> = (0..shape.0).step_by(rows).collect();
        Ok(Ggml { shape, tiles: starts.into_par_iter().map(tile).collect::<Result<_>>()? })
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Writes the numbers, row by row. The matrix lies on the CPU.
    pub fn write(&self, into: &mut [f32]) -> Result<()> {
        let rows = rows_of_tile(self.shape, &Device::Cpu);
        let parts = into.par_chunks_mut((rows * self.shape.1).max(1));
        parts.zip(&self.tiles).try_for_each(|(into, tile)| {
            into.copy_from_slice(&view::<f32>(&tile.dequantize(&Device::Cpu)?)?);
            Ok(())
        })
    }

    /// The numbers [N, K] in f32, where the matrix lies; on a GPU by candle's kernels.
    pub fn numbers(&self, device: &Device) -> Result<Tensor> {
        let tiles = self.tiles.iter().map(|tile| tile.dequantize(device)).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&tiles, 0)?)
    }
}

fn rows_of_tile(shape: (usize, usize), device: &Device) -> usize {
    if device.is_cpu() { (TILE / shape.1.max(1)).max(1) } else { shape.0.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn bytes_of(hex: &Value) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// The bytes and numbers of fixtures/make_few_bits.py.
    #[test]
    fn blocks_of_every_type_are_the_numbers_of_gguf_to_the_bit() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/few-bits/blocks.json");
        let made: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for (name, dtype) in [
            ("Q4_0", GgmlDType::Q4_0),
            ("Q4_1", GgmlDType::Q4_1),
            ("Q5_0", GgmlDType::Q5_0),
            ("Q5_1", GgmlDType::Q5_1),
            ("Q8_0", GgmlDType::Q8_0),
            ("Q2_K", GgmlDType::Q2K),
            ("Q3_K", GgmlDType::Q3K),
            ("Q4_K", GgmlDType::Q4K),
            ("Q5_K", GgmlDType::Q5K),
            ("Q6_K", GgmlDType::Q6K),
            ("F16", GgmlDType::F16),
            ("BF16", GgmlDType::BF16),
        ] {
            let bytes = bytes_of(&made[name]["bytes"]);
            let numbers = bytes_of(&made[name]["numbers"]);
            let wanted: Vec<f32> =
                numbers.chunks(4).map(|number| f32::from_le_bytes(number.try_into().unwrap())).collect();
            // Two rows, as they are and exchanged.
            let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, dtype).unwrap();
            let stored = QTensor::new(storage, (2, wanted.len() / 2)).unwrap();
            for order in [[0, 1], [1, 0]] {
                let matrix = Ggml::of(&stored, Some(&order), &Device::Cpu).unwrap();
                let rows: Vec<f32> = order
                    .iter()
                    .flat_map(|&row| &wanted[row * wanted.len() / 2..][..wanted.len() / 2])
                    .copied()
                    .collect();
                let mut got = vec![0.0; wanted.len()];
                matrix.write(&mut got).unwrap();
                assert_eq!(got, rows, "{name}");
                let numbers = matrix.numbers(&Device::Cpu).unwrap().flatten_all().unwrap();
                assert_eq!(numbers.to_vec1::<f32>().unwrap(), rows, "{name}");
            }
        }
    }

    #[test]
    fn many_tiles_are_one_matrix() {
        let wide: Vec<f32> = (0..5 * 32_768).map(|i| (i as f32 * 0.37).sin()).collect();
        let wide = Tensor::from_vec(wide, (5, 32_768), &Device::Cpu).unwrap();
        let matrix = Ggml::of_eight_bits(&wide, &Device::Cpu).unwrap();
        assert_eq!((matrix.tiles.len(), matrix.shape()), (3, (5, 32_768)));
        let whole = QTensor::quantize(&wide, GgmlDType::Q8_0).unwrap().dequantize(&Device::Cpu).unwrap();
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut written = vec![0.0; 5 * 32_768];
        matrix.write(&mut written).unwrap();
        assert!(written == numbers(&whole));
        assert!(numbers(&matrix.numbers(&Device::Cpu).unwrap()) == written);
    }
}
