//! The configuration of a remote judge, and the key that opens it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kit::{Error, Finding, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A judge behind an OpenAI-compatible endpoint: chat completions with log-probs, one token each.
///
/// The endpoint returns the most likely tokens only. A label that is not among them is bounded by the smallest
/// log-prob that was returned and by the probability that all of them leave, and the verdict says so in `bounded`.
///
/// Before the first question one short request finds out what the endpoint takes: the limit of one token as
/// `max_tokens` or as `max_completion_tokens`, and `temperature: 0` or none (log-probs do not depend on it).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The base, as OpenAI clients take it, such as `http://localhost:8000/v1`; `/chat/completions` is added to its
    /// path, before a query such as `?api-version=2024-10-21`.
    pub url: String,
    /// The model's name at the endpoint.
    pub model: String,
    /// The environment variable that holds the key. The key itself is in no file and no message.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// The file that holds the key, in place of `api_key_env`.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// The header that carries the key. `Authorization` carries it as `Bearer KEY`, any other, such as `api-key`,
    /// alone.
    #[serde(default = "api_key_header", skip_serializing_if = "is_authorization")]
    pub api_key_header: String,
    /// Further headers of each request, such as `{X-Project: judges}`. For a secret write `${env:X}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Number of alternatives requested for each token, 2 to 20. More leave fewer labels to a bound.
    #[serde(default = "top_logprobs")]
    pub top_logprobs: usize,
    /// Further fields of the request, such as `{chat_template_kwargs: {enable_thinking: false}}`.
    #[serde(default)]
    pub body: BTreeMap<String, Value>,
    /// Requests under way at once.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// The longest that one request may take.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: f64,
    /// Number of retries of a request after a failure that may pass: 429 or 5xx as status or in the body, a timeout, a
    /// broken connection, a reply that is no completion.
    #[serde(default = "retries")]
    pub retries: u32,
    /// The pause before a request is sent again; it doubles each time, up to a minute. A `Retry-After` comes first, and
    /// a random part of the pause is added to it.
    #[serde(default = "backoff_seconds")]
    pub backoff_seconds: f64,
    /// In how many runs, 1 or more, a question may fail with 5xx, a timeout or a broken connection while the endpoint
    /// answers others. Until then a run asks all other questions, keeps their answers and ends with exit code 69; in
    /// that run the comparison is rejected as `server_error`.
    #[serde(default = "give_up_after")]
    pub give_up_after: u32,
    /// The largest share of comparisons, 0 to 1, that the endpoint may refuse, answer without log-probs or fail to
    /// answer; beyond it the stage stops.
    #[serde(default = "max_rejects")]
    pub max_rejects: f64,
}

fn api_key_header() -> String {
    "Authorization".to_owned()
}

fn is_authorization(header: &str) -> bool {
    header.eq_ignore_ascii_case("authorization")
}

fn top_logprobs() -> usize {
    20
}

fn concurrency() -> usize {
    8
}

fn timeout_seconds() -> f64 {
    60.0
}

fn retries() -> u32 {
    6
}

fn backoff_seconds() -> f64 {
    0.5
}

fn give_up_after() -> u32 {
    3
}

fn max_rejects() -> f64 {
    0.1
}

/// The longest file that can hold a key, bytes.
const LONGEST_KEY: u64 = 1 << 16;
/// Fields of a request that the stage sets itself; `body` cannot set them.
const OURS: [&str; 8] =
    ["model", "messages", "logprobs", "top_logprobs", "max_tokens", "max_completion_tokens", "temperature", "n"];
/// Headers that are set by themselves.
const OUR_HEADERS: [&str; 5] = ["content-type", "content-length", "host", "transfer-encoding", "connection"];

/// The parameters that an endpoint accepts, as far as endpoints differ in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// The limit of tokens goes by the name `max_completion_tokens`.
    newer_limit: bool,
    temperature: bool,
}

impl Parameters {
    /// The variants, in the order in which they are tried.
    pub(crate) const ALL: [Parameters; 4] = [
        Parameters { newer_limit: false, temperature: true },
        Parameters { newer_limit: true, temperature: true },
        Parameters { newer_limit: false, temperature: false },
        Parameters { newer_limit: true, temperature: false },
    ];
}

impl std::fmt::Display for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limit = if self.newer_limit { "`max_completion_tokens`" } else { "`max_tokens`" };
        let temperature = if self.temperature { "with" } else { "without" };
        write!(f, "{limit} {temperature} `temperature`")
    }
}

impl Endpoint {
    /// The question before the first one; what is answered does not matter.
    pub(crate) const PROBE: &'static str = "Answer with the letter A.";

