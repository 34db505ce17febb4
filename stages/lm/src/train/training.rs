//! Training: forward over a whole batch, backward from the derivatives by its log-probabilities, and steps.

use crate::device::gpu_memory;
use crate::model::forest::{Forest, Part, Want};
use crate::model::lora::is_beside;
use crate::model::parameter::Parameter;
use crate::model::passes::Kept;
use crate::model::reward::{add_rewards, row_derivatives};
use crate::model::scoring::add_scores;
use crate::ops::adamw;
use crate::train::gradients::Sets;
use crate::train::shares::{Share, rows_and_width};
use crate::{DType, Decoder, Error, LogProbs, Result, Sequence};
use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::Range;

/// The optimizer, as torch's AdamW: weight decay is decoupled and applies to all parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// Decay of the mean of gradients at each step, in [0, 1).
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the mean of squared gradients at each step, in [0, 1).
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// Added to the root of the mean of squares.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// The part of each weight, times the learning rate, that a step takes away.
    #[serde(default)]
    pub weight_decay: f64,
}

fn default_beta1() -> f64 {
    0.9
}
fn default_beta2() -> f64 {
    0.999
}
fn default_eps() -> f64 {
    1e-8
}

impl Default for AdamW {
    /// torch's defaults, but no weight decay.
    fn default() -> Self {
        AdamW { beta1: default_beta1(), beta2: default_beta2(), eps: default_eps(), weight_decay: 0.0 }
    }
}

/// Intermediate values kept between forward and backward. The results are the same; memory and time differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Memory {
    /// The fastest of the others whose activations fit into so many bytes, by an estimate; where none does, `boundaries`
    /// or `two_pass`, whichever keeps less.
    Auto {
        /// Bytes for activations, weights and optimizer state not counted.
        bytes: u64,
    },
    /// All activations. Fastest.
    Keep,
    /// The inputs of the blocks; the rest is computed again, block by block.
    Boundaries,
    /// Nothing; each micro-batch is computed again as a whole.
    TwoPass,
}

/// A decoder in training.
///
/// A step is [`forward`](Training::forward) over a batch, [`backward`](Training::backward) with the derivatives of a
/// loss by the log-probabilities that forward gave, and [`step`](Training::step). Several forward-backward pairs may
/// precede a step; their gradients add up.
#[derive(Debug)]
pub struct Training {
    pub(crate) decoder: Decoder,
    adamw: AdamW,
    clip_norm: Option<f64>,
    pub(crate) memory: Memory,
    pub(crate) budget_tokens: usize,
    /// The masks of an adapter's dropout follow from it, the step and the tokens up to each row; 0 at first.
    pub dropout_seed: u64,
    /// The part of the state that this one holds.
    pub(crate) share: Share,
    /// For each parameter, in the decoder's order; absent where it is frozen, or no row of it is of this share.
    pub(crate) states: Vec<Option<State>>,
    /// Steps made.
    pub(crate) steps: u64,
    /// Groups of sequences whose backward is to come.
    pending: VecDeque<Pending>,
    pub(crate) sets: Sets,
    /// True where gradients were added since the last step.
    pub(crate) accumulated: bool,
}

/// The optimizer's numbers for some rows of one parameter, f32 (f64 where the parameter is).
#[derive(Debug)]
pub(crate) struct State {
    /// All of them, but where the state is in shares.
    pub rows: Range<usize>,
    pub mean: Tensor,
    pub square: Tensor,
    /// The weights in full precision where the decoder computes in half.
    pub master: Option<Tensor>,
}

/// A group between forward and backward.
#[derive(Debug)]
struct Pending {
    sequences: usize,
    micro_batches: Vec<(Forest, Kept)>,
}

impl State {
    /// Before the first step.
    fn of(value: &Tensor, rows: Range<usize>, dtype: DType) -> Result<State> {
        let own = value.narrow(0, rows.start, rows.len())?;
        let zeros = || Tensor::zeros(own.shape(), dtype, own.device());
        let master = if own.dtype() == dtype { None } else { Some(own.to_dtype(dtype)?) };
        Ok(State { mean: zeros()?, square: zeros()?, master, rows })
    }
}

