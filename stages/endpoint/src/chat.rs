//! Chat completions that are read as text.

use std::sync::Arc;

use kit::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::protocol::{Content, Form, Protocol};
use crate::reply::words;

/// The longest word for the end of a completion that is kept.
const FINISH: usize = 40;

/// Chat completions under rules of sampling, several of one conversation in a request where the endpoint takes `n`.
#[derive(Debug, Clone)]
pub struct Completions {
    /// Divides the logits; at 0 nothing is drawn and no seed is sent.
    pub temperature: f64,
    /// `top_p` of the request.
    pub top_p: Option<f64>,
    /// `top_k` of the request, which is no part of OpenAI's protocol.
    pub top_k: Option<usize>,
    /// The longest completion, tokens.
    pub max_tokens: usize,
    /// Texts that end a completion.
    pub stop: Vec<String>,
    /// The most completions of one request, 1 or more.
    pub together: usize,
    /// The word for what is asked for, such as `response`.
    pub unit: &'static str,
}

/// One completion to be drawn.
#[derive(Debug, Clone)]
pub struct Draw {
    /// The conversation that it continues.
    pub conversation: Arc<Conversation>,
    /// The seed that is sent.
    pub seed: u64,
}

/// A conversation as requests have it.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    messages: Value,
    tools: Option<Value>,
}

/// A completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Completion {
    /// Its text; empty where the server gives none.
    pub text: String,
    /// `eos`, `stop` or `length`, or what else the server says ended it.
    pub finish: String,
    /// The log-prob of its tokens together, where the server gives them.
    pub logp: Option<f64>,
    /// Its tokens, where the server counts them.
    pub tokens: Option<u32>,
}

impl Conversation {
    /// A conversation of these messages; nothing where one is raw text, which chat completions do not take.
    pub fn of(messages: &[Message]) -> Option<Conversation> {
        let (mut all, mut tools) = (Vec::new(), None);
        for message in messages {
            if message.role == "text" {
                return None;
            }
            let mut fields = Map::new();
            fields.insert("role".to_owned(), message.role.clone().into());
            fields.insert("content".to_owned(), message.content.clone().into());
            for (name, text) in message.extra_fields() {
                let value: Value = serde_json::from_str(&text.0).expect("a field of a message is JSON");
                if name == "tools" { tools = Some(value) } else { _ = fields.insert(name, value) }
            }
            all.push(Value::Object(fields));
        }
        Some(Conversation { messages: Value::Array(all), tools })
    }
}

impl Protocol for Completions {
    type Question = Draw;
    type Answer = Completion;

