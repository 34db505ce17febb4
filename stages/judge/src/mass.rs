//! The share of probability that a judge gives to both labels together, and the tokens that it prefers.
//!
//! Where that share is next to nothing, the judge did not answer the question: it thinks first, begins with a word, or
//! spells the labels in another way. The probability that remains for the labels is noise, so there is no verdict.

use std::collections::BTreeMap;

use kit::rows::Reject;
use kit::{Context, Error, Result, RowReader};
use lm::{Decoder, Sequence, Text};
use tokens::lm_error;

use crate::config::Judge;
use crate::modes::Mode;
use crate::work::WorkList;

/// The reason of a comparison whose labels got less than `least_mass` in an order.
pub(crate) const LOW_MASS: &str = "low_label_mass";
/// The reason of a comparison where an endpoint's alternatives had neither label.
pub(crate) const NO_LABEL: &str = "no_label";
/// The reason of a comparison where too few answers have a verdict.
pub(crate) const UNPARSED: &str = "unparsed";
/// Number of first tokens in the message.
const TOKENS: usize = 5;

/// The detail of a reject, for one order.
pub(crate) fn detail(shown: &str, what: &str, likeliest: Option<(&str, f64)>) -> String {
    with_token(format!("{shown}: {what}"), likeliest)
}

/// A text with the likeliest token behind it.
pub(crate) fn with_token(what: String, likeliest: Option<(&str, f64)>) -> String {
    let likeliest = likeliest.map(|(token, p)| format!("{LIKELIEST}{} with {p:.4}", quoted(token)));
    what + &likeliest.unwrap_or_default()
}

/// The detail of a reject, where both labels together got too little in an order.
pub(crate) fn too_little(judge: &Judge, shown: &str, mass: f64, likeliest: Option<(&str, f64)>) -> String {
    format!("{shown}: {}", little(judge, "the labels", mass, likeliest))
}

/// The same of any labels, by what they are called.
pub(crate) fn little(judge: &Judge, what: &str, mass: f64, likeliest: Option<(&str, f64)>) -> String {
    let what = format!("{what} got {mass:.2e} of the probability, `least_mass: {}`", judge.least_mass);
    with_token(what, likeliest)
}

/// The token that a judge would begin with in place of a label that follows `ids`, and its probability.
pub(crate) fn first_token(decoder: &Decoder, text: &Text, ids: &[u32]) -> Result<(String, f64)> {
    let (id, logp) = decoder.likeliest(ids).map_err(lm_error)?;
    let whole = Sequence::new([ids, &[id]].concat(), ids.len());
    let (_, token) = text.spelled(&whole).map_err(lm_error)?;
    Ok((token, logp.exp()))
}

const LIKELIEST: &str = "; the likeliest token is ";

/// The likeliest token in a detail that [`detail`] wrote.
fn likeliest(detail: &str) -> Option<String> {
    let (_, rest) = detail.split_once(LIKELIEST)?;
    serde_json::Deserializer::from_str(rest).into_iter().next()?.ok()
}

fn quoted(token: &str) -> String {
    serde_json::to_string(token).expect("a text can be written as JSON")
}

/// Comparisons without a verdict because the judge says something else.
#[derive(Default)]
pub(crate) struct Missing {
    /// Number of rows.
    pub(crate) rows: u64,
    /// Number of rows in which each token was the likeliest.
    tokens: BTreeMap<String, u64>,
}

impl Missing {
    /// Those among the rejects of all shards.
    pub(crate) fn read(context: &Context<'_>) -> Result<Missing> {
        let mut missing = Missing::default();
        for row in RowReader::<Reject>::open(&[&context.port("rejects")])? {
            let row = row?;
            missing.add(&row.reason, &row.detail);
        }
        Ok(missing)
    }

    fn add(&mut self, reason: &str, detail: &str) {
        if [LOW_MASS, NO_LABEL, UNPARSED].contains(&reason) {
            self.rows += 1;
            if let Some(token) = likeliest(detail) {
                *self.tokens.entry(token).or_default() += 1;
            }
        }
    }

