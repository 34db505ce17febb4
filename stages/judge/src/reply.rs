//! The endpoint's reply, read as log-probs of the two labels.

use endpoint::{Content, words};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::labels::{Labels, log_sum};

/// The alternatives to the first token, as far as they matter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    /// Nothing where neither label is among the alternatives.
    pub(crate) labels: Option<LabelLogps>,
    /// The likeliest token and its log-prob.
    pub(crate) likeliest: (String, f64),
    /// Number of alternatives with a log-prob.
    pub(crate) alternatives: usize,
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

/// The value that OpenAI returns in place of a log-prob that it does not know.
const UNKNOWN: f64 = -9999.0;
/// Excess above 1 that the sum of returned probabilities may have by rounding.
pub(crate) const EXCESS: f64 = 1e-2;
/// The longest token that is kept.
pub(crate) const TOKEN: usize = 40;

/// Reads a chat completion.
pub(crate) fn read(value: &Value, labels: &Labels) -> Content<Answer> {
    match alternatives(value) {
        Ok(all) => of_alternatives(&all, labels),
        Err(content) => content,
    }
}

/// True for a log-prob that is one.
pub(crate) fn known(logp: &f64) -> bool {
    (UNKNOWN..=EXCESS).contains(logp) && *logp > UNKNOWN
}

/// The alternatives to the first token of a chat completion, each with its log-prob where it has one.
///
/// # Errors
/// The content of a reply that has none.
pub(crate) fn alternatives<A>(value: &Value) -> Result<Vec<(String, Option<f64>)>, Content<A>> {
    let Some(choice) = value.pointer("/choices/0").filter(|choice| choice.is_object()) else {
        return Err(Content::NoAnswer(format!("no `choices`: {}", words(&value.to_string()))));
    };
    let Some(logprobs) = choice.get("logprobs").filter(|logprobs| logprobs.is_object()) else {
        let text = "no log-probs; the endpoint may not offer `logprobs` for this model";
        return Err(Content::NoEvidence(text.to_owned()));
    };
    let (alternatives, own) = match logprobs.pointer("/content/0") {
        Some(first) => (first.get("top_logprobs"), Some(first)),
        // As completions have them: a mapping of tokens to log-probs for each place.
        None => (logprobs.pointer("/top_logprobs/0"), None),
    };
    let alternatives = alternatives.map(listed).unwrap_or_default();
    if alternatives.is_empty() {
        let text = match (own, logprobs.get("top_logprobs"), logprobs.get("content")) {
            (None, None, _) => "no log-probs of a first token; the endpoint may not offer `logprobs` for this model",
            _ => "no alternatives to the first token (`top_logprobs`); the endpoint may not offer them for this model",
        };
        return Err(Content::NoEvidence(text.to_owned()));
    }
    Ok(alternatives)
}

