//! The LM head: logits in f32 by chunks of rows. See `ops::head` for what is computed.

use super::{Launch, Operand, fresh, multiply, upload};
use crate::ops::gpu_memory::{MOST_LOGITS, rows_within};
use crate::ops::targets::{HeadScores, Target};
use crate::{DType, Device, Result};
use candle_core::Tensor;

const THREADS: u32 = 256;

// R scored rows, H width, V vocabulary, C rows of a chunk.

/// Rows per chunk. The logits of a chunk take a sixteenth of the device's memory at most: few chunks are few passes over
/// the gradient of the table.
pub(crate) fn chunk_rows(vocab: usize, device: &Device) -> usize {
    rows_within(super::total_memory(device).map_or(256 << 20, |all| (all / 16).min(MOST_LOGITS)), vocab)
}

/// Start of each row's targets, with an end behind the last: [R + 1]; and their tokens.
fn by_row(targets: &[Target], rows: usize, device: &Device) -> Result<(Tensor, Tensor)> {
    let starts: Vec<u32> = (0..=rows).map(|row| targets.partition_point(|t| t.row < row) as u32).collect();
    let mut tokens: Vec<u32> = targets.iter().map(|t| t.token).collect();
    // A tensor of nothing has no address.
    tokens.push(0);
    Ok((upload(&starts, device)?, upload(&tokens, device)?))
}

/// The logits of rows `first` .. `first + count`.
fn logits_of(h: &Tensor, weight: &Tensor, first: usize, count: usize, logits: &Tensor) -> Result<()> {
    let (vocab, width) = weight.dims2()?;
    let states = Operand::new(h)?.rows_from(first);
    multiply(states, Operand::new(weight)?.t(), Operand::new(logits)?, count, width, vocab, false)
}

/// The logits of all rows in f32, in `room` where that is given.
pub(crate) fn logits(h: &Tensor, weight: &Tensor, room: Option<&Tensor>) -> Result<Tensor> {
    let (rows, vocab) = (h.dim(0)?, weight.dim(0)?);
    let logits = room.map_or_else(|| fresh((rows, vocab), DType::F32, h.device()), |room| Ok(room.clone()))?;
    logits_of(h, weight, 0, rows, &logits)?;
    Ok(logits)
}

/// Log-sum-exps of rows, then ln p of targets, on the device.
pub(crate) struct Scores {
    numbers: Tensor,
    rows: usize,
}

impl Scores {
    /// Copies them to the host once they are there.
    pub fn wait(self) -> Result<HeadScores> {
        let mut lse = self.numbers.to_vec1()?;
        let logps = lse.split_off(self.rows);
        Ok(HeadScores { logps, lse })
    }
}

/// The scores of targets; where `kept` is given, it gets the probabilities of all rows, chunk by chunk, in the dtype of
/// the states.
pub(crate) fn begin(
    h: &Tensor,
    weight: &Tensor,
    targets: &[Target],
    cap: Option<f64>,
    mut kept: Option<&mut Vec<Tensor>>,
) -> Result<Scores> {
    let (rows, vocab, device) = (h.dim(0)?, weight.dim(0)?, h.device());
    let chunk = chunk_rows(vocab, device);
    let (starts, tokens) = by_row(targets, rows, device)?;
    // Log-sum-exps, then log-probabilities: one copy to the host at the end.
    let scores = fresh(rows + targets.len() + 1, DType::F64, device)?;
    let logits = fresh((chunk.min(rows), vocab), DType::F32, device)?;
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        logits_of(h, weight, first, count, &logits)?;
        let lse = scores.narrow(0, first, count)?;
        Launch::new("head", "head_scores", device)
            .of(DType::F32, &logits)?
            .of(DType::U32, &starts.narrow(0, first, count + 1)?)?
            .of(DType::U32, &tokens)?
            .of(DType::F64, &lse)?
            .of(DType::F64, &scores.narrow(0, rows, targets.len() + 1)?)?
            .count(vocab)?
            .f32(cap.unwrap_or(0.0))
            .run((count, 1), THREADS, 0)?;
        if let Some(kept) = &mut kept {
            let shares = fresh((count, vocab), h.dtype(), device)?;
            Launch::like("head", "head_shares", &shares)
                .of(DType::F32, &logits)?
                .of(DType::F64, &lse)?
                .tensor(&shares)?
                .count(vocab)?
                .run((count, 1), THREADS, 0)?;
            kept.push(shares);
        }
    }
    Ok(Scores { numbers: scores.narrow(0, 0, rows + targets.len())?, rows })
}

/// `kept` is what the forward kept, or nothing.
pub(crate) fn backward(
    h: &Tensor,
    weight: &Tensor,
    targets: &[Target],
    (lse, kept): (&[f64], Vec<Tensor>),
    g: &[f64],
    weight_gradient: Option<&Tensor>,
    cap: Option<f64>,
) -> Result<Tensor> {
    let ((rows, width), vocab, device) = (h.dims2()?, weight.dim(0)?, h.device());
    let chunk = chunk_rows(vocab, device);
    let (starts, tokens) = by_row(targets, rows, device)?;
    let numbers = |numbers: &[f64]| -> Result<Tensor> {
        Ok(Tensor::from_vec(numbers.iter().chain(&[0.0]).map(|&x| x as f32).collect(), numbers.len() + 1, device)?)
    };
    let (lse, g) = (numbers(lse)?, numbers(g)?);
    let logits = match kept.is_empty() {
        true => Some(fresh((chunk.min(rows), vocab), DType::F32, device)?),
        false => None,
    };
    let dz = fresh((chunk.min(rows), vocab), h.dtype(), device)?;
    let dh = fresh((rows, width), h.dtype(), device)?;
    let mut kept = kept.into_iter();
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        if let Some(logits) = &logits {
            logits_of(h, weight, first, count, logits)?;
        }
        let shares = kept.next();
        Launch::like("head", "head_backward", &dz)
            .optional_of(DType::F32, logits.as_ref())?
            .optional(shares.as_ref())?
            .of(DType::U32, &starts.narrow(0, first, count + 1)?)?
            .of(DType::U32, &tokens)?
            .of(DType::F32, &lse.narrow(0, first, count)?)?
            .of(DType::F32, &g)?
            .tensor(&dz)?
            .count(vocab)?
            .f32(cap.unwrap_or(0.0))
            .run((count, 1), THREADS, 0)?;
        drop(shares);
        let (slopes, states) = (Operand::new(&dz)?, Operand::new(h)?.rows_from(first));
        multiply(slopes, Operand::new(weight)?, Operand::new(&dh)?.rows_from(first), count, vocab, width, false)?;
        if let Some(gradient) = weight_gradient {
            multiply(slopes.t(), states, Operand::new(gradient)?, vocab, count, width, true)?;
        }
    }
    Ok(dh)
}
