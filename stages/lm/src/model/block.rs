//! One block of a decoder: attention, then the feed-forward part, each on normalised states and added to them.

use crate::model::config::DecoderConfig;
use crate::model::family::{Activation, HeadNorms};
use crate::model::forest::Forest;
use crate::model::linear::Linear;
use crate::model::parameter::{Norm, Parameter};
use crate::model::rope::QueryScale;
use crate::model::row_keys::RowKeys;
use crate::ops::angles::{HeadNorm, HeadNormGradients, RopeTables, SavedHeadNorm};
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::indices::Indices;
use crate::ops::pointwise::added;
use crate::ops::tiles::{self, Shape, Tiles};
use crate::ops::{attention, attention_backward, embed, geglu, query_scale, rope, swiglu, whole_norm};
use crate::{Error, Result};
use candle_core::Tensor;
use std::borrow::Cow;

// T rows, R of them that go on after attention, H hidden width, A query heads, G key-value heads, D head width, F
// feed-forward width.

/// The weights of one block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub shape: Shape,
    /// True where queries and keys are rotated by their positions.
    pub rotated: bool,
    pub query_scale: Option<QueryScale>,
    pub activation: Activation,
    /// The norm before attention [H], in families that have one.
    pub input_norm: Option<Norm>,
    /// q | k | v: [(A + 2 G) D, H]
    pub qkv: Linear,
    pub head_norms: HeadNorms,
    /// [D] each, or [A D] and [G D], in families that have them.
    pub query_norm: Option<Norm>,
    pub key_norm: Option<Norm>,
    /// [H, A D]
    pub output: Linear,
    /// The norm after attention [H], in families that have one.
    pub output_norm: Option<Norm>,
    /// The norm before the feed-forward part [H], in families that have one.
    pub post_norm: Option<Norm>,
    /// gate | up: [2 F, H]
    pub gate_up: Linear,
    /// [H, F]
    pub down: Linear,
    /// The norm after the feed-forward part [H], in families that have one.
    pub down_norm: Option<Norm>,
}

/// The input of a norm, and 1 / rms of its rows.
#[derive(Debug)]
struct Normed {
    x: Tensor,
    rms: Tensor,
}

/// Tensors of a block's forward that its backward needs. Normed states and activations are computed again.
#[derive(Debug)]
pub(crate) struct Saved {
    /// [T, H]
    x: Tensor,
    /// 1 / rms of the rows of x [T], where attention has a norm before it.
    input_rms: Option<Tensor>,
    /// q | k | v before norm and rotation, in families that have that norm.
    before: Option<Tensor>,
    /// q | k | v [T, (A + 2 G) D]
    qkv: Tensor,
    /// [T, A D]
    attended: Tensor,
    /// Log-sum-exps of attention [T, A].
    lse: Tensor,
    /// The output of attention [R, H], where there is a norm after it.
    output: Option<Normed>,
    /// The states between attention and the feed-forward part [R, H].
    middle: Tensor,
    /// 1 / rms of its rows [R], where the feed-forward part has a norm before it.
    post_rms: Option<Tensor>,
    /// [R, 2 F]
    gate_up: Tensor,
    /// The output of the feed-forward part [R, H], where there is a norm after it.
    down: Option<Normed>,
}

/// Facts that a block needs about its rows.
pub(crate) struct RowContext<'a> {
    pub tables: &'a RopeTables,
    /// The position of each row.
    pub depths: Indices<'a>,
    pub tiles: &'a Tiles,
    /// The keys of the rows, where adapters train with dropout.
    pub keys: Option<&'a RowKeys>,
}

impl RowContext<'_> {
    /// The keys of the rows that go on after attention.
    fn keys_of(&self, rows: Option<&[u32]>) -> Option<Cow<'_, RowKeys>> {
        match rows {
            Some(rows) => self.keys.map(|keys| Cow::Owned(keys.taken(rows))),
            None => self.keys.map(Cow::Borrowed),
        }
    }
}

impl Block {
    /// The states after the block: of all rows [T, H], or of some of them [R, H]. The last block need not give rows
    /// that nothing reads.
    pub fn forward(&self, x: &Tensor, context: &RowContext, rows: Option<&[u32]>) -> Result<Tensor> {
        let qkv = self.queries_keys_values(x, context)?;
        let (attended, _) = attention::forward(&qkv, context.tiles, &self.shape, false)?; // [T, A D]
        self.rest(&taken(x, rows)?, &taken(&attended, rows)?, context.keys_of(rows).as_deref())
    }

