//! The configuration of an endpoint: its field docs are the manual.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kit::{Finding, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::{Form, Protocol};
use crate::usage::{Price, Usage};

/// A model behind an OpenAI-compatible endpoint.
///
/// A judge asks for chat completions with log-probs, one token each. The endpoint returns the most likely tokens only.
/// A label that is not among them is bounded by the smallest log-prob that was returned and by the probability that all
/// of them leave, and the verdict says so in `bounded`.
///
/// Before the first question one short request finds out what the endpoint takes: the limit of tokens as `max_tokens`
/// or as `max_completion_tokens`; for a judge `temperature: 0` or none (log-probs do not depend on it); for samples `n`,
/// `seed` and `logprobs` or none.
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
    /// Number of alternatives requested for each token, 2 to 20, by a judge alone. More leave fewer labels to a bound.
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
    /// that run its row is rejected as `server_error`.
    #[serde(default = "give_up_after")]
    pub give_up_after: u32,
    /// The largest share of rows, 0 to 1, that the endpoint may refuse, answer without log-probs or fail to
    /// answer; beyond it the stage stops.
    #[serde(default = "max_rejects")]
    pub max_rejects: f64,
    /// Prices per million tokens. With them `plan` forecasts the cost, and the run shows it from the server's `usage`.
    #[serde(default)]
    pub price: Option<Price>,
    /// The most that the stage may cost over all runs, in the currency of `price`. Before a request that could pass it
    /// the run ends with exit code 75; what was answered is kept, and a higher limit goes on.
    #[serde(default)]
    pub max_cost: Option<f64>,
    /// A folder for request files in OpenAI's batch format, in place of requests over HTTP. A run writes
    /// `requests-*.jsonl` there, at most 50,000 questions and 200 MB each, and ends with exit code 75; it reads answers
    /// from the other `.jsonl` files there, and asks for what is missing in new files.
    #[serde(default)]
    pub batch: Option<PathBuf>,
}

fn api_key_header() -> String {
    "Authorization".to_owned()
}