impl Training {
    /// Takes over a decoder and trains all of its parameters; where it has an adapter, that alone, with a reward model's
    /// head.
    ///
    /// `clip_norm` bounds the global norm of the gradient; `budget_tokens` the rows of a micro-batch.
    pub fn new(
        decoder: Decoder,
        adamw: AdamW,
        clip_norm: Option<f64>,
        memory: Memory,
        budget_tokens: usize,
    ) -> Result<Training> {
        Training::of_share(decoder, adamw, clip_norm, memory, budget_tokens, Share::WHOLE)
    }

    /// The same, with a share of the optimizer's state: after each step [`spread`](Training::spread) takes up what the
    /// other ranks made of their rows.
    pub fn of_share(
        decoder: Decoder,
        adamw: AdamW,
        clip_norm: Option<f64>,
        memory: Memory,
        budget_tokens: usize,
        share: Share,
    ) -> Result<Training> {
        let all = decoder.adapter().is_none();
        let trained = |name: &str| all || is_beside(name);
        Training::of_some_in_share(decoder, adamw, clip_norm, memory, budget_tokens, trained, share)
    }

    /// The same, but trains only the parameters whose names, as in model files, are chosen. The others cost no
    /// gradient, and blocks below the lowest chosen one no backward.
    ///
    /// Errors: nothing chosen, or a part of matrices that are held as one (q, k and v; gate and up).
    pub fn of_some(
        decoder: Decoder,
        adamw: AdamW,
        clip_norm: Option<f64>,
        memory: Memory,
        budget_tokens: usize,
        trained: impl Fn(&str) -> bool,
    ) -> Result<Training> {
        Training::of_some_in_share(decoder, adamw, clip_norm, memory, budget_tokens, trained, Share::WHOLE)
    }

    fn of_some_in_share(
        mut decoder: Decoder,
        adamw: AdamW,
        clip_norm: Option<f64>,
        memory: Memory,
        budget_tokens: usize,
        trained: impl Fn(&str) -> bool,
        share: Share,
    ) -> Result<Training> {
        if let Some(name) = decoder.few_bits().find(|name| trained(name)) {
            let text = "weights in few bits are frozen: train an adapter beside them";
            return Err(Error::input(format!("{name} cannot be trained; {text}")));
        }
        let mut states = Vec::new();
        for parameter in decoder.parameters_mut() {
            let chosen = parameter.parts.iter().filter(|(name, _)| trained(name)).count();
            if chosen == 0 {
                parameter.gradient = None;
                states.push(None);
                continue;
            }
            if chosen < parameter.parts.len() {
                let names: Vec<&str> = parameter.parts.iter().map(|(name, _)| name.as_str()).collect();
                return Err(Error::input(format!("{} are trained together or not at all", names.join(", "))));
            }
            let value = &parameter.value;
            let dtype = if value.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let rows = share.rows(rows_and_width(value).0);
            states.push(if rows.is_empty() { None } else { Some(State::of(value, rows, dtype)?) });
            // Steps change weights in place; nobody else may share them.
            let (own, gradient) = (value.copy()?, Tensor::zeros(value.shape(), dtype, value.device())?);
            parameter.value = own;
            parameter.gradient = Some(gradient);
        }
        if decoder.parameters().into_iter().all(|parameter| parameter.gradient.is_none()) {
            return Err(Error::input("no parameter is trained"));
        }
        Ok(Training {
            decoder,
            adamw,
            clip_norm,
            memory,
            budget_tokens,
            dropout_seed: 0,
            share,
            states,
            steps: 0,
            pending: VecDeque::new(),
            sets: Sets::default(),
            accumulated: false,
        })
    }

    /// On a GPU, lets a free choice of schedule take the memory that weights and optimizer leave. An eighth of all
    /// stays for chunks of logits and the driver. On a CPU nothing changes.
    ///
    /// Errors: the driver's.
    pub fn use_free_memory(&mut self) -> Result<()> {
        if let (Memory::Auto { bytes }, Some((free, all))) = (&mut self.memory, gpu_memory(self.decoder.device())?) {
            *bytes = free.saturating_sub(all / 8);
        }
        Ok(())
    }

