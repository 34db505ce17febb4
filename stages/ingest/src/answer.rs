//! Responses with the ids that the data gives or that are made from what they say.

use kit::{Message, ids};

use crate::ledger::{Key, joined, key};
use crate::record::Side;

/// A response with its ids and digests.
pub struct Answer {
    /// The side that the row has.
    pub side: Side,
    /// The prompt's id, given or made.
    pub prompt_id: String,
    /// The response's id, given or made.
    pub response_id: String,
    /// The key of the prompt's id.
    pub prompt: Key,
    /// The digest of the prompt's messages.
    pub prompt_content: Key,
    /// The key of the response's id.
    pub response: Key,
    /// The digest of the prompt's id and the response's messages.
    pub response_content: Key,
}

impl Answer {
    /// Makes the ids that the data does not give.
    pub fn new(side: Side) -> Answer {
        let (prompt_id, prompt, prompt_content) = prompt_ids(side.prompt_id.clone(), &side.prompt);
        let made = ids::response_id(&prompt_id, &side.response);
        let response_content = key(&made);
        let response_id = side.response_id.clone().unwrap_or(made);
        let response = if side.response_id.is_some() { key(&response_id) } else { response_content };
        Answer { side, prompt_id, response_id, prompt, prompt_content, response, response_content }
    }

    /// Prompt id and response id.
    pub fn ids(&self) -> (&str, &str) {
        (&self.prompt_id, &self.response_id)
    }

    /// The key of the response under its prompt.
    pub fn key(&self) -> Key {
        joined(&[self.prompt, self.response])
    }
}

/// The id of a prompt, its key, and the digest of its messages.
pub fn prompt_ids(given: Option<String>, messages: &[Message]) -> (String, Key, Key) {
    let made = ids::prompt_id(messages);
    let content = key(&made);
    match given {
        Some(id) => {
            let own = key(&id);
            (id, own, content)
        }
        None => (made, content, content),
    }
}

/// True where a prompt belongs to the share that is held out.
pub fn held_out(prompt_id: &str, share: f64) -> bool {
    let digits = &kit::id_of(&["holdout", prompt_id])[..12];
    let number = u64::from_str_radix(digits, 16).expect("12 hexadecimal digits");
    (number as f64) < share * (1u64 << 48) as f64
}
