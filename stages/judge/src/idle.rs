//! Keys that nothing reads beside others.

use kit::Finding;

use crate::config::Judge;
use crate::modes::Mode;

impl Judge {
    /// Keys with a default that have no effect with these values, each with the reason.
    pub(crate) fn without_effect(&self) -> Vec<Finding> {
        let mut idle = Vec::new();
        let mut all = |keys: &[&str], why: &str| {
            idle.extend(keys.iter().map(|key| Finding::at(key, format!("without effect {why}"))));
        };
        if self.reward.is_some() {
            let why =
                "with `reward`: a reward model is asked nothing; it scores each response under its own chat template";
            all(&["form", "labels", "least_mass", "max_low_mass"], why);
            let why = "with `reward`: a reward model sees one response at a time, so there is no order of presentation and \
                       nothing to remove from it";
            all(&["orders"], why);
            return idle;
        }
        match self.mode() {
            Mode::Labels | Mode::Rationale(_) => {}
            Mode::Rating(_) => {
                all(&["orders"], "with `rating`: one response is shown, so there are no orders");
                all(&["labels"], "with `rating`: the labels are `rating.levels`");
            }
            Mode::Reasoning(_) => {
                all(&["least_mass"], "with `reasoning`: no log-probs are read; see `reasoning.least_parsed`");
                all(&["endpoint.top_logprobs"], "with `reasoning`: no log-probs are read");
            }
        }
        if self.endpoint.is_some() {
            let why = "with `endpoint`: the endpoint makes the tokens and computes";
            all(&["tokens", "tokens_per_batch", "dtype", "base"], why);
        }
        idle
    }
}
