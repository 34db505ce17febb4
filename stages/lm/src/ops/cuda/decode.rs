//! Attention of new rows over a cache. See `ops::attention` for what is computed.
//!
//! Samples of one prompt see the same keys before their own: a block takes a stretch of keys and all rows that see it.
//! Long stretches are cut, so that a few long texts keep a GPU busy too. What the parts of a row give is joined in the
//! order of their depths.

use super::attention::{THREADS, padded, shared_of_forward};
use super::{Launch, fresh, upload};
use crate::model::forest::Span;
use crate::ops::tiles::{PlanOf, ROWS, Shape, Tile, Tiles};
use crate::{DType, Device, Error, Result};
use candle_core::Tensor;
use std::ops::Range;

/// Keys of a part. Fewer are more blocks, and more to join.
const KEYS: usize = 256;

// T new rows, A query heads, G key-value heads, D head width.

/// Keys at some depths, and the rows that see them by one block for each key-value head, or more where the queries of so
/// many rows are more than a block takes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    rows: Range<usize>,
    depths: Range<usize>,
    /// The spans that hold the keys.
    spans: Vec<Span>,
}

/// The parts of tiles of one row each, those of a row by their depths.
fn parts(tiles: &[Tile], window: Option<usize>) -> Vec<Part> {
    let mut all = Vec::new();
    cut(tiles, 0..tiles.len(), 0, 0, window, &mut all);
    all
}

/// Cuts rows whose paths are the same in the spans before `level`, which end at a depth.
fn cut(tiles: &[Tile], rows: Range<usize>, level: usize, depth: usize, window: Option<usize>, all: &mut Vec<Part>) {
    let mut start = rows.start;
    while start < rows.end {
        let path = &tiles[start].keys;
        let alike = |tile: &Tile| tile.keys.get(level) == path.get(level);
        let end = rows.end.min(start + ROWS);
        let end = (start..end).find(|&row| !alike(&tiles[row])).unwrap_or(end);
        let run = &tiles[start..end];
        // As far as all of them go together.
        let mut next = level;
        while path.get(next).is_some() && run.iter().all(|tile| tile.keys.get(next) == path.get(next)) {
            next += 1;
        }
        let spans = &path[level..next];
        if let Some(last) = spans.last() {
            let nearest = run.iter().map(|tile| tile.queries.depth).min().unwrap_or(0);
            let first = depth.max(window.map_or(0, |window| (nearest + 1).saturating_sub(window)));
            let after = last.depth + last.len;
            for from in (first..after).step_by(KEYS) {
                let depths = from..after.min(from + KEYS);
                let holds = |span: &&Span| span.depth < depths.end && depths.start < span.depth + span.len;
                let spans = spans.iter().filter(holds).copied().collect();
                all.push(Part { rows: start..end, depths, spans });
            }
            cut(tiles, start..end, next, after, window, all);
        }
        start = end;
    }
}

/// What the kernels read of parts, on the host.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// (first row, rows, first span, end of spans, first depth, end of depths, first slot) of each part; without rows
    /// none is seen.
    pub parts: Vec<u32>,
    /// (first row, first depth) of each span.
    pub spans: Vec<u32>,
    /// Where the slots of each row start, with an end behind the last.
    pub starts: Vec<u32>,
    /// The slots of all rows, each with the result of a part.
    pub slots: Vec<u32>,
}

/// Numbers of a part.
pub(crate) const PART: usize = 7;

impl Plan {
    /// Errors: tiles of several rows.
    pub fn new(tiles: &[Tile], shape: &Shape) -> Result<Plan> {
        if tiles.iter().enumerate().any(|(row, tile)| (tile.queries.row, tile.queries.len) != (row, 1)) {
            return Err(Error::internal("attention over a cache by tiles of several rows"));
        }
        let (mut plan, mut count) = (Plan::default(), 0);
        let mut slots = vec![Vec::new(); tiles.len()];
        for Part { rows, depths, spans } in parts(tiles, shape.window) {
            let first = plan.spans.len() / 2;
            plan.spans.extend(spans.iter().flat_map(|span| [span.row as u32, span.depth as u32]));
            let numbers: [usize; PART] =
                [rows.start, rows.len(), first, plan.spans.len() / 2, depths.start, depths.end, count];
            plan.parts.extend(numbers.map(|n| n as u32));
            for row in rows {
                slots[row].push(count as u32);
                count += 1;
            }
        }
        plan.starts.push(0);
        for list in &slots {
            plan.starts.push(plan.starts[plan.starts.len() - 1] + list.len() as u32);
        }
        plan.slots = slots.concat();
        Ok(plan)
    }
}

/// The four lists of a plan on a device, the depth of each row, and room for the results of parts [slots, A D] and their
/// log-sum-exps [slots, A].
pub(crate) type Planned = [Tensor; 7];

/// The plan of tiles for blocks of a form: the one that they have, or what is made now.
pub(crate) fn planned(
    tiles: &Tiles,
    shape: &Shape,
    device: &Device,
    make: impl FnOnce() -> Result<Planned>,
) -> Result<Planned> {
    tiles.plans.once(PlanOf { name: "cached", shape: Some(*shape) }, device, make)
}