    /// q | k | v of rows, rotated to their positions: [T, (A + 2 G) D].
    pub fn queries_keys_values(&self, x: &Tensor, context: &RowContext) -> Result<Tensor> {
        let (normed, _) = before(self.input_norm.as_ref(), x)?;
        let qkv = self.qkv.forward(&normed, None, context.keys)?;
        self.turned(qkv, context)
    }

    /// q | k | v with the norm that queries and keys may have, then the rotation.
    fn turned(&self, qkv: Tensor, context: &RowContext) -> Result<Tensor> {
        let weights = self.head_weights()?;
        let norm = self.head_norm(&weights);
        let (qkv, norm) = match (self.head_norms, norm) {
            (HeadNorms::Whole, Some(norm)) => (whole_norm::forward(&qkv, &self.shape, norm)?, None),
            (_, norm) => (qkv, norm),
        };
        let qkv = match self.positions(context, &mut Vec::new()) {
            Some(positions) => rope::forward(qkv, &self.shape, norm, context.tables.of(&self.shape), positions)?,
            None => qkv,
        };
        self.grown(qkv, context)
    }

    /// q | k | v with queries that grow with their positions, in families that have them; and its backward.
    fn grown(&self, qkv: Tensor, context: &RowContext) -> Result<Tensor> {
        match self.query_scale {
            Some(scale) => query_scale::scaled(qkv, &self.shape, scale, context.depths),
            None => Ok(qkv),
        }
    }

    /// The positions that rows are turned by: all 0, which turns nothing, where heads have norms and no rotation. None
    /// where there is neither.
    fn positions<'a>(&self, context: &RowContext<'a>, zeros: &'a mut Vec<u32>) -> Option<Indices<'a>> {
        match (self.rotated, self.head_norms) {
            (true, _) => Some(context.depths),
            (false, HeadNorms::Each) => {
                zeros.resize(context.depths.len(), 0);
                Some((&*zeros).into())
            }
            (false, HeadNorms::None | HeadNorms::Whole) => None,
        }
    }

    /// The part of the block after attention, of rows that have keys where adapters train with dropout.
    pub fn rest(&self, x: &Tensor, attended: &Tensor, keys: Option<&RowKeys>) -> Result<Tensor> {
        let (middle, _) = after(self.output_norm.as_ref(), &self.output, attended, x, keys)?;
        let (normed, _) = before(self.post_norm.as_ref(), &middle)?;
        let gate_up = self.gate_up.forward(&normed, None, keys)?; // [T, 2 F]
        Ok(after(self.down_norm.as_ref(), &self.down, &self.gated(&gate_up)?, &middle, keys)?.0)
    }

    /// The activation [T, F] of gate | up [T, 2 F].
    fn gated(&self, gate_up: &Tensor) -> Result<Tensor> {
        match self.activation {
            Activation::Silu => swiglu::forward(gate_up),
            Activation::GeluTanh(_) => geglu::forward(gate_up),
        }
    }

