//! The rows of a step of decoding.

use crate::ops::indices::Indices;
use crate::ops::tiles::Tiles;
use candle_core::Tensor;

/// Rows of new tokens, each over its text in a cache.
#[derive(Clone, Copy)]
pub(crate) struct NewRows<'a> {
    /// The token of each.
    pub ids: Indices<'a>,
    /// Where its keys and values go in the cache.
    pub rows: Indices<'a>,
    /// Its position.
    pub depths: Indices<'a>,
    /// A tile for each.
    pub tiles: &'a Tiles,
    /// Where a GPU leaves the logits [n, V], in f32.
    pub logits: Option<&'a Tensor>,
}
