//! What a model is going to be fed, for people to read before anything is computed.

use std::ops::Range;

use serde::Serialize;

/// A sequence, or a question to a judge.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rendering {
    /// What it is of, such as `pair 3f2a, chosen`.
    pub title: String,
    /// The text in order, special tokens written out; empty for a row that is refused.
    pub pieces: Vec<Piece>,
    /// Counts and remarks.
    pub facts: Vec<String>,
    /// What probably is not wanted, such as a second BOS token, and why a row is refused.
    pub warnings: Vec<String>,
}

/// A run of tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Piece {
    /// Their text.
    pub text: String,
    /// Their ids; none where the tokens are made elsewhere.
    pub ids: Vec<u32>,
    /// Whether they are scored or learned from; else they are what comes before.
    pub scored: bool,
}

/// A tokenised text with its completion from `start` on.
#[derive(Debug, Clone, Copy)]
pub struct Tokenised<'a> {
    /// All tokens.
    pub ids: &'a [u32],
    /// The first one of the completion.
    pub start: usize,
    /// The text in runs, with their tokens and whether they are scored.
    pub pieces: &'a [(String, Range<usize>, bool)],
    /// Whether the prompt's own rendering is not what the chat template writes before an answer.
    pub displaced: bool,
    /// BOS tokens, where the tokenizer has one.
    pub bos: Option<usize>,
    /// Spans of special-token text that were encoded as ordinary text.
    pub escaped: u32,
    /// Tokens cut on the left.
    pub cut: u32,
}

impl Rendering {
    /// A sequence as its model sees it.
    pub fn of_tokens(title: String, tokens: Tokenised<'_>) -> Rendering {
        let Tokenised { ids, start, pieces, displaced, bos, escaped, cut } = tokens;
        let piece = |(text, tokens, scored): &(String, Range<usize>, bool)| Piece {
            text: text.clone(),
            ids: ids[tokens.clone()].to_vec(),
            scored: *scored,
        };
        let pieces: Vec<Piece> = pieces.iter().map(piece).collect();
        let scored: usize = pieces.iter().filter(|piece| piece.scored).map(|piece| piece.ids.len()).sum();
        let left_out = match ids.len() - start - scored {
            0 => String::new(),
            others => format!(", {others} after them not scored"),
        };
        let mut facts = vec![format!("{} tokens: {start} before, {scored} scored{left_out}", ids.len())];
        let mut warnings = Vec::new();
        if displaced {
            let text = "the chat template writes the prompt in another way when an answer follows; this is what \
                        `on_prefix_mismatch` makes of it";
            warnings.push(text.to_owned());
        }
        match bos {
            None => facts.push("the tokenizer has no BOS token".to_owned()),
            Some(1) => facts.push("1 BOS token".to_owned()),
            Some(0) => facts.push("no BOS token".to_owned()),
            Some(several) => {
                warnings.push(format!("{several} BOS tokens: the text or the template has one of its own"))
            }
        }
        if escaped > 0 {
            facts.push(format!("{escaped} spans look like special tokens and are ordinary text"));
        }
        if cut > 0 {
            warnings.push(format!("{cut} tokens were cut on the left: the whole is longer than the limit"));
        }
        Rendering { title, pieces, facts, warnings }
    }

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
