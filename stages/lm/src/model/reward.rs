//! Reward models: a decoder that gives one number for a text, by `score.weight` on the state of its last token.

use crate::model::config::DecoderConfig;
use crate::model::config_files::is_reward_model;
use crate::model::folder::model_part;
use crate::model::forest::{Forest, Want};
use crate::model::parameter::Parameter;
use crate::model::shapes::SCORE;
use crate::model::weights::Holding;
use crate::ops::linear;
use crate::ops::rounded::Products::Exact;
use crate::{DType, Decoder, Device, Error, Precision, Result, Sequence, random};
use candle_core::Tensor;
use std::path::Path;

// R rows, H width.

impl Decoder {
    /// Reads the folder of a reward model: `...ForSequenceClassification` with one output.
    ///
    /// Errors name the file: what is missing, damaged, or of an architecture that is not computed here.
    pub fn load_reward_model(folder: &Path, device: &Device, precision: impl Into<Precision>) -> Result<Decoder> {
        let Precision { dtype, bits } = precision.into();
        let load = |dtype| Decoder::load_reward_model_as(folder, Holding { dtype, device, bits });
        Decoder::computing(dtype, device, load)
    }

    /// The same, held in some form. A PEFT folder is read as its base with adapter and head.
    pub(crate) fn load_reward_model_as(folder: &Path, holding: Holding) -> Result<Decoder> {
        let config = DecoderConfig::of_reward_model(folder)?;
        let model = model_part(folder)?;
        match model == folder {
            true => Decoder::load_model(config, folder, holding),
            false => Decoder::load_adapter(config, of_base(&model)?, &model, folder, holding),
        }
    }

    /// A reward model with the body of a language model and a fresh head: normal with the config's deviation, as
    /// transformers begins one, or without a seed 0. The same seed gives the same weights. `pad` becomes its padding
    /// token where the body has none.
    ///
    /// Errors: an adapter, a model of images too.
    pub fn into_reward_model(mut self, seed: Option<u64>, pad: Option<u32>) -> Result<Decoder> {
        if self.lora.is_some() || self.base_adapter.is_some() {
            return Err(Error::input("an adapter becomes no reward model; merge it first"));
        }
        let config = self.config().as_reward_model(pad)?;
        let width = config.hidden_size;
        let normal = |seed| random::normal(seed, SCORE, width, config.initializer_range);
        let fresh = seed.map_or_else(|| vec![0.0; width], normal);
        let value = Tensor::from_vec(fresh, (1, width), self.device())?.to_dtype(self.dtype())?;
        self.score = Some(Parameter { parts: vec![(SCORE.to_owned(), 1)], value, gradient: None });
        self.head = None;
        self.set_config(config);
        Ok(self)
    }

    /// One number for each text, from the state of its last token that is no padding. Shared prefixes are computed
    /// once, at most `budget_tokens` rows at a time.
    ///
    /// Errors: a language model; an empty text, one longer than the model's positions or with tokens outside the
    /// vocabulary; a number that is not finite.
    pub fn rewards(&self, texts: &[&[u32]], budget_tokens: usize) -> Result<Vec<f64>> {
        let mut rewards = vec![0.0; texts.len()];
        for forest in self.reward_forests(texts, budget_tokens)? {
            let rows = self.states_of(&forest, Some(&forest.scored_rows))?; // [R, H]
            let (h, _) = self.last_norm(&rows)?;
            add_rewards(&forest, &self.values(&h)?, &mut rewards)?;
        }
        Ok(rewards)
    }

    /// Micro-batches of texts without the padding at their ends.
    pub(crate) fn reward_forests(&self, texts: &[&[u32]], budget_tokens: usize) -> Result<Vec<Forest>> {
        self.score_weight()?;
        let pad = self.config().pad_token_id;
        let kept = |ids: &&[u32]| {
            // A text of padding alone counts from its first token, as in transformers.
            let end = ids.iter().rposition(|id| Some(*id) != pad).map_or(ids.len().min(1), |last| last + 1);
            Sequence::new(ids[..end].to_vec(), end)
        };
        let kept: Vec<Sequence> = texts.iter().map(kept).collect();
        self.forests(&kept.iter().collect::<Vec<_>>(), Want::Ends, budget_tokens)
    }

    /// The numbers of rows [R, H] after the last norm.
    pub(crate) fn values(&self, h: &Tensor) -> Result<Vec<f64>> {
        let values = linear::forward(h, &self.score_weight()?.value, None, None, Exact)?; // [R, 1]
        Ok(values.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
    }

    /// The gradient by these rows, given that by their numbers. Adds to that of the head.
    pub(crate) fn values_backward(&self, h: &Tensor, derivatives: &[f64]) -> Result<Tensor> {
        let score = self.score_weight()?;
        let dz = Tensor::from_vec(derivatives.to_vec(), (derivatives.len(), 1), &Device::Cpu)?;
        let dz = dz.to_dtype(h.dtype())?.to_device(h.device())?;
        if let Some(gradient) = &score.gradient {
            linear::backward_weight(h, &dz, gradient, Exact)?;
        }
        linear::backward(&score.value, &dz, Exact)
    }

    fn score_weight(&self) -> Result<&Parameter> {
        let why = "a language model gives no number for a text; wanted a reward model (...ForSequenceClassification)";
        self.score.as_ref().ok_or_else(|| Error::input(why))
    }

    /// Refuses a reward model, which has no logits.
    pub(crate) fn speaking(&self) -> Result<()> {
        match &self.score {
            None => Ok(()),
            Some(_) => {
                Err(Error::input("a reward model has no language-model head: it neither scores nor writes tokens"))
            }
        }
    }
}

/// The form of the folder that an adapter of a reward model lies over: a reward model, or a language model.
pub(crate) fn of_base(folder: &Path) -> Result<DecoderConfig> {
    if is_reward_model(folder)? { DecoderConfig::of_reward_model(folder) } else { DecoderConfig::from_folder(folder) }
}

/// Puts the numbers of a forest's rows to their texts.
pub(crate) fn add_rewards(forest: &Forest, values: &[f64], rewards: &mut [f64]) -> Result<()> {
    for &(index, row) in &forest.ends {
        let at = forest.scored_rows.partition_point(|&scored| (scored as usize) < row);
        if !values[at].is_finite() {
            let text = "the model's weights may be damaged or have diverged";
            return Err(Error::NotFinite(format!("the reward of text {index} is {}; {text}", values[at])));
        }
        rewards[index] = values[at];
    }
    Ok(())
}

/// The derivatives by the numbers of a forest's rows, given those by the texts'.
pub(crate) fn row_derivatives(forest: &Forest, derivatives: &[f64]) -> Vec<f64> {
    let mut of_rows = vec![0.0; forest.scored_rows.len()];
    for &(index, row) in &forest.ends {
        of_rows[forest.scored_rows.partition_point(|&scored| (scored as usize) < row)] += derivatives[index];
    }
    of_rows
}
