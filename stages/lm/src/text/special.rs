//! Special tokens: which they are, and how text that merely looks like one is kept from becoming one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value as Json;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Error, Result, is_there};
use crate::model::folder::refuse_pointer;

/// The special tokens of a model folder.
pub(crate) struct SpecialTokens {
    /// Text and id of every special token that plain text could spell, longest text first.
    spelled: Vec<(String, u32)>,
    /// By first byte: whether any of them starts so.
    starts: [bool; 256],
    /// `bos_token`, `eos_token`, ... as tokenizer_config.json names them.
    pub(crate) named: Vec<(String, String)>,
    /// The id of `bos_token`.
    pub(crate) bos: Option<u32>,
    /// The id of `pad_token`.
    pub(crate) pad: Option<u32>,
    /// The text that ends a completion.
    pub(crate) eos: Option<String>,
    /// The ids that end a generation.
    pub(crate) eos_ids: Vec<u32>,
    /// All special ids, sorted.
    pub(crate) ids: Vec<u32>,
    escape: OnceLock<Escape>,
}

/// Spans of `text` that spell a special token, in order: byte offset and index into the special tokens.
pub(crate) type Spans = Vec<(usize, usize)>;

const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl SpecialTokens {
    /// Collects the special tokens of tokenizer.json and those that tokenizer_config.json names (adding these to the
    /// tokenizer, as `transformers` does), and the ends of text of the folder `ends` in its generation_config.json or
    /// config.json, and of the tokenizer.
    pub(crate) fn load(folder: &Path, ends: &Path, tokenizer: &mut Tokenizer, config: &Json) -> Result<SpecialTokens> {
        let config_file = folder.join("tokenizer_config.json");
        let mut named = Vec::new();
        let mut listed = Vec::new();
        for name in NAMES {
            if let Some(token) = token_of(config.get(name), name, &config_file)? {
                named.push((name.to_owned(), token.content.clone()));
                listed.push(token);
            }
        }
        for name in ["additional_special_tokens", "extra_special_tokens"] {
            for value in config.get(name).and_then(Json::as_array).into_iter().flatten() {
                listed.extend(token_of(Some(value), name, &config_file)?);
            }
        }
        let known = tokenizer.get_added_tokens_decoder();
        listed.retain(|token| !known.values().any(|other| other.content == token.content && other.special));
        if !listed.is_empty() {
            tokenizer
                .add_special_tokens(listed)
                .map_err(|error| Error::file(&config_file, format!("its special tokens: {error}")))?;
        }

        let mut ids = Vec::new();
        let mut spelled = Vec::new();
        let mut starts = [false; 256];
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            if token.special {
                ids.push(id);
                starts[usize::from(token.content.as_bytes()[0])] = true;
                spelled.push((token.content, id));
            }
        }
        ids.sort_unstable();
        spelled.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));

        let id_of = |name: &str| {
            let (_, token) = named.iter().find(|(other, _)| other == name)?;
            tokenizer.token_to_id(token)
        };
        let mut eos_ids = Vec::new();
        for file in ["generation_config.json", "config.json"] {
            if eos_ids.is_empty() {
                eos_ids = eos_of(&ends.join(file))?;
            }
        }
        eos_ids.extend(id_of("eos_token").filter(|id| !eos_ids.contains(id)));
        let eos_text = named.iter().find(|(name, _)| name == "eos_token").map(|(_, token)| token.clone());
        let eos = eos_text.or_else(|| eos_ids.first().and_then(|&id| tokenizer.id_to_token(id)));
        let (bos, pad) = (id_of("bos_token"), id_of("pad_token"));
        Ok(SpecialTokens { spelled, starts, named, bos, pad, eos, eos_ids, ids, escape: OnceLock::new() })
    }

    /// Places at which `text` spells special tokens, leftmost and longest first.
    pub(crate) fn find(&self, text: &str) -> Spans {
        let bytes = text.as_bytes();
        let mut spans = Spans::new();
        let mut at = 0;
        while at < bytes.len() {
            let matches = |(token, _): &(String, u32)| bytes[at..].starts_with(token.as_bytes());
            match self.starts[usize::from(bytes[at])].then(|| self.spelled.iter().position(matches)).flatten() {
                Some(index) => {
                    spans.push((at, index));
                    at += self.spelled[index].0.len();
                }
                None => at += 1,
            }
        }
        spans
    }

    /// The text of the special token that a span of [`SpecialTokens::find`] spells.
    pub(crate) fn text(&self, index: usize) -> &str {
        &self.spelled[index].0
    }

    /// The encoder of a text in which some special tokens stand as ordinary text, marked by [`Escape::mark`]. `texts`
    /// is everything that the user wrote: none of its characters serves as a mark.
    pub(crate) fn escape(&self, tokenizer: &Tokenizer, texts: &[String]) -> Result<EscapeRef<'_>> {
        let taken = |base: u32| {
            let range = base..base + self.marks();
            texts.iter().any(|text| text.chars().any(|character| range.contains(&u32::from(character))))
        };
        if !taken(PRIVATE_USE) {
            if self.escape.get().is_none() {
                let escape = Escape::new(tokenizer, self, PRIVATE_USE)?;
                let _ = self.escape.set(escape);
            }
            return Ok(EscapeRef::Shared(self.escape.get().expect("set above")));
        }
        // The text uses private characters itself: take others, for this text alone.
        let mut base = PRIVATE_USE;
        while taken(base) {
            base += self.marks();
            if base + self.marks() > u32::from(char::MAX) {
                return Err(Error::input("a text uses every private character of Unicode; none is left as a mark"));
            }
        }
        Ok(EscapeRef::Own(Box::new(Escape::new(tokenizer, self, base)?)))
    }

    /// Private characters needed: two marks and one twin per token.
    fn marks(&self) -> u32 {
        u32::try_from(self.spelled.len()).expect("fewer special tokens than characters") + 2
    }
}

