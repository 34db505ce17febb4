//! NF4: blocks of codes of four bits, each block with a scale (arXiv 2305.14314), as bitsandbytes has them.

use crate::ops::{change, view};
use crate::{DType, Device, Error, Result};
use candle_core::{CpuStorage, Storage, Tensor};
use rayon::prelude::*;
use serde::Deserialize;

// n numbers of a matrix, row by row; B numbers of a block.

/// Numbers of a block where weights are put into few bits at load, as in bitsandbytes.
const BLOCK: usize = 64;

/// The numbers that codes stand for: quantiles of a normal distribution, within -1 and 1.
const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The upper ends of the stretches that become a code, but for the last one.
const ENDS: [f32; 15] = [
    -0.848_096_4,
    -0.610_632_9,
    -0.459_995_27,
    -0.339_679_43,
    -0.234_607_41,
    -0.137_911_73,
    -0.045_525_018,
    0.039_790_15,
    0.120_255_25,
    0.203_521_25,
    0.292_013_77,
    0.389_312_54,
    0.501_663_4,
    0.642_786_9,
    0.861_478_4,
];

/// A matrix of such blocks. The last one may have fewer numbers than the others.
#[derive(Debug, Clone)]
pub(crate) struct Nf4 {
    shape: (usize, usize),
    /// Two a byte, the first one in the upper half; u8 [blocks B / 2].
    codes: Tensor,
    /// The largest magnitude of each block; f32 [blocks].
    scales: Tensor,
    block: usize,
    /// The numbers of both codes of a byte, for each byte.
    pairs: Vec<[f32; 2]>,
    /// The dtype that numbers are rounded to: of the weights that they were made from.
    rounded: DType,
}

/// The state that bitsandbytes writes beside codes.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f64>,
}

/// The tensors of a matrix in a file of bitsandbytes, as they are stored.
pub(crate) struct Stored {
    pub codes: Tensor,
    pub scales: Tensor,
    pub levels: Tensor,
    /// The scales and the levels of the scales, where these are in few bits too.
    pub nested: Option<(Tensor, Tensor)>,
}

fn pairs(levels: &[f32; 16]) -> Vec<[f32; 2]> {
    (0..256).map(|byte| [levels[byte >> 4], levels[byte & 15]]).collect()
}