    /// The commonest first tokens as JSON texts with how often each was the likeliest, the commonest first.
    pub(crate) fn commonest(&self) -> Vec<(String, u64)> {
        let mut all: Vec<(&String, &u64)> = self.tokens.iter().collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        all.into_iter().take(TOKENS).map(|(token, count)| (quoted(token), *count)).collect()
    }
}

/// Stops a stage whose judge mostly says something else.
pub(crate) struct LowMass<'a> {
    stage: &'a Judge,
    limit: u64,
    /// The word for what is counted, and the number of all.
    counted: (&'static str, usize),
    missing: Missing,
}

impl<'a> LowMass<'a> {
    pub(crate) fn new(stage: &'a Judge, work: &WorkList) -> LowMass<'a> {
        LowMass::among(stage, "comparisons", work.comparisons().count())
    }

    /// The same for other units than comparisons.
    pub(crate) fn among(stage: &'a Judge, unit: &'static str, count: usize) -> LowMass<'a> {
        let limit = (stage.max_low_mass * count as f64).ceil() as u64;
        LowMass { stage, limit, counted: (unit, count), missing: Missing::default() }
    }

    /// Counts a comparison without a verdict.
    pub(crate) fn count(&mut self, reason: &str, detail: &str) {
        self.missing.add(reason, detail);
    }

    /// Counts those of all shards instead, of earlier processes too.
    ///
    /// # Errors
    /// When there are more than `max_low_mass` allows, or when they cannot be read.
    pub(crate) fn count_again(&mut self, context: &Context<'_>) -> Result<()> {
        self.missing = Missing::read(context)?;
        self.check()
    }

    /// # Errors
    /// When there are more than `max_low_mass` allows.
    pub(crate) fn check(&self) -> Result<()> {
        if self.missing.rows <= self.limit { Ok(()) } else { Err(self.too_many()) }
    }

    fn too_many(&self) -> Error {
        let tokens: Vec<String> =
            self.missing.commonest().into_iter().map(|(token, count)| format!("{token} {count} times")).collect();
        let tokens =
            if tokens.is_empty() { String::new() } else { format!(" It would rather say {}.", tokens.join(", ")) };
        let (Missing { rows, .. }, (unit, all), limit) = (&self.missing, self.counted, self.limit);
        let allows = format!("`max_low_mass: {}` allows {limit} of them", self.stage.max_low_mass);
        if let Mode::Reasoning(reasoning) = self.stage.mode() {
            return Error::Data(format!(
                "{rows} of {all} {unit} got no verdict: the pattern `{}` finds one in less than `least_parsed: {}` of the \
                 answers, and {allows}. Read the table `answers`; look at the template's last line, at `max_tokens` and at \
                 the words in `labels` and `ties`",
                reasoning.pattern, reasoning.least_parsed
            ));
        }
        let what = if self.stage.has_orders() { "both labels" } else { "all levels" };
        let key = if self.stage.has_orders() { "labels" } else { "rating.levels" };
        let thinking = match &self.stage.endpoint {
            Some(_) => {
                ", switch thinking off (such as `endpoint.body: {chat_template_kwargs: {enable_thinking: false}}`)"
            }
            None => "",
        };
        Error::Data(format!(
            "{rows} of {all} {unit} got no verdict: the judge gives {what} together less than `least_mass: {}` of its \
             probability, and {allows}.{tokens} Look at `form`, at the spellings in `{key}` and at the template's last \
             line{thinking}, or take another judge",
            self.stage.least_mass
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_comes_back_from_a_detail() {
        for token in ["<think>", "a \"b\"; the likeliest token is ", "\n\u{1b}[31m", ""] {
            let detail = detail("a first", "the labels got 7.00e-5", Some((token, 0.9999)));
            assert_eq!(likeliest(&detail), Some(token.to_owned()));
            assert!(detail.starts_with("a first: the labels got 7.00e-5; the likeliest token is \""), "{detail}");
        }
        assert_eq!(likeliest(&detail("b first", "x", None)), None);
    }
}
