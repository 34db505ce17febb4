//! Saved results of a training: the weights in the precision that they were trained in, or in another.

use crate::model::few_bits::Held;
use crate::model::folder::model_part;
use crate::model::lora::is_beside;
use crate::model::parameter::Parameter;
use crate::model::reward::of_base;
use crate::model::weights::{self, Holding};
use crate::model::written::rounded;
use crate::{DType, Device, Error, Result, SavedDtype, Training};
use candle_core::Tensor;
use std::path::Path;

/// Number of weights that training changed, and of those whose change survives the precision of the saved file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Weights whose number is another than before training.
    pub changed: u64,
    /// Those of them whose number is another after both were rounded.
    pub kept: u64,
}

impl Kept {
    /// The share of the changes that are kept, 0 to 1; 1 where nothing changed.
    pub fn share(&self) -> f64 {
        if self.changed == 0 { 1.0 } else { self.kept as f64 / self.changed as f64 }
    }
}

impl Training {
    /// Writes the trained model into an existing folder, as [`Decoder::save`](crate::Decoder::save) does, from the
    /// weights in full precision. `base` is the folder that it was loaded from. Where it is saved in less than f32,
    /// gives what that leaves of the changes.
    ///
    /// Errors: an adapter, a weight that the dtype has no number for; what cannot be read or written.
    pub fn save(&self, to: &Path, dtype: SavedDtype, base: &Path) -> Result<Option<Kept>> {
        if self.decoder.adapter().is_some() {
            return Err(Error::internal("a decoder with an adapter is saved merged, or as its adapter"));
        }
        let dtype = dtype.of(base)?;
        self.decoder.config().save(to, dtype)?;
        let trained = self.in_full()?;
        let path = to.join("model.safetensors");
        let (mut saved, others) = (rounded(&path, &trained, dtype)?, self.decoder.others()?);
        saved.extend(others.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())));
        weights::save_model(&path, self.decoder.config(), &saved)?;
        if matches!(dtype, DType::F32 | DType::F64) {
            return Ok(None);
        }
        let mut config = of_base(&model_part(base)?)?;
        // As it was loaded to compute with.
        let before = weights::load(&model_part(base)?, &mut config, Holding::of(self.decoder.dtype()))?;
        let mut kept = Kept::default();
        for (name, after) in &trained {
            let Some(Held::Numbers(before)) = before.get(*name) else { continue };
            let numbers = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
            let rounded = |tensor: &Tensor| numbers(&tensor.to_dtype(dtype)?);
            let full = numbers(before)?.into_iter().zip(numbers(after)?);
            for ((before, after), (old, new)) in full.zip(rounded(before)?.into_iter().zip(rounded(after)?)) {
                kept.changed += u64::from(before != after);
                kept.kept += u64::from(before != after && old != new);
            }
        }
        Ok(Some(kept))
    }

    /// The adapter as PEFT reads it, from its weights in full precision; see
    /// [`Decoder::save_adapter`](crate::Decoder::save_adapter).
    pub fn save_adapter(&self, to: &Path, dtype: SavedDtype, base: &Path) -> Result<()> {
        let dtype = dtype.of(base)?;
        let mut trained = self.in_full()?;
        trained.retain(|(name, _)| is_beside(name));
        self.decoder.write_adapter(to, base, trained, Some(dtype))
    }

    /// All weights by the names in model files, on the CPU: the masters where the decoder computes in half.
    fn in_full(&self) -> Result<Vec<(&str, Tensor)>> {
        let mut all = Vec::new();
        for (parameter, state) in self.decoder.parameters().into_iter().zip(&self.states) {
            let master = state.as_ref().and_then(|state| state.master.as_ref());
            let value = master.unwrap_or(&parameter.value).to_device(&Device::Cpu)?;
            all.extend(Parameter::cut(&parameter.parts, &value)?);
        }
        Ok(all)
    }
}