fn uploaded(tiles: &Tiles, shape: &Shape, device: &Device) -> Result<Planned> {
    let Plan { parts, spans, starts, slots } = Plan::new(tiles, shape)?;
    let depths = tiles.iter().map(|tile| tile.queries.depth as u32).collect();
    let [parts, spans, starts, slots, depths] =
        [parts, spans, starts, slots, depths].map(|numbers| upload(&numbers, device));
    let slots = slots?;
    let out = fresh((slots.elem_count(), shape.query_width()), DType::F32, device)?;
    let sums = fresh((slots.elem_count(), shape.heads), DType::F32, device)?;
    Ok([parts?, spans?, starts?, slots, depths?, out, sums])
}

/// Attention of the queries of rows q | k | v [T, (A + 2 G) D] over cached keys and values [C, G D]: [T, A D]. Each row is
/// a tile.
pub(crate) fn cached(qkv: &Tensor, k: &Tensor, v: &Tensor, tiles: &Tiles, shape: &Shape) -> Result<Tensor> {
    let (rows, device) = (qkv.dim(0)?, qkv.device());
    let [parts, spans, starts, slots, depths, of_parts, lse] =
        planned(tiles, shape, device, || uploaded(tiles, shape, device))?;
    Launch::like("decode", "attention_parts", qkv)
        .wide(padded(shape))
        .tensor(qkv)?
        .count(shape.width())?
        .tensor(k)?
        .tensor(v)?
        .count(shape.key_width())?
        .of(DType::F32, &of_parts)?
        .of(DType::F32, &lse)?
        .of(DType::U32, &parts)?
        .of(DType::U32, &spans)?
        .of(DType::U32, &depths)?
        .count(shape.heads)?
        .count(shape.kv_heads)?
        .count(shape.head_dim)?
        .count(shape.window.unwrap_or(0))?
        .f32(shape.scale)
        .f32(shape.cap.unwrap_or(0.0))
        .run((parts.elem_count() / PART, shape.heads), THREADS, shared_of_forward(shape, qkv.dtype()))?;
    let out = fresh((rows, shape.query_width()), qkv.dtype(), qkv.device())?;
    let count = rows * shape.heads;
    Launch::like("decode", "attention_joined", qkv)
        .of(DType::F32, &of_parts)?
        .of(DType::F32, &lse)?
        .tensor(&out)?
        .of(DType::U32, &starts)?
        .of(DType::U32, &slots)?
        .count(count)?
        .count(shape.heads)?
        .count(shape.head_dim)?
        .run((count.div_ceil(4), 1), THREADS, 0)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(row: usize, len: usize, depth: usize) -> Span {
        Span { row, len, depth }
    }

    /// Rows with these paths above them and so many rows of their own, a thousand rows apart.
    fn rows(paths: &[(&[Span], usize)]) -> Vec<Tile> {
        let tile = |(row, (above, own)): (usize, &(&[Span], usize))| {
            let depth = above.iter().map(|span| span.len).sum();
            let own = span(1000 * (row + 10), *own, depth);
            Tile { queries: span(row, 1, depth + own.len - 1), keys: [*above, &[own][..]].concat() }
        };
        paths.iter().enumerate().map(tile).collect()
    }

    fn cut_of(parts: &[Part]) -> Vec<(Range<usize>, Range<usize>)> {
        parts.iter().map(|part| (part.rows.clone(), part.depths.clone())).collect()
    }

    /// 8 samples of a prompt of 512 tokens, 128 tokens each: rows of keys that are read for a token, by a block for each
    /// row and by parts, where 7 query heads share a key-value head.
    #[test]
    fn common_keys_are_read_once() {
        let prompt = [span(0, 512, 0)];
        let (mut by_rows, mut by_parts) = (0, 0);
        for own in 1..=128 {
            let tiles = rows(&[(&prompt[..], own); 8]);
            by_rows += tiles.iter().flat_map(|tile| &tile.keys).map(|span| span.len).sum::<usize>();
            let read = |part: &Part| part.depths.len() * (7 * part.rows.len()).div_ceil(ROWS);
            by_parts += parts(&tiles, None).iter().map(read).sum::<usize>();
        }
        let tokens = 8.0 * 128.0;
        assert_eq!((by_rows as f64 / tokens, by_parts as f64 / tokens), (576.5, 128.5));
    }

    /// Paths part from each other level by level, long stretches are cut, and short texts are one part each.
    #[test]
    fn parts_of_paths() {
        let (rubric, left, right) = (span(0, 300, 0), span(300, 20, 300), span(320, 50, 300));
        let tiles = rows(&[(&[rubric, left], 3), (&[rubric, left], 1), (&[rubric, right], 260), (&[], 40)]);
        let all = parts(&tiles, None);
        let want =
            [(0..3, 0..256), (0..3, 256..300), (0..2, 300..320), (0..1, 320..323), (1..2, 320..321), (2..3, 300..556)];
        let more = [(2..3, 556..610), (3..4, 0..40)];
        assert_eq!(cut_of(&all), [&want[..], &more].concat());
        assert_eq!(all[5].spans, [right, span(12_000, 260, 350)]);
        assert_eq!(all[6].spans, [span(12_000, 260, 350)]);
        let windowed = parts(&tiles, Some(30));
        let want = [(0..3, 291..300), (0..2, 300..320), (0..1, 320..323), (1..2, 320..321), (2..3, 580..610)];
        assert_eq!(cut_of(&windowed), [&want[..], &[(3..4, 10..40)]].concat());
        assert_eq!(parts(&tiles[3..], None).len(), 1);
        let many = rows(&[(&[rubric][..], 2); 70]);
        assert_eq!(cut_of(&parts(&many, None)[..2]), [(0..64, 0..256), (0..64, 256..300)]);
        assert_eq!(parts(&many, None).len(), 2 + 64 + 2 + 6);
    }
}
