//! The policy as a folder: its weights or its adapter, the tokenizer, and the way to the base.

use std::path::{Path, PathBuf};

use kit::{Context, Error, Result};
use lm::{Decoder, Kept, Precision, Text, Training};
use tokens::{lm_error, load_decoder, load_reward_model};

use crate::check::MERGED_IN_FEW;
use crate::config::{Adapter, Head, ModelAdapter, Train};

impl Train {
    /// How its model computes.
    pub(crate) fn precision(&self) -> Precision {
        tokens::precision(self.dtype, self.base)
    }

    /// True where it trains a reward model further.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn starts_from_reward_model(&self, model: &Path) -> Result<bool> {
        Ok(self.objective.needs_rewards() && lm::is_reward_model(model).map_err(lm_error)?)
    }

    /// The fault where `model_adapter` or `head` does not go with a model.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn model_fault(&self, model: &Path) -> Result<Option<String>> {
        if let Some(fault) = self.model_adapter_fault(model)? {
            return Ok(Some(fault));
        }
        let folder = model.display();
        if lm::in_few_bits(model).map_err(lm_error)? {
            if !self.trains_adapter() {
                let text = "its weights are in few bits, which are frozen: give `adapter`, which is trained above them";
                return Ok(Some(format!("{folder}: {text}")));
            }
            if self.model_adapter == Some(ModelAdapter::Merge) {
                return Ok(Some(format!("{folder}: {MERGED_IN_FEW}")));
            }
        }
        if self.starts_from_reward_model(model)? {
            let text = || format!("`head` has no effect: `model` ({folder}) is a reward model with a head of its own");
            return Ok(self.head.map(|_| text()));
        }
        let adapts = self.objective.needs_rewards() && self.model_adapter.is_some();
        let plain = self.model_adapter == Some(ModelAdapter::Merge) && self.adapter.is_none();
        Ok((adapts && !plain).then(|| {
            format!(
                "`model` ({folder}) is the adapter of a language model: a reward model over it starts from both merged. Say \
                 `model_adapter: merge` without `adapter`, or merge it with `halftone export model`"
            )
        }))
    }

    /// The fault where `model_adapter` does not go with a model.
    ///
    /// # Errors
    /// When the folder cannot be read.
    fn model_adapter_fault(&self, model: &Path) -> Result<Option<String>> {
        let is_adapter = lm::base_of(model).map_err(lm_error)?.is_some();
        Ok(self.adapter_fault(is_adapter).map(|fault| format!("{}: {fault}", model.display())))
    }

    /// The fault where `model_adapter` does not go with a model that is an adapter or is none.
    pub(crate) fn adapter_fault(&self, is_adapter: bool) -> Option<&'static str> {
        match (is_adapter, self.model_adapter) {
            (true, None) => Some(
                "`model` is an adapter; say what becomes of it: `model_adapter: continue` trains it on, `merge` adds it to \
                 its base's weights first, `freeze` keeps it beside them and trains a fresh `adapter` over both",
            ),
            (false, Some(_)) => Some("`model_adapter` has no effect: `model` is no adapter"),
            _ => None,
        }
    }

    /// The kind of folder that a policy is in, which `check` compares with what a stage can start from.
    pub(crate) fn folder_kind(is_adapter: bool) -> &'static str {
        if is_adapter { "an adapter" } else { "whole weights" }
    }

    /// True where the policy is an adapter's folder.
    pub(crate) fn trains_adapter(&self) -> bool {
        self.adapter.is_some() || self.model_adapter == Some(ModelAdapter::Continue)
    }

    /// The model with the adapters that are trained or frozen.
    pub(crate) fn decoder(&self, context: &Context<'_>) -> Result<Decoder> {
        let path = &context.model("model")?.path;
        let decoder = match self.starts_from_reward_model(path)? {
            true => load_reward_model(context, "model", self.precision())?,
            false => load_decoder(context, "model", self.precision())?,
        };
        let fresh = self.adapter.as_ref().map(Adapter::lora).transpose().map_err(lm_error)?;
        let decoder = match (self.model_adapter, &fresh) {
            (None | Some(ModelAdapter::Continue), _) => Ok(decoder),
            (Some(ModelAdapter::Merge), None) => decoder.merged(),
            (Some(ModelAdapter::Merge), Some(_)) => decoder.with_base_adapter(true),
            (Some(ModelAdapter::Freeze), _) => decoder.with_base_adapter(false),
        };
        let mut decoder = decoder.map_err(lm_error)?;
        if self.model_adapter == Some(ModelAdapter::Continue) {
            decoder.whole_adapter().map_err(lm_error)?;
        }
        if self.objective.needs_rewards() && !self.starts_from_reward_model(path)? {
            let pad = Text::load(path).map_err(lm_error)?.pad_id();
            let seed = (self.head != Some(Head::Zeros)).then_some(context.seed.0);
            decoder = decoder.into_reward_model(seed, pad).map_err(lm_error)?;
        }
        if let Some(lora) = fresh {
            decoder.add_adapter(&lora, context.seed.0).map_err(lm_error)?;
        }
        Ok(decoder)
    }

    /// Writes the policy as it is now into an empty folder. Gives the share of the updates that `save.dtype` leaves,
    /// where it is less precise than the training.
    pub(crate) fn write_policy(
        &self,
        context: &Context<'_>,
        training: &Training,
        folder: &Path,
    ) -> Result<Option<Kept>> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let model = context.model("model")?;
        let kept = if self.trains_adapter() {
            let base = lm::base_of(&model.path).map_err(lm_error)?.unwrap_or_else(|| model.path.clone());
            // The digest ties the folder's bytes to the weights that the adapter was trained beside.
            let path = folder.join("base_digest.txt");
            std::fs::write(&path, format!("{}\n", model.digest)).map_err(Error::io(&path))?;
            if let Some(inside) = inside_of_store(&base, context.folder) {
                let path = folder.join(lm::BASE_INSIDE);
                std::fs::write(&path, format!("{}\n", inside.display())).map_err(Error::io(&path))?;
            }
            training.save_adapter(folder, self.save.dtype, &base).map(|()| None)
        } else {
            training.save(folder, self.save.dtype, &model.path)
        }
        .map_err(lm_error)?;
        lm::copy_tokenizer(&model.path, folder).map_err(lm_error)?;
        Ok(kept)
    }
}

/// The way from an adapter to its base, where that is another result of the same store: it stays right when the store is
/// moved. `entry` is the stage's folder, STORE/ENTRY; the adapter lies in STORE/ENTRY/PORT.
fn inside_of_store(base: &Path, entry: &Path) -> Option<PathBuf> {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let store = whole(entry).parent().map(Path::to_owned)?;
    whole(base).strip_prefix(store).ok().map(|inside| Path::new("../..").join(inside))
}
