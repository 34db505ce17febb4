//! What only the data can tell: the forms of its pairs and the labels of its items.

use crate::catalogue::Objective;
use crate::rpo::{Rpo, RpoForm, RpoWeighting};

/// How many pairs of each form the data holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forms {
    /// Both responses under one prompt.
    pub same: u64,
    /// Each response under its own prompt.
    pub joint: u64,
}

impl Objective {
    /// Whether the objective means something on pairs of these forms.
    ///
    /// # Errors
    /// What is wrong and what to do: a lowercase fragment.
    pub fn check_forms(&self, forms: Forms, allow_same_prompt: bool) -> Result<(), String> {
        let name = self.name();
        if self.needs_prompt_part() {
            if forms.joint == 0 && forms.same > 0 && !allow_same_prompt {
                return Err(format!(
                    "`{name}` on {} pairs that all share their prompt is `{}` at the cost of scoring prompts: make \
                     joint comparisons (`compare` with `joint: {{random: 1}}`, or `{{nearest: 4}}`), or set `allow_same_prompt: true`",
                    forms.same,
                    match self {
                        Objective::Cjpo(_) => "cdpo",
                        Objective::Gjpo(_) => "gdpo",
                        _ => "dpo",
                    }
                ));
            }
        } else if forms.joint > 0 && !matches!(self, Objective::Rpo(_) | Objective::Sft(_)) {
            let twin = match self {
                Objective::Cdpo(_) => "cjpo",
                Objective::Gdpo(_) => "gjpo",
                _ => "jpo",
            };
            return Err(format!(
                "`{name}` compares two responses to one prompt, and {} of {} pairs are joint (two prompts): train on \
                 them with `{twin}`, which scores prompt and response together, or leave them out in `pairs`",
                forms.joint,
                forms.joint + forms.same
            ));
        }
        Ok(())
    }

    /// Whether the objective can take an item with this label.
    ///
    /// # Errors
    /// Why not.
    pub fn accepts_label(&self, label: f64) -> Result<(), &'static str> {
        match self {
            Objective::Sft(_) if label <= 0.5 => Err("sft takes demonstrations: labels above 0.5"),
            Objective::Rpo(Rpo { form: RpoForm::Unpaired, .. }) if label == 0.5 => {
                Err("unpaired rpo takes chosen (above 0.5) and rejected (below 0.5) items")
            }
            _ => Ok(()),
        }
    }
}

impl Rpo {
    /// Keys that are missing or without effect under the weighting and form.
    pub(crate) fn check_keys(&self) -> Vec<(&'static str, String)> {
        let mut findings = Vec::new();
        let mut find = |wrong: bool, key, text: &str| {
            if wrong {
                findings.push((key, text.to_owned()));
            }
        };
        let embedding = self.weighting == RpoWeighting::Embedding;
        let diagonal = self.weighting == RpoWeighting::Diagonal;
        find(embedding && self.tau.is_none(), "tau", "missing; `weighting: embedding` needs it (the paper takes 0.5)");
        find(!embedding && self.tau.is_some(), "tau", "has no effect: only `weighting: embedding` reads it");
        find(
            diagonal && self.diagonal_weight.is_none(),
            "diagonal_weight",
            "missing; `weighting: diagonal` needs it (the paper's code takes 0.8)",
        );
        find(
            !diagonal && self.diagonal_weight.is_some(),
            "diagonal_weight",
            "has no effect: only `weighting: diagonal` reads it",
        );
        find(
            diagonal && self.form == RpoForm::Unpaired,
            "weighting",
            "`diagonal` means a row's own pair, and unpaired items have none: take `embedding` or `uniform`",
        );
        findings
    }
}
