//! In what precision models compute.

use crate::model::folder::model_part;
use crate::model::weights;
use crate::ops::rounded;
use crate::{DType, Device, Result, resolve_device};
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
            SavedDtype::AsLoaded => weights::stored_dtype(&model_part(folder)?),
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
        (self == Dtype::Bf16 && !is_fast)
            .then_some("this processor has no instructions for bf16; `dtype: f32` gives more exact results sooner")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_remarked_on_where_it_is_slow() {
        assert!(Dtype::Bf16.on_cpu(false).unwrap().contains("no instructions for bf16"));
        assert!(Dtype::Bf16.on_cpu(true).is_none() && Dtype::F32.on_cpu(false).is_none());
        assert_eq!(Dtype::F32.remark(), None);
        // `check` and the run give the same warning on the same device.
        if resolve_device("auto").unwrap() == "cpu" {
            assert_eq!(Dtype::Bf16.remark(), Dtype::Bf16.warning(&Device::Cpu));
        }
    }
}