    /// Address of requests.
    pub(crate) fn address(&self) -> String {
        let (base, query) =
            self.url.split_once('?').map_or((self.url.as_str(), None), |(base, query)| (base, Some(query)));
        let base = base.trim_end_matches('/');
        let path = if base.ends_with("/chat/completions") { "" } else { "/chat/completions" };
        format!("{base}{path}{}", query.map(|query| format!("?{query}")).unwrap_or_default())
    }

    /// Address of requests for people, without its query, which may hold a key.
    pub(crate) fn shown(&self) -> String {
        kit::redact(self.address().split('?').next().unwrap_or_default())
    }

    /// The body of a request, as it is known by. Each endpoint gets it in the form that it takes.
    pub(crate) fn request(&self, question: &str) -> String {
        self.request_as(question, Parameters::ALL[0])
    }

    pub(crate) fn request_as(&self, question: &str, parameters: Parameters) -> String {
        let mut body: serde_json::Map<String, Value> = self.body.clone().into_iter().collect();
        body.insert("model".to_owned(), self.model.clone().into());
        body.insert("messages".to_owned(), serde_json::json!([{"role": "user", "content": question}]));
        body.insert("logprobs".to_owned(), true.into());
        body.insert("top_logprobs".to_owned(), self.top_logprobs.into());
        let limit = if parameters.newer_limit { "max_completion_tokens" } else { "max_tokens" };
        body.insert(limit.to_owned(), 1.into());
        if parameters.temperature {
            body.insert("temperature".to_owned(), 0.into());
        }
        kit::canonical(&Value::Object(body))
    }

    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |key: &str, text: String| findings.push(Finding::at(&format!("endpoint.{key}"), text));
        let rest = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"));
        match rest.map(|rest| rest.split(['/', '?']).next().unwrap_or_default()) {
            None | Some("") => find("url", "wanted a URL such as `http://localhost:8000/v1`".to_owned()),
            Some(host) if host.contains('@') => {
                find("url", "holds a name or password; give a key by `api_key_env` or `api_key_file`".to_owned());
            }
            Some(_) if self.url.contains('#') || self.address().parse::<ureq::http::Uri>().is_err() => {
                find("url", "`url` is no URL of an endpoint; wanted one such as `http://localhost:8000/v1`".to_owned());
            }
            Some(_) => {}
        }
        if self.model.is_empty() {
            find("model", "wanted the model's name at the endpoint".to_owned());
        }
        if self.api_key_env.is_some() && self.api_key_file.is_some() {
            find("api_key_file", "without effect beside `api_key_env`; give one of them".to_owned());
        }
        if let Some(name) = &self.api_key_env
            && (name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_'))
        {
            // Not repeated here: it may be the key itself.
            find("api_key_env", "wanted the name of an environment variable, not a key".to_owned());
        }
        if !(2..=20).contains(&self.top_logprobs) {
            find("top_logprobs", format!("got {}, wanted 2 to 20", self.top_logprobs));
        }
        for key in self.body.keys().filter(|key| OURS.contains(&key.as_str())) {
            let text = match key.as_str() {
                "temperature" => {
                    "is not needed: log-probs do not depend on it, and an endpoint that refuses 0 is asked without"
                }
                _ => "is said by the stage itself; leave it out",
            };
            find(&format!("body.{key}"), format!("`body.{key}` {text}"));
        }
        if self.body.get("stream").is_some_and(|stream| *stream != Value::Bool(false)) {
            find("body.stream", "an answer is read whole; `false` or nothing".to_owned());
        }
        let no_header = |name: &str| ureq::http::HeaderName::from_bytes(name.as_bytes()).is_err();
        if no_header(&self.api_key_header) || OUR_HEADERS.contains(&self.api_key_header.to_lowercase().as_str()) {
            find("api_key_header", "wanted the name of a header for the key".to_owned());
        }
        for (name, value) in &self.headers {
            let text = if no_header(name) {
                "is no name of a header"
            } else if OUR_HEADERS.contains(&name.to_lowercase().as_str()) {
                "is said by the stage itself; leave it out"
            } else if name.eq_ignore_ascii_case("authorization") || name.eq_ignore_ascii_case(&self.api_key_header) {
                "carries the key, which is named by `api_key_env` or `api_key_file`"
            } else if !value.chars().all(|letter| letter.is_ascii_graphic() || letter == ' ') {
                // Not repeated here: it may be a secret.
                "has a value that cannot stand in a header: wanted visible ASCII on one line"
            } else {
                continue;
            };
            find(&format!("headers.{name}"), format!("`headers.{name}` {text}"));
        }
        if self.give_up_after == 0 {
            find("give_up_after", "got 0, wanted 1 or more runs".to_owned());
        }
        if !(1..=1024).contains(&self.concurrency) {
            find("concurrency", format!("got {}, wanted 1 to 1024", self.concurrency));
        }
        for (key, value, range) in [
            ("timeout_seconds", self.timeout_seconds, 0.001..=86400.0),
            ("backoff_seconds", self.backoff_seconds, 0.0..=3600.0),
            ("max_rejects", self.max_rejects, 0.0..=1.0),
        ] {
            if !range.contains(&value) {
                find(key, format!("got {value}, wanted {} to {}", range.start(), range.end()));
            }
        }
        findings
    }

