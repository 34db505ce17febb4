//! The body of a reply: JSON, an error whatever its status, or neither.

use serde_json::Value;

use crate::json;

/// Characters of a reply that a message repeats.
const WORDS: usize = 80;

/// A body that answers nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NoReply {
    /// An error, whatever the status; with the status that it names.
    Error(Option<u16>),
    /// Something else; another time there may be a reply.
    Other(String),
}

/// Reads a body.
///
/// # Errors
/// Where it is an error, or no JSON.
pub(crate) fn read(body: &[u8]) -> Result<Value, NoReply> {
    of(json::read(body).map_err(|text| NoReply::Other(what_it_is(&text)))?)
}

/// A body that is JSON.
///
/// # Errors
/// Where it is an error.
pub(crate) fn of(value: Value) -> Result<Value, NoReply> {
    let error = |at: &str| value.pointer(at).filter(|error| is_error(error));
    if let Some(error) = error("/error").or_else(|| error("/choices/0/error")) {
        return Err(NoReply::Error(status_of(error).or_else(|| status_of(&value))));
    }
    if value.get("object").and_then(Value::as_str) == Some("error") {
        return Err(NoReply::Error(status_of(&value)));
    }
    Ok(value)
}

fn is_error(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        _ => true,
    }
}

/// The status that an error names: `code` or `status`, as a number or in digits.
fn status_of(error: &Value) -> Option<u16> {
    let named = ["code", "status", "status_code"].iter().filter_map(|key| error.get(key));
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    named.filter_map(number).find_map(|code| u16::try_from(code).ok().filter(|code| (400..600).contains(code)))
}

/// A description of a body that is not JSON.
fn what_it_is(text: &str) -> String {
    let start = text.trim_start();
    if start.is_empty() {
        return "an empty body".to_owned();
    }
    let is = if ["data:", "event:", "id:", "retry:", ": "].iter().any(|field| start.starts_with(field)) {
        "an event stream, which was not requested (say `body: {stream: false}`)"
    } else if start.starts_with('<') {
        "a page of HTML or XML"
    } else {
        "not JSON"
    };
    format!("{is}: {}", words(start))
}

/// The model that a reply is of, where it is another than was asked for. Names of one model may have a place before them
/// or a date behind them.
pub(crate) fn other_model(asked: &str, reply: &Value) -> Option<String> {
    let named = reply.get("model").and_then(Value::as_str).filter(|name| !name.trim().is_empty())?;
    let last = |name: &str| name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
    let (one, other) = (last(asked), last(named));
    let same = one.contains(&other) || other.contains(&one);
    (!same).then(|| kit::redact(&words(named)))
}

/// The beginning of a text, for a message.
pub fn words(text: &str) -> String {
    let mut words: String = text.chars().take(WORDS).collect();
    if text.chars().count() > WORDS {
        words.push_str("...");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_another_model_is_noticed() {
        let other = |asked: &str, named: Value| other_model(asked, &serde_json::json!({"model": named}));
        for named in ["gpt-4o", "gpt-4o-2024-08-06", "openai/GPT-4o", "/models/gpt-4o/", ""] {
            assert_eq!(other("gpt-4o", named.into()), None, "{named}");
        }
        assert_eq!(other("gpt-4o", Value::Null), None);
        assert_eq!(other("org/model-7b", "model-7b".into()), None);
        assert_eq!(other("gpt-4o", "llama-3".into()), Some("llama-3".to_owned()));
    }

    #[test]
    fn errors_and_what_is_no_reply_are_told_apart() {
        for (body, status) in [
            (r#"{"error": {"message": "slow down", "code": 429}}"#, Some(429)),
            (r#"{"error": {"message": "slow down", "code": "503"}}"#, Some(503)),
            (r#"{"error": {"message": "slow down", "code": "rate_limit_exceeded", "status": 429}}"#, Some(429)),
            (r#"{"error": "overloaded"}"#, None),
            (r#"{"object": "error", "message": "too long", "code": 400}"#, Some(400)),
            (r#"{"choices": [{"error": {"code": 502}, "message": {}}]}"#, Some(502)),
        ] {
            assert_eq!(read(body.as_bytes()), Err(NoReply::Error(status)), "{body}");
        }
        for (body, words) in [
            ("", "an empty body"),
            ("<!doctype html><title>Busy</title>", "a page of HTML or XML: <!doctype html>"),
            ("data: {\"choices\": []}\n\n", "an event stream"),
            ("busy", "not JSON: busy"),
        ] {
            match read(body.as_bytes()) {
                Err(NoReply::Other(text)) => assert!(text.starts_with(words), "{text}"),
                other => panic!("{body}: {other:?}"),
            }
        }
        assert!(read(br#"{"choices": [], "error": null}"#).is_ok());
    }
}