    /// The same, and what the backward needs.
    pub fn forward_saving(&self, x: &Tensor, context: &RowContext, rows: Option<&[u32]>) -> Result<(Tensor, Saved)> {
        let (normed, input_rms) = before(self.input_norm.as_ref(), x)?;
        let qkv = self.qkv.forward(&normed, None, context.keys)?;
        let unnormed = match self.head_norms {
            HeadNorms::None => None,
            HeadNorms::Each => Some(qkv.copy()?),
            // It is not changed in place.
            HeadNorms::Whole => Some(qkv.clone()),
        };
        let qkv = self.turned(qkv, context)?;
        let (attended, lse) = attention::forward(&qkv, context.tiles, &self.shape, true)?;
        let lse = lse.ok_or_else(|| Error::internal("attention gave no log-sum-exps"))?;
        let keys = context.keys_of(rows);
        let keys = keys.as_deref();
        let (middle, output) =
            after(self.output_norm.as_ref(), &self.output, &taken(&attended, rows)?, &taken(x, rows)?, keys)?;
        let (normed, post_rms) = before(self.post_norm.as_ref(), &middle)?;
        let gate_up = self.gate_up.forward(&normed, None, keys)?;
        let (y, down) = after(self.down_norm.as_ref(), &self.down, &self.gated(&gate_up)?, &middle, keys)?;
        let x = x.clone();
        let saved =
            Saved { x, input_rms, before: unnormed, qkv, attended, lse, output, middle, post_rms, gate_up, down };
        Ok((y, saved))
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
        // y = middle + norm(down(gated(gate_up(norm(middle)))))
        let d_down = after_backward(self.down_norm.as_ref(), saved.down.as_ref(), &dy)?;
        let keys = context.keys_of(rows);
        let keys = keys.as_deref();
        let d_activation = self.down.backward(&d_down, keys)?;
        let (activation, d_gate_up) = match self.activation {
            Activation::Silu => swiglu::backward(&saved.gate_up, &d_activation)?,
            Activation::GeluTanh(_) => geglu::backward(&saved.gate_up, &d_activation)?,
        };
        drop(d_activation);
        self.down.backward_weights(&activation, &d_down, keys)?;
        drop(d_down);
        let normed = before_again(self.post_norm.as_ref(), &saved.middle, saved.post_rms.as_ref())?;
        self.gate_up.backward_weights(&normed, &d_gate_up, keys)?;
        let d_normed = self.gate_up.backward(&d_gate_up, keys)?;
        let d_middle = before_backward(self.post_norm.as_ref(), &saved.middle, saved.post_rms.as_ref(), &d_normed, dy)?;
        // middle = x + norm(output(attention(rope(qkv(norm(x))))))
        let d_output = after_backward(self.output_norm.as_ref(), saved.output.as_ref(), &d_middle)?;
        self.output.backward_weights(&taken(&saved.attended, rows)?, &d_output, keys)?;
        let total = forest.ids.len();
        let d_attended = put_back(self.output.backward(&d_output, keys)?, rows, total)?; // [T, A D]
        drop(d_output);
        let d_middle = put_back(d_middle, rows, total)?; // [T, H]
        let attention = tiles::Saved { qkv: &saved.qkv, out: &saved.attended, lse: &saved.lse };
        let d_qkv = attention_backward::backward(&attention, &d_attended, forest, context.tiles, &self.shape)?;
        let d_qkv = self.turned_backward(saved, d_qkv, context)?;
        let normed = before_again(self.input_norm.as_ref(), &saved.x, saved.input_rms.as_ref())?;
        self.qkv.backward_weights(&normed, &d_qkv, context.keys)?;
        let d_normed = self.qkv.backward(&d_qkv, context.keys)?;
        before_backward(self.input_norm.as_ref(), &saved.x, saved.input_rms.as_ref(), &d_normed, d_middle)
    }

    /// The backward of `turned`.
    fn turned_backward(&self, saved: &Saved, d_qkv: Tensor, context: &RowContext) -> Result<Tensor> {
        let weights = self.head_weights()?;
        let norm = self.saved_head_norm(saved, &weights);
        let each = norm.filter(|_| self.head_norms == HeadNorms::Each);
        let d_qkv = self.grown(d_qkv, context)?;
        let d_qkv = match self.positions(context, &mut Vec::new()) {
            Some(positions) => rope::backward(d_qkv, &self.shape, each, context.tables.of(&self.shape), positions)?,
            None => d_qkv,
        };
        match norm.filter(|_| self.head_norms == HeadNorms::Whole) {
            Some(norm) => whole_norm::backward(&d_qkv, &self.shape, norm),
            None => Ok(d_qkv),
        }
    }

