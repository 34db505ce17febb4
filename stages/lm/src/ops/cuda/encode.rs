//! Parts of sentence encoders. See `encode::parts` for what is computed.

use super::attention::{THREADS, padded, shared_of_forward};
use super::{Launch, fresh, upload};
use crate::ops::tiles::{ROWS, Shape};
use crate::{DType, Device, Result};
use candle_core::Tensor;

// T tokens of all texts, H hidden width, A heads.

/// Where texts are, on the device: made once for all blocks of an encoder.
#[derive(Debug)]
pub(crate) struct Texts {
    count: usize,
    /// Tiles and spans as the kernels of attention read them.
    tiles: Tensor,
    spans: Tensor,
    /// Tokens of each text.
    lengths: Tensor,
}

impl Texts {
    /// Texts of these lengths, one after the other.
    pub fn new(lengths: &[usize], device: &Device) -> Result<Texts> {
        let (mut tiles, mut spans, mut first) = (Vec::new(), Vec::new(), 0);
        for (text, &length) in lengths.iter().enumerate() {
            spans.extend([first as u32, 0]);
            for start in (0..length).step_by(ROWS) {
                tiles.extend([first + start, ROWS.min(length - start), start, text, text + 1].map(|n| n as u32));
            }
            first += length;
        }
        let lengths: Vec<u32> = lengths.iter().map(|&length| length as u32).collect();
        let count = tiles.len() / 5;
        let [tiles, spans, lengths] = [tiles, spans, lengths].map(|numbers| upload(&numbers, device));
        Ok(Texts { count, tiles: tiles?, spans: spans?, lengths: lengths? })
    }
}

/// True where there is a kernel for heads of this width.
pub(crate) fn fits(head_dim: usize) -> bool {
    super::attention::fits(&shape(1, head_dim))
}

fn shape(heads: usize, head_dim: usize) -> Shape {
    Shape { heads, kv_heads: heads, head_dim, window: None, scale: 1.0 / (head_dim as f64).sqrt(), cap: None }
}

/// Attention of every token to those of its text that are at most `reach` from it, [T, H] of q | k | v [T, 3 H].
/// `by_distance` has a bias in f32 for each head and distance, from -(n - 1) to n - 1, and n.
pub(crate) fn attended(
    qkv: &Tensor,
    texts: &Texts,
    heads: usize,
    by_distance: Option<(&Tensor, usize)>,
    reach: Option<usize>,
) -> Result<Tensor> {
    let (rows, stride) = qkv.dims2()?;
    let shape = shape(heads, stride / 3 / heads);
    let out = fresh((rows, stride / 3), qkv.dtype(), qkv.device())?;
    Launch::like("encode", "attention_around", qkv)
        .wide(padded(&shape))
        .tensor(qkv)?
        .tensor(&out)?
        .of(DType::U32, &texts.tiles)?
        .of(DType::U32, &texts.spans)?
        .of(DType::U32, &texts.lengths)?
        .count(heads)?
        .count(shape.head_dim)?
        .count(reach.unwrap_or(0))?
        .optional_of(DType::F32, by_distance.map(|(bias, _)| bias))?
        .count(by_distance.map_or(1, |(_, distances)| distances))?
        .f32(shape.scale)
        .run((texts.count, heads), THREADS, shared_of_forward(&shape, qkv.dtype()))?;
    Ok(out)
}

/// Changes rows in place: to mean 0 and variance 1, times the weight, plus the bias, both in f32.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<()> {
    let (rows, width) = x.dims2()?;
    Launch::like("encode", "layer_norm", x)
        .tensor(x)?
        .of(DType::F32, weight)?
        .of(DType::F32, bias)?
        .count(width)?
        .f32(eps)
        .run((rows, 1), 128, 0)
}

/// An activation without a gate, or by its number with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Gelu,
    GeluTanh,
    Relu,
}

/// The activation of [T, F]; of [T, 2 F] that of the first F columns times the others.
pub(crate) fn activate(x: &Tensor, act: Act, gated: bool) -> Result<Tensor> {
    let (rows, all) = x.dims2()?;
    let width = if gated { all / 2 } else { all };
    let y = fresh((rows, width), x.dtype(), x.device())?;
    let kind = match act {
        Act::Gelu => 0,
        Act::GeluTanh => 1,
        Act::Relu => 2,
    };
    Launch::like("encode", "activate", x)
        .tensor(x)?
        .tensor(&y)?
        .count(width)?
        .count(usize::from(gated))?
        .count(kind)?
        .run((rows, 1), 256, 0)?;
    Ok(y)
}
