//! Attention over tiles, forward and backward. See `ops::attention` and `ops::attention_backward` for what is computed.

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
pub(crate) fn fits(shape: &Shape, dtype: DType) -> bool {
    shape.head_dim <= if dtype == DType::BF16 { 256 } else { 128 } && shape.head_dim.is_multiple_of(2)
}

/// The width of the kernel that serves: columns beyond the heads' are 0.
pub(super) fn padded(shape: &Shape) -> usize {
    if shape.head_dim <= 128 { shape.head_dim.next_multiple_of(32) } else { 256 }
}

/// Blocks that share the columns of the keys of a head: `Parts` in the kernels.
fn parts(shape: &Shape) -> usize {
    if padded(shape) <= 128 { 1 } else { 2 }
}

/// Rows of keys or queries that pass by at a time, and in how many buffers: `Steps` in the kernels.
fn steps(shape: &Shape, dtype: DType, backward: bool) -> usize {
    match (dtype, backward, padded(shape)) {
        (DType::BF16, false, ..=128) => 2 * 64,
        (DType::BF16, false, _) => 2 * 16,
        (DType::BF16, true, ..=64) => 2 * 64,
        (DType::BF16, true, ..=128) => 2 * 32,
        (DType::BF16, true, _) => 16,
        (_, false, _) => 32,
        (_, true, _) => 16,
    }
}

/// Bytes of so many rows in shared memory: `Stride` in the kernels.
fn shared(rows: usize, shape: &Shape, dtype: DType) -> usize {
    rows * (padded(shape) + 8) * dtype.size_in_bytes()
}

/// Bytes of shared memory of the forward.
pub(super) fn shared_of_forward(shape: &Shape, dtype: DType) -> usize {
    shared(ITEMS + 2 * steps(shape, dtype, false), shape, dtype)
}

/// Tiles as the kernels read them: (row, rows, depth, first span, end of spans) each, and (row, depth) of each span.
fn planned_tiles(tiles: &Tiles, device: &Device) -> Result<[Tensor; 2]> {
    let make = || {
        let (mut flat, mut spans) = (Vec::with_capacity(5 * tiles.len()), Vec::new());
        for Tile { queries: Span { row, len, depth }, keys } in tiles.iter() {
            let first = spans.len() / 2;
            spans.extend(keys.iter().flat_map(|span| [span.row as u32, span.depth as u32]));
            flat.extend([*row, *len, *depth, first, spans.len() / 2].map(|n| n as u32));
        }
        Ok([upload(&flat, device)?, upload(&spans, device)?])
    };
    tiles.plans.once(PlanOf { name: "tiles", shape: None }, device, make)
}

/// For each tile, as keys, the tiles whose queries see some of it, ascending: where those of each tile start, with an
/// end behind the last, and all of them.
fn planned_readers(tiles: &Tiles, device: &Device) -> Result<[Tensor; 2]> {
    let make = || {
        let mut readers = vec![Vec::new(); tiles.len()];
        for (reader, tile) in tiles.iter().enumerate() {
            for span in &tile.keys {
                let from = tiles.partition_point(|t| t.queries.row + t.queries.len <= span.row);
                let to = tiles.partition_point(|t| t.queries.row < span.row + span.len);
                for list in &mut readers[from..to] {
                    list.push(reader as u32);
                }
            }
        }
        let mut starts = vec![0u32];
        for list in &readers {
            starts.push(starts[starts.len() - 1] + list.len() as u32);
        }
        Ok([upload(&starts, device)?, upload(&readers.concat(), device)?])
    };
    tiles.plans.once(PlanOf { name: "readers", shape: None }, device, make)
}

/// Rows of keys or values: a tensor, the number where they start, and how far apart they are.
struct Keys<'a> {
    tensor: &'a Tensor,
    start: usize,
}

impl Keys<'_> {
    /// From where they start, as a tensor.
    fn rest(&self) -> Result<Tensor> {
        let flat = self.tensor.flatten_all()?;
        Ok(flat.narrow(0, self.start, flat.elem_count() - self.start)?)
    }
}

fn attend(
    qkv: &Tensor,
    k: Keys,
    v: Keys,
    kv_stride: usize,
    tiles: &Tiles,
    shape: &Shape,
    lse: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (rows, device) = (qkv.dim(0)?, qkv.device());
    let out = fresh((rows, shape.query_width()), qkv.dtype(), device)?;
    let lse = if lse { Some(fresh((rows, shape.heads), DType::F32, device)?) } else { None };
    let [flat, spans] = planned_tiles(tiles, device)?;
    Launch::like("attention", "attention", qkv)
        .wide(padded(shape))
        .tensor(qkv)?
        .count(shape.width())?
        .tensor(&k.rest()?)?
        .tensor(&v.rest()?)?
        .count(kv_stride)?
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

pub(crate) fn packed(qkv: &Tensor, tiles: &Tiles, shape: &Shape, lse: bool) -> Result<(Tensor, Option<Tensor>)> {
    let k = Keys { tensor: qkv, start: shape.query_width() };
    let v = Keys { tensor: qkv, start: shape.query_width() + shape.key_width() };
    attend(qkv, k, v, shape.width(), tiles, shape, lse)
}

pub(crate) fn cached(qkv: &Tensor, k: &Tensor, v: &Tensor, tiles: &Tiles, shape: &Shape) -> Result<Tensor> {
    let (k, v) = (Keys { tensor: k, start: 0 }, Keys { tensor: v, start: 0 });
    Ok(attend(qkv, k, v, shape.key_width(), tiles, shape, false)?.0)
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
    let [flat, spans] = planned_tiles(tiles, device)?;
    let [starts, readers] = planned_readers(tiles, device)?;
    let memory = shared(2 * ITEMS + 2 * steps(shape, dtype, true), shape, dtype);
    let begin = |name: &'static str| -> Result<Launch> {
        Launch::like("attention_backward", name, g)
            .wide(padded(shape))
            .tensor(qkv)?
            .tensor(g)?
            .of(DType::F32, lse)?
            .of(DType::F32, &delta)?
            .tensor(&d_qkv)?
            .of(DType::U32, &flat)
    };
    let end = |call: Launch, blocks: usize| -> Result<()> {
        call.count(shape.heads)?
            .count(shape.kv_heads)?
            .count(shape.head_dim)?
            .count(shape.window.unwrap_or(0))?
            .f32(shape.scale)
            .f32(shape.cap.unwrap_or(0.0))
            .run((tiles.len(), blocks), THREADS, memory)
    };
    end(begin("attention_dq")?.of(DType::U32, &spans)?, shape.heads)?;
    end(begin("attention_dkv")?.of(DType::U32, &starts)?.of(DType::U32, &readers)?, shape.kv_heads * parts(shape))?;
    Ok(d_qkv)
}