impl Nf4 {
    /// Puts a matrix [N, K] into four bits. Each number becomes the nearest level times the largest magnitude of its
    /// block.
    ///
    /// Errors: a number that is not finite.
    pub fn of(matrix: &Tensor, device: &Device) -> Result<Nf4> {
        let (shape, wide) = (matrix.dims2()?, matrix.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()?);
        let numbers = view::<f32>(&wide)?;
        let blocks = numbers.len().div_ceil(BLOCK);
        let (mut codes, mut scales) = (vec![0u8; blocks * BLOCK / 2], vec![0f32; blocks]);
        let targets = codes.par_chunks_mut(BLOCK / 2).zip(&mut scales);
        targets.zip(numbers.par_chunks(BLOCK)).for_each(|((codes, scale), numbers)| {
            // NaN is found below, in the numbers themselves.
            *scale = numbers.iter().fold(0.0, |largest, number| number.abs().max(largest));
            let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
            for (code, pair) in codes.iter_mut().zip(numbers.chunks(2)) {
                let level = |at: usize| code_of(pair.get(at).map_or(0.0, |number| number * inverse));
                *code = level(0) << 4 | level(1);
            }
        });
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(Error::input("numbers that are not finite cannot be put into few bits"));
        }
        let bytes = codes.len();
        Ok(Nf4 {
            shape,
            codes: Tensor::from_vec(codes, bytes, device)?,
            scales: Tensor::from_vec(scales, blocks, device)?,
            block: BLOCK,
            pairs: pairs(&LEVELS),
            rounded: DType::F32,
        })
    }

    /// A matrix of bitsandbytes' file.
    ///
    /// Errors say what in it has no place here.
    pub fn read(state: &[u8], stored: &Stored, device: &Device) -> Result<Nf4> {
        let wrong = |what: String| Error::input(format!("its quant_state {what}"));
        let state: State = serde_json::from_slice(state).map_err(|error| wrong(format!("is no JSON: {error}")))?;
        let State { quant_type, blocksize: block, dtype, shape, .. } = &state;
        if quant_type != "nf4" {
            return Err(wrong(format!("has `quant_type` {quant_type:?}; wanted \"nf4\"")));
        }
        let block = *block;
        if block < 2 || !block.is_multiple_of(2) || block > 1 << 16 {
            return Err(wrong(format!("has `blocksize` {block}; wanted an even number up to 65536")));
        }
        let &[rows, inputs] = &shape[..] else {
            return Err(wrong(format!("has `shape` {shape:?}; wanted two sizes")));
        };
        let rounded = match dtype.as_str() {
            "float32" => DType::F32,
            "bfloat16" => DType::BF16,
            "float16" => DType::F16,
            other => return Err(wrong(format!("has `dtype` {other:?}; wanted float32, bfloat16 or float16"))),
        };
        let n = rows.checked_mul(inputs).ok_or_else(|| wrong(format!("has `shape` {shape:?}, beyond any matrix")))?;
        let blocks = n.div_ceil(block);
        let count = |what: &str, tensor: &Tensor, dtype: DType, wanted: usize| match tensor.dtype() == dtype {
            true if tensor.elem_count() == wanted => Ok(()),
            _ => {
                let got = (tensor.dtype().as_str(), tensor.elem_count());
                let text = format!(
                    "wants {wanted} numbers of {} in `{what}`; there are {} of {}",
                    dtype.as_str(),
                    got.1,
                    got.0
                );
                Err(wrong(text))
            }
        };
        count("weight", &stored.codes, DType::U8, n.div_ceil(2))?;
        count("quant_map", &stored.levels, DType::F32, 16)?;
        let scales = match &stored.nested {
            None => {
                count("absmax", &stored.scales, DType::F32, blocks)?;
                stored.scales.flatten_all()?
            }
            Some((nested, levels)) => {
                let (Some(outer), Some(offset)) =
                    (state.nested_blocksize.filter(|size| *size > 0), state.nested_offset)
                else {
                    return Err(wrong("has no `nested_blocksize` and `nested_offset`".to_owned()));
                };
                count("absmax", &stored.scales, DType::U8, blocks)?;
                count("nested_quant_map", levels, DType::F32, 256)?;
                count("nested_absmax", nested, DType::F32, blocks.div_ceil(outer))?;
                let (codes, levels) = (stored.scales.flatten_all()?.to_vec1::<u8>()?, levels.to_vec1::<f32>()?);
                let nested = nested.flatten_all()?.to_vec1::<f32>()?;
                let scale = |(at, code): (usize, &u8)| levels[usize::from(*code)] * nested[at / outer] + offset as f32;
                Tensor::from_vec(codes.iter().enumerate().map(scale).collect::<Vec<f32>>(), blocks, &Device::Cpu)?
            }
        };
        let mut codes = stored.codes.flatten_all()?.to_vec1::<u8>()?;
        codes.resize(blocks * block / 2, 0);
        let bytes = codes.len();
        let levels = stored.levels.to_vec1::<f32>()?;
        let levels = levels.try_into().map_err(|_| Error::internal("16 levels were counted"))?;
        Ok(Nf4 {
            shape: (rows, inputs),
            codes: Tensor::from_vec(codes, bytes, device)?,
            scales: scales.to_device(device)?,
            block,
            pairs: pairs(&levels),
            rounded,
        })
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Writes the numbers, row by row. The matrix lies on the CPU.
    pub fn write(&self, into: &mut [f32]) -> Result<()> {
        let (storage, _) = self.codes.storage_and_layout();
        let Storage::Cpu(CpuStorage::U8(codes)) = &*storage else {
            return Err(Error::internal("codes of another device are not written here"));
        };
        let scales = view::<f32>(&self.scales)?;
        let (block, rounded) = (self.block, self.rounded);
        // Some blocks at once: one is too little work for a task.
        const AT_ONCE: usize = 256;
        let tasks = into.par_chunks_mut(block * AT_ONCE).zip(codes.par_chunks(block / 2 * AT_ONCE));
        tasks.zip(scales.par_chunks(AT_ONCE)).for_each(|((into, codes), scales)| {
            for ((into, codes), &scale) in into.chunks_mut(block).zip(codes.chunks(block / 2)).zip(scales) {
                for (pair, &byte) in into.chunks_mut(2).zip(codes) {
                    for (number, level) in pair.iter_mut().zip(self.pairs[usize::from(byte)]) {
                        *number = level * scale;
                    }
                }
            }
            match rounded {
                DType::BF16 => into.iter_mut().for_each(|number| *number = half::bf16::from_f32(*number).to_f32()),
                DType::F16 => into.iter_mut().for_each(|number| *number = half::f16::from_f32(*number).to_f32()),
                _ => (),
            }
        });
        Ok(())
    }

    /// The numbers [N, K] in f32, where the matrix lies. By tensor operations, for devices that are no CPU.
    pub fn by_operations(&self) -> Result<Tensor> {
        let (device, blocks) = (self.codes.device(), self.scales.elem_count());
        let pairs: Vec<f32> = self.pairs.iter().flatten().copied().collect();
        let pairs = Tensor::from_vec(pairs, (256, 2), device)?;
        // As u32: candle takes the largest number of a type for no index, and gives zeros for it.
        let codes = self.codes.to_dtype(DType::U32)?;
        let numbers = pairs.index_select(&codes, 0)?.reshape((blocks, self.block))?;
        let numbers = numbers.broadcast_mul(&self.scales.reshape((blocks, 1))?)?;
        let numbers = numbers.flatten_all()?.narrow(0, 0, self.shape.0 * self.shape.1)?.reshape(self.shape)?;
        Ok(numbers.to_dtype(self.rounded)?.to_dtype(DType::F32)?)
    }

    /// The numbers [N, K] in f32, where the matrix lies.
    pub fn numbers(&self) -> Result<Tensor> {
        if !self.codes.device().is_cpu() {
            return self.by_operations();
        }
        let numbers = Tensor::zeros(self.shape, DType::F32, &Device::Cpu)?;
        let mut written = Ok(());
        change::<f32>(&numbers, |numbers| written = self.write(numbers))?;
        written.map(|()| numbers)
    }
}

