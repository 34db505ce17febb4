//! The request for a whole answer, and the text in its reply.

use endpoint::{Content, Form, Protocol, words};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::answers::Written;
use crate::modes::Reasoning;
use crate::thoughts::part;

/// The question of the probe.
const PROBE: &str = "Answer with the letter A.";
/// The tokens that the answer to the probe may have.
const PROBE_TOKENS: usize = 16;

/// Chat completions of a judge that reasons.
pub(crate) struct Completion {
    temperature: f64,
    top_p: Option<f64>,
    max_tokens: usize,
    stop: Vec<String>,
}

/// A question, and the number of the answer to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) question: String,
    pub(crate) sample: usize,
}

/// An answer as the endpoint gave it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    content: String,
    /// Thoughts that the server took out of the content.
    reasoning: Option<String>,
    finish: Option<String>,
    tokens: Option<u32>,
}

impl Said {
    /// The same in its parts.
    pub(crate) fn written(&self, marks: &[String; 2]) -> Written {
        let parts = part(&self.content, false, marks);
        let thoughts: Vec<&str> = self.reasoning.iter().chain(&parts.thoughts).map(|text| text.trim()).collect();
        let thoughts = Some(thoughts.join("\n\n")).filter(|text| !text.is_empty());
        // Nothing but thoughts came before the end.
        let unfinished = self.content.trim().is_empty() && self.finish.as_deref() == Some("length");
        let text = parts.answer.filter(|_| !unfinished);
        Written { thoughts, text, tokens: self.tokens, finish: self.finish.clone() }
    }
}

impl Completion {
    pub(crate) fn new(reasoning: &Reasoning) -> Completion {
        let Reasoning { temperature, top_p, max_tokens, stop, .. } = reasoning.clone();
        Completion { temperature, top_p, max_tokens, stop }
    }
}

impl Protocol for Completion {
    type Question = Request;
    type Answer = Said;