    const PATH: &'static str = "/chat/completions";
    const LONGEST: u64 = 1 << 28;
    const OURS: &'static [(&'static str, &'static str)] = &[
        ("model", ""),
        ("messages", ""),
        ("tools", ""),
        ("temperature", ""),
        ("top_p", ""),
        ("top_k", ""),
        ("stop", ""),
        ("max_tokens", ""),
        ("max_completion_tokens", ""),
        ("n", ""),
        ("seed", ""),
        ("logprobs", ""),
        ("top_logprobs", ""),
    ];

    fn unit(&self) -> &'static str {
        self.unit
    }

    /// Every form, those first that do without little.
    fn forms(&self) -> Vec<Form> {
        let bits = 0..16_u32;
        let form = |bits: u32| Form {
            newer_limit: bits & 1 != 0,
            temperature: true,
            log_probs: bits & 2 == 0,
            seed: bits & 4 == 0,
            several: bits & 8 == 0,
        };
        let mut all: Vec<u32> = bits.filter(|bits| self.together > 1 || bits & 8 == 0).collect();
        all.retain(|bits| self.temperature > 0.0 || bits & 4 == 0);
        all.sort_by_key(|bits| (bits.count_ones(), *bits));
        all.into_iter().map(form).collect()
    }

    fn probe(&self, form: Form) -> Vec<Draw> {
        let messages = [Message::new("user", "Answer with the letter A.")];
        let conversation = Arc::new(Conversation::of(&messages).expect("it is no raw text"));
        let draw = |seed| Draw { conversation: conversation.clone(), seed };
        (0..self.together(form) as u64).map(draw).collect()
    }

    fn together(&self, form: Form) -> usize {
        if form.several { self.together } else { 1 }
    }

    fn alike(&self, one: &Draw, other: &Draw) -> bool {
        one.conversation == other.conversation
    }

    fn tokens(&self, questions: &[Draw]) -> u64 {
        (self.max_tokens as u64).saturating_mul(questions.len() as u64)
    }

    fn fields(&self, questions: &[Draw], form: Form) -> Map<String, Value> {
        let Draw { conversation, seed } = &questions[0];
        let mut fields = Map::new();
        let mut set = |key: &str, value: Value| _ = fields.insert(key.to_owned(), value);
        set("messages", conversation.messages.clone());
        if let Some(tools) = &conversation.tools {
            set("tools", tools.clone());
        }
        set("temperature", self.temperature.into());
        if let Some(top_p) = self.top_p {
            set("top_p", top_p.into());
        }
        if let Some(top_k) = self.top_k {
            set("top_k", top_k.into());
        }
        if !self.stop.is_empty() {
            set("stop", json!(self.stop));
        }
        set(form.limit(), self.max_tokens.into());
        if form.log_probs {
            set("logprobs", true.into());
        }
        if form.seed && self.temperature > 0.0 {
            // Servers take 32 bits with a sign, some more.
            set("seed", (seed >> 33).into());
        }
        if questions.len() > 1 {
            set("n", questions.len().into());
        }
        fields
    }

    fn read(&self, questions: &[Draw], reply: &Value) -> Content<Completion> {
        let choices = reply.get("choices").and_then(Value::as_array).filter(|choices| !choices.is_empty());
        let Some(choices) = choices else {
            return Content::NoAnswer(format!("no `choices`: {}", words(&reply.to_string())));
        };
        let mut sorted: Vec<&Value> = choices.iter().collect();
        sorted.sort_by_key(|choice| choice.get("index").and_then(Value::as_u64));
        let all_tokens = reply.pointer("/usage/completion_tokens").and_then(Value::as_u64);
        let counted = all_tokens.filter(|_| choices.len() == 1).and_then(|tokens| u32::try_from(tokens).ok());
        let read = |choice: &&Value| self.completion(choice, counted);
        match sorted.iter().take(questions.len()).map(read).collect() {
            Ok(completions) => Content::Answers(completions),
            Err(text) => Content::NoAnswer(text),
        }
    }

    fn wanted(&self) -> String {
        let drawn = [("top_p", self.top_p.is_some()), ("top_k", self.top_k.is_some()), ("stop", !self.stop.is_empty())];
        let drawn: String = drawn.iter().filter(|(_, given)| *given).map(|(key, _)| format!(", `{key}`")).collect();
        format!(
            "a chat completion with `temperature: {}`{drawn} and a limit of {} tokens",
            self.temperature, self.max_tokens
        )
    }
}

