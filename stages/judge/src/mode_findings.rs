//! Findings about the ways to a verdict, and about keys that one of them would ignore.

use std::path::Path;

use kit::{Error, Finding, Result};
use lm::{SamplingRules, Turn};
use tokens::SequenceReader;

use crate::config::Judge;
use crate::labels::sort;
use crate::modes::{Mode, Rating, Rationale, Reasoning};
use crate::pattern::Pattern;
use crate::rationale::labelled;

/// The most answers in an order: all are kept until the comparison is judged.
const MOST_SAMPLES: usize = 1 << 12;

impl Judge {
    pub(crate) fn mode(&self) -> Mode<'_> {
        match (&self.rating, &self.reasoning, &self.rationale) {
            (Some(rating), ..) => Mode::Rating(rating),
            (None, Some(reasoning), _) => Mode::Reasoning(reasoning),
            (None, None, Some(rationale)) => Mode::Rationale(rationale),
            (None, None, None) => Mode::Labels,
        }
    }

    /// Rules by which the judge writes; none where it writes nothing.
    pub(crate) fn writing(&self) -> Option<(usize, SamplingRules)> {
        match self.mode() {
            Mode::Labels | Mode::Rating(_) => None,
            Mode::Reasoning(reasoning) => Some((reasoning.samples, reasoning.rules())),
            Mode::Rationale(rationale) => Some((1, rationale.rules())),
        }
    }

    /// True where orders of presentation are asked: a rating sees one response.
    pub(crate) fn has_orders(&self) -> bool {
        self.rating.is_none()
    }

    /// Findings about the mode.
    pub(crate) fn mode_findings(&self) -> Vec<Finding> {
        let given = [
            ("rating", self.rating.is_some()),
            ("reasoning", self.reasoning.is_some()),
            ("rationale", self.rationale.is_some()),
        ];
        let given: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect();
        if let [first, second, ..] = given[..] {
            return vec![Finding::at(
                second,
                format!("there is a `{first}` too; a judge comes to its verdicts in one way"),
            )];
        }
        match self.mode() {
            Mode::Labels => Vec::new(),
            Mode::Rating(rating) => self.rating_findings(rating),
            Mode::Reasoning(reasoning) => self.reasoning_findings(reasoning),
            Mode::Rationale(rationale) => self.rationale_findings(rationale),
        }
    }

    fn rating_findings(&self, rating: &Rating) -> Vec<Finding> {
        let mut findings = Vec::new();
        if rating.levels.len() < 2 {
            findings
                .push(Finding::at("rating.levels", format!("got {}, wanted at least 2 levels", rating.levels.len())));
        }
        if rating.levels.iter().any(|level| level.is_empty() || level.iter().any(String::is_empty)) {
            findings
                .push(Finding::at("rating.levels", "each level needs at least one spelling, and none of them empty"));
        }
        let mut spellings: Vec<&String> = rating.levels.iter().flatten().collect();
        spellings.sort();
        if let Some(pair) = spellings.windows(2).find(|pair| pair[0] == pair[1]) {
            findings.push(Finding::at("rating.levels", format!("the spelling {:?} stands there twice", pair[0])));
        }
        for (at, criterion) in rating.criteria.iter().enumerate() {
            let key = format!("rating.criteria.{at}");
            if !(criterion.weight > 0.0 && criterion.weight.is_finite()) {
                findings.push(Finding::at(&key, format!("its weight is {}, wanted more than 0", criterion.weight)));
            }
            if criterion.name.is_empty() {
                findings.push(Finding::at(&key, "needs a name"));
            } else if rating.criteria[..at].iter().any(|earlier| earlier.name == criterion.name) {
                findings.push(Finding::at(&key, format!("there is another criterion `{}`", criterion.name)));
            }
        }
        let without = "without effect with `rating`";
        for (key, given, why) in [
            ("joint_template", self.joint_template.is_some(), "each response is rated by itself, by `template`"),
            ("debias", self.debias.is_some(), "one response is shown, so there are no orders"),
        ] {
            if given {
                findings.push(Finding::at(key, format!("{without}: {why}")));
            }
        }
        findings
    }

    fn reasoning_findings(&self, reasoning: &Reasoning) -> Vec<Finding> {
        let mut findings = sampling_findings("reasoning", &reasoning.rules());
        let mut wrong = |key: &str, text: String| findings.push(Finding::at(&format!("reasoning.{key}"), text));
        if !(1..=MOST_SAMPLES).contains(&reasoning.samples) {
            wrong("samples", format!("got {}, wanted 1 to {MOST_SAMPLES}", reasoning.samples));
        }
        if reasoning.temperature == 0.0 && reasoning.samples > 1 {
            wrong("samples", "at temperature 0 all answers to a question are equal; take 1".to_owned());
        }
        if !(reasoning.least_parsed > 0.0 && reasoning.least_parsed <= 1.0) {
            wrong("least_parsed", format!("got {}, wanted more than 0 and at most 1", reasoning.least_parsed));
        }
        if reasoning.think.iter().any(String::is_empty) || reasoning.think[0] == reasoning.think[1] {
            wrong("think", "wanted two marks that differ, such as [\"<think>\", \"</think>\"]".to_owned());
        }
        if reasoning.top_k.is_some() && self.endpoint.is_some() {
            wrong(
                "top_k",
                "is no parameter of chat completions; put it under `endpoint.body`, if the server takes it".to_owned(),
            );
        }
        match Pattern::compile(reasoning, &self.labels) {
            Ok(pattern) => pattern.ambiguous().into_iter().for_each(|text| wrong("ties", text)),
            Err(text) => wrong("pattern", text),
        }
        findings
    }

    /// Checks that a judge's tokenizer distinguishes the labels, behind a question that says nothing.
    ///
    /// # Errors
    /// The two that it does not, or a tokenizer that fails.
    pub(crate) fn check_labels(&self, model: &Path) -> Result<()> {
        let reader = SequenceReader::open(model, self.tokens.text_rules(), None)?;
        let turn = Turn::new(self.form.role(), "?");
        match self.mode() {
            // Its labels are words, not tokens.
            Mode::Reasoning(_) => {}
            Mode::Rationale(rationale) => {
                let _ = labelled(&reader, &self.labels, rationale, ("the labels", turn), "")?;
            }
            Mode::Labels => {
                if let Ok(mut sequences) = reader.continuations("the labels", turn, &self.labels.texts())? {
                    self.labels.sort(&mut sequences).map_err(Error::Pipeline)?;
                }
            }
            Mode::Rating(rating) => {
                let texts: Vec<&str> = rating.levels.iter().flatten().map(String::as_str).collect();
                if let Ok(mut sequences) = reader.continuations("the levels", turn, &texts)? {
                    let levels = rating.levels.iter().map(Vec::as_slice);
                    sort(levels, &mut sequences, "rating.levels").map_err(Error::Pipeline)?;
                }
            }
        }
        Ok(())
    }

    fn rationale_findings(&self, rationale: &Rationale) -> Vec<Finding> {
        let mut findings = sampling_findings("rationale", &rationale.rules());
        if rationale.ending.is_empty() {
            findings.push(Finding::at("rationale.ending", "needs a text that a label can follow"));
        }
        if self.endpoint.is_some() {
            let text = "needs `model`: chat completions do not go on from a text; `reasoning` works with an endpoint";
            findings.push(Finding::at("rationale", text));
        }
        findings
    }
}

