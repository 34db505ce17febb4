//! The configuration of `train`: its field docs are the manual.

use kit::Input;
use lm::{Dtype, SavedDtype};
use objective::Mixture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokens::{Base, RowRules};

/// Trains a policy on pairs or items.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// The training rows: `pairs`, or `items` for `sft`, `kto` and unpaired `rpo`.
    pub from: Input,
    /// The model training starts from: a folder in the Hugging Face format, a PEFT folder (see `model_adapter`), or the
    /// `policy` of another `train` stage. For the objective `reward` a language model, which gets a `head`, or a reward
    /// model (`...ForSequenceClassification` with one output).
    pub model: Input,
    /// The frozen reference's log-probs of the training rows (and of `eval_pairs`), from a `reference` stage over the
    /// same rows with the same token rules. Objectives without a reference show rewards and margins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Input>,
    /// The embeddings of all prompts, for `rpo` weighted by embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<Input>,
    /// Held-out pairs: loss, accuracy and margin on them every `eval_every` steps and at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_pairs: Option<Input>,
    /// The objective: `{name: gdpo, beta: 0.1}`. Each objective has its own knobs. A list,
    /// `[{name: gdpo, beta: 0.1}, {name: sft, weight: 0.2}]`, adds the losses of several, each normalised for itself.
    pub objective: Mixture,
    /// Trains a low-rank adapter beside the weights, which stay as they are, in place of all weights; of a reward model
    /// its head too. `policy` is then a PEFT folder that names `model` as its base; every stage takes it as a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
    /// The use of the adapter that `model` is; required where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_adapter: Option<ModelAdapter>,
    /// The head that a language model gets for the objective `reward`: `normal` (drawn from the run's seed with the
    /// deviation `initializer_range` of `config.json`, as transformers begins one; so it is without this key) or `zeros`.
    /// A reward model has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// The optimizer: its steps from gradients.
    pub optimizer: Optimizer,
    /// Size and order of batches, and how much of one is computed at once.
    pub batch: BatchOptions,
    /// Passes over the rows; either this or `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Steps in all, over as many passes as that takes; either this or `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Steps between evaluations on `eval_pairs`; without it there is one at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<u64>,
    /// Takes the policy from the best evaluation on `eval_pairs` in place of the last step, and may end training early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<BestOptions>,
    /// Steps between checkpoints, from which a killed run goes on; a signal writes one more. It does not change the
    /// result.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: u64,
    /// Minutes between checkpoints, for steps that are slow: what a kill can cost. At most a tenth of the time goes
    /// into these. 0 writes one after each step. It does not change the result.
    #[serde(default = "checkpoint_minutes")]
    pub checkpoint_minutes: f64,
    /// Intermediate values kept between forward and backward, and the memory that they may take.
    #[serde(default)]
    pub memory: MemoryOptions,
    /// The precision of matrix products, `f32` or `bf16`; the reference has to be scored in the same. Weights are
    /// trained in f32 with either.
    #[serde(default)]
    pub dtype: Dtype,
    /// Bits of the model's weights, where they are put into few: `{bits: 4}` or `{bits: 8}`;
    /// they are frozen then, and an `adapter` is trained above them. The reference has to be scored in the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// Form of the saved policy.
    #[serde(default)]
    pub save: SaveOptions,
    /// Lets `jpo` train on pairs that all share their prompt, where it is DPO at a higher price.
    #[serde(default)]
    pub allow_same_prompt: bool,
    /// Rules by which rows become tokens: the same as in the `reference` stage.
    #[serde(default)]
    pub tokens: RowRules,
}

/// A low-rank adapter as PEFT has it: y = x W^T + (alpha / rank) x A^T B^T, A drawn from the run's seed, B 0 at first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Rows of A.
    pub rank: usize,
    /// The adapter's part is multiplied with alpha / rank.
    pub alpha: f64,
    /// Multiplies with alpha / sqrt(rank) instead: rank-stabilised LoRA (arXiv 2312.03732).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rslora: bool,
    /// The linear layers that have one: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj` (of
    /// Phi 3: `qkv_proj`, `o_proj`, `gate_up_proj`, `down_proj`), or `all-linear` for all of them.
    pub targets: Vec<String>,
    /// The share of each layer's inputs that a step leaves out of the adapter's part, from 0 up to, but without, 1; the
    /// rest is multiplied with 1 / (1 - dropout). The choice follows from the run's seed, the step, the layer and the
    /// tokens up to each place: texts that begin alike share it, as they share the computation, and neither the cut into
    /// micro-batches nor a stop changes it. Evaluations leave nothing out. An adapter that is trained on keeps its own.
    #[serde(default)]
    pub dropout: f64,
}

impl Adapter {
    pub(crate) fn lora(&self) -> lm::Result<lm::Lora> {
        let lora = lm::Lora::new(self.rank, self.alpha, &self.targets)?;
        Ok(lm::Lora { rslora: self.rslora, dropout: self.dropout, ..lora })
    }
}

/// The head of a reward model that starts from a language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// Drawn from the run's seed.
    Normal,
    /// All rewards are 0 before the first step.
    Zeros,
}

/// The use of the adapter that training starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelAdapter {
    /// It is trained on. `policy` is an adapter of the same form over the same base.
    Continue,
    /// It is added to the weights of its base first. Then all weights are trained, or a fresh `adapter`; that one is saved
    /// together with the old one, as an adapter over the same base whose rank is the sum of both.
    Merge,
    /// It stays beside the weights as it is, and a fresh `adapter` is trained over both; saved as under `merge`. In `bf16`
    /// this keeps what an old adapter adds where merging would round it.
    Freeze,
}