/// The labels' share of the returned alternatives; those without a log-prob are as if they were not returned.
fn of_alternatives(alternatives: &[(String, Option<f64>)], labels: &Labels) -> Content<Answer> {
    let is_label = |token: &String| labels.first.contains(token) || labels.second.contains(token);
    if let Some((token, Some(logp))) =
        alternatives.iter().find(|(token, logp)| is_label(token) && logp.is_some_and(|logp| logp > EXCESS))
    {
        return Content::NoEvidence(format!("a log-prob of {logp} for {token:?}"));
    }
    let top: Vec<(&str, f64)> =
        alternatives.iter().filter_map(|(token, logp)| Some((token.as_str(), logp.filter(known)?))).collect();
    let logps: Vec<f64> = top.iter().map(|(_, logp)| *logp).collect();
    let sum = |logps: &mut dyn Iterator<Item = &f64>| logps.map(|logp| logp.exp()).sum::<f64>();
    let all = sum(&mut logps.iter());
    let found = |spellings: &[String]| -> Vec<usize> {
        (0..top.len()).filter(|&at| spellings.iter().any(|spelling| spelling == top[at].0)).collect()
    };
    let (first, second) = (found(&labels.first), found(&labels.second));
    // Where both labels are there, nothing else matters; else what the others leave bounds a label.
    let matters = match first.is_empty() || second.is_empty() {
        true => all,
        false => sum(&mut first.iter().chain(&second).map(|&at| &logps[at])),
    };
    let Some(likeliest) = top.iter().max_by(|one, other| one.1.total_cmp(&other.1)) else {
        return Content::NoEvidence(format!("none of {} alternatives has a log-prob", alternatives.len()));
    };
    if matters > 1.0 + EXCESS {
        return Content::NoEvidence(format!("{} alternatives with {matters:.4} of probability", top.len()));
    }
    let smallest = logps.iter().copied().fold(f64::INFINITY, f64::min);
    // Where rounding leaves nothing, so little that no double separates it from nothing.
    let bound = smallest.min((1.0 - all).max(f64::EPSILON).ln());
    let label = |found: &[usize]| if found.is_empty() { (bound, true) } else { (log_sum(&logps, found), false) };
    let ((first, first_bounded), (second, second_bounded)) = (label(&first), label(&second));
    let labels = LabelLogps { first, second, first_bounded, second_bounded };
    Content::Answers(vec![Answer {
        labels: (!(first_bounded && second_bounded)).then_some(labels),
        likeliest: (kit::redact(&likeliest.0.chars().take(TOKEN).collect::<String>()), likeliest.1),
        alternatives: top.len(),
    }])
}

/// The alternatives in either form: a list of `token` and `logprob`, or a mapping. What has no token is left out, what
/// has no number is unknown, and what stands there twice counts once.
fn listed(value: &Value) -> Vec<(String, Option<f64>)> {
    let mut all: Vec<(String, Option<f64>)> = match value {
        Value::Array(entries) => entries
            .iter()
            .filter_map(|entry| Some((token_of(entry)?, entry.get("logprob").and_then(Value::as_f64))))
            .collect(),
        Value::Object(map) => map.iter().map(|(token, logp)| (spelled(token), logp.as_f64())).collect(),
        _ => Vec::new(),
    };
    let mut at = 0;
    while at < all.len() {
        if all[..at].contains(&all[at]) { _ = all.remove(at) } else { at += 1 }
    }
    all
}

/// The text of an alternative: its bytes where it has them and no token, or the token's number in place of its text.
fn token_of(entry: &Value) -> Option<String> {
    let token = entry.get("token").and_then(Value::as_str);
    match token.filter(|token| !token.starts_with("token_id:")) {
        Some(token) => Some(spelled(token)),
        None => {
            let bytes = entry.get("bytes").and_then(Value::as_array).map(|bytes| {
                let bytes = bytes.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()));
                bytes.collect::<Option<Vec<u8>>>()
            });
            bytes.flatten().and_then(|bytes| String::from_utf8(bytes).ok()).or_else(|| token.map(str::to_owned))
        }
    }
}

