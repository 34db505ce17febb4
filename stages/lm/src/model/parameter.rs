//! Parameters: a value, the names it has in model files, and a gradient where it is trained.

use crate::Result;
use crate::model::family;
use crate::model::lora::Adapter;
use crate::ops;
use crate::ops::matrix::Products;
use candle_core::{DType, Tensor};

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
        match (self.kind, weight.dtype()) {
            (family::Norm::Rms, _) => Ok(weight.clone()),
            (family::Norm::RmsPlusOne, DType::F64) => Ok((weight + 1.0)?),
            (family::Norm::RmsPlusOne, _) => Ok((weight.to_dtype(DType::F32)? + 1.0)?),
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

/// A linear layer.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// [out, in]
    pub weight: Parameter,
    /// [out]
    pub bias: Option<Parameter>,
    /// Low-rank additions to some of the outputs. Being small, they are multiplied as they are.
    pub adapters: Vec<Adapter>,
    /// The precision of the operands of the weight's products.
    pub products: Products,
}

impl Linear {
    /// residual + x W^T + b, and what adapters add.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| &bias.value);
        let y = ops::linear::forward(x, &self.weight.value, bias, residual, self.products)?;
        self.adapters.iter().try_fold(y, |y, adapter| adapter.forward(x, y))
    }

    /// Weight, bias, then A and B of each adapter.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        let adapters = self.adapters.iter().flat_map(|adapter| [&adapter.a, &adapter.b]);
        std::iter::once(&self.weight).chain(&self.bias).chain(adapters)
    }

    /// The same, to change.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        let adapters = self.adapters.iter_mut().flat_map(|adapter| [&mut adapter.a, &mut adapter.b]);
        std::iter::once(&mut self.weight).chain(&mut self.bias).chain(adapters)
    }

    /// Adds to the gradients of weight, bias and adapters, where they are trained, given the input and the gradient by
    /// the output.
    pub fn backward_weights(&self, x: &Tensor, dy: &Tensor) -> Result<()> {
        if let Some(gradient) = &self.weight.gradient {
            ops::linear::backward_weight(x, dy, gradient, self.products)?;
        }
        if let Some(gradient) = self.bias.as_ref().and_then(|bias| bias.gradient.as_ref()) {
            ops::linear::backward_bias(dy, gradient)?;
        }
        self.adapters.iter().try_for_each(|adapter| adapter.backward_weights(x, dy))
    }

    /// The gradient by the input, given that by the output.
    pub fn backward(&self, dy: &Tensor) -> Result<Tensor> {
        let dx = ops::linear::backward(&self.weight.value, dy, self.products)?;
        self.adapters.iter().try_fold(dx, |dx, adapter| Ok((dx + adapter.backward(dy)?)?))
    }
}