/// The code of a number within -1 and 1.
fn code_of(number: f32) -> u8 {
    ENDS.iter().map(|&end| u8::from(number > end)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::test_device;

    #[test]
    fn levels_are_kept_and_others_go_to_the_nearest() {
        for (code, level) in LEVELS.into_iter().enumerate() {
            assert_eq!(usize::from(code_of(level)), code);
        }
        for step in -1000..=1000 {
            let number = step as f32 / 1000.0;
            let off = |level: f32| (level - number).abs();
            let nearest = LEVELS.into_iter().map(off).fold(f32::INFINITY, f32::min);
            assert!(off(LEVELS[usize::from(code_of(number))]) <= nearest + 1e-6, "{number}");
        }
    }

    /// Whole blocks and a last one with fewer numbers, an odd number of them, zeros alone.
    #[test]
    fn both_forms_give_the_same_numbers() {
        for (rows, columns) in [(4, 64), (3, 50), (5, 5), (1, 1)] {
            let mut wide: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.7).sin() * (i % 7) as f32).collect();
            // Two of the highest level, whose byte is 255.
            wide.iter_mut().take(2).for_each(|number| *number = 6.0);
            let matrix = Tensor::from_vec(wide.clone(), (rows, columns), &Device::Cpu).unwrap();
            let mut few = Nf4::of(&matrix, &Device::Cpu).unwrap();
            for rounded in [DType::F32, DType::BF16, DType::F16] {
                few.rounded = rounded;
                let numbers = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let got = numbers(few.numbers().unwrap());
                assert_eq!(got, numbers(few.by_operations().unwrap()));
                if let Some(device) = test_device() {
                    let mut there = Nf4::of(&matrix, device).unwrap();
                    there.rounded = rounded;
                    assert_eq!(got, numbers(there.numbers().unwrap()), "on the device");
                }
                let largest = wide.iter().fold(0f32, |most, number| most.max(number.abs()));
                // Half of the widest gap between levels is 0.152.
                assert!(got.iter().zip(&wide).all(|(got, wide)| (got - wide).abs() <= 0.16 * largest));
            }
        }
        let zeros = Tensor::zeros((2, 40), DType::F32, &Device::Cpu).unwrap();
        let few = Nf4::of(&zeros, &Device::Cpu).unwrap().numbers().unwrap();
        assert!(few.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|number| *number == 0.0));
        let broken = Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu).unwrap();
        assert!(Nf4::of(&broken, &Device::Cpu).unwrap_err().to_string().contains("not finite"));
    }

    #[test]
    fn plain_scales_are_read_as_they_are() {
        let wide: Vec<f32> = (0..3 * 50).map(|i| (i as f32 * 0.7).sin()).collect();
        let made = Nf4::of(&Tensor::from_vec(wide, (3, 50), &Device::Cpu).unwrap(), &Device::Cpu).unwrap();
        let state = |dtype: &str| {
            format!(r#"{{"quant_type": "nf4", "blocksize": 64, "dtype": "{dtype}", "shape": [3, 50]}}"#).into_bytes()
        };
        let stored = Stored {
            codes: made.codes.narrow(0, 0, 75).unwrap(),
            scales: made.scales.clone(),
            levels: Tensor::new(&LEVELS, &Device::Cpu).unwrap(),
            nested: None,
        };
        let read = Nf4::read(&state("float32"), &stored, &Device::Cpu).unwrap();
        let numbers = |matrix: &Nf4| matrix.numbers().unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(numbers(&read), numbers(&made));
        let refused = |state: &[u8]| Nf4::read(state, &stored, &Device::Cpu).unwrap_err().to_string();
        assert!(refused(b"{}").contains("its quant_state is no JSON"));
        assert!(refused(&state("int8")).contains("has `dtype` \"int8\"; wanted float32, bfloat16 or float16"));
        let text = String::from_utf8(state("float32")).unwrap();
        assert!(refused(text.replace("nf4", "fp4").as_bytes()).contains("has `quant_type` \"fp4\""));
        assert!(refused(text.replace("64", "63").as_bytes()).contains("has `blocksize` 63"));
        assert!(refused(text.replace("[3, 50]", "[3, 52]").as_bytes()).contains("wants 78 numbers of u8 in `weight`"));
        assert!(refused(text.replace("[3, 50]", "[150]").as_bytes()).contains("has `shape` [150]"));
    }
}
