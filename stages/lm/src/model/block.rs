//! One block of a decoder: attention, then the feed-forward part, each on normalised states and added to them.

use crate::model::config::DecoderConfig;
use crate::model::forest::Forest;
use crate::model::parameter::{Linear, Parameter};
use crate::ops::attention::{Shape, Tile};
use crate::ops::rope::{HeadNorm, HeadNormGradients, RopeTable, SavedHeadNorm};
use crate::ops::{attention, attention_backward, embed, norm, rope, swiglu};
use crate::{Error, Result};
use candle_core::Tensor;
use std::borrow::Cow;

// T rows, R of them that go on after attention, H hidden width, A query heads, G key-value heads, D head width, F
// feed-forward width.

/// The weights of one block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub shape: Shape,
    /// Of the norms of states.
    pub eps: f64,
    /// Of the norms of queries and keys.
    pub head_eps: f64,
    /// Whether queries and keys are rotated by their positions.
    pub rotated: bool,
    /// [H]
    pub input_norm: Parameter,
    /// q | k | v: [(A + 2 G) D, H]
    pub qkv: Linear,
    /// [D] each, in families that have them.
    pub query_norm: Option<Parameter>,
    pub key_norm: Option<Parameter>,
    /// [H, A D]
    pub output: Linear,
    /// [H]
    pub post_norm: Parameter,
    /// gate | up: [2 F, H]
    pub gate_up: Linear,
    /// [H, F]
    pub down: Linear,
}

/// What the backward of a block needs of its forward. Normed states and activations are computed again.
#[derive(Debug)]
pub(crate) struct Saved {
    /// [T, H]
    x: Tensor,
    /// 1 / rms of the rows of x [T].
    input_rms: Tensor,
    /// q | k | v before norm and rotation, in families that have that norm.
    before: Option<Tensor>,
    /// q | k | v [T, (A + 2 G) D]
    qkv: Tensor,
    /// [T, A D]
    attended: Tensor,
    /// Log-sum-exps of attention [T, A].
    lse: Tensor,
    /// The states between attention and the feed-forward part [R, H].
    middle: Tensor,
    /// 1 / rms of its rows [R].
    post_rms: Tensor,
    /// [R, 2 F]
    gate_up: Tensor,
}

/// What a block needs to know about its rows.
pub(crate) struct RowContext<'a> {
    pub table: &'a RopeTable,
    /// The position of each row.
    pub depths: &'a [u32],
    pub tiles: &'a [Tile],
}

impl Block {
    /// The states after the block: of all rows [T, H], or of some of them [R, H]. The last block need not give rows
    /// that nothing reads.
    pub fn forward(&self, x: &Tensor, context: &RowContext, rows: Option<&[u32]>) -> Result<Tensor> {
        let qkv = self.queries_keys_values(x, context)?;
        let (attended, _) = attention::forward(&qkv, context.tiles, &self.shape, false)?; // [T, A D]
        self.rest(&taken(x, rows)?, &taken(&attended, rows)?)
    }

    /// q | k | v of rows, rotated to their positions: [T, (A + 2 G) D].
    pub fn queries_keys_values(&self, x: &Tensor, context: &RowContext) -> Result<Tensor> {
        let (normed, _) = norm::forward(x, &self.input_norm.value, self.eps)?;
        let qkv = self.qkv.forward(&normed, None)?;
        self.turned(qkv, context)
    }

    /// q | k | v with the norm that queries and keys may have, then the rotation.
    fn turned(&self, qkv: Tensor, context: &RowContext) -> Result<Tensor> {
        match self.positions(context) {
            Some(positions) => rope::forward(qkv, &self.shape, self.head_norm(), context.table, &positions),
            None => Ok(qkv),
        }
    }

