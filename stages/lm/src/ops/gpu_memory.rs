//! Memory that operations on a GPU take beside their tensors. Forecasts need it where there is no GPU.

use crate::ops::tiles::ROWS;

/// Blocks that run at a time: two on each of an H100's 132 multiprocessors. It is the same for all GPUs, so that sums
/// do not depend on them.
pub(crate) const AT_A_TIME: usize = 264;

/// The most that the f32 logits of a chunk of rows take, bytes.
pub(crate) const MOST_LOGITS: u64 = 5 << 29;

/// Rows whose f32 logits take so many bytes at most: whole tiles of a product.
pub(crate) fn rows_within(bytes: u64, vocab: usize) -> usize {
    let rows = bytes as usize / 4 / vocab.max(1);
    if rows < 256 { rows.max(16) } else { (rows / 256 * 256).min(8192) }
}

/// The most that the backward of attention takes for keys that several blocks work on, bytes: sums for keys and values,
/// in f32. Of tiles that are cut, no more blocks come than twice those that run at a time.
pub(crate) fn most_sums(head_dim: usize) -> usize {
    2 * AT_A_TIME * 2 * ROWS * head_dim * 4
}