impl Completions {
    fn completion(&self, choice: &Value, counted: Option<u32>) -> Result<Completion, String> {
        let Some(message) = choice.get("message").filter(|message| message.is_object()) else {
            return Err(format!("a choice without `message`: {}", words(&choice.to_string())));
        };
        let text = match message.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => {
                parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
            }
            _ => String::new(),
        };
        let finish = match choice.get("finish_reason").and_then(Value::as_str) {
            // vLLM names the stop text that appeared, and null where the model ended by itself.
            Some("stop") | None => match choice.get("stop_reason") {
                Some(Value::String(_)) => "stop",
                Some(_) => "eos",
                None if self.stop.is_empty() => "eos",
                None => "stop",
            },
            Some(other) => other,
        };
        let logps = choice.pointer("/logprobs/content").and_then(Value::as_array).filter(|all| !all.is_empty());
        let logp = logps.and_then(|all| {
            let logps = all.iter().map(|token| token.get("logprob").and_then(Value::as_f64));
            logps.sum::<Option<f64>>().filter(|sum| sum.is_finite())
        });
        let tokens = logps.and_then(|all| u32::try_from(all.len()).ok()).or(counted);
        // A server may repeat the key.
        let finish = kit::redact(&finish.chars().take(FINISH).collect::<String>());
        Ok(Completion { text: kit::redact(&text), finish, logp, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completions() -> Completions {
        Completions {
            temperature: 0.7,
            top_p: Some(0.9),
            top_k: None,
            max_tokens: 64,
            stop: Vec::new(),
            together: 3,
            unit: "response",
        }
    }

    fn draws(count: u64) -> Vec<Draw> {
        let conversation = Arc::new(Conversation::of(&[Message::new("user", "Hi")]).unwrap());
        (0..count).map(|seed| Draw { conversation: conversation.clone(), seed: seed << 33 }).collect()
    }

    #[test]
    fn the_fields_are_those_that_the_form_names() {
        let fields = completions().fields(&draws(2), Form::FIRST);
        assert_eq!(
            Value::Object(fields),
            json!({"messages": [{"role": "user", "content": "Hi"}], "temperature": 0.7, "top_p": 0.9, "max_tokens": 64,
                "logprobs": true, "seed": 0, "n": 2})
        );
        let bare = Form { newer_limit: true, log_probs: false, seed: false, several: false, ..Form::FIRST };
        let fields = completions().fields(&draws(2)[1..], bare);
        let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(keys, ["max_completion_tokens", "messages", "temperature", "top_p"]);
        assert_eq!(completions().forms().len(), 16);
        assert_eq!(Completions { together: 1, temperature: 0.0, ..completions() }.forms().len(), 4);
        assert_eq!(completions().forms()[0], Form::FIRST);
    }

    #[test]
    fn choices_become_completions() {
        let reply = json!({"choices": [
            {"index": 1, "message": {"content": null, "refusal": "no"}, "finish_reason": "content_filter"},
            {"index": 0, "message": {"content": "yes"}, "finish_reason": "stop",
             "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -0.25}]}},
            {"index": 2, "message": {"content": [{"type": "text", "text": "cut"}]}, "finish_reason": "length"},
            {"index": 3, "message": {"content": "one more than was wanted"}},
        ], "usage": {"completion_tokens": 9}});
        let Content::Answers(read) = completions().read(&draws(3), &reply) else { panic!("they were there") };
        let one = |text: &str, finish: &str, logp, tokens| Completion {
            text: text.to_owned(),
            finish: finish.to_owned(),
            logp,
            tokens,
        };
        let expected = [
            one("yes", "eos", Some(-0.75), Some(2)),
            one("", "content_filter", None, None),
            one("cut", "length", None, None),
        ];
        assert_eq!(read, expected);
        let alone = json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "stop_reason": "\n"}],
            "usage": {"completion_tokens": 9}});
        let Content::Answers(read) = completions().read(&draws(1), &alone) else { panic!("it was there") };
        assert_eq!(read, [one("x", "stop", None, Some(9))]);
        for body in [json!({"choices": []}), json!({"choices": [{}]}), json!([])] {
            assert!(matches!(completions().read(&draws(1), &body), Content::NoAnswer(_)), "{body}");
        }
    }

    #[test]
    fn tools_stand_beside_the_messages_and_raw_text_is_refused() {
        let extra = r#"{"tools":[{"type":"function"}],"name":"ann"}"#.to_owned();
        let message = Message { extra: Some(extra), ..Message::new("user", "Hi") };
        let conversation = Conversation::of(&[message]).unwrap();
        assert_eq!(conversation.messages, json!([{"role": "user", "content": "Hi", "name": "ann"}]));
        assert_eq!(conversation.tools, Some(json!([{"type": "function"}])));
        assert_eq!(Conversation::of(&[Message::new("text", "Once")]), None);
    }
}
