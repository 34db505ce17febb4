//! The stage's part of a conversation: the body of a request, and what a reply to it says.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The requests of one kind of stage.
pub trait Protocol: Send + Sync + 'static {
    /// A question. One request may ask several.
    type Question: Clone + Send + 'static;
    /// The answer to a question, as the journal keeps it.
    type Answer: Clone + Serialize + DeserializeOwned + Send + 'static;

    /// The path behind the base of the address, such as `/chat/completions`.
    const PATH: &'static str;
    /// The longest reply that is read, bytes.
    const LONGEST: u64;
    /// The word for a row that is asked about, such as `comparison`.
    const UNIT: &'static str;
    /// The fields of a request that the stage says itself, so that `body` cannot set them; with a reason where there is
    /// one to give.
    const OURS: &'static [(&'static str, &'static str)];

    /// The forms a request can have, in the order in which the probe tries them.
    fn forms(&self) -> Vec<Form>;

    /// The questions of the probe, whose answers are not used.
    fn probe(&self, form: Form) -> Vec<Self::Question>;

    /// The fields of a request, but for the model's name.
    fn fields(&self, questions: &[Self::Question], form: Form) -> Map<String, Value>;

    /// The reading of a reply that is JSON and no error.
    fn read(&self, questions: &[Self::Question], reply: &Value) -> Content<Self::Answer>;

    /// The request, in words, for the error that no form of it is taken.
    fn wanted(&self) -> String;
}

/// A form of a request, as far as endpoints differ in what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// The limit of tokens goes by the name `max_completion_tokens`.
    pub newer_limit: bool,
    /// With `temperature`.
    pub temperature: bool,
}

impl Form {
    /// The form that most endpoints take.
    pub const FIRST: Form = Form { newer_limit: false, temperature: true };

    /// The name of the limit of tokens.
    pub fn limit(self) -> &'static str {
        if self.newer_limit { "max_completion_tokens" } else { "max_tokens" }
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let temperature = if self.temperature { "with" } else { "without" };
        write!(f, "`{}` {temperature} `temperature`", self.limit())
    }
}

/// The content of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Content<A> {
    /// An answer to each question, in their order.
    Answers(Vec<A>),
    /// A reply from which no answer can be read.
    NoEvidence(String),
    /// No reply to the question at all; another time there may be one.
    NoAnswer(String),
}
