//! The answer files of a batch: whatever lies beside the request files, in any order, whole or not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kit::{Context, Error, Result};
use serde_json::Value;

use crate::json;
use crate::reply::{self, NoReply, words};

/// The beginning of the names of request files; a digest of 24 letters follows.
pub(crate) const REQUESTS: &str = "requests-";
/// The letters of a digest.
const DIGEST: usize = 24;

/// A line of an answer file.
pub(crate) struct Line {
    /// The digest of its request, the `custom_id`.
    pub(crate) request: String,
    /// Status and body; nothing where the request was not answered.
    pub(crate) response: Option<(u16, Value)>,
    /// Why it was not.
    pub(crate) error: Option<String>,
    /// File and line.
    pub(crate) place: String,
}

impl Line {
    fn of(value: &Value, place: String) -> Option<Line> {
        let request = value.get("custom_id")?.as_str()?.to_owned();
        let error = value.get("error").filter(|error| !error.is_null());
        let response = value.get("response").filter(|response| response.is_object()).and_then(|response| {
            let status = response.get("status_code").and_then(Value::as_u64).unwrap_or(200);
            // `vllm run-batch` puts what went wrong beside an empty body.
            let body = response.get("body").filter(|body| !body.is_null()).or(error)?;
            let status = match (u16::try_from(status).ok()?, reply::of(body.clone())) {
                (200..300, Err(NoReply::Error(named))) => named.unwrap_or(500),
                (status, _) => status,
            };
            Some((status, body.clone()))
        });
        Some(Line { request, response, error: error.map(said), place })
    }

    /// Why its request is to be asked again; nothing where it is answered or refused.
    pub(crate) fn asks_again(&self) -> Option<String> {
        match &self.response {
            Some((200..300 | 400 | 403 | 413 | 422, _)) => None,
            Some((status, body)) => Some(format!("status {status}: {}", said(body))),
            None => Some(self.error.clone().unwrap_or_else(|| "no answer and no error".to_owned())),
        }
    }

    /// True where it answers its request.
    pub(crate) fn is_good(&self) -> bool {
        self.response.as_ref().is_some_and(|(status, _)| (200..300).contains(status))
    }
}

/// The lines of the answer files of a folder by their requests; of several about one, a good one counts, else the last.
/// `is_known` says which requests are of this stage.
///
/// # Errors
/// When a file cannot be read, and where an answer is of another run.
pub(crate) fn read(
    folder: &Path,
    context: &Context<'_>,
    is_known: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Line>> {
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    for path in answer_files(folder)? {
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        let mut damaged = Vec::new();
        for (number, text) in text.split(|byte| *byte == b'\n').enumerate() {
            if text.trim_ascii().is_empty() {
                continue;
            }
            let place = format!("{}, line {}", path.display(), number + 1);
            let Some(line) = json::read(text).ok().and_then(|value| Line::of(&value, place)) else {
                damaged.push(number + 1);
                continue;
            };
            if !is_known(&line.request) {
                return Err(Error::data(format!(
                    "{}: the answer to `{}` (`custom_id`), which is no request of this folder: the file is of another \
                     run; take it out of the folder",
                    line.place,
                    words(&line.request)
                )));
            }
            if line.is_good() || lines.get(&line.request).is_none_or(|known| !known.is_good()) {
                lines.insert(line.request.clone(), line);
            }
        }
        if let Some(first) = damaged.first() {
            context.warn(format!(
                "{}: {} lines are no answers of a batch, the first of them line {first}; the other lines are taken, \
                 what is missing is asked again",
                path.display(),
                damaged.len()
            ));
        }
    }
    Ok(lines)
}

/// The answer files of a folder, by name.
fn answer_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.strip_suffix(".jsonl").is_some_and(|name| !name.starts_with('.') && !is_request(name)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// True for the name that a request file has, without its ending.
fn is_request(name: &str) -> bool {
    let digest = name.strip_prefix(REQUESTS);
    digest.is_some_and(|digest| digest.len() == DIGEST && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What an error says, for a message.
pub(crate) fn said(body: &Value) -> String {
    let places = ["/error/message", "/message", "/detail", "/error"];
    let message = places.iter().find_map(|place| body.pointer(place)?.as_str()).or(body.as_str()).map(str::to_owned);
    kit::redact(&words(&message.unwrap_or_else(|| body.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_read_as_openai_and_vllm_write_them() {
        let check = |line: Value, response: Option<(u16, &str)>, error: Option<&str>| {
            let line = Line::of(&line, "f, line 1".to_owned()).unwrap();
            assert_eq!(line.request, "x");
            assert_eq!(line.response.map(|(status, body)| (status, said(&body))), {
                response.map(|(status, text)| (status, text.to_owned()))
            });
            assert_eq!(line.error.as_deref(), error);
        };
        let body = json!({"choices": [], "message": "fine"});
        let answered =
            |response: Value, error: Value| json!({"id": "b", "custom_id": "x", "response": response, "error": error});
        check(
            answered(json!({"status_code": 200, "request_id": "r", "body": body}), Value::Null),
            Some((200, "fine")),
            None,
        );
        check(answered(json!({"body": body}), Value::Null), Some((200, "fine")), None);
        // A request that its time ran out for.
        let expired = json!({"code": "batch_expired", "message": "not executed before the window expired"});
        check(answered(Value::Null, expired), None, Some("not executed before the window expired"));
        // vLLM: the body is empty, and the error is an object or a text.
        let wrong = json!({"object": "error", "message": "no such parameter", "code": 400});
        let refused = json!({"status_code": 400, "request_id": "r", "body": null});
        check(answered(refused.clone(), wrong), Some((400, "no such parameter")), Some("no such parameter"));
        check(answered(refused, json!("bad url")), Some((400, "bad url")), Some("bad url"));
        // An error with status 200 has the status that it names.
        let body = json!({"error": {"message": "too long", "code": 400}});
        check(answered(json!({"status_code": 200, "body": body}), Value::Null), Some((400, "too long")), None);
        assert!(Line::of(&json!({"response": {}}), String::new()).is_none());
        assert!(Line::of(&json!({"custom_id": 7}), String::new()).is_none());
    }

    #[test]
    fn a_request_file_is_known_by_its_whole_name() {
        assert!(is_request("requests-0123456789abcdef01234567"));
        for name in
            ["requests-0123456789abcdef01234567-out", "requests-out", "output", "requests-0123456789abcdef0123456"]
        {
            assert!(!is_request(name), "{name}");
        }
    }
}