    fn saved_head_norm<'a>(
        &'a self,
        saved: &'a Saved,
        weights: &'a Option<(Tensor, Tensor)>,
    ) -> Option<SavedHeadNorm<'a>> {
        let of = |norm: &'a Option<Norm>| norm.as_ref().and_then(|norm| norm.weight.gradient.as_ref());
        let gradients = HeadNormGradients { query: of(&self.query_norm), key: of(&self.key_norm) };
        Some(SavedHeadNorm { norm: self.head_norm(weights)?, before: saved.before.as_ref()?, gradients })
    }

    /// True where the kernels of a GPU do all of a step of decoding, and read nothing of the host but its input.
    #[cfg(any(feature = "cuda", test))]
    pub fn repeats(&self, tables: &RopeTables) -> bool {
        let (shape, normed) = (&self.shape, self.head_norms == HeadNorms::Each);
        let turned = rope::cuda_fits(shape, normed, tables.of(shape)) && (self.rotated || !normed);
        turned && cuda::attention::fits(shape)
    }

    /// Factors of normed queries and keys.
    fn head_weights(&self) -> Result<Option<(Tensor, Tensor)>> {
        match (&self.query_norm, &self.key_norm) {
            (Some(query), Some(key)) => Ok(Some((query.factor()?, key.factor()?))),
            _ => Ok(None),
        }
    }

    fn head_norm<'a>(&self, weights: &'a Option<(Tensor, Tensor)>) -> Option<HeadNorm<'a>> {
        let (query, key) = weights.as_ref()?;
        Some(HeadNorm { query, key, eps: self.query_norm.as_ref()?.eps })
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
        fn of(norm: &Option<Norm>) -> Option<&Parameter> {
            norm.as_ref().map(|norm| &norm.weight)
        }
        let mut all = Vec::from_iter(of(&self.input_norm));
        all.extend(self.qkv.parameters());
        all.extend(of(&self.query_norm).into_iter().chain(of(&self.key_norm)));
        all.extend(self.output.parameters());
        all.extend(of(&self.output_norm).into_iter().chain(of(&self.post_norm)));
        all.extend(self.gate_up.parameters());
        all.extend(self.down.parameters());
        all.extend(of(&self.down_norm));
        all
    }

    /// The same in the same order, to change.
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        fn of(norm: &mut Option<Norm>) -> Option<&mut Parameter> {
            norm.as_mut().map(|norm| &mut norm.weight)
        }
        let mut all = Vec::from_iter(of(&mut self.input_norm));
        all.extend(self.qkv.parameters_mut());
        all.extend(of(&mut self.query_norm).into_iter().chain(of(&mut self.key_norm)));
        all.extend(self.output.parameters_mut());
        all.extend(of(&mut self.output_norm).into_iter().chain(of(&mut self.post_norm)));
        all.extend(self.gate_up.parameters_mut());
        all.extend(self.down.parameters_mut());
        all.extend(of(&mut self.down_norm));
        all
    }
}

/// The input of a part of a block: normed, where it has a norm, and 1 / rms.
fn before(norm: Option<&Norm>, x: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    match norm {
        Some(norm) => norm.forward(x).map(|(normed, rms)| (normed, Some(rms))),
        None => Ok((x.clone(), None)),
    }
}

/// The same again.
fn before_again(norm: Option<&Norm>, x: &Tensor, rms: Option<&Tensor>) -> Result<Tensor> {
    norm.zip(rms).map_or_else(|| Ok(x.clone()), |(norm, rms)| norm.again(x, rms))
}

/// The gradient by x of `before`, given that by what it gives, added to `onto`.
fn before_backward(norm: Option<&Norm>, x: &Tensor, rms: Option<&Tensor>, dy: &Tensor, onto: Tensor) -> Result<Tensor> {
    match norm.zip(rms) {
        Some((norm, rms)) => norm.backward(x, rms, dy, Some(onto)),
        None => Ok((onto + dy)?),
    }
}

/// States with what the last layer of a part adds, after its norm where it has one; and what went into that.
fn after(
    norm: Option<&Norm>,
    last: &Linear,
    inner: &Tensor,
    states: &Tensor,
    keys: Option<&RowKeys>,
) -> Result<(Tensor, Option<Normed>)> {
    let Some(norm) = norm else { return Ok((last.forward(inner, Some(states), keys)?, None)) };
    let x = last.forward(inner, None, keys)?;
    let (normed, rms) = norm.forward(&x)?;
    Ok((added(states, &normed)?, Some(Normed { x, rms })))
}

/// The gradient by what the last layer gives, given that by the states.
fn after_backward(norm: Option<&Norm>, saved: Option<&Normed>, dy: &Tensor) -> Result<Tensor> {
    norm.zip(saved).map_or_else(|| Ok(dy.clone()), |(norm, Normed { x, rms })| norm.backward(x, rms, dy, None))
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
            cap: config.attention_cap,
        }
    }
}