/// Findings about rules for drawing, the keys of a block.
fn sampling_findings(block: &str, rules: &SamplingRules) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wrong = |key: &str, text: String| findings.push(Finding::at(&format!("{block}.{key}"), text));
    let temperature = rules.temperature;
    if !(temperature >= 0.0 && temperature.is_finite()) {
        wrong("temperature", format!("got {temperature}, wanted 0 (the most likely token) or more"));
    }
    if let Some(top_p) = rules.top_p.filter(|top_p| !(*top_p > 0.0 && *top_p <= 1.0)) {
        wrong("top_p", format!("got {top_p}, wanted more than 0 and at most 1"));
    }
    for (key, value) in [("max_tokens", rules.max_tokens), ("top_k", rules.top_k.unwrap_or(1))] {
        if value == 0 {
            wrong(key, "got 0, wanted at least 1".to_owned());
        }
    }
    if temperature == 0.0 {
        for (key, given) in [("top_p", rules.top_p.is_some()), ("top_k", rules.top_k.is_some())] {
            if given {
                wrong(key, "without effect: at temperature 0 the most likely token is taken".to_owned());
            }
        }
    }
    if rules.stop.iter().any(String::is_empty) {
        wrong("stop", "an empty text ends every answer before it begins".to_owned());
    }
    findings
}
