//! Angles of rotary positions, and the norms of queries and keys that come before them.

use crate::model::rope::Rope;
use crate::ops::tiles::Shape;
use crate::{DType, Device, Result};
use candle_core::Tensor;

// T rows, A query heads, G key-value heads, D head width, P positions.

/// Cosines and sines of all positions below a limit, [P, D/2] each, or fewer columns where a part of heads is rotated.
/// f64 where the model computes in f64, else f32: half precision cannot hold the positions themselves.
#[derive(Debug, Clone)]
pub(crate) struct RopeTable {
    pub cos: Tensor,
    pub sin: Tensor,
}

impl RopeTable {
    /// The table for positions 0 .. `positions` of heads of a width, in long texts or in others. Cosines and sines are
    /// scaled where the rope's kind says so.
    pub fn new(
        rope: &Rope,
        head_dim: usize,
        long: bool,
        positions: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<RopeTable> {
        let (frequencies, scale) = (rope.frequencies(head_dim, long), rope.scale());
        let shape = (positions, frequencies.len());
        let build = |f: fn(f64) -> f64| -> Result<Tensor> {
            let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |&w| (p, w)));
            Ok(match dtype {
                DType::F64 => Tensor::from_vec(angles.map(|(p, w)| f(p as f64 * w) * scale).collect(), shape, device)?,
                // The angle is rounded to f32 as transformers does, so that long sequences agree too.
                _ => {
                    let angles = angles.map(|(p, w)| (f(f64::from(p as f32 * w as f32)) * scale) as f32);
                    Tensor::from_vec(angles.collect(), shape, device)?
                }
            })
        };
        Ok(RopeTable { cos: build(f64::cos)?, sin: build(f64::sin)? })
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Pairs of columns that are rotated, from the first ones of a head on.
    pub fn pairs(&self) -> usize {
        self.cos.dims()[1]
    }
}

/// The tables of a model's blocks.
#[derive(Debug, Clone)]
pub(crate) struct RopeTables {
    pub every: RopeTable,
    /// That of blocks with windows, where it is another.
    pub windowed: Option<RopeTable>,
}

impl RopeTables {
    /// The table for a block.
    pub fn of(&self, shape: &Shape) -> &RopeTable {
        self.windowed.as_ref().filter(|_| shape.window.is_some()).unwrap_or(&self.every)
    }
}

/// The norm of queries and keys before the rotation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadNorm<'a> {
    /// [D]
    pub query: &'a Tensor,
    /// [D]
    pub key: &'a Tensor,
    pub eps: f64,
}

/// Sums of the gradients of the norms' weights, [D] each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadNormGradients<'a> {
    pub query: Option<&'a Tensor>,
    pub key: Option<&'a Tensor>,
}

/// The norm of queries and keys, and what its backward needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SavedHeadNorm<'a> {
    pub norm: HeadNorm<'a>,
    /// q | k | v before norm and rotation.
    pub before: &'a Tensor,
    pub gradients: HeadNormGradients<'a>,
}