    /// The positions that rows are turned by: all 0, which turns nothing, where there is a norm and no rotation. None
    /// where there is neither.
    fn positions<'a>(&self, context: &RowContext<'a>) -> Option<Cow<'a, [u32]>> {
        match (self.rotated, self.head_norm()) {
            (true, _) => Some(Cow::Borrowed(context.depths)),
            (false, Some(_)) => Some(Cow::Owned(vec![0; context.depths.len()])),
            (false, None) => None,
        }
    }

    /// What follows attention.
    pub fn rest(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        let middle = self.output.forward(attended, Some(x))?;
        let (normed, _) = norm::forward(&middle, &self.post_norm.value, self.eps)?;
        let gate_up = self.gate_up.forward(&normed, None)?; // [T, 2 F]
        self.down.forward(&swiglu::forward(&gate_up)?, Some(&middle))
    }

    /// The same, and what the backward needs.
    pub fn forward_saving(&self, x: &Tensor, context: &RowContext, rows: Option<&[u32]>) -> Result<(Tensor, Saved)> {
        let (normed, input_rms) = norm::forward(x, &self.input_norm.value, self.eps)?;
        let qkv = self.qkv.forward(&normed, None)?;
        let before = if self.head_norm().is_some() { Some(qkv.copy()?) } else { None };
        let qkv = self.turned(qkv, context)?;
        let (attended, lse) = attention::forward(&qkv, context.tiles, &self.shape, true)?;
        let lse = lse.ok_or_else(|| Error::internal("attention gave no log-sum-exps"))?;
        let middle = self.output.forward(&taken(&attended, rows)?, Some(&taken(x, rows)?))?;
        let (normed, post_rms) = norm::forward(&middle, &self.post_norm.value, self.eps)?;
        let gate_up = self.gate_up.forward(&normed, None)?;
        let y = self.down.forward(&swiglu::forward(&gate_up)?, Some(&middle))?;
        Ok((y, Saved { x: x.clone(), input_rms, before, qkv, attended, lse, middle, post_rms, gate_up }))
    }

    /// Adds to the gradients of the trained parameters and gives the gradient by the block's input [T, H], given that
    /// by its output, of the same rows as in the forward; that one is used up.
    pub fn backward(
        &self,
        saved: &Saved,
        dy: Tensor,
        context: &RowContext,
        rows: Option<&[u32]>,
        forest: &Forest,
    ) -> Result<Tensor> {
        // y = middle + down(swiglu(gate_up(norm(middle))))
        let (activation, d_gate_up) = swiglu::backward(&saved.gate_up, &self.down.backward(&dy)?)?;
        self.down.backward_weights(&activation, &dy)?;
        let normed = norm::again(&saved.middle, &self.post_norm.value, &saved.post_rms)?;
        self.gate_up.backward_weights(&normed, &d_gate_up)?;
        let d_normed = self.gate_up.backward(&d_gate_up)?;
        let d_middle = norm::backward(
            &saved.middle,
            &self.post_norm.value,
            &saved.post_rms,
            &d_normed,
            Some(dy),
            self.post_norm.gradient.as_ref(),
        )?;
        // middle = x + output(attention(rope(qkv(norm(x)))))
        self.output.backward_weights(&taken(&saved.attended, rows)?, &d_middle)?;
        let total = forest.ids.len();
        let d_attended = put_back(self.output.backward(&d_middle)?, rows, total)?; // [T, A D]
        let d_middle = put_back(d_middle, rows, total)?; // [T, H]
        let attention = attention_backward::Saved { qkv: &saved.qkv, out: &saved.attended, lse: &saved.lse };
        let d_qkv = attention_backward::backward(&attention, &d_attended, forest, context.tiles, &self.shape)?;
        let d_qkv = match self.positions(context) {
            Some(positions) => {
                rope::backward(d_qkv, &self.shape, self.saved_head_norm(saved), context.table, &positions)?
            }
            None => d_qkv,
        };
        let normed = norm::again(&saved.x, &self.input_norm.value, &saved.input_rms)?;
        self.qkv.backward_weights(&normed, &d_qkv)?;
        let d_normed = self.qkv.backward(&d_qkv)?;
        norm::backward(
            &saved.x,
            &self.input_norm.value,
            &saved.input_rms,
            &d_normed,
            Some(d_middle),
            self.input_norm.gradient.as_ref(),
        )
    }

    fn saved_head_norm<'a>(&'a self, saved: &'a Saved) -> Option<SavedHeadNorm<'a>> {
        let of = |parameter: &'a Option<Parameter>| parameter.as_ref().and_then(|p| p.gradient.as_ref());
        let gradients = HeadNormGradients { query: of(&self.query_norm), key: of(&self.key_norm) };
        Some(SavedHeadNorm { norm: self.head_norm()?, before: saved.before.as_ref()?, gradients })
    }

    fn head_norm(&self) -> Option<HeadNorm<'_>> {
        let (query, key) = (self.query_norm.as_ref()?, self.key_norm.as_ref()?);
        Some(HeadNorm { query: &query.value, key: &key.value, eps: self.head_eps })
    }

    /// The linear layers.
    pub fn linears(&self) -> [&Linear; 4] {
        [&self.qkv, &self.output, &self.gate_up, &self.down]
    }

    /// The linear layers, to change.
    pub fn linears_mut(&mut self) -> [&mut Linear; 4] {
        [&mut self.qkv, &mut self.output, &mut self.gate_up, &mut self.down]
    }

    /// All parameters, in a fixed order.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let mut all = vec![&self.input_norm];
        all.extend(self.qkv.parameters());
        all.extend(self.query_norm.iter().chain(&self.key_norm));
        all.extend(self.output.parameters());
        all.push(&self.post_norm);
        all.extend(self.gate_up.parameters());
        all.extend(self.down.parameters());
        all
    }

    /// The same in the same order, to change.
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        let mut all = vec![&mut self.input_norm];
        all.extend(self.qkv.parameters_mut());
        all.extend(self.query_norm.iter_mut().chain(&mut self.key_norm));
        all.extend(self.output.parameters_mut());
        all.push(&mut self.post_norm);
        all.extend(self.gate_up.parameters_mut());
        all.extend(self.down.parameters_mut());
        all
    }
}

/// Some rows of a tensor, or all.
fn taken(x: &Tensor, rows: Option<&[u32]>) -> Result<Tensor> {
    rows.map_or_else(|| Ok(x.clone()), |rows| embed::forward(x, rows))
}

/// The backward of `taken`: rows at their places, 0 elsewhere.
fn put_back(dx: Tensor, rows: Option<&[u32]>, total: usize) -> Result<Tensor> {
    match rows {
        Some(rows) => embed::spread(&dx, rows, total),
        None => Ok(dx),
    }
}

impl Shape {
    /// The attention of block `layer`.
    pub fn of(config: &DecoderConfig, layer: usize) -> Shape {
        Shape {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            window: config.windows[layer],
            scale: config.multipliers.attention,
        }
    }
}
