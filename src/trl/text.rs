//! The two kinds of text that TRL knows: strings, and conversations.

use kit::{Cell, Message};
use serde::Serialize;

/// The role of raw text that no chat template touches.
const RAW: &str = "text";

/// What a prompt or a response is written as.
pub trait Text: Cell + Clone + Serialize + Send + 'static {
    /// What TRL calls a dataset of it.
    const NAME: &'static str;

    /// Some messages in this form; nothing where they are of the other.
    fn of(messages: &[Message]) -> Option<Self>;
    /// A prompt with its response.
    fn joined(self, response: Self) -> Self;
}

impl Text for String {
    const NAME: &'static str = "standard";

    fn of(messages: &[Message]) -> Option<String> {
        messages.iter().all(|message| message.role == RAW).then(|| messages.iter().map(|it| &*it.content).collect())
    }

    fn joined(self, response: String) -> String {
        self + &response
    }
}

impl Text for Vec<Message> {
    const NAME: &'static str = "conversational";

    fn of(messages: &[Message]) -> Option<Vec<Message>> {
        messages.iter().all(|message| message.role != RAW).then(|| messages.to_vec())
    }

    fn joined(mut self, response: Vec<Message>) -> Vec<Message> {
        self.extend(response);
        self
    }
}
