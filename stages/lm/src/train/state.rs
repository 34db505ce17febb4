//! Saving training in the middle and going on exactly there.

use crate::model::tensor_file;
use crate::train::shares::{rows_and_width, rows_into};
use crate::train::training::State;
use crate::{DType, Device, Error, Result, Training};
use candle_core::{Shape, Tensor};
use std::ops::Range;
use std::path::Path;

/// The file in a folder.
const FILE: &str = "training_state.safetensors";

/// A training between two steps, as it is written.
pub struct SavedState {
    steps: u64,
    /// By name: weights that are trained, their moments and masters.
    pub(crate) tensors: Vec<(String, Tensor)>,
}

impl SavedState {
    /// Writes it into `training_state.safetensors` of an existing folder. Training that goes on from it gives the same
    /// bytes as training that was never stopped, also with another number of shares.
    ///
    /// Errors: the file system's.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let steps = Tensor::new(self.steps as i64, &Device::Cpu)?;
        let mut all: Vec<(&str, Tensor)> =
            self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        all.push(("steps", steps));
        tensor_file::save(&folder.join(FILE), &all)
    }
}

impl Training {
    /// Writes weights that are trained, moments and the number of steps: see [`SavedState::save`].
    ///
    /// Errors: gradients that no step has used yet, since they are not written; a state in shares.
    pub fn save_state(&self, folder: &Path) -> Result<()> {
        self.state()?.save(folder)
    }

    /// The whole state, of all ranks, on the CPU: only where it is to `keep` it. All ranks call it together.
    ///
    /// Errors: the device's; gradients that no step has used yet, since they are not part of it.
    pub fn gathered_state<E>(
        &self,
        keep: bool,
        mut gather: impl FnMut(&[f32]) -> std::result::Result<Vec<Vec<f32>>, E>,
    ) -> Result<std::result::Result<SavedState, E>> {
        if !self.is_shared() {
            return Ok(Ok(self.state()?));
        }
        let mut saved = self.saved()?;
        for (parameter, state) in self.decoder.parameters().into_iter().zip(&self.states) {
            if parameter.gradient.is_none() {
                continue;
            }
            let (value, name) = (&parameter.value, &parameter.parts[0].0);
            let (all, width) = rows_and_width(value);
            let has_master = value.dtype() != DType::F32;
            saved.tensors.push((format!("weight.{name}"), value.clone()));
            let own = state.as_ref();
            for (word, own) in [("mean", own.map(|own| &own.mean)), ("square", own.map(|own| &own.square))]
                .into_iter()
                .chain(has_master.then(|| ("master", own.and_then(|own| own.master.as_ref()))))
            {
                let whole = if keep { Some(Tensor::zeros(value.shape(), DType::F32, &Device::Cpu)?) } else { None };
                if let (Some(whole), Some(own)) = (&whole, own) {
                    whole.slice_set(&own.to_device(&Device::Cpu)?, 0, self.share.rows(all).start)?;
                }
                let put = |first, numbers| whole.as_ref().map_or(Ok(()), |whole| rows_into(whole, first, numbers));
                if let Err(error) = self.share.swap(own, all, width, &mut gather, put)? {
                    return Ok(Err(error));
                }
                saved.tensors.extend(whole.map(|whole| (format!("{word}.{name}"), whole)));
            }
        }
        Ok(Ok(saved))
    }

    /// The state, where this one has all of it; its tensors are those of the training.
    pub(crate) fn state(&self) -> Result<SavedState> {
        if self.is_shared() {
            return Err(Error::internal("other ranks have parts of the state"));
        }
        let mut saved = self.saved()?;
        for (parameter, state) in self.decoder.parameters().into_iter().zip(&self.states) {
            let name = &parameter.parts[0].0;
            let Some(state) = state else { continue };
            saved.tensors.push((format!("weight.{name}"), parameter.value.clone()));
            saved.tensors.push((format!("mean.{name}"), state.mean.clone()));
            saved.tensors.push((format!("square.{name}"), state.square.clone()));
            saved.tensors.extend(state.master.iter().map(|master| (format!("master.{name}"), master.clone())));
        }
        Ok(saved)
    }

    /// The state without its tensors.
    pub(crate) fn saved(&self) -> Result<SavedState> {
        if self.accumulated {
            return Err(Error::internal("training is saved between steps, not between backward and step"));
        }
        Ok(SavedState { steps: self.steps, tensors: Vec::new() })
    }

    /// Goes back to what [`save_state`](Training::save_state) wrote, by a training of the same model, dtype and choice
    /// of parameters, whatever the shares of its state.
    ///
    /// Errors name the file and what is missing or of another form.
    pub fn load_state(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let mut stored = tensor_file::read_all(&path)?;
        let steps = stored.remove("steps").ok_or_else(|| Error::file(&path, "tensor steps is missing"))?;
        let mut found = Vec::new();
        for Place { name, shape, dtype, own } in self.places() {
            let got = stored.remove(&name).ok_or_else(|| Error::file(&path, format!("tensor {name} is missing")))?;
            if (got.shape(), got.dtype()) != (&shape, dtype) {
                let (got, want) = ((got.dims(), got.dtype()), (shape.dims(), dtype));
                return Err(Error::file(&path, format!("tensor {name} is {got:?}; this training has {want:?}")));
            }
            if let Some((tensor, rows)) = own {
                found.push((tensor, got.narrow(0, rows.start, rows.len())?));
            }
        }
        if let Some(name) = stored.keys().min() {
            return Err(Error::file(&path, format!("tensor {name} has no place in this training")));
        }
        // Everything fits: only now does anything change. The tensors share their storage with the training.
        for (tensor, got) in found {
            tensor.slice_set(&got.to_device(tensor.device())?, 0, 0)?;
        }
        self.steps = steps.to_dtype(DType::I64)?.to_scalar::<i64>()? as u64;
        self.discard()
    }

    /// All tensors of a whole state, with those of this training that take their rows.
    fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (parameter, state) in self.decoder.parameters().into_iter().zip(&self.states) {
            let (value, Some(gradient)) = (&parameter.value, &parameter.gradient) else { continue };
            let mut place = |word: &str, dtype: DType, own: Option<(&Tensor, Range<usize>)>| {
                let name = format!("{word}.{}", parameter.parts[0].0);
                let own = own.map(|(tensor, rows)| (tensor.clone(), rows));
                places.push(Place { name, shape: value.shape().clone(), dtype, own });
            };
            place("weight", value.dtype(), Some((value, 0..rows_and_width(value).0)));
            let own = |tensor: fn(&State) -> Option<&Tensor>| {
                state.as_ref().and_then(|state| Some((tensor(state)?, state.rows.clone())))
            };
            place("mean", gradient.dtype(), own(|state| Some(&state.mean)));
            place("square", gradient.dtype(), own(|state| Some(&state.square)));
            if value.dtype() != gradient.dtype() {
                place("master", gradient.dtype(), own(|state| state.master.as_ref()));
            }
        }
        places
    }
}

/// A tensor of a whole state.
struct Place {
    name: String,
    shape: Shape,
    dtype: DType,
    /// The tensor of the training that takes some of its rows.
    own: Option<(Tensor, Range<usize>)>,
}