    /// Says that the variable of the key is not set; only a run that asks needs it.
    pub(crate) fn unset_key(&self) -> Option<Finding> {
        let name = self.api_key_env.as_ref().filter(|name| !name.is_empty() && std::env::var_os(name).is_none())?;
        let text = format!("the environment variable `{name}` is not set; a run that asks the endpoint needs it");
        Some(Finding::at("endpoint.api_key_env", text))
    }

    /// Reads the key by its name.
    ///
    /// # Errors
    /// When there is none under that name, or when it cannot stand in a header; the text does not show it.
    pub(crate) fn key(&self) -> Result<Option<Key>> {
        let (text, place) = match (&self.api_key_env, &self.api_key_file) {
            (Some(name), _) => {
                let text = std::env::var(name).map_err(|_| {
                    Error::Pipeline(format!("the environment variable `{name}`, named by `api_key_env`, is not set"))
                })?;
                (text, format!("the environment variable `{name}`"))
            }
            (None, Some(path)) => (kit::read_small(path, LONGEST_KEY)?, format!("the file {}", path.display())),
            (None, None) => return Ok(None),
        };
        let text = text.trim().to_owned();
        if text.is_empty() || !text.chars().all(|letter| letter.is_ascii_graphic()) {
            return Err(Error::Pipeline(format!("{place} holds no key: wanted one word of visible ASCII")));
        }
        kit::keep_secret(&text, "[the key]");
        Ok(Some(Key(text)))
    }
}

/// A secret that only the endpoint gets.
pub(crate) struct Key(String);

impl Key {
    /// The value of a header that carries it.
    pub(crate) fn in_header(&self, header: &str) -> String {
        if is_authorization(header) { format!("Bearer {}", self.0) } else { self.0.clone() }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoint(settings: Value) -> Endpoint {
        let mut all = json!({"url": "http://h/v1", "model": "m"});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn the_path_comes_before_the_query() {
        for (url, address, shown) in [
            ("http://h/v1", "http://h/v1/chat/completions", "http://h/v1/chat/completions"),
            ("http://h/v1/?v=1&k=secret", "http://h/v1/chat/completions?v=1&k=secret", "http://h/v1/chat/completions"),
            ("http://h/x/chat/completions?v=1", "http://h/x/chat/completions?v=1", "http://h/x/chat/completions"),
            (
                "http://h?v=/chat/completions",
                "http://h/chat/completions?v=/chat/completions",
                "http://h/chat/completions",
            ),
        ] {
            let endpoint = endpoint(json!({"url": url}));
            assert_eq!((endpoint.address().as_str(), endpoint.shown().as_str()), (address, shown));
            assert_eq!(endpoint.check(), [], "{url}");
        }
        assert_eq!(endpoint(json!({"url": "http://h/v1#x"})).check().len(), 1);
    }

    #[test]
    fn headers_are_checked_and_their_values_not_shown() {
        let found = endpoint(json!({
            "api_key_header": "api key", "body": {"stream": true, "temperature": 1},
            "headers": {"X-Good": "yes", "no good": "x", "Host": "x", "authorization": "Bearer secret", "x-two": "secret\nlines"},
        }))
        .check();
        assert_eq!(found.len(), 7, "{found:#?}");
        assert!(!format!("{found:?}").contains("secret"));
        assert_eq!(endpoint(json!({"body": {"stream": false}, "api_key_header": "api-key"})).check(), []);
        let key = Key("k".to_owned());
        assert_eq!((key.in_header("authorization"), key.in_header("api-key")), ("Bearer k".to_owned(), "k".to_owned()));
    }

    #[test]
    fn a_key_file_is_a_file() {
        let error = endpoint(json!({"api_key_file": "/dev/zero"})).key().unwrap_err().to_string();
        assert!(error.contains("/dev/zero is a device, wanted a file"), "{error}");
    }
}
