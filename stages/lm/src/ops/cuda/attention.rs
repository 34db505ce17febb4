//! Attention over tiles, forward and backward. See `ops::attention` and `ops::attention_backward` for what is computed.

use super::balance::{ByKeys, Part, Shared, longest_first};
use super::{Launch, fresh, upload};
use crate::model::forest::Span;
use crate::ops::tiles::{PlanOf, ROWS, Saved, Shape, Tile, Tiles};
use crate::{DType, Device, Result};
use candle_core::Tensor;

pub(super) const THREADS: u32 = 128;

/// Rows of a tile, and items of a block: `ITEMS` in the kernels.
const ITEMS: usize = ROWS;

// T rows, A query heads, G key-value heads, D head width.

/// True where there is a kernel for heads of this width.
pub(crate) fn fits(shape: &Shape) -> bool {
    shape.head_dim <= 256 && shape.head_dim.is_multiple_of(2)
}

/// The width of the kernel that serves: columns beyond the heads' are 0.
pub(super) fn padded(shape: &Shape) -> usize {
    if wide(shape) { 256 } else { shape.head_dim.next_multiple_of(32) }
}

fn wide(shape: &Shape) -> bool {
    shape.head_dim > 128
}

/// Blocks that share the columns of the keys of a head: `Parts` in the kernels.
fn column_parts(shape: &Shape) -> usize {
    if wide(shape) { 2 } else { 1 }
}

/// Rows of a block's own in the backward: `Items` in the kernels.
fn items_of_backward(shape: &Shape, dtype: DType) -> usize {
    if wide(shape) && dtype == DType::F32 { ITEMS / 2 } else { ITEMS }
}

/// Rows of keys or queries that pass by at a time, in all of their buffers: `Steps` in the kernels.
fn steps(shape: &Shape, dtype: DType, backward: bool) -> usize {
    match (dtype, backward, padded(shape)) {
        (DType::BF16, false, ..=128) => 2 * 64,
        (DType::BF16, false, _) => 2 * 16,
        (DType::BF16, true, ..=64) => 2 * 64,
        (DType::BF16, true, ..=128) => 2 * 32,
        (DType::BF16, true, _) => 16,
        (_, false, ..=128) => 32,
        (_, _, _) => 16,
    }
}

/// Bytes of so many rows in shared memory: `Stride` in the kernels.
fn shared(rows: usize, shape: &Shape, dtype: DType) -> usize {
    let more = if wide(shape) && dtype == DType::F32 { 4 } else { 8 };
    rows * (padded(shape) + more) * dtype.size_in_bytes()
}

/// Bytes of shared memory of the forward.
pub(super) fn shared_of_forward(shape: &Shape, dtype: DType) -> usize {
    shared(ITEMS + 2 * steps(shape, dtype, false), shape, dtype)
}

/// Bytes of shared memory of the backward.
fn shared_of_backward(shape: &Shape, dtype: DType) -> usize {
    shared(2 * items_of_backward(shape, dtype) + 2 * steps(shape, dtype, true), shape, dtype)
}

/// Tiles as the kernels read them, those with most keys first: (row, rows, depth, first span, end of spans) each, and
/// (row, depth) of each span.
fn planned_tiles(tiles: &Tiles, device: &Device) -> Result<[Tensor; 2]> {
    let make = || {
        let (mut flat, mut spans) = (Vec::with_capacity(5 * tiles.len()), Vec::new());
        for tile in longest_first(tiles) {
            let Tile { queries: Span { row, len, depth }, keys } = &tiles[tile];
            let first = spans.len() / 2;
            spans.extend(keys.iter().flat_map(|span| [span.row as u32, span.depth as u32]));
            flat.extend([*row, *len, *depth, first, spans.len() / 2].map(|n| n as u32));
        }
        Ok([upload(&flat, device)?, upload(&spans, device)?])
    };
    tiles.plans.once(PlanOf { name: "tiles", shape: None }, device, make)
}

/// The work by keys as the kernels read it: (tile, first reader, end of readers, slot or u32::MAX) of each part, all
/// readers, (tile, first slot, end of slots) of shared tiles, and a place for the sums of all slots [slots, G, 2, 64, D].
fn planned_parts(tiles: &Tiles, shape: &Shape, blocks: usize, device: &Device) -> Result<[Tensor; 4]> {
    let make = || {
        let order = longest_first(tiles);
        let mut place = vec![0u32; tiles.len()];
        order.iter().enumerate().for_each(|(at, &tile)| place[tile] = at as u32);
        let by_keys = ByKeys::new(tiles, shape, blocks);
        let of_part = |part: &Part| {
            let slot = part.slot.map_or(u32::MAX, |slot| slot as u32);
            [place[part.tile], part.readers.start as u32, part.readers.end as u32, slot]
        };
        let parts: Vec<u32> = by_keys.parts.iter().flat_map(of_part).collect();
        let readers: Vec<u32> = by_keys.readers.iter().map(|&tile| place[tile]).collect();
        let of_shared = |Shared { tile, slots }: &Shared| [place[*tile], slots.start as u32, slots.end as u32];
        let shared: Vec<u32> = by_keys.shared.iter().flat_map(of_shared).collect();
        let sums = fresh((by_keys.slots(), shape.kv_heads, 2, ITEMS, shape.head_dim), DType::F32, device)?;
        Ok([upload(&parts, device)?, upload(&readers, device)?, upload(&shared, device)?, sums])
    };
    tiles.plans.once(PlanOf { name: "parts", shape: Some(*shape) }, device, make)
}

