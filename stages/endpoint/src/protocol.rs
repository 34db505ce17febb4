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
    /// The fields of a request that the stage says itself, so that `body` cannot set them; with a reason where there is
    /// one to give.
    const OURS: &'static [(&'static str, &'static str)];

    /// The word for a row that is asked about, such as `comparison`.
    fn unit(&self) -> &'static str;

    /// The forms a request can have, in the order in which the probe tries them.
    fn forms(&self) -> Vec<Form>;

    /// The questions of the probe, whose answers are not used.
    fn probe(&self, form: Form) -> Vec<Self::Question>;

    /// The most questions that one request asks in a form.
    fn together(&self, _form: Form) -> usize {
        1
    }

    /// True where two questions can go in one request.
    fn alike(&self, _one: &Self::Question, _other: &Self::Question) -> bool {
        true
    }

    /// The most tokens that answers to these questions have together.
    fn tokens(&self, questions: &[Self::Question]) -> u64;

    /// The fields of a request, but for the model's name.
    fn fields(&self, questions: &[Self::Question], form: Form) -> Map<String, Value>;

    /// The reading of a reply that is JSON and no error. Questions that get no answer are asked again, alone.
    fn read(&self, questions: &[Self::Question], reply: &Value) -> Content<Self::Answer>;

    /// A form, in words.
    fn name(&self, form: Form) -> String {
        form.to_string()
    }

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
    /// With `logprobs`, where they are not needed.
    pub log_probs: bool,
    /// With `seed`, where something is drawn.
    pub seed: bool,
    /// With `n`, where several answers to one question are wanted.
    pub several: bool,
}

impl Form {
    /// The form that most endpoints take.
    pub const FIRST: Form = Form { newer_limit: false, temperature: true, log_probs: true, seed: true, several: true };

    /// The name of the limit of tokens.
    pub fn limit(self) -> &'static str {
        if self.newer_limit { "max_completion_tokens" } else { "max_tokens" }
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let temperature = if self.temperature { "with" } else { "without" };
        write!(f, "`{}` {temperature} `temperature`", self.limit())?;
        for (name, has) in [("logprobs", self.log_probs), ("seed", self.seed), ("n", self.several)] {
            if !has {
                write!(f, ", without `{name}`")?;
            }
        }
        Ok(())
    }
}

/// The content of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Content<A> {
    /// The answers, in the order of the questions; those of the last ones may be missing.
    Answers(Vec<A>),
    /// A reply from which no answer can be read.
    NoEvidence(String),
    /// No reply to the question at all; another time there may be one.
    NoAnswer(String),
    /// Answers that cannot be right, with those in their places that are: the stage stops.
    Wrong(Vec<Option<A>>, String),
}