/// A token with a space where a vocabulary's own sign for it stands at its beginning.
fn spelled(token: &str) -> String {
    match token.strip_prefix(['\u{2581}', '\u{120}']) {
        Some(rest) => format!(" {rest}"),
        None => token.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn completion(top: Value) -> String {
        json!({"choices": [{"logprobs": {"content": [{"token": "x", "logprob": 0, "top_logprobs": top}]}}]}).to_string()
    }

    fn read(body: &str) -> Content<Answer> {
        super::read(&endpoint::read_json(body.as_bytes()).unwrap(), &Labels::default())
    }

    fn said(top: &[(&str, f64)]) -> Content<Answer> {
        read(&completion(top.iter().map(|(token, logp)| json!({"token": token, "logprob": logp})).collect()))
    }

    fn labels(said: Content<Answer>) -> LabelLogps {
        match said {
            Content::Answers(answers) => answers[0].labels.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn spellings_are_summed() {
        let labels = labels(said(&[("A", 0.5f64.ln()), (" A", 0.25f64.ln()), ("B", 0.2f64.ln())]));
        assert!((labels.first - 0.75f64.ln()).abs() < 1e-12 && (labels.second - 0.2f64.ln()).abs() < 1e-12);
        assert!(!labels.first_bounded && !labels.second_bounded);
    }

    #[test]
    fn a_label_that_was_not_returned_is_bounded_and_never_zero() {
        let expected = LabelLogps { first: -0.1, second: -7.5, first_bounded: false, second_bounded: true };
        assert_eq!(labels(said(&[("A", -0.1), ("The", -3.0), ("I", -7.5)])), expected);
        // OpenAI's placeholder is no log-prob.
        let with_placeholder = [("A", -0.1), ("The", -3.0), ("I", -7.5), ("B", -9999.0)];
        assert_eq!(labels(said(&with_placeholder)), expected);
        // The rest can be less than the least likely token: 1 - 0.6 - 0.399.
        let labels = labels(said(&[("A", 0.6f64.ln()), ("The", 0.399f64.ln())]));
        assert!((labels.second - 0.001f64.ln()).abs() < 1e-9 && labels.second_bounded, "{labels:?}");
    }

    #[test]
    fn a_judge_that_can_say_the_labels_only_may_return_one_of_them() {
        let one = labels(said(&[("B", -1e-3), ("A", -9999.0)]));
        assert!((one.first - (1.0 - (-1e-3_f64).exp()).ln()).abs() < 1e-12, "{one:?}");
        assert_eq!((one.second, one.first_bounded, one.second_bounded), (-1e-3, true, false));
        // One that is certain to the last digit leaves the other a bound all the same.
        let certain = labels(said(&[("A", 0.0)]));
        assert_eq!((certain.first, certain.second), (0.0, f64::EPSILON.ln()));
    }

    #[test]
    fn one_value_that_is_not_needed_spoils_nothing() {
        let plain = labels(said(&[("A", -0.4), ("B", -1.5), ("The", -4.0)]));
        let alternative = |token: &str, logp: &str| format!(r#"{{"token": {token}, "logprob": {logp}}}"#);
        let of = |more: &str| {
            let known = [("\"A\"", "-0.4"), ("\"B\"", "-1.5"), ("\"The\"", "-4.0")]
                .map(|(token, logp)| alternative(token, logp));
            let list = format!("[{}, {more}]", known.join(", "));
            read(&completion(json!("LIST")).replace("\"LIST\"", &list))
        };
        for more in [
            alternative("\"I\"", "null"),
            alternative("\"I\"", "-Infinity"),
            alternative("\"I\"", "NaN"),
            alternative("\"I\"", "\"-inf\""),
            alternative("\"I\"", "-99999"),
            alternative("\"I\"", "3.5"),
            alternative("\"I\"", "0.0"),
            alternative("null", "-5.0"),
            alternative("\"\\ud83d\"", "-5.0"),
            alternative("\"A\"", "-0.4"),
            "null".to_owned(),
            "{}".to_owned(),
        ] {
            assert_eq!(labels(of(&more)), plain, "{more}");
        }
        // A label without a number is bounded as one that was not returned.
        for nothing in ["null", "-Infinity", "\"-inf\""] {
            let list = format!("[{}, {}]", alternative("\"A\"", "-0.01"), alternative("\"B\"", nothing));
            let one = labels(read(&completion(json!("LIST")).replace("\"LIST\"", &list)));
            assert!((one.second - (1.0 - (-0.01_f64).exp()).ln()).abs() < 1e-12 && one.second_bounded, "{one:?}");
        }
        let marked = format!(
            "\u{feff}{}",
            completion(json!([{"token": "A", "logprob": -0.4}, {"token": "B", "logprob": -1.5}]))
        );
        assert_eq!(labels(read(&marked)).first, -0.4);
        let mut broken = completion(
            json!([{"token": "A", "logprob": -0.4}, {"token": "B", "logprob": -1.5}, {"token": "I", "logprob": -7.0}]),
        );
        let at = broken.find("\"I\"").unwrap() + 1;
        let mut bytes = std::mem::take(&mut broken).into_bytes();
        bytes[at] = 0xff;
        let value = endpoint::read_json(&bytes).unwrap();
        assert_eq!(labels(super::read(&value, &Labels::default())).second, -1.5);
    }

    #[test]
    fn tokens_are_read_from_bytes_and_from_signs_of_the_vocabulary() {
        let expected = labels(said(&[(" A", -0.4), ("B", -1.5)]));
        for top in [
            json!([{"bytes": [32, 65], "logprob": -0.4}, {"token": null, "bytes": [66], "logprob": -1.5}]),
            json!([{"token": "token_id:362", "bytes": [32, 65], "logprob": -0.4}, {"token": "B", "logprob": -1.5}]),
            json!([{"token": "\u{2581}A", "logprob": -0.4}, {"token": "B", "bytes": [1, 2], "logprob": -1.5}]),
            json!([{"token": "\u{120}A", "logprob": -0.4}, {"token": "B", "bytes": null, "logprob": -1.5}]),
            json!({"\u{2581}A": -0.4, "B": -1.5}),
        ] {
            assert_eq!(labels(read(&completion(top.clone()))), expected, "{top}");
        }
        // A number without bytes names the token in the message.
        let Content::Answers(mut answers) = said(&[("token_id:7", -0.1)]) else { panic!("it was there") };
        let answer = answers.remove(0);
        assert_eq!((answer.labels, answer.likeliest.0.as_str()), (None, "token_id:7"));
    }

    #[test]
    fn the_form_of_completions_is_read() {
        let body = json!({"choices": [{"text": "A", "error": null, "logprobs": {
            "tokens": ["A"], "token_logprobs": [-0.4], "top_logprobs": [{"A": -0.4, "B": -1.5, "The": null}],
        }}], "error": null});
        let Content::Answers(mut answers) = read(&body.to_string()) else { panic!("it was there") };
        let answer = answers.remove(0);
        assert_eq!((answer.likeliest, answer.alternatives), (("A".to_owned(), -0.4), 2));
        let labels = answer.labels.unwrap();
        assert_eq!((labels.first, labels.second, labels.second_bounded), (-0.4, -1.5, false));
    }

    #[test]
    fn an_answer_without_labels_names_the_likeliest_token() {
        let Content::Answers(mut answers) = said(&[("The", -0.1), ("I", -3.0)]) else { panic!("it was there") };
        let answer = answers.remove(0);
        assert_eq!((answer.labels, answer.likeliest.0.as_str(), answer.alternatives), (None, "The", 2));
    }

    #[test]
    fn what_is_no_evidence_is_told() {
        let no_evidence = |said: Content<Answer>| match said {
            Content::NoEvidence(text) => text,
            other => panic!("{other:?}"),
        };
        assert!(no_evidence(said(&[("A", -9999.0)])).starts_with("none of 1 alternatives"));
        assert!(no_evidence(said(&[("A", -0.1), ("B", -0.1)])).starts_with("2 alternatives with 1.8"));
        assert!(no_evidence(said(&[("A", -0.1), ("The", -0.1)])).starts_with("2 alternatives with 1.8"));
        assert!(no_evidence(said(&[("A", 3.0), ("B", -0.1)])).starts_with("a log-prob of 3"));
        assert!(no_evidence(said(&[])).contains("`top_logprobs`"));
        assert!(no_evidence(read(r#"{"choices": [{"logprobs": null}]}"#)).contains("may not offer `logprobs`"));
        assert!(no_evidence(read(r#"{"choices": [{"logprobs": {"content": [{}]}}]}"#)).contains("`top_logprobs`"));
        assert!(no_evidence(read(r#"{"choices": [{"logprobs": {"content": []}}]}"#)).contains("`logprobs`"));
    }

    #[test]
    fn a_reply_without_choices_is_no_answer() {
        for body in ["[]", r#"{"choices": [], "x": 1}"#, r#"{"choices": null}"#] {
            match read(body) {
                Content::NoAnswer(text) => assert!(text.starts_with("no `choices`: "), "{text}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