pub(crate) fn packed(qkv: &Tensor, tiles: &Tiles, shape: &Shape, lse: bool) -> Result<(Tensor, Option<Tensor>)> {
    let (rows, device) = (qkv.dim(0)?, qkv.device());
    let out = fresh((rows, shape.query_width()), qkv.dtype(), device)?;
    let lse = if lse { Some(fresh((rows, shape.heads), DType::F32, device)?) } else { None };
    let [flat, spans] = planned_tiles(tiles, device)?;
    let all = qkv.flatten_all()?;
    let from = |column: usize| all.narrow(0, column, all.elem_count() - column);
    Launch::like("attention", "attention", qkv)
        .wide(padded(shape))
        .tensor(qkv)?
        .count(shape.width())?
        .tensor(&from(shape.query_width())?)?
        .tensor(&from(shape.query_width() + shape.key_width())?)?
        .count(shape.width())?
        .tensor(&out)?
        .optional_of(DType::F32, lse.as_ref())?
        .of(DType::U32, &flat)?
        .of(DType::U32, &spans)?
        .count(shape.heads)?
        .count(shape.kv_heads)?
        .count(shape.head_dim)?
        .count(shape.window.unwrap_or(0))?
        .f32(shape.scale)
        .f32(shape.cap.unwrap_or(0.0))
        .run((tiles.len(), shape.heads), THREADS, shared_of_forward(shape, qkv.dtype()))?;
    Ok((out, lse))
}

pub(crate) fn backward(saved: &Saved, g: &Tensor, tiles: &Tiles, shape: &Shape) -> Result<Tensor> {
    let Saved { qkv, out, lse } = saved;
    let (device, dtype) = (g.device(), g.dtype());
    let count = g.dim(0)? * shape.heads;
    let delta = fresh(count, DType::F32, device)?;
    Launch::like("attention_backward", "attention_delta", g)
        .tensor(out)?
        .tensor(g)?
        .of(DType::F32, &delta)?
        .count(count)?
        .count(shape.head_dim)?
        .run((count.div_ceil(4), 1), THREADS, 0)?;
    let d_qkv = fresh(qkv.dims(), dtype, device)?;
    let blocks = shape.kv_heads * column_parts(shape);
    let [flat, spans] = planned_tiles(tiles, device)?;
    let [parts, readers, shared_tiles, sums] = planned_parts(tiles, shape, blocks, device)?;
    let (memory, halves) = (shared_of_backward(shape, dtype), ITEMS / items_of_backward(shape, dtype));
    let begin = |name: &'static str| -> Result<Launch> {
        Launch::like("attention_backward", name, g)
            .wide(padded(shape))
            .tensor(qkv)?
            .tensor(g)?
            .of(DType::F32, lse)?
            .of(DType::F32, &delta)?
            .tensor(&d_qkv)
    };
    let end = |call: Launch, grid: (usize, usize)| -> Result<()> {
        call.count(shape.heads)?
            .count(shape.kv_heads)?
            .count(shape.head_dim)?
            .count(shape.window.unwrap_or(0))?
            .f32(shape.scale)
            .f32(shape.cap.unwrap_or(0.0))
            .run(grid, THREADS, memory)
    };
    let by_queries = begin("attention_dq")?.of(DType::U32, &flat)?.of(DType::U32, &spans)?;
    end(by_queries, (tiles.len(), shape.heads * halves))?;
    let by_keys = begin("attention_dkv")?.of(DType::F32, &sums)?.of(DType::U32, &flat)?;
    end(by_keys.of(DType::U32, &parts)?.of(DType::U32, &readers)?, (parts.elem_count() / 4, blocks * halves))?;
    Launch::like("attention_backward", "attention_dkv_sums", g)
        .of(DType::F32, &sums)?
        .tensor(&d_qkv)?
        .of(DType::U32, &flat)?
        .of(DType::U32, &shared_tiles)?
        .count(shape.heads)?
        .count(shape.kv_heads)?
        .count(shape.head_dim)?
        .run((shared_tiles.elem_count() / 3, shape.kv_heads), 256, 0)?;
    Ok(d_qkv)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest GPUs that are supported give a block 99 KiB, of which kernels have up to 1.5 KiB of their own.
    #[test]
    fn blocks_fit_the_smallest_gpus() {
        for dtype in [DType::F32, DType::BF16] {
            for head_dim in (2..=256).step_by(2) {
                let shape = Shape { heads: 1, kv_heads: 1, head_dim, window: None, scale: 1.0, cap: None };
                assert!(fits(&shape));
                let own = if head_dim <= 64 { 1536 } else { 768 };
                let most = shared_of_forward(&shape, dtype).max(shared_of_backward(&shape, dtype));
                assert!(most + own <= 99 << 10, "{head_dim} {dtype:?}: {most}");
            }
            assert!(!fits(&Shape { heads: 1, kv_heads: 1, head_dim: 258, window: None, scale: 1.0, cap: None }));
        }
    }
}
