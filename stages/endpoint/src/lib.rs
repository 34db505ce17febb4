//! OpenAI-compatible endpoints: requests that are sent until they are answered, each answer kept before it is used.
//!
//! It knows HTTP, when a request is worth sending again, what an endpoint takes (found out by a probe), and the journal
//! that lets no answer be paid for twice. What is asked and what an answer says is for the stage that asks: it
//! implements [`Protocol`]. Read [`Endpoint`] first, then [`Asking`].

mod answer_files;
mod asking;
mod batch;
mod chat;
mod client;
mod config;
mod failing;
mod journal;
mod json;
mod key;
mod pause;
mod protocol;
mod questions;
mod reply;
mod unheard;
mod usage;
mod workers;

pub use asking::{Asking, RequestResult};
pub use chat::{Completion, Completions, Conversation, Draw};
pub use config::{EXECUTION_KEYS, Endpoint, SENT_KEYS, no_alternatives};
pub use json::read as read_json;
pub use protocol::{Content, Form, Protocol};
pub use questions::Questions;
pub use reply::words;
pub use unheard::Unheard;
pub use usage::{Bill, Price};
