//! In what precision models compute.

use crate::model::folder::{is_gguf, model_part};
use crate::model::weights;
use crate::ops::rounded;
use crate::{DType, Device, Error, Result, resolve_device};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The precision of matrix products. Log-probabilities, gradients, optimizer state and master weights are f32 in any
/// case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the exponent of f32. On a CPU, numbers are rounded where they are multiplied, sums and everything
    /// else stay f32; it is several times faster where the processor has AMX-BF16, and slower where it has no bf16 at
    /// all. On a GPU, weights and activations are held in it.
    Bf16,
}

/// Bits of the weights of linear layers, where they are put into few at load. They are frozen then, and become numbers
/// each time that they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// NF4: blocks of 64 codes with a scale, 4.5 bits a weight.
    Four,
    /// Q8_0: blocks of 32 numbers with a scale, 8.5 bits a weight.
    Eight,
}

impl Bits {
    /// The number.
    pub fn count(self) -> u8 {
        match self {
            Bits::Four => 4,
            Bits::Eight => 8,
        }
    }

    /// Numbers of a block of eight bits, of which each row has whole ones.
    pub(crate) const BLOCK: usize = 32;

    /// Bytes of a weight, its share of the scale included.
    pub(crate) fn bytes(self) -> f64 {
        (f64::from(self.count()) + 0.5) / 8.0
    }
}

/// How a model computes: the precision of products, and the bits of weights where these are few.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Precision {
    /// The precision of matrix products.
    pub dtype: Dtype,
    /// Weights of linear layers are put into so many bits at load.
    pub bits: Option<Bits>,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Precision {
        Precision { dtype, bits: None }
    }
}

impl Precision {
    /// The words by which two stages are compared: `f32`, or `f32 over 4 bits`.
    pub fn name(self) -> String {
        match self.bits {
            None => self.dtype.name().to_owned(),
            Some(bits) => format!("{} over {} bits", self.dtype.name(), bits.count()),
        }
    }
}

/// The precision that a trained model is written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SavedDtype {
    /// That of the model folder that it was loaded from. In bf16 and f16 it leaves the smallest updates out.
    AsLoaded,
    /// 32 bits, in which weights are trained.
    #[default]
    F32,
    /// 16 bits with the exponent of f32. It leaves the smallest updates out.
    Bf16,
}

impl SavedDtype {
    /// The dtype of tensors that come from a folder.
    pub(crate) fn of(self, folder: &Path) -> Result<DType> {
        match self {
            SavedDtype::AsLoaded => {
                let model = model_part(folder)?;
                let text = "a GGUF file has no precision that a folder could keep; name `f32` or `bf16`";
                if is_gguf(&model) { Err(Error::file(model, text)) } else { weights::stored_dtype(&model) }
            }
            SavedDtype::F32 => Ok(DType::F32),
            SavedDtype::Bf16 => Ok(DType::BF16),
        }
    }
}

impl Dtype {
    /// The word in pipeline files.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        }
    }

    /// True for the precision that is used where none is given.
    pub fn is_default(&self) -> bool {
        *self == Dtype::default()
    }

    /// A remark on this choice for the device that is used here where none is named.
    pub fn remark(self) -> Option<&'static str> {
        let is_cpu = || resolve_device("auto").is_ok_and(|device| device == "cpu");
        self.warning(&Device::Cpu).filter(|_| is_cpu())
    }

    /// A warning about this choice for a device; none where the device has instructions for it.
    pub fn warning(self, device: &Device) -> Option<&'static str> {
        self.on_cpu(rounded::is_fast()).filter(|_| matches!(device, Device::Cpu))
    }

    fn on_cpu(self, is_fast: bool) -> Option<&'static str> {
        (self == Dtype::Bf16 && !is_fast).then_some(
            "this processor multiplies bf16 no faster than f32; `dtype: f32` gives more exact results sooner",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_remarked_on_where_it_is_slow() {
        assert!(Dtype::Bf16.on_cpu(false).unwrap().contains("multiplies bf16 no faster"));
        assert!(Dtype::Bf16.on_cpu(true).is_none() && Dtype::F32.on_cpu(false).is_none());
        assert_eq!(Dtype::F32.remark(), None);
        // `check` and the run give the same warning on the same device.
        if resolve_device("auto").unwrap() == "cpu" {
            assert_eq!(Dtype::Bf16.remark(), Dtype::Bf16.warning(&Device::Cpu));
        }
    }
}
