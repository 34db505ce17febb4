//! Renderings: the tokens that a model will be fed, for people to read before anything is computed.

use serde::Serialize;

/// A sequence, or a question to a judge.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rendering {
    /// Its title, such as `pair 3f2a, chosen`.
    pub title: String,
    /// The text in order, special tokens written out; empty for a row that is refused.
    pub pieces: Vec<Piece>,
    /// Counts and remarks.
    pub facts: Vec<String>,
    /// Things that are probably unwanted, such as a second BOS token, and the reason of a refused row.
    pub warnings: Vec<String>,
}

/// A run of tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Piece {
    /// Their text.
    pub text: String,
    /// Their ids; none where the tokens are made elsewhere.
    pub ids: Vec<u32>,
    /// True where they are scored or learned from; false where they only come before.
    pub scored: bool,
}

impl Rendering {
    /// Text whose tokens are made elsewhere.
    pub fn of_text(title: String, text: String) -> Rendering {
        let facts = vec![format!("{} characters; the endpoint makes the tokens", text.chars().count())];
        Rendering { title, pieces: vec![Piece { text, ids: Vec::new(), scored: false }], facts, warnings: Vec::new() }
    }

    /// A row at which the stage will stop.
    pub fn stopped(title: String, detail: &str) -> Rendering {
        Rendering { title, warnings: vec![format!("the run will stop here: {detail}")], ..Rendering::default() }
    }

    /// A row that will be rejected.
    pub fn refused(title: String, reason: &str, detail: &str) -> Rendering {
        Rendering { title, warnings: vec![format!("will be rejected as `{reason}`: {detail}")], ..Rendering::default() }
    }
}
