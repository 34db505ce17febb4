//! What the endpoint said, read as log-probs of the two labels.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::labels::{Labels, log_sum};

/// What an answered request comes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Heard {
    /// Log-probs of the two labels.
    Labels(LabelLogps),
    /// No verdict can be read from it: reason and detail.
    Nothing(String, String),
}

/// The log-prob of each label, its spellings summed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct LabelLogps {
    /// The label that names what is shown first.
    pub(crate) first: f64,
    pub(crate) second: f64,
    /// The first label was not returned; its log-prob is an upper bound: no more than the least likely token that was
    /// returned, and no more than what all of them leave.
    pub(crate) first_bounded: bool,
    pub(crate) second_bounded: bool,
}

/// What OpenAI returns in place of a log-prob that it does not know.
const UNKNOWN: f64 = -9999.0;
/// How far returned probabilities may add up above 1, by rounding.
const EXCESS: f64 = 1e-2;

impl Heard {
    fn bad(detail: impl Into<String>) -> Heard {
        Heard::Nothing("bad_answer".to_owned(), detail.into())
    }

    /// Reads the body of a chat completion.
    pub(crate) fn read(body: &[u8], labels: &Labels) -> Heard {
        let value: Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(error) => return Heard::bad(format!("not JSON: {error}")),
        };
        let Some(first) = value.pointer("/choices/0/logprobs/content/0") else {
            let text = match value.pointer("/choices/0") {
                Some(_) => "no log-probs; the endpoint may not offer `logprobs` for this model",
                None => "no `choices`",
            };
            return Heard::bad(text);
        };
        let Some(list) = first.get("top_logprobs").and_then(Value::as_array) else {
            return Heard::bad("no `top_logprobs`; the endpoint may not offer them for this model");
        };
        let mut top = Vec::with_capacity(list.len());
        for entry in list {
            let (Some(token), Some(logp)) =
                (entry.get("token").and_then(Value::as_str), entry.get("logprob").and_then(Value::as_f64))
            else {
                return Heard::bad("an entry of `top_logprobs` has no `token` or no `logprob`");
            };
            if logp > EXCESS {
                return Heard::bad(format!("a log-prob of {logp}"));
            }
            if logp > UNKNOWN {
                top.push((token, logp));
            }
        }
        let sum: f64 = top.iter().map(|(_, logp)| logp.exp()).sum();
        if top.is_empty() || sum > 1.0 + EXCESS {
            return Heard::bad(format!("{} alternatives with {sum:.4} of probability", top.len()));
        }
        Heard::of(&top, labels)
    }

    /// The labels' share of the returned alternatives.
    fn of(top: &[(&str, f64)], labels: &Labels) -> Heard {
        let logps: Vec<f64> = top.iter().map(|(_, logp)| *logp).collect();
        let smallest = logps.iter().copied().fold(f64::INFINITY, f64::min);
        let rest = 1.0 - logps.iter().map(|logp| logp.exp()).sum::<f64>();
        // Where rounding leaves nothing, so little that no double tells it from nothing.
        let bound = smallest.min(rest.max(f64::EPSILON).ln());
        let label = |spellings: &[String]| {
            let found: Vec<usize> =
                (0..top.len()).filter(|&at| spellings.iter().any(|spelling| spelling == top[at].0)).collect();
            if found.is_empty() { (bound, true) } else { (log_sum(&logps, &found), false) }
        };
        let ((first, first_bounded), (second, second_bounded)) = (label(&labels.first), label(&labels.second));
        if first_bounded && second_bounded {
            let likeliest = top.iter().max_by(|one, other| one.1.total_cmp(&other.1)).map_or("", |(token, _)| token);
            let detail =
                format!("neither label is among the {} likeliest tokens; the first is {likeliest:?}", top.len());
            return Heard::Nothing("no_label".to_owned(), detail);
        }
        Heard::Labels(LabelLogps { first, second, first_bounded, second_bounded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn heard(top: &[(&str, f64)]) -> Heard {
        let list: Vec<Value> = top.iter().map(|(token, logp)| json!({"token": token, "logprob": logp})).collect();
        let body =
            json!({"choices": [{"logprobs": {"content": [{"token": "x", "logprob": 0, "top_logprobs": list}]}}]});
        Heard::read(body.to_string().as_bytes(), &Labels::default())
    }

    #[test]
    fn spellings_are_summed() {
        let Heard::Labels(labels) = heard(&[("A", 0.5f64.ln()), (" A", 0.25f64.ln()), ("B", 0.2f64.ln())]) else {
            panic!("labels were there")
        };
        assert!((labels.first - 0.75f64.ln()).abs() < 1e-12 && (labels.second - 0.2f64.ln()).abs() < 1e-12);
        assert!(!labels.first_bounded && !labels.second_bounded);
    }

    #[test]
    fn a_label_that_was_not_returned_is_bounded_and_never_zero() {
        let expected = LabelLogps { first: -0.1, second: -7.5, first_bounded: false, second_bounded: true };
        assert_eq!(heard(&[("A", -0.1), ("The", -3.0), ("I", -7.5)]), Heard::Labels(expected));
        // OpenAI's placeholder is no log-prob.
        let with_placeholder = heard(&[("A", -0.1), ("The", -3.0), ("I", -7.5), ("B", -9999.0)]);
        assert_eq!(with_placeholder, Heard::Labels(expected));
        // What is left can be less than the least likely token: 1 - 0.6 - 0.399.
        let Heard::Labels(labels) = heard(&[("A", 0.6f64.ln()), ("The", 0.399f64.ln())]) else { panic!("A was there") };
        assert!((labels.second - 0.001f64.ln()).abs() < 1e-9 && labels.second_bounded, "{labels:?}");
    }

    #[test]
    fn a_judge_that_can_say_the_labels_only_may_return_one_of_them() {
        let Heard::Labels(labels) = heard(&[("B", -1e-3), ("A", -9999.0)]) else { panic!("B was there") };
        assert!((labels.first - (1.0 - (-1e-3_f64).exp()).ln()).abs() < 1e-12, "{labels:?}");
        assert_eq!((labels.second, labels.first_bounded, labels.second_bounded), (-1e-3, true, false));
        // One that is certain to the last digit leaves the other a bound all the same.
        let Heard::Labels(labels) = heard(&[("A", 0.0)]) else { panic!("A was there") };
        assert_eq!((labels.first, labels.second), (0.0, f64::EPSILON.ln()));
    }

    #[test]
    fn garbage_is_no_verdict() {
        let reason = |heard: Heard| match heard {
            Heard::Nothing(reason, detail) => format!("{reason}: {detail}"),
            Heard::Labels(labels) => panic!("{labels:?}"),
        };
        assert!(reason(heard(&[("The", -0.1), ("I", -3.0)])).starts_with("no_label: neither label is among the 2"));
        assert!(reason(heard(&[("The", -0.1)])).starts_with("no_label: neither label is among the 1"));
        assert!(reason(heard(&[("A", -9999.0)])).starts_with("bad_answer: 0 alternatives"));
        assert!(reason(heard(&[("A", -0.1), ("B", -0.1)])).starts_with("bad_answer: 2 alternatives with 1.8"));
        assert!(reason(heard(&[("A", 3.0), ("B", -0.1)])).starts_with("bad_answer: a log-prob of 3"));
        let read = |text: &str| reason(Heard::read(text.as_bytes(), &Labels::default()));
        assert!(read("<html>").starts_with("bad_answer: not JSON"));
        assert!(read("[]").starts_with("bad_answer: no `choices`"));
        assert!(read(r#"{"choices": [{"logprobs": null}]}"#).contains("may not offer `logprobs`"));
        assert!(read(r#"{"choices": [{"logprobs": {"content": [{}]}}]}"#).contains("`top_logprobs`"));
        let nan = r#"{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": NaN}]}]}}]}"#;
        assert!(read(nan).starts_with("bad_answer: not JSON"));
    }
}
