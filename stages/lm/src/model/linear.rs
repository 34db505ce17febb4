//! Linear layers, and the low-rank adapters beside them.

use crate::model::few_bits::FewBits;
use crate::model::parameter::Parameter;
use crate::model::row_keys::RowKeys;
use crate::ops;
use crate::ops::dropout;
use crate::ops::mask::Mask;
use crate::ops::pointwise::scaled;
use crate::ops::rounded::Products::{self, Exact};
use crate::{DType, Result};
use candle_core::Tensor;

// T rows, K inputs, N outputs of one matrix, r rank.

/// The matrix of a linear layer [N, K].
#[derive(Debug, Clone)]
pub(crate) enum Weight {
    Numbers(Parameter),
    /// Frozen.
    Few(FewBits),
}

impl Weight {
    /// The tensors of model files that it consists of, with their rows, from the top.
    pub fn parts(&self) -> &[(String, usize)] {
        match self {
            Weight::Numbers(parameter) => &parameter.parts,
            Weight::Few(few) => &few.parts,
        }
    }

    /// Inputs, K.
    pub fn inputs(&self) -> Result<usize> {
        match self {
            Weight::Numbers(parameter) => Ok(parameter.value.dim(1)?),
            Weight::Few(few) => Ok(few.shape().1),
        }
    }

    /// The parameter, where it has numbers that can be trained.
    pub fn parameter(&self) -> Option<&Parameter> {
        if let Weight::Numbers(parameter) = self { Some(parameter) } else { None }
    }

    /// The same, to change.
    pub fn parameter_mut(&mut self) -> Option<&mut Parameter> {
        if let Weight::Numbers(parameter) = self { Some(parameter) } else { None }
    }

    /// Works with its numbers, of which the work keeps nothing.
    fn with<T>(&self, work: impl FnOnce(&Tensor) -> Result<T>) -> Result<T> {
        match self {
            Weight::Numbers(parameter) => work(&parameter.value),
            Weight::Few(few) => few.with(work),
        }
    }

    /// Numbers in place of few bits.
    pub fn into_numbers(self) -> Result<Parameter> {
        match self {
            Weight::Numbers(parameter) => Ok(parameter),
            Weight::Few(few) => Ok(Parameter { value: few.numbers()?, parts: few.parts, gradient: None }),
        }
    }
}

/// A linear layer.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub weight: Weight,
    /// [N]
    pub bias: Option<Parameter>,
    /// Low-rank additions to some of the outputs. Being small, they are multiplied as they are.
    pub adapters: Vec<Adapter>,
    /// The precision of the operands of the weight's products.
    pub products: Products,
}

impl Linear {
    /// residual + x W^T + b, and what adapters add; with dropout where rows have keys.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>, keys: Option<&RowKeys>) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| &bias.value);
        let y = self.weight.with(|weight| ops::linear::forward(x, weight, bias, residual, self.products))?;
        self.adapters.iter().try_fold(y, |y, adapter| adapter.forward(x, y, keys))
    }

    /// Weight, where it has numbers, bias, then A and B of each adapter.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        let adapters = self.adapters.iter().flat_map(|adapter| [&adapter.a, &adapter.b]);
        self.weight.parameter().into_iter().chain(&self.bias).chain(adapters)
    }

    /// The same, to change.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        let adapters = self.adapters.iter_mut().flat_map(|adapter| [&mut adapter.a, &mut adapter.b]);
        self.weight.parameter_mut().into_iter().chain(&mut self.bias).chain(adapters)
    }

    /// Adds to the gradients of weight, bias and adapters, where they are trained, given the input, the gradient by
    /// the output and the keys of the forward.
    pub fn backward_weights(&self, x: &Tensor, dy: &Tensor, keys: Option<&RowKeys>) -> Result<()> {
        let weight = self.weight.parameter().and_then(|weight| weight.gradient.as_ref());
        match (weight, self.bias.as_ref().and_then(|bias| bias.gradient.as_ref())) {
            (Some(weight), Some(bias)) => ops::linear::backward_weight_and_bias(x, dy, weight, bias, self.products)?,
            (Some(weight), None) => ops::linear::backward_weight(x, dy, weight, self.products)?,
            (None, Some(bias)) => ops::linear::backward_bias(dy, bias)?,
            (None, None) => (),
        }
        self.adapters.iter().try_for_each(|adapter| adapter.backward_weights(x, dy, keys))
    }

    /// The gradient by the input, given that by the output and the keys of the forward.
    pub fn backward(&self, dy: &Tensor, keys: Option<&RowKeys>) -> Result<Tensor> {
        let dx = self.weight.with(|weight| ops::linear::backward(weight, dy, self.products))?;
        self.adapters.iter().try_fold(dx, |dx, adapter| Ok((dx + adapter.backward(dy, keys)?)?))
    }

    /// Adds what adapters add to the weight, W + scale B A, and takes them away. The sum is computed in f32 at least.
    pub fn merge(&mut self) -> Result<()> {
        let mut weight = self.weight.clone().into_numbers()?;
        let (kept, dtype) = (weight.value.dtype(), wide(weight.value.dtype()));
        let mut sum = weight.value.to_dtype(dtype)?;
        for adapter in self.adapters.drain(..) {
            let (a, b) = (adapter.a.value.to_dtype(dtype)?, adapter.b.value.to_dtype(dtype)?);
            let delta = (b.matmul(&a)? * adapter.scale)?; // [N, K]
            let rows = sum.narrow(0, adapter.start, adapter.rows()?)?;
            let rest = adapter.start + adapter.rows()?;
            let parts = [sum.narrow(0, 0, adapter.start)?, (rows + delta)?, sum.narrow(0, rest, sum.dim(0)? - rest)?];
            let parts: Vec<&Tensor> = parts.iter().filter(|part| part.elem_count() > 0).collect();
            sum = Tensor::cat(&parts, 0)?;
        }
        weight.value = sum.to_dtype(kept)?.contiguous()?;
        self.weight = Weight::Numbers(weight);
        Ok(())
    }
}