    const PATH: &'static str = "/chat/completions";
    /// Long thoughts have some hundred kilobytes.
    const LONGEST: u64 = 1 << 24;
    const OURS: &'static [(&'static str, &'static str)] = &[
        ("model", ""),
        ("messages", ""),
        ("max_tokens", "is `reasoning.max_tokens`"),
        ("max_completion_tokens", "is `reasoning.max_tokens`"),
        ("temperature", "is `reasoning.temperature`"),
        ("top_p", "is `reasoning.top_p`"),
        ("stop", "is `reasoning.stop`"),
        ("n", "is `reasoning.samples`, each a request of its own"),
    ];

    fn unit(&self) -> &'static str {
        "comparison"
    }

    fn tokens(&self, questions: &[Request]) -> u64 {
        (questions.len() * self.max_tokens) as u64
    }

    /// Without `temperature` an endpoint takes 1, so that is a form of the same request at 1 alone.
    fn forms(&self) -> Vec<Form> {
        let forms = [(false, true), (true, true), (false, false), (true, false)];
        let forms = forms.map(|(newer_limit, temperature)| Form { newer_limit, temperature, ..Form::FIRST });
        forms.into_iter().filter(|form| form.temperature || self.temperature == 1.0).collect()
    }

    fn probe(&self, _form: Form) -> Vec<Request> {
        vec![Request { question: PROBE.to_owned(), sample: 0 }]
    }

    fn fields(&self, questions: &[Request], form: Form) -> Map<String, Value> {
        let question = &questions[0].question;
        let mut fields = Map::new();
        fields.insert("messages".to_owned(), json!([{"role": "user", "content": question}]));
        let most = if question == PROBE { self.max_tokens.min(PROBE_TOKENS) } else { self.max_tokens };
        fields.insert(form.limit().to_owned(), most.into());
        if form.temperature {
            fields.insert("temperature".to_owned(), self.temperature.into());
        }
        if let Some(top_p) = self.top_p {
            fields.insert("top_p".to_owned(), top_p.into());
        }
        if !self.stop.is_empty() {
            fields.insert("stop".to_owned(), json!(self.stop));
        }
        fields
    }

    fn read(&self, _questions: &[Request], reply: &Value) -> Content<Said> {
        let Some(message) = reply.pointer("/choices/0/message").filter(|message| message.is_object()) else {
            return Content::NoAnswer(format!("no message in `choices`: {}", words(&reply.to_string())));
        };
        let text = |key: &str| message.get(key).and_then(Value::as_str).map(str::to_owned);
        let reasoning = text("reasoning_content").or_else(|| text("reasoning")).filter(|text| !text.is_empty());
        let finish = reply.pointer("/choices/0/finish_reason").and_then(Value::as_str).map(str::to_owned);
        let content = match (text("content"), &reasoning, finish.as_deref()) {
            (Some(content), ..) => content,
            (None, Some(_), _) | (None, None, Some("length")) => String::new(),
            (None, None, _) => return Content::NoEvidence("a message without content".to_owned()),
        };
        let tokens = reply.pointer("/usage/completion_tokens").and_then(Value::as_u64);
        let tokens = tokens.and_then(|tokens| u32::try_from(tokens).ok());
        Content::Answers(vec![Said { content, reasoning, finish, tokens }])
    }

    fn wanted(&self) -> String {
        let top_p = self.top_p.map(|top_p| format!(", `top_p: {top_p}`")).unwrap_or_default();
        format!("a request with `temperature: {}`{top_p} and a limit of tokens", self.temperature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(temperature: f64) -> Completion {
        Completion { temperature, top_p: None, max_tokens: 900, stop: Vec::new() }
    }

    fn said(reply: &Value) -> Result<Written, String> {
        match completion(1.0).read(&[], reply) {
            Content::Answers(said) => Ok(said[0].written(&["<think>".to_owned(), "</think>".to_owned()])),
            Content::NoAnswer(text) | Content::NoEvidence(text) | Content::Wrong(_, text) => Err(text),
        }
    }

    fn reply(message: Value, finish: &str) -> Value {
        json!({"choices": [{"message": message, "finish_reason": finish}], "usage": {"completion_tokens": 7}})
    }

    #[test]
    fn thoughts_come_apart_wherever_the_server_puts_them() {
        for message in [
            json!({"content": "<think>[[A]]?</think>\n[[B]]"}),
            json!({"content": "[[A]]?</think>\n[[B]]"}),
            json!({"content": "\n\n[[B]]", "reasoning_content": "[[A]]?"}),
            json!({"content": "[[B]]", "reasoning": "[[A]]?\n"}),
        ] {
            let written = said(&reply(message, "stop")).unwrap();
            assert_eq!((written.thoughts.as_deref(), written.text.as_deref()), (Some("[[A]]?"), Some("[[B]]")));
            assert_eq!((written.tokens, written.finish.as_deref()), (Some(7), Some("stop")));
        }
        for message in [
            json!({"content": null, "reasoning_content": "[[A]]?"}),
            json!({"content": "<think>[[A]]?"}),
            json!({"content": "", "reasoning": "[[A]]?"}),
        ] {
            let written = said(&reply(message, "length")).unwrap();
            assert_eq!((written.thoughts.as_deref(), written.text), (Some("[[A]]?"), None));
        }
        assert_eq!(said(&reply(json!({"content": null}), "stop")).unwrap_err(), "a message without content");
        assert!(said(&json!({"choices": []})).unwrap_err().starts_with("no message in `choices`"));
    }

    #[test]
    fn temperature_is_left_out_only_where_that_changes_nothing() {
        assert_eq!(completion(1.0).forms().len(), 4);
        assert!(completion(0.7).forms().iter().all(|form| form.temperature));
        let fields = |question: &str| {
            let request = Request { question: question.to_owned(), sample: 0 };
            completion(0.7).fields(&[request], Form::FIRST)
        };
        assert_eq!((&fields("x")["max_tokens"], &fields(PROBE)["max_tokens"]), (&json!(900), &json!(16)));
    }
}