/// A tokenizer in which special tokens are ordinary text and each has a *twin*, a private character with its meaning.
/// So one pass encodes a text whose template writes twins and whose messages may spell anything.
pub(crate) struct Escape {
    tokenizer: Tokenizer,
    originals: HashMap<u32, u32>,
    /// Tokens whose text encodes to their own id even as ordinary text (whole words of a word-level vocabulary).
    stubborn: Vec<bool>,
    base: u32,
}

/// An [`Escape`] of the folder, or one made for a single text.
pub(crate) enum EscapeRef<'a> {
    Shared(&'a Escape),
    Own(Box<Escape>),
}

impl std::ops::Deref for EscapeRef<'_> {
    type Target = Escape;

    fn deref(&self) -> &Escape {
        match self {
            EscapeRef::Shared(escape) => escape,
            EscapeRef::Own(escape) => escape,
        }
    }
}

const PRIVATE_USE: u32 = 0xF_0000;

impl Escape {
    fn new(tokenizer: &Tokenizer, tokens: &SpecialTokens, base: u32) -> Result<Escape> {
        let mut tokenizer = tokenizer.clone();
        let added = tokenizer.get_added_tokens_decoder();
        let twins = (0..tokens.spelled.len()).map(|index| private(base + 2, index)).collect::<Vec<_>>();
        let twin_tokens = twins.iter().zip(&tokens.spelled).map(|(twin, (_, id))| {
            let original = &added[id];
            AddedToken::from(twin.to_string(), false)
                .normalized(false)
                .lstrip(original.lstrip)
                .rstrip(original.rstrip)
                .single_word(original.single_word)
        });
        let internal = |error: tokenizers::Error| Error::internal(format!("twins of special tokens: {error}"));
        tokenizer.add_tokens(twin_tokens.collect::<Vec<_>>()).map_err(internal)?;
        tokenizer.set_encode_special_tokens(true);
        let mut originals = HashMap::new();
        let mut stubborn = Vec::new();
        for (twin, (token, id)) in twins.iter().zip(&tokens.spelled) {
            let twin_id = tokenizer.token_to_id(&twin.to_string()).expect("added above");
            originals.insert(twin_id, *id);
            let plain = tokenizer.encode_fast(token.as_str(), false).map_err(internal)?;
            stubborn.push(plain.get_ids().contains(id));
        }
        Ok(Escape { tokenizer, originals, stubborn, base })
    }

