//! Masks of dropout. See `ops::dropout` for what is computed.

use super::{Launch, fresh, upload};
use crate::ops::mask::Mask;
use crate::{DType, Result};
use candle_core::Tensor;

const THREADS: u32 = 128;

pub(crate) fn apply(x: &Tensor, mask: &Mask) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let y = fresh((rows, width), x.dtype(), x.device())?;
    // The halves of the keys, low ones first.
    let keys: Vec<u32> = mask.rows.iter().flat_map(|&key| [key as u32, (key >> 32) as u32]).collect();
    Launch::like("dropout", "dropout", x)
        .tensor(x)?
        .of(DType::U32, &upload(&keys, x.device())?)?
        .tensor(&y)?
        .count(width)?
        .count(mask.place as u32 as usize)?
        .count((mask.place >> 32) as usize)?
        .count(mask.threshold() as usize)?
        .f32(mask.scale())
        .run((rows, 1), THREADS, 0)?;
    Ok(y)
}
