//! The work of attention: its form, tiles of rows, and what goes from the forward to the backward.

use crate::model::forest::{Forest, Span};
#[cfg(any(feature = "cuda", test))]
use crate::{Device, Result};
use candle_core::Tensor;
#[cfg(any(feature = "cuda", test))]
use std::sync::{Mutex, PoisonError};

// T rows, A query heads, G key-value heads, D head width.

/// Query rows of a tile.
pub(crate) const ROWS: usize = 64;

/// The form of one layer's attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// A query sees keys at a distance below this.
    pub window: Option<usize>,
    /// Factor of the scores before softmax, above 0.
    pub scale: f64,
    /// Scaled scores x become cap tanh(x / cap) where there is a cap.
    pub cap: Option<f64>,
}

impl Shape {
    /// Query heads that share a key-value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
    /// Columns of q | k | v.
    pub fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
    /// Columns of all queries, and of the output.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }
    /// Columns of all keys, or of all values.
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
    /// The columns that a query at `depth` sees among keys that start at `first_depth`.
    pub fn seen(&self, depth: usize, first_depth: usize) -> std::ops::Range<usize> {
        self.first_visible(depth).saturating_sub(first_depth)..depth + 1 - first_depth
    }
    /// The first depth that a query at `depth` sees.
    pub fn first_visible(&self, depth: usize) -> usize {
        self.window.map_or(0, |window| (depth + 1).saturating_sub(window))
    }
}

/// Query rows of one path with the keys of that path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    pub queries: Span,
    /// From the root down, depths without a gap, the last one ending at the last query's depth.
    pub keys: Vec<Span>,
}

/// Tiles in the order of their rows, and what devices computed of them, which all blocks of a model share.
#[derive(Debug)]
pub(crate) struct Tiles {
    all: Vec<Tile>,
    #[cfg(any(feature = "cuda", test))]
    pub plans: Plans,
}

impl Tiles {
    pub fn new(all: Vec<Tile>) -> Tiles {
        Tiles {
            all,
            #[cfg(any(feature = "cuda", test))]
            plans: Plans::default(),
        }
    }
}

impl std::ops::Deref for Tiles {
    type Target = [Tile];

    fn deref(&self) -> &[Tile] {
        &self.all
    }
}

/// The tiles of a forest.
pub(crate) fn tiles(forest: &Forest) -> Tiles {
    let mut tiles = Vec::new();
    for segment in &forest.segments {
        let own = segment.own;
        for start in (0..own.len).step_by(ROWS) {
            let len = ROWS.min(own.len - start);
            let queries = Span { row: own.row + start, len, depth: own.depth + start };
            let mut keys = segment.above.clone();
            keys.push(Span { len: start + len, ..own });
            tiles.push(Tile { queries, keys });
        }
    }
    Tiles::new(tiles)
}

/// The parts of the key spans that some query of the tile sees, and their number of rows.
pub(crate) fn visible(tile: &Tile, shape: &Shape) -> (Vec<Span>, usize) {
    let first = shape.first_visible(tile.queries.depth);
    let spans: Vec<Span> = tile
        .keys
        .iter()
        .filter(|span| span.depth + span.len > first)
        .map(|span| {
            let skip = first.saturating_sub(span.depth);
            Span { row: span.row + skip, len: span.len - skip, depth: span.depth + skip }
        })
        .collect();
    let keys = spans.iter().map(|span| span.len).sum();
    (spans, keys)
}

/// Values of the forward that the backward reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saved<'a> {
    /// [T, (A + 2 G) D]
    pub qkv: &'a Tensor,
    /// The output [T, A D].
    pub out: &'a Tensor,
    /// Log-sum-exps [T, A].
    pub lse: &'a Tensor,
}

/// What a device computes tiles from, made once for all blocks of one form.
#[cfg(any(feature = "cuda", test))]
#[derive(Debug, Default)]
pub(crate) struct Plans(Mutex<Vec<(PlanOf, Vec<Tensor>)>>);

/// What a plan is of, and the form of the blocks that it is for, where that matters.
#[cfg(any(feature = "cuda", test))]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PlanOf {
    pub name: &'static str,
    pub shape: Option<Shape>,
}

#[cfg(any(feature = "cuda", test))]
impl Plans {
    /// The tensors of a plan on a device: those that are there, or what is made now.
    pub fn once<const N: usize>(
        &self,
        of: PlanOf,
        device: &Device,
        make: impl FnOnce() -> Result<[Tensor; N]>,
    ) -> Result<[Tensor; N]> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = |tensors: &[Tensor]| tensors.iter().all(|tensor| tensor.device().same_device(device));
        let known = all.iter().find(|(other, tensors)| *other == of && here(tensors));
        if let Some(tensors) = known.and_then(|(_, tensors)| <[Tensor; N]>::try_from(tensors.clone()).ok()) {
            return Ok(tensors);
        }
        let tensors = make()?;
        all.push((of, tensors.to_vec()));
        Ok(tensors)
    }
}