    /// True where a special token's text cannot be encoded as anything else.
    pub(crate) fn is_stubborn(&self, index: usize) -> bool {
        self.stubborn[index]
    }

    /// `text` with its special-token spans between marks.
    pub(crate) fn mark(&self, tokens: &SpecialTokens, text: &str) -> String {
        let (open, close) = (private(self.base, 0), private(self.base, 1));
        let mut out = String::with_capacity(text.len() + 16);
        let mut copied = 0;
        for (at, index) in tokens.find(text) {
            let end = at + tokens.text(index).len();
            out.push_str(&text[copied..at]);
            out.extend([open]);
            out.push_str(&text[at..end]);
            out.extend([close]);
            copied = end;
        }
        out.push_str(&text[copied..]);
        out
    }

    /// The tokenizer of a text of [`Escape::plain`].
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The text to encode of one marked by [`Escape::mark`]: marked tokens as ordinary text, twins of unmarked ones.
    pub(crate) fn plain(&self, tokens: &SpecialTokens, marked: &str) -> String {
        let (open, close) = (private(self.base, 0), private(self.base, 1));
        let mut out = String::with_capacity(marked.len());
        // Template code may have torn a pair of marks apart: a lone mark only ends the piece before it.
        let mut inside = false;
        for piece in marked.split_inclusive([open, close]) {
            let text = piece.trim_end_matches([open, close]);
            let spans = tokens.find(text);
            let whole = |spans: &Spans| matches!(spans[..], [(0, index)] if tokens.text(index).len() == text.len());
            if inside && piece.ends_with(close) && whole(&spans) {
                out.push_str(text);
            } else {
                let mut copied = 0;
                for (at, index) in spans {
                    out.push_str(&text[copied..at]);
                    out.push(private(self.base + 2, index));
                    copied = at + tokens.text(index).len();
                }
                out.push_str(&text[copied..]);
            }
            inside = piece.ends_with(open);
        }
        out
    }

    /// Puts the tokens themselves in place of their twins.
    pub(crate) fn restore(&self, ids: &mut [u32]) {
        for id in ids {
            *id = *self.originals.get(id).unwrap_or(id);
        }
    }
}

fn private(base: u32, index: usize) -> char {
    char::from_u32(base + u32::try_from(index).expect("a small index")).expect("inside the private planes")
}

/// A token given as its text or as an `AddedToken` object; null and absent are None.
fn token_of(value: Option<&Json>, name: &str, file: &Path) -> Result<Option<AddedToken>> {
    let content = match value {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(content)) => Some(content.as_str()),
        Some(object) => object.get("content").and_then(Json::as_str),
    };
    let Some(content) = content else {
        return Err(Error::file(file, format!("`{name}` is neither a text nor an object with `content`")));
    };
    if content.is_empty() {
        return Ok(None);
    }
    let flag = |key: &str| value.and_then(|value| value.get(key)).and_then(Json::as_bool).unwrap_or(false);
    let token = AddedToken::from(content, true).normalized(flag("normalized"));
    Ok(Some(token.lstrip(flag("lstrip")).rstrip(flag("rstrip")).single_word(flag("single_word"))))
}

/// `eos_token_id` of a config file: one id, a list, null or absent. No such file: none.
fn eos_of(file: &Path) -> Result<Vec<u32>> {
    if !is_there(file)? {
        return Ok(Vec::new());
    }
    let config = read_json(file)?;
    let id = |value: &Json| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Error::file(file, format!("`eos_token_id` holds {value}, which is not a token id")))
    };
    match config.get("eos_token_id") {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(list)) => list.iter().map(id).collect(),
        Some(one) => Ok(vec![id(one)?]),
    }
}

/// Reads a JSON file.
pub(crate) fn read_json(file: &Path) -> Result<Json> {
    refuse_pointer(file)?;
    let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
    serde_json::from_str(&text).map_err(|error| Error::file(file, format!("not JSON: {error}")))
}
