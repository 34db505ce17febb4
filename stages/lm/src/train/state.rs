//! Saving training in the middle and going on exactly there.

use crate::model::tensor_file;
use crate::{Error, Result, Training};
use candle_core::{Device, Tensor};
use std::path::Path;

/// The file in a folder.
const FILE: &str = "training_state.safetensors";

impl Training {
    /// Writes trained weights, moments and the number of steps into `training_state.safetensors` of an existing folder.
    /// Training that goes on from it gives the same bytes as training that was never stopped.
    ///
    /// Errors: gradients that no step has used yet, since they are not written.
    pub fn save_state(&self, folder: &Path) -> Result<()> {
        if self.accumulated {
            return Err(Error::internal("training is saved between steps, not between backward and step"));
        }
        let steps = Tensor::new(self.steps as i64, &Device::Cpu)?;
        let tensors = self.state_tensors()?;
        let mut all: Vec<(&str, Tensor)> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        all.push(("steps", steps));
        tensor_file::save(&folder.join(FILE), &all)
    }

    /// Goes back to what [`save_state`](Training::save_state) wrote, by a training of the same model, dtype and choice
    /// of parameters.
    ///
    /// Errors name the file and what is missing or of another form.
    pub fn load_state(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let mut stored = tensor_file::read_all(&path)?;
        let steps = stored.remove("steps").ok_or_else(|| Error::file(&path, "tensor steps is missing"))?;
        let mut found = Vec::new();
        for (name, tensor) in self.state_tensors()? {
            let got = stored.remove(&name).ok_or_else(|| Error::file(&path, format!("tensor {name} is missing")))?;
            if (got.dims(), got.dtype()) != (tensor.dims(), tensor.dtype()) {
                let (got, want) = ((got.dims(), got.dtype()), (tensor.dims(), tensor.dtype()));
                return Err(Error::file(&path, format!("tensor {name} is {got:?}; this training has {want:?}")));
            }
            found.push((tensor, got));
        }
        if let Some(name) = stored.keys().min() {
            return Err(Error::file(&path, format!("tensor {name} has no place in this training")));
        }
        // Everything fits: only now does anything change. The tensors share their storage with the training.
        for (tensor, got) in found {
            tensor.slice_set(&got.to_device(tensor.device())?, 0, 0)?;
        }
        self.steps = steps.to_dtype(candle_core::DType::I64)?.to_scalar::<i64>()? as u64;
        self.discard()
    }

    /// All tensors of the state by name: weights that are trained, their moments and masters.
    fn state_tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::new();
        for (parameter, state) in self.decoder.parameters().into_iter().zip(&self.states) {
            let name = &parameter.parts[0].0;
            let Some(state) = state else { continue };
            all.push((format!("weight.{name}"), parameter.value.clone()));
            all.push((format!("mean.{name}"), state.mean.clone()));
            all.push((format!("square.{name}"), state.square.clone()));
            all.extend(state.master.iter().map(|master| (format!("master.{name}"), master.clone())));
        }
        Ok(all)
    }
}
