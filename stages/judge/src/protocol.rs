//! The request for one token, and the log-probs of the labels in its reply.

use endpoint::{Content, Endpoint, Form, Protocol};
use serde_json::{Map, Value, json};

use crate::labels::Labels;
use crate::reply::{Answer, read};

/// Chat completions of one token with the likeliest alternatives to it.
pub(crate) struct OneToken {
    labels: Labels,
    top_logprobs: usize,
}

impl OneToken {
    pub(crate) fn new(endpoint: &Endpoint, labels: &Labels) -> OneToken {
        OneToken { labels: labels.clone(), top_logprobs: endpoint.top_logprobs }
    }
}

impl Protocol for OneToken {
    type Question = String;
    type Answer = Answer;

    const PATH: &'static str = "/chat/completions";
    /// A completion of one token with its alternatives has a few kilobytes.
    const LONGEST: u64 = 1 << 20;
    const OURS: &'static [(&'static str, &'static str)] = &[
        ("model", ""),
        ("messages", ""),
        ("logprobs", ""),
        ("top_logprobs", ""),
        ("max_tokens", ""),
        ("max_completion_tokens", ""),
        ("n", ""),
        (
            "temperature",
            "is not needed: log-probs do not depend on it, and an endpoint that refuses 0 is asked without",
        ),
    ];

    fn unit(&self) -> &'static str {
        "comparison"
    }

    fn tokens(&self, questions: &[String]) -> u64 {
        questions.len() as u64
    }

    fn forms(&self) -> Vec<Form> {
        [(false, true), (true, true), (false, false), (true, false)]
            .map(|(newer_limit, temperature)| Form { newer_limit, temperature, ..Form::FIRST })
            .into()
    }

    fn probe(&self, _form: Form) -> Vec<String> {
        vec!["Answer with the letter A.".to_owned()]
    }

    fn fields(&self, questions: &[String], form: Form) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("messages".to_owned(), json!([{"role": "user", "content": questions[0]}]));
        fields.insert("logprobs".to_owned(), true.into());
        fields.insert("top_logprobs".to_owned(), self.top_logprobs.into());
        fields.insert(form.limit().to_owned(), 1.into());
        if form.temperature {
            fields.insert("temperature".to_owned(), 0.into());
        }
        fields
    }

    fn read(&self, _questions: &[String], reply: &Value) -> Content<Answer> {
        read(reply, &self.labels)
    }

    fn wanted(&self) -> String {
        format!("a request for one token with `logprobs` and `top_logprobs: {}`", self.top_logprobs)
    }
}
