//! Parameters: a value, the names it has in model files, and a gradient where it is trained.

use crate::Result;
use crate::model::family;
use crate::ops::{self, pointwise};
use candle_core::Tensor;

/// One tensor of weights. Matrices that are always used together are held as one, their rows one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    /// The tensors of model files that it consists of, with their rows, from the top.
    pub parts: Vec<(String, usize)>,
    pub value: Tensor,
    /// Sum of its gradients, of the same shape, in f32 (f64 where the value is); absent where it is frozen.
    pub gradient: Option<Tensor>,
}

impl Parameter {
    /// The tensors as model files hold them.
    pub fn named(&self) -> Result<Vec<(&str, Tensor)>> {
        Parameter::cut(&self.parts, &self.value)
    }

    /// A tensor cut into parts with the names and rows of a parameter's.
    pub fn cut<'a>(parts: &'a [(String, usize)], value: &Tensor) -> Result<Vec<(&'a str, Tensor)>> {
        let mut start = 0;
        parts
            .iter()
            .map(|(name, rows)| {
                let part = value.narrow(0, start, *rows)?;
                start += rows;
                Ok((name.as_str(), part))
            })
            .collect()
    }
}

/// A norm.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    /// As model files hold it.
    pub weight: Parameter,
    pub kind: family::Norm,
    /// Added to the mean square.
    pub eps: f64,
}

impl Norm {
    /// The factor of normalised rows: the weight, or 1 + w in f32 at least.
    pub fn factor(&self) -> Result<Tensor> {
        let weight = &self.weight.value;
        match self.kind {
            family::Norm::Rms => Ok(weight.clone()),
            family::Norm::RmsPlusOne => pointwise::plus_one(weight),
        }
    }

    /// The normed rows, and 1 / rms of each, which the backward needs.
    pub fn forward(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        ops::norm::forward(x, &self.factor()?, self.eps)
    }

    /// The normed rows again.
    pub fn again(&self, x: &Tensor, rms: &Tensor) -> Result<Tensor> {
        ops::norm::again(x, &self.factor()?, rms)
    }

    /// The gradient by x, given that by the normed rows, added to `onto` where that is given. Takes `onto`, which may
    /// be changed in place. The gradient by the weight is added to its own.
    pub fn backward(&self, x: &Tensor, rms: &Tensor, dy: &Tensor, onto: Option<Tensor>) -> Result<Tensor> {
        ops::norm::backward(x, &self.factor()?, rms, dy, onto, self.weight.gradient.as_ref())
    }
}
