//! The keys of a judge that is a reward model, and its ports.

use kit::rows::Verdict;
use kit::{Finding, OutputPort, Table};
use tokens::Base;

use crate::config::Judge;

impl Judge {
    /// Findings about the values where the judge is a reward model.
    pub(crate) fn reward_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (key, given) in [("model", self.model.is_some()), ("endpoint", self.endpoint.is_some())] {
            if given {
                findings.push(Finding::at(key, "there is a `reward` too; give one of the judges"));
            }
        }
        let question = "without effect with `reward`: a reward model is asked nothing; it scores each response under its \
                        own chat template";
        let order = "without effect with `reward`: a reward model sees one response at a time, so there is no order of \
                     presentation and nothing to remove from it";
        for (key, given, why) in [
            ("template", self.template.is_some(), question),
            ("joint_template", self.joint_template.is_some(), question),
            ("asks_for", self.asks_for.is_some(), question),
            ("rating", self.rating.is_some(), question),
            ("reasoning", self.reasoning.is_some(), question),
            ("rationale", self.rationale.is_some(), question),
            ("debias", self.debias.is_some(), order),
        ] {
            if given {
                findings.push(Finding::at(key, why));
            }
        }
        if let Some(scale) = self.scale.filter(|scale| !(*scale > 0.0 && scale.is_finite())) {
            findings.push(Finding::at("scale", format!("{scale} is out of range, wanted a number above 0")));
        }
        for (key, value) in [("tokens_per_batch", self.tokens_per_batch.everywhere()), ("shard_rows", self.shard_rows)]
        {
            if value == 0 {
                findings.push(Finding::at(key, "got 0, wanted at least 1"));
            }
        }
        findings.extend(self.tokens.findings());
        findings.extend(Base::finding(self.base));
        findings
    }

    /// Factor from a difference of scores to log-odds.
    pub(crate) fn scale(&self) -> f64 {
        self.scale.unwrap_or(1.0)
    }
}

/// The outputs of a reward model as judge.
pub(crate) fn outputs() -> Vec<OutputPort> {
    let verdicts = Verdict::OF_QUESTIONS.into_iter().fold(OutputPort::new(Table::Verdicts), OutputPort::without);
    let scores =
        ["logp", "finish"].into_iter().fold(OutputPort::named("scores", Table::Responses), OutputPort::without);
    vec![verdicts, scores, OutputPort::new(Table::Summary), OutputPort::new(Table::Rejects)]
}