/// The dtype of sums.
fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// The adapter of one matrix, which may be a part of the rows of a [`Linear`].
#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    /// The first output that it adds to.
    pub start: usize,
    /// The factor of the product of A and B.
    pub scale: f64,
    /// The share of its inputs that training leaves out.
    pub dropout: f64,
    /// The key of its masks.
    pub place: u64,
    /// [r, K]
    pub a: Parameter,
    /// [N, r]
    pub b: Parameter,
}

impl Adapter {
    pub fn rows(&self) -> Result<usize> {
        Ok(self.b.value.dim(0)?)
    }

    /// scale x A^T: [T, r].
    fn inner(&self, x: &Tensor) -> Result<Tensor> {
        scaled(&ops::linear::forward(x, &self.a.value, None, None, Exact)?, self.scale)
    }

    /// The columns of the outputs' gradient that it answers for: [T, N].
    fn own(&self, dy: &Tensor) -> Result<Tensor> {
        Ok(if self.rows()? == dy.dim(1)? {
            dy.clone()
        } else {
            dy.narrow(1, self.start, self.rows()?)?.contiguous()?
        })
    }

    /// x with the mask of dropout, where rows have keys.
    fn masked(&self, x: Tensor, keys: Option<&RowKeys>) -> Result<Tensor> {
        match keys {
            Some(RowKeys(rows)) if self.dropout > 0.0 => {
                dropout::apply(&x, &Mask { rows, place: self.place, share: self.dropout })
            }
            _ => Ok(x),
        }
    }

    /// y with scale mask(x) A^T B^T added to its columns.
    pub fn forward(&self, x: &Tensor, y: Tensor, keys: Option<&RowKeys>) -> Result<Tensor> {
        let x = self.masked(x.clone(), keys)?;
        ops::linear::add_columns(&self.inner(&x)?, &self.b.value, y, self.start)
    }

    /// Adds to the gradients of A and B.
    pub fn backward_weights(&self, x: &Tensor, dy: &Tensor, keys: Option<&RowKeys>) -> Result<()> {
        let (x, dy) = (&self.masked(x.clone(), keys)?, self.own(dy)?);
        if let Some(gradient) = &self.b.gradient {
            ops::linear::backward_weight(&self.inner(x)?, &dy, gradient, Exact)?;
        }
        if let Some(gradient) = &self.a.gradient {
            let d_inner = (ops::linear::backward(&self.b.value, &dy, Exact)? * self.scale)?; // [T, r]
            ops::linear::backward_weight(x, &d_inner, gradient, Exact)?;
        }
        Ok(())
    }

    /// The gradient by the input: [T, K].
    pub fn backward(&self, dy: &Tensor, keys: Option<&RowKeys>) -> Result<Tensor> {
        let d_inner = (ops::linear::backward(&self.b.value, &self.own(dy)?, Exact)? * self.scale)?;
        self.masked(ops::linear::backward(&self.a.value, &d_inner, Exact)?, keys)
    }
}
