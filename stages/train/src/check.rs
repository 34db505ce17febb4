//! Checks of the configuration, before any data is read.

use kit::Finding;
use tokens::Base;

use crate::config::{MemorySchedule, ModelAdapter, Schedule, Train};

/// Passes over the rows, at most: their steps are counted before the first.
const MOST_EPOCHS: u64 = 100_000;
/// Policies that `best` keeps, at most.
pub(crate) const MOST_KEPT: usize = 16;

/// Ranks of a training, at most.
const MOST_RANKS: usize = 64;

/// Why an adapter is not merged into few bits.
pub(crate) const MERGED_IN_FEW: &str = "an adapter is not merged into weights in few bits: say `model_adapter: freeze`, or \
                                         merge it with `halftone export model` first";

impl Train {
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let objective = &self.objective;
        for (key, text) in objective.check() {
            let path = if key.is_empty() { "objective".to_owned() } else { format!("objective.{key}") };
            findings.push(Finding::at(&path, text));
        }
        let mut find = |wrong: bool, path: &str, text: String| {
            if wrong {
                findings.push(Finding::at(path, text));
            }
        };
        let name = objective.name();
        find(
            objective.needs_reference() && self.reference.is_none(),
            "reference",
            format!(
                "`reference` is missing: `{name}` measures against the frozen reference; add a stage \
                 `{{kind: reference, from: ..., model: ...}}` over the same rows and name it: `reference: STAGE`"
            ),
        );
        find(
            objective.needs_similarities() && self.embeddings.is_none(),
            "embeddings",
            format!(
                "`embeddings` is missing: `{name}` weighs by how alike prompts are; add a stage \
                 `{{kind: embed, from: ..., model: ...}}` and name it: `embeddings: STAGE`, or take `weighting: uniform`"
            ),
        );
        find(
            self.allow_same_prompt && !objective.needs_prompt_part(),
            "allow_same_prompt",
            format!("has no effect: `{name}` takes pairs that share their prompt anyway"),
        );
        find(
            self.eval_every.is_some() && self.eval_pairs.is_none(),
            "eval_every",
            "has no effect without `eval_pairs`".to_owned(),
        );
        if let Some(best) = &self.best {
            find(
                self.eval_pairs.is_none() || self.eval_every.is_none(),
                "best",
                "chooses among evaluations on held-out pairs: give `eval_pairs` and `eval_every`".to_owned(),
            );
            let text = format!("got {}, wanted 1 to {MOST_KEPT}", best.keep);
            find(!(1..=MOST_KEPT).contains(&best.keep), "best.keep", text);
            find(best.patience == Some(0), "best.patience", "got 0, wanted at least 1".to_owned());
            // A training that ends early has made at least `patience` + 1 evaluations.
            let early = best.patience.is_some_and(|patience| patience > 0 && best.keep as u64 > patience + 1);
            let text = "training may end before so many evaluations: wanted at most `patience` + 1".to_owned();
            find(early, "best.keep", text);
            let delta = best.min_delta;
            let text = format!("{delta} is out of range, wanted a number of at least 0");
            find(!(delta >= 0.0 && delta.is_finite()), "best.min_delta", text);
            let idle = delta != 0.0 && best.patience.is_none();
            find(idle, "best.min_delta", "has no effect without `patience`".to_owned());
        }
        for (path, value) in [
            ("epochs", self.epochs),
            ("steps", self.steps),
            ("eval_every", self.eval_every),
            ("checkpoint_every", Some(self.checkpoint_every)),
            ("batch.pairs", self.batch.pairs.map(|rows| rows as u64)),
            ("batch.prompts", self.batch.prompts.map(|rows| rows as u64)),
            ("batch.items", self.batch.items.map(|rows| rows as u64)),
            ("batch.tokens_per_micro_batch", Some(self.batch.tokens_per_micro_batch as u64)),
        ] {
            find(value == Some(0), path, "got 0, wanted at least 1".to_owned());
        }
        let many = self.epochs.filter(|epochs| *epochs > MOST_EPOCHS);
        find(many.is_some(), "epochs", format!("got {}, wanted at most {MOST_EPOCHS}", many.unwrap_or_default()));
        let minutes = self.checkpoint_minutes;
        let text = format!("got {minutes}, wanted minutes of at least 0");
        find(!(minutes >= 0.0 && minutes.is_finite()), "checkpoint_minutes", text);
        find(self.epochs.is_none() && self.steps.is_none(), "", "missing `epochs` or `steps`".to_owned());
        find(
            self.epochs.is_some() && self.steps.is_some(),
            "steps",
            "given together with `epochs`; the length of the run follows from one of them".to_owned(),
        );
        let ranks = self.batch.ranks;
        let text = format!("got {ranks}, wanted a power of two from 1 to {MOST_RANKS}");
        find(!(ranks.is_power_of_two() && ranks <= MOST_RANKS), "batch.ranks", text);
        let text = "without effect: one rank holds all of the state; say `batch.ranks`".to_owned();
        find(self.optimizer.sharded && ranks == 1, "optimizer.sharded", text);
        let given = [self.batch.pairs, self.batch.prompts, self.batch.items].iter().flatten().count();
        find(given != 1, "batch", format!("wanted exactly one of `pairs`, `prompts` and `items`, got {given}"));
        find(
            self.batch.pairs.is_some() && !objective.reads().pairs(),
            "batch.pairs",
            format!("`{name}` is computed on items: say `items: N`"),
        );
        find(
            self.batch.items.is_some() && !objective.reads().items(),
            "batch.items",
            format!("`{name}` is computed on pairs: say `pairs: N` or `prompts: N`"),
        );
        find(
            self.batch.prompts.is_some() && objective.needs_kl(),
            "batch.prompts",
            format!("`{name}` takes whole groups of shared mismatched responses: say `items: N`"),
        );
        if let Some(adapter) = &self.adapter {
            match adapter.lora().map(|lora| lora.dropout_fault()) {
                Ok(fault) => find(fault.is_some(), "adapter.dropout", fault.unwrap_or_default()),
                Err(error) => find(true, "adapter", error.to_string()),
            }
        }
        find(
            self.head.is_some() && !objective.needs_rewards(),
            "head",
            format!("has no effect: `{name}` trains a language model; `reward` trains a model with such a head"),
        );
        match (self.model_adapter, &self.adapter) {
            (Some(ModelAdapter::Continue), Some(_)) => {
                let text =
                    "trains the adapter that `model` is, in its form: leave `adapter` out, or say `merge` or `freeze`";
                find(true, "model_adapter", text.to_owned());
            }
            (Some(ModelAdapter::Freeze), None) => {
                find(true, "model_adapter", "leaves nothing to train: give `adapter`, or say `continue`".to_owned());
            }
            _ => {}
        }
        let optimizer = &self.optimizer;
        let at_least_zero = |value: f64| value >= 0.0 && value.is_finite();
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        for (path, value, ok, wanted) in [
            ("lr", optimizer.lr, above_zero(optimizer.lr), "a number above 0"),
            ("weight_decay", optimizer.weight_decay, at_least_zero(optimizer.weight_decay), "a number of at least 0"),
            ("beta1", optimizer.beta1, (0.0..1.0).contains(&optimizer.beta1), "0 up to, but without, 1"),
            ("beta2", optimizer.beta2, (0.0..1.0).contains(&optimizer.beta2), "0 up to, but without, 1"),
            ("eps", optimizer.eps, above_zero(optimizer.eps), "a number above 0"),
        ] {
            find(!ok, &format!("optimizer.{path}"), format!("{value} is out of range, wanted {wanted}"));
        }
        let least = optimizer.min_lr;
        let text = format!("{least} is out of range, wanted a number from 0 to `lr`");
        find(!(least >= 0.0 && least <= optimizer.lr), "optimizer.min_lr", text);
        let constant = least != 0.0 && optimizer.schedule == Schedule::Constant;
        find(constant, "optimizer.min_lr", "has no effect with `schedule: constant`".to_owned());
        if let Some(norm) = optimizer.clip_norm {
            let text = format!("{norm} is out of range, wanted a number above 0, or null for no clipping");
            find(!above_zero(norm), "optimizer.clip_norm", text);
        }
        if let Some(budget) = self.memory.budget_gib {
            let fixed = self.memory.schedule != MemorySchedule::Auto;
            find(fixed, "memory.budget_gib", "has no effect: only `schedule: auto` reads it".to_owned());
            let text = format!("{budget} is out of range, wanted a number above 0");
            find(!above_zero(budget), "memory.budget_gib", text);
        }
        findings.extend(self.tokens.findings());
        findings.extend(Base::finding(self.base));
        if self.base.is_some() && !self.trains_adapter() {
            findings.push(Finding::at(
                "base",
                "weights in few bits are frozen: give `adapter`, which is trained above them",
            ));
        }
        if self.base.is_some() && self.model_adapter == Some(ModelAdapter::Merge) {
            findings.push(Finding::at("base", MERGED_IN_FEW));
        }
        findings
    }
}