    /// The decoder as it is now.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Ends training and gives the decoder back.
    pub fn into_decoder(mut self) -> Decoder {
        for parameter in self.decoder.parameters_mut() {
            parameter.gradient = None;
        }
        self.decoder
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The log-probabilities of a batch, in its order; micro-batches of whole trees inside. What
    /// [`backward`](Training::backward) needs is kept until the next forward or step.
    ///
    /// Errors: as [`Decoder::score`].
    pub fn forward(&mut self, sequences: &[&Sequence], prompt_part: bool) -> Result<Vec<LogProbs>> {
        let groups = self.forward_groups(&[sequences.to_vec()], prompt_part)?;
        Ok(groups.into_iter().next().expect("one group"))
    }

    /// The same for several groups of a batch, each computed as if it were alone. Each takes a backward, in their order.
    ///
    /// Errors: as [`Decoder::score`].
    pub fn forward_groups(&mut self, groups: &[Vec<&Sequence>], prompt_part: bool) -> Result<Vec<Vec<LogProbs>>> {
        self.pending.clear();
        self.decoder.speaking()?;
        let of = |group: &Vec<&Sequence>| self.decoder.forests(group, Want::Scores { prompt_part }, self.budget_tokens);
        let forests: Vec<Vec<Forest>> = groups.iter().map(of).collect::<Result<_>>()?;
        // What all of them keep is there at once.
        let schedule = self.schedule(forests.iter().flatten());
        let mut scores = Vec::with_capacity(groups.len());
        for (group, forests) in groups.iter().zip(forests) {
            let mut sums = vec![LogProbs::default(); group.len()];
            let mut micro_batches = Vec::with_capacity(forests.len());
            for forest in forests {
                let (kept, logps) = self.forward_kept(&forest, schedule)?;
                add_scores(&forest, &logps, &mut sums)?;
                micro_batches.push((forest, kept));
            }
            self.pending.push_back(Pending { sequences: group.len(), micro_batches });
            scores.push(sums);
        }
        Ok(scores)
    }

    /// The rewards of a batch of texts, in its order, by a reward model; see [`Decoder::rewards`]. What
    /// [`backward_rewards`](Training::backward_rewards) needs is kept until the next forward or step.
    ///
    /// Errors: as [`Decoder::rewards`].
    pub fn forward_rewards(&mut self, texts: &[&[u32]]) -> Result<Vec<f64>> {
        self.pending.clear();
        let forests = self.decoder.reward_forests(texts, self.budget_tokens)?;
        let schedule = self.schedule(forests.iter());
        let mut rewards = vec![0.0; texts.len()];
        let mut micro_batches = Vec::with_capacity(forests.len());
        for forest in forests {
            let (kept, scores) = self.forward_kept(&forest, schedule)?;
            add_rewards(&forest, &scores.logps, &mut rewards)?;
            micro_batches.push((forest, kept));
        }
        self.pending.push_back(Pending { sequences: texts.len(), micro_batches });
        Ok(rewards)
    }

    /// Adds the gradient of a loss, given its derivatives by the rewards of the last forward.
    ///
    /// Errors: no forward of rewards before it, another number of texts, or derivatives that are not finite.
    pub fn backward_rewards(&mut self, derivatives: &[f64]) -> Result<()> {
        let pending = self.pending.pop_front().filter(|_| self.decoder.score.is_some());
        let Pending { sequences, micro_batches } =
            pending.ok_or_else(|| Error::internal("backward without a forward"))?;
        if derivatives.len() != sequences {
            let got = derivatives.len();
            return Err(Error::internal(format!("backward got derivatives for {got} of {sequences} texts")));
        }
        if let Some(i) = derivatives.iter().position(|slope| !slope.is_finite()) {
            let slope = derivatives[i];
            return Err(Error::NotFinite(format!("the loss's derivative by the reward of text {i} is {slope}")));
        }
        for (forest, kept) in micro_batches {
            let of_rows = row_derivatives(&forest, derivatives);
            self.accumulated = true;
            if of_rows.iter().any(|&slope| slope != 0.0) {
                self.backward_kept(&forest, kept, &of_rows)?;
            }
        }
        Ok(())
    }

    /// Adds the gradient of a loss, given its derivatives by the log-probabilities of the last forward.
    ///
    /// Errors: no forward before it, another number of sequences, or derivatives that are not finite.
    pub fn backward(&mut self, cotangents: &[LogProbs]) -> Result<()> {
        let pending = self.pending.pop_front().filter(|_| self.decoder.score.is_none());
        let Pending { sequences, micro_batches } =
            pending.ok_or_else(|| Error::internal("backward without a forward"))?;
        if cotangents.len() != sequences {
            let got = cotangents.len();
            return Err(Error::internal(format!("backward got derivatives for {got} of {sequences} sequences")));
        }
        if let Some(i) = cotangents.iter().position(|c| !c.response.is_finite() || !c.prompt.is_finite()) {
            let LogProbs { response, prompt } = cotangents[i];
            return Err(Error::NotFinite(format!(
                "the loss's derivative by the log-probabilities of sequence {i} is {response} (response), {prompt} (prompt)"
            )));
        }
        for (forest, kept) in micro_batches {
            let derivatives: Vec<f64> = forest
                .scored
                .iter()
                .map(|scored| {
                    let owners = scored.owners.iter();
                    let one = |&(index, part): &(usize, Part)| match part {
                        Part::Prompt => cotangents[index].prompt,
                        Part::Response => cotangents[index].response,
                    };
                    owners.map(one).sum()
                })
                .collect();
            self.accumulated = true;
            // Where the loss is flat there is nothing to add.
            if derivatives.iter().any(|&d| d != 0.0) {
                self.backward_kept(&forest, kept, &derivatives)?;
            }
        }
        Ok(())
    }

    /// Makes a step with the gradients added since the last one and sets them to 0. Gives their global norm as it was
    /// before clipping.
    ///
    /// Errors: a gradient that is not finite; the weights stay as they are and the gradients are set to 0. Gradients that
    /// were put aside and not added.
    pub fn step(&mut self, lr: f64) -> Result<f64> {
        self.pending.clear();
        if self.sets.open() {
            return Err(Error::internal("a step would leave out the gradients that were put aside"));
        }
        let trained: Vec<(&Parameter, &Tensor)> =
            self.decoder.parameters().into_iter().filter_map(|p| Some((p, p.gradient.as_ref()?))).collect();
        let gradients: Vec<&Tensor> = trained.iter().map(|(_, gradient)| *gradient).collect();
        let sums = adamw::sums_of_squares(&gradients)?;
        if let Some(at) = sums.iter().position(|sum| !sum.is_finite()) {
            let name = trained[at].0.parts[0].0.clone();
            self.discard()?;
            return Err(Error::NotFinite(format!(
                "the gradient of {name} is not finite at step {}; lower the learning rate, or look for damaged rows",
                self.steps + 1
            )));
        }
        let norm = sums.iter().sum::<f64>().sqrt();
        self.steps += 1;
        let AdamW { beta1, beta2, eps, weight_decay } = self.adamw;
        let clip = self.clip_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0));
        let step = adamw::Step { lr, beta1, beta2, eps, weight_decay, clip, t: self.steps };
        for (parameter, state) in self.decoder.parameters().into_iter().zip(&self.states) {
            let Some(gradient) = &parameter.gradient else { continue };
            if let Some(state) = state {
                let own = |whole: &Tensor| whole.narrow(0, state.rows.start, state.rows.len());
                let (value, own_gradient) = (own(&parameter.value)?, own(gradient)?);
                let (weight, half) = match &state.master {
                    None => (&value, None),
                    Some(master) => (master, Some(&value)),
                };
                adamw::step(weight, &own_gradient, &state.mean, &state.square, half, &step)?;
            }
            if self.is_shared() {
                // The rows of other ranks, too.
                gradient.zero_set()?;
            }
        }
        self.accumulated = false;
        Ok(norm)
    }

    /// Sets all gradients to 0 and forgets the last forward and what was put aside.
    pub fn discard(&mut self) -> Result<()> {
        self.pending.clear();
        self.sets.discard();
        for gradient in self.decoder.parameters().into_iter().filter_map(|parameter| parameter.gradient.as_ref()) {
            gradient.zero_set()?;
        }
        self.accumulated = false;
        Ok(())
    }

    /// The gradients added since the last step, by the names in model files: f32 (f64 where the model computes in it).
    /// Frozen parameters are absent.
    pub fn gradients(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::new();
        for Parameter { parts, gradient, .. } in self.decoder.parameters() {
            let mut start = 0;
            for (name, rows) in parts {
                if let Some(gradient) = gradient {
                    all.push((name.clone(), gradient.narrow(0, start, *rows)?));
                }
                start += rows;
            }
        }
        Ok(all)
    }
}
