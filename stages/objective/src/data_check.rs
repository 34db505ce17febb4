//! Checks against the data: the forms of its pairs and the labels of its items.

use crate::list::Objective;

/// Numbers of pairs of each form in the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forms {
    /// Both responses under one prompt.
    pub same: u64,
    /// Each response under its own prompt.
    pub joint: u64,
}

impl Objective {
    /// Checks that the objective means something on pairs of these forms.
    ///
    /// # Errors
    /// The reason and the remedy, as a lowercase fragment.
    pub fn check_forms(&self, forms: Forms, allow_same_prompt: bool) -> Result<(), String> {
        let name = self.name();
        if self.needs_prompt_part() {
            if forms.joint == 0 && forms.same > 0 && !allow_same_prompt {
                return Err(format!(
                    "`{name}` on {} pairs that all share their prompt is `{}` at the cost of scoring prompts: make \
                     joint comparisons (`compare` with `joint: {{random: 1}}`, or `{{nearest: 4}}`), or set `allow_same_prompt: true`",
                    forms.same,
                    self.facts().same_twin
                ));
            }
        } else if forms.joint > 0 && !self.facts().joint_pairs {
            let twin = self.facts().joint_twin;
            return Err(format!(
                "`{name}` compares two responses to one prompt, and {} of {} pairs are joint (two prompts): train on \
                 them with `{twin}`, which scores prompt and response together, or leave them out in `pairs`",
                forms.joint,
                forms.joint + forms.same
            ));
        }
        Ok(())
    }

    /// Checks that the objective can take an item with this label.
    ///
    /// # Errors
    /// The reason, as a lowercase fragment.
    pub fn accepts_label(&self, label: f64) -> Result<(), &'static str> {
        self.formula().accepts_label(label)
    }
}