pub(crate) fn is_authorization(header: &str) -> bool {
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

/// The keys that change how an endpoint is asked and not what it says.
pub const EXECUTION_KEYS: [&str; 12] = [
    "endpoint.api_key_env",
    "endpoint.api_key_file",
    "endpoint.api_key_header",
    "endpoint.concurrency",
    "endpoint.timeout_seconds",
    "endpoint.retries",
    "endpoint.backoff_seconds",
    "endpoint.give_up_after",
    "endpoint.max_rejects",
    "endpoint.price",
    "endpoint.max_cost",
    "endpoint.batch",
];
/// The keys whose values reach the endpoint.
pub const SENT_KEYS: &[&str] = &["endpoint.url", "endpoint.model", "endpoint.headers", "endpoint.body"];
/// Headers that are set by themselves.
const OUR_HEADERS: [&str; 5] = ["content-type", "content-length", "host", "transfer-encoding", "connection"];

/// The finding that a stage other than a judge reads no alternatives.
pub fn no_alternatives() -> Finding {
    Finding::at("endpoint.top_logprobs", "without effect: only a judge asks for alternatives to a token")
}

impl Endpoint {
    /// Address of requests.
    pub fn address(&self, path: &str) -> String {
        let (base, query) =
            self.url.split_once('?').map_or((self.url.as_str(), None), |(base, query)| (base, Some(query)));
        let base = base.trim_end_matches('/');
        let path = if base.ends_with(path) { "" } else { path };
        format!("{base}{path}{}", query.map(|query| format!("?{query}")).unwrap_or_default())
    }

    /// Address of requests for people, without its query, which may hold a key.
    pub fn shown(&self, path: &str) -> String {
        kit::redact(self.address(path).split('?').next().unwrap_or_default())
    }

    /// The body of a request in a form.
    pub fn request<P: Protocol>(&self, protocol: &P, questions: &[P::Question], form: Form) -> String {
        let mut body: serde_json::Map<String, Value> = self.body.clone().into_iter().collect();
        body.insert("model".to_owned(), self.model.clone().into());
        body.extend(protocol.fields(questions, form));
        kit::canonical(&Value::Object(body))
    }

    /// The body of a request for one question, as it is known by: each endpoint gets it in the form that it takes.
    pub fn known_by<P: Protocol>(&self, protocol: &P, question: &P::Question) -> String {
        self.request(protocol, std::slice::from_ref(question), Form::FIRST)
    }

    /// Findings about the values.
    pub fn check<P: Protocol>(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |key: &str, text: String| findings.push(Finding::at(&format!("endpoint.{key}"), text));
        let rest = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"));
        match rest.map(|rest| rest.split(['/', '?']).next().unwrap_or_default()) {
            None | Some("") => find("url", "wanted a URL such as `http://localhost:8000/v1`".to_owned()),
            Some(host) if host.contains('@') => {
                find("url", "holds a name or password; give a key by `api_key_env` or `api_key_file`".to_owned());
            }
            Some(_) if self.url.contains('#') || self.address(P::PATH).parse::<ureq::http::Uri>().is_err() => {
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
        for key in self.body.keys() {
            let Some((_, more)) = P::OURS.iter().find(|(name, _)| name == key) else { continue };
            let text = if more.is_empty() { "is said by the stage itself; leave it out" } else { more };
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
        match (&self.price, self.max_cost) {
            (None, Some(_)) => find("max_cost", "needs `price`, the prices of tokens".to_owned()),
            (Some(_), Some(most)) if !(most > 0.0 && most.is_finite()) => {
                find("max_cost", format!("got {most}, wanted more than 0"));
            }
            _ => {}
        }
        if self.batch.is_some() && self.max_cost.is_some() {
            find("max_cost", "without effect with `batch`: who sends the files spends the money".to_owned());
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
        findings.extend(self.price.iter().flat_map(Price::findings));
        findings
    }

    /// The price of tokens; 0 without prices.
    pub(crate) fn cost(&self, usage: Usage) -> f64 {
        self.price.as_ref().map_or(0.0, |price| price.of(usage))
    }

    /// A sentence on the expected cost of so many tokens, where there are prices.
    pub fn cost_note(&self, input: u64, output: u64) -> Option<String> {
        self.price.as_ref().map(|price| price.forecast(input, output))
    }

    /// The same for questions, each in a request of its own.
    ///
    /// # Errors
    /// Those of the questions.
    pub fn cost_of<P: Protocol>(
        &self,
        protocol: &P,
        questions: impl Iterator<Item = Result<P::Question>>,
    ) -> Result<Option<String>> {
        let mut all = Usage::default();
        for question in questions.take_while(|_| self.price.is_some()) {
            let question = question?;
            let output = protocol.tokens(std::slice::from_ref(&question));
            all += Usage::ahead(&self.known_by(protocol, &question), output);
        }
        Ok(self.cost_note(all.input, all.output))
    }

    /// The place where requests go, for a forecast.
    pub fn destination(&self, path: &str) -> String {
        match &self.batch {
            None => format!("requests go to {}; nothing is asked before the run", self.shown(path)),
            Some(folder) => format!("requests are written to {}, where answers are looked for", folder.display()),
        }
    }

    /// Says that the variable of the key is not set; only a run that asks needs it.
    pub fn unset_key(&self) -> Option<Finding> {
        let name = self.api_key_env.as_ref().filter(|_| self.batch.is_none())?;
        let name = Some(name).filter(|name| !name.is_empty() && std::env::var_os(name).is_none())?;
        let text = format!("the environment variable `{name}` is not set; a run that asks the endpoint needs it");
        Some(Finding::at("endpoint.api_key_env", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::protocol::Content;
    use serde_json::{Map, json};

    struct Chat;

    impl Protocol for Chat {
        type Question = String;
        type Answer = String;
        const PATH: &'static str = "/chat/completions";
        const LONGEST: u64 = 1 << 20;
        const OURS: &'static [(&'static str, &'static str)] = &[("temperature", "")];

        fn unit(&self) -> &'static str {
            "row"
        }

        fn tokens(&self, _questions: &[String]) -> u64 {
            1
        }

        fn forms(&self) -> Vec<Form> {
            vec![Form::FIRST]
        }

        fn probe(&self, _form: Form) -> Vec<String> {
            vec![String::new()]
        }

        fn fields(&self, _questions: &[String], _form: Form) -> Map<String, Value> {
            Map::new()
        }

        fn read(&self, _questions: &[String], _reply: &Value) -> Content<String> {
            Content::NoEvidence(String::new())
        }

        fn wanted(&self) -> String {
            String::new()
        }
    }

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
            assert_eq!((endpoint.address(Chat::PATH).as_str(), endpoint.shown(Chat::PATH).as_str()), (address, shown));
            assert_eq!(endpoint.check::<Chat>(), [], "{url}");
        }
        assert_eq!(endpoint(json!({"url": "http://h/v1#x"})).check::<Chat>().len(), 1);
    }

    #[test]
    fn headers_are_checked_and_their_values_not_shown() {
        let found = endpoint(json!({
            "api_key_header": "api key", "body": {"stream": true, "temperature": 1},
            "headers": {"X-Good": "yes", "no good": "x", "Host": "x", "authorization": "Bearer secret", "x-two": "secret\nlines"},
        }))
        .check::<Chat>();
        assert_eq!(found.len(), 7, "{found:#?}");
        assert!(!format!("{found:?}").contains("secret"));
        assert_eq!(endpoint(json!({"body": {"stream": false}, "api_key_header": "api-key"})).check::<Chat>(), []);
        let key = Key("k".to_owned());
        assert_eq!((key.in_header("authorization"), key.in_header("api-key")), ("Bearer k".to_owned(), "k".to_owned()));
    }

    #[test]
    fn a_key_file_is_a_file() {
        let error = endpoint(json!({"api_key_file": "/dev/zero"})).key().unwrap_err().to_string();
        assert!(error.contains("/dev/zero is a device, wanted a file"), "{error}");
    }
}