/// AdamW as PyTorch has it, and its learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// The learning rate at its height.
    pub lr: f64,
    /// Course of the learning rate after the warmup.
    #[serde(default)]
    pub schedule: Schedule,
    /// The learning rate that `linear` and `cosine` fall to; at most `lr`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_lr: f64,
    /// Steps over which the learning rate rises: step k of these (from 1) has lr k / (warmup_steps + 1).
    #[serde(default)]
    pub warmup_steps: u64,
    /// Decoupled decay of all weights, times the learning rate.
    #[serde(default)]
    pub weight_decay: f64,
    /// Gradients with a larger global norm are scaled down to it; null for no clipping.
    #[serde(default = "clip_norm")]
    pub clip_norm: Option<f64>,
    /// Decay of the mean of gradients.
    #[serde(default = "beta1")]
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    #[serde(default = "beta2")]
    pub beta2: f64,
    /// Keeps the denominator away from 0.
    #[serde(default = "eps")]
    pub eps: f64,
    /// Where several ranks train, each holds the means of gradients and of their squares (and, for models in half
    /// precision, the weights in f32) for its share of each weight, and sends the others what it makes of these. Less
    /// memory, more messages, the same bytes. For trainings with `batch.ranks`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sharded: bool,
}

/// The course of the learning rate after the warmup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// Down to `min_lr` in equal amounts; it would be reached by the step after the last.
    Linear,
    /// Down to `min_lr` by half a cosine; it would be reached by the step after the last.
    Cosine,
}

/// The choice of the policy by held-out pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BestOptions {
    /// The metric of `eval_pairs` that decides. Of equal evaluations the earlier one is better.
    pub metric: EvalMetric,
    /// Evaluations whose policies are kept, 1 to 16: `policy` is of the best one, `policy_2` of the second, and so on;
    /// each is a model for other stages.
    #[serde(default = "keep", skip_serializing_if = "is_one")]
    pub keep: usize,
    /// Evaluations in a row without improvement after which training ends; without it, it goes on to its last step. The
    /// learning rate follows the whole length in either case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    /// The improvement that `patience` takes for one: more than this, at least 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_delta: f64,
}

/// A metric of held-out pairs; its name says its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EvalMetric {
    /// The objective's loss: lower is better.
    #[serde(rename = "eval_loss")]
    Loss,
    /// The share of pairs whose chosen side has the higher reward: higher is better.
    #[serde(rename = "eval_rewards/accuracies")]
    Accuracies,
    /// The mean difference of rewards, chosen less rejected: higher is better.
    #[serde(rename = "eval_rewards/margins")]
    Margins,
}

impl EvalMetric {
    /// The name in tables and configurations.
    pub fn name(self) -> &'static str {
        match self {
            EvalMetric::Loss => "eval_loss",
            EvalMetric::Accuracies => "eval_rewards/accuracies",
            EvalMetric::Margins => "eval_rewards/margins",
        }
    }
}

/// Size and order of batches: exactly one of `pairs`, `prompts` and `items`. The last batch of a pass may be smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchOptions {
    /// So many pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<usize>,
    /// So many prompts with all their pairs (or items): they share the prompt's computation. A joint pair counts to
    /// the prompt of its chosen side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<usize>,
    /// So many items; for `kto` whole groups of shared mismatched responses, until there are so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<usize>,
    /// Tokens computed at once, shared prompts counted once. More needs more memory.
    #[serde(default = "tokens_per_micro_batch")]
    pub tokens_per_micro_batch: usize,
    /// Ranks, a power of two up to 64: each batch is cut by whole prompts into so many parts, whose gradients are added as
    /// a balanced tree. Then 1, 2, 4, … devices or threads, up to so many, give the same bytes; another number here gives
    /// other roundings. One device holds log2(ranks) more sets of gradients.
    #[serde(default = "one_rank", skip_serializing_if = "is_one")]
    pub ranks: usize,
    /// Draws a new order of the rows for each pass from the run's seed; `false` keeps the order of the table.
    #[serde(default = "shuffle")]
    pub shuffle: bool,
}

impl BatchOptions {
    /// The same batches for held-out pairs, where training is on items.
    pub(crate) fn on_pairs(&self) -> BatchOptions {
        BatchOptions { pairs: self.pairs.or(self.items), items: None, ..*self }
    }
}

/// Form of the saved policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveOptions {
    /// `f32` has all of the training; `as_loaded` (what `model` is stored in) and `bf16` take half of the space, and a
    /// small learning rate may leave little of its updates there: the figures show the share.
    #[serde(default)]
    pub dtype: SavedDtype,
}

/// Intermediate values kept between forward and backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryOptions {
    /// Values that are kept. The result does not depend on it, up to rounding.
    #[serde(default)]
    pub schedule: MemorySchedule,
    /// `auto` alone: the memory that kept values of a rank may take, in GiB; without it 8 over all ranks on a CPU, and on a
    /// GPU what weights and optimizer leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_gib: Option<f64>,
}

/// Values that are kept between forward and backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemorySchedule {
    /// The first of the others that fits the budget.
    #[default]
    Auto,
    /// All activations.
    Keep,
    /// The inputs of blocks; blocks are computed again.
    Boundaries,
    /// Nothing; each micro-batch is computed again.
    TwoPass,
}

fn keep() -> usize {
    1
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn checkpoint_every() -> u64 {
    100
}

fn checkpoint_minutes() -> f64 {
    1.0
}

fn clip_norm() -> Option<f64> {
    Some(1.0)
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn eps() -> f64 {
    1e-8
}

fn tokens_per_micro_batch() -> usize {
    16_384
}

fn one_rank() -> usize {
    1
}

fn shuffle() -> bool {
    true
}
