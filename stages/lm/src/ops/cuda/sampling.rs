//! The choice of next tokens where the logits are.

use super::{Launch, upload};
use crate::{DType, Result};
use candle_core::Tensor;

const THREADS: u32 = 256;

/// A token for each of some rows of logits [n, V] in f32, with its ln p at temperature 1: the likeliest at temperature
/// 0, else the one at which the sum of the weights passes the share `uniform` of their total. The ln p of a row that is
/// not finite is not finite. Above temperature 0, tokens that `top_k` and `top_p` do not leave have no weight.
pub(crate) fn choose(
    logits: &Tensor,
    rows: &[u32],
    uniform: Vec<f64>,
    temperature: f64,
    (top_k, top_p): (Option<usize>, Option<f64>),
) -> Result<Vec<(u32, f64)>> {
    let device = logits.device();
    let result = super::fresh((rows.len(), 2), DType::F64, device)?;
    Launch::new("sampling", "choose", device)
        .of(DType::F32, logits)?
        .of(DType::U32, &upload(rows, device)?)?
        .of(DType::F64, &Tensor::from_vec(uniform, rows.len(), device)?)?
        .of(DType::F64, &result)?
        .count(logits.dim(1)?)?
        .f64(temperature)
        .count(top_k.unwrap_or(0))?
        .f64(top_p.unwrap_or(1.0))
        .run((rows.len(), 1), THREADS, 0)?;
    Ok(result.to_vec2::<f64>()?.into_iter().map(|pair| (pair[0] as u32, pair[1])).collect())
}
