//! The sum of the gradients of all ranks.

use std::ops::Range;

use kit::{Collective, GpuSwap, Result, Turn};
use lm::{Addresses, Bucket, Training};
use tokens::lm_error;

/// Numbers that are added up at once, 16 MiB.
const AT_ONCE: usize = 1 << 22;

/// Adds up the gradients of all ranks, on all of them.
///
/// # Errors
/// As [`Collective::exchange`]; the device's.
pub(crate) fn gradients(training: &mut Training, ranks: &dyn Collective) -> Result<()> {
    match ranks.size() {
        1 => Ok(()),
        _ => training.each_bucket(AT_ONCE, |bucket| numbers(bucket, ranks)).map_err(lm_error)?,
    }
}

fn numbers(bucket: &mut Bucket, ranks: &dyn Collective) -> Result<()> {
    for Turn { partner, sent, taken, added } in ranks.turns(bucket.count()) {
        // From GPU to GPU, where there is such a way.
        if let Some(gpus) = ranks.gpus()
            && let Some(Addresses { stream, from, to }) = bucket.addresses(&sent, &taken, added).map_err(lm_error)?
        {
            let bytes = |range: &Range<usize>| size_of::<f32>() * range.len();
            gpus.swap(partner, &GpuSwap { stream, from, sent: bytes(&sent), to, taken: bytes(&taken) })?;
            bucket.taken(&taken, added).map_err(lm_error)?;
            continue;
        }
        let theirs = ranks.exchange(partner, bucket.bytes(sent).map_err(lm_error)?)?;
        bucket.take(taken, &theirs, added).map_err(lm_error)?;
    }
    Ok(())
}
