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
/// Models that refuse `max_tokens` are asked with `max_completion_tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The base, as OpenAI clients take it, such as `http://localhost:8000/v1`; `/chat/completions` is added.
    pub url: String,
    /// The model's name at the endpoint.
    pub model: String,
    /// The environment variable that holds the key. The key itself is in no file and no message.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// The file that holds the key, in place of `api_key_env`.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// How many alternatives are asked for, 2 to 20. More leave fewer labels to a bound.
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
    /// How often a request is sent again after a failure that may pass: 429, 5xx, a timeout, a broken connection.
    #[serde(default = "retries")]
    pub retries: u32,
    /// The pause before a request is sent again; it doubles each time, up to a minute. A `Retry-After` comes first, and
    /// a random part of the pause is added to it.
    #[serde(default = "backoff_seconds")]
    pub backoff_seconds: f64,
    /// The largest share of comparisons that the endpoint may leave without a verdict; beyond it the stage stops.
    #[serde(default = "max_rejects")]
    pub max_rejects: f64,
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

fn max_rejects() -> f64 {
    0.1
}

/// The longest file that can hold a key, bytes.
const LONGEST_KEY: u64 = 1 << 16;
/// What a request always says; `body` cannot.
const OURS: [&str; 9] = [
    "model",
    "messages",
    "logprobs",
    "top_logprobs",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "stream",
    "n",
];

impl Endpoint {
    /// The keys that change how the endpoint is asked and not what it is asked.
    pub(crate) const EXECUTION_KEYS: [&'static str; 7] = [
        "endpoint.api_key_env",
        "endpoint.api_key_file",
        "endpoint.concurrency",
        "endpoint.timeout_seconds",
        "endpoint.retries",
        "endpoint.backoff_seconds",
        "endpoint.max_rejects",
    ];

    /// Where requests go.
    pub(crate) fn address(&self) -> String {
        let base = self.url.trim_end_matches('/');
        if base.ends_with("/chat/completions") { base.to_owned() } else { format!("{base}/chat/completions") }
    }

    /// The body of a request.
    pub(crate) fn request(&self, question: &str) -> String {
        let mut body: serde_json::Map<String, Value> = self.body.clone().into_iter().collect();
        body.insert("model".to_owned(), self.model.clone().into());
        body.insert("messages".to_owned(), serde_json::json!([{"role": "user", "content": question}]));
        body.insert("logprobs".to_owned(), true.into());
        body.insert("top_logprobs".to_owned(), self.top_logprobs.into());
        body.insert("max_tokens".to_owned(), 1.into());
        body.insert("temperature".to_owned(), 0.into());
        kit::canonical(&Value::Object(body))
    }

    /// The same request for models that know the limit under its newer name. What is asked is the same, so the request
    /// keeps its id.
    pub(crate) fn with_newer_limit(request: &str) -> Option<String> {
        let mut body: serde_json::Map<String, Value> = serde_json::from_str(request).ok()?;
        let limit = body.remove("max_tokens")?;
        body.insert("max_completion_tokens".to_owned(), limit);
        Some(kit::canonical(&Value::Object(body)))
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
            Some(_) if self.address().parse::<ureq::http::Uri>().is_err() => {
                find("url", "is no URL".to_owned());
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
            find(&format!("body.{key}"), "is said by the stage itself; leave it out".to_owned());
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
        Ok(Some(Key(text)))
    }
}

/// A secret; it is shown to the endpoint and nobody else.
pub(crate) struct Key(String);

impl Key {
    /// The value of the header `Authorization`.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Takes the key out of what somebody else said.
    pub(crate) fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "[the key]")
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}
