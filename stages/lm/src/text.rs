//! From messages to token ids and back, as TRL 1.16 and `transformers` do it.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use crate::adapter_folder::{model_part, tokenizer_part};
use crate::device::quietly;
use crate::error::{Error, Result};
use crate::sequence::Sequence;
use crate::special::{EscapeRef, SpecialTokens, read_json};
use crate::template::{ChatTemplate, Rendering};

/// The tokenizer and chat template of a model folder. Turns messages into [`Sequence`]s and ids into text.
///
/// A prompt of one message with the role `text` is raw text: no template, encoded with the tokenizer's own
/// post-processor, so that it has the BOS the tokenizer asks for; its completion is raw text too and ends with the EOS
/// token. Any other prompt goes through the chat template, which writes all special tokens itself; a response of the
/// role `text` is then put after the generation prompt as it is, with the EOS token.
///
/// A completion is what follows the common prefix of ids(prompt) and ids(prompt + completion).
pub struct Text {
    folder: PathBuf,
    tokenizer: Tokenizer,
    special: SpecialTokens,
    template: Option<ChatTemplate>,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn<'a> {
    /// `system`, `user`, `assistant`, ...; `text` for raw text without a template.
    pub role: &'a str,
    /// What was said.
    pub content: &'a str,
}

/// What to do with a message that contains the text of a special token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecialText {
    /// Encode that span as ordinary text, and count it.
    Escape,
    /// Reject the row.
    Reject,
    /// Let it be the special token, as TRL does.
    Allow,
}

/// What to do with a sequence longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// Reject the row.
    Reject,
    /// Cut tokens from the left of the prompt, both sides of a same-prompt pair equally; a leading BOS stays, and the
    /// completion is never cut. Rows whose completion leaves no room for a prompt token are rejected.
    CutLeft,
    /// Stop the stage.
    Error,
}

/// What to do where the tokenised prompt is not a prefix of the tokenised prompt + completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrefixMismatch {
    /// The completion starts where the two part, as in TRL.
    Keep,
    /// Reject the row.
    Reject,
}

/// How rows become sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRules {
    /// Special-token text in messages.
    pub special_text: SpecialText,
    /// Sequences over the limit.
    pub too_long: TooLong,
    /// Prompts that are no prefix.
    pub on_prefix_mismatch: PrefixMismatch,
}

/// Why a row gives no sequence. Its text says more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More tokens than the limit (under `cut_left`: even without the prompt).
    #[error("{tokens} tokens, the limit is {limit}")]
    TooLong {
        /// Tokens of the sequence before any cut.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
    /// The tokenised prompt is not a prefix.
    #[error(
        "the {prompt_tokens} tokens of the prompt agree with those of prompt + completion only up to token {start}"
    )]
    PrefixMismatch {
        /// Length of the common prefix.
        start: usize,
        /// Tokens of the prompt alone.
        prompt_tokens: usize,
    },
    /// No completion token.
    #[error("the completion has no token of its own")]
    EmptyCompletion,
    /// No token before the completion.
    #[error("no token stands before the completion")]
    EmptyPrompt,
    /// A message contains special-token text (under `escape`: and the tokenizer cannot encode it as ordinary text).
    #[error("a message contains the special token `{token}`")]
    SpecialText {
        /// The token.
        token: String,
    },
    /// The chat template refuses these messages (by `raise_exception`, such as a system message for Gemma).
    #[error("the chat template refuses the messages: {detail}")]
    Template {
        /// The template's own words.
        detail: String,
    },
    /// Raw text and messages do not go together in this way.
    #[error("{detail}")]
    Form {
        /// What was found and wanted.
        detail: String,
    },
}

impl Refusal {
    /// The reason as it stands in the `rejects` table.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::TooLong { .. } => "too_long",
            Refusal::PrefixMismatch { .. } => "prefix_mismatch",
            Refusal::EmptyCompletion => "empty_completion",
            Refusal::EmptyPrompt => "empty_prompt",
            Refusal::SpecialText { .. } => "special_text",
            Refusal::Template { .. } => "template",
            Refusal::Form { .. } => "form",
        }
    }
}

impl Text {
    /// Reads `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and the ends of text in
    /// `generation_config.json` and `config.json`.
    ///
    /// # Errors
    /// Names the file that is missing or malformed.
    pub fn load(folder: &Path) -> Result<Text> {
        let (ends, folder) = (&model_part(folder)?, &tokenizer_part(folder)?);
        let mut tokenizer = load_tokenizer(folder)?;
        let config_file = folder.join("tokenizer_config.json");
        let config = if config_file.is_file() { read_json(&config_file)? } else { serde_json::json!({}) };
        let special = SpecialTokens::load(folder, ends, &mut tokenizer, &config)?;
        let template = ChatTemplate::load(folder, &config, special.named.clone())?;
        Ok(Text { folder: folder.to_owned(), tokenizer, special, template })
    }

    /// One prompt with its response.
    ///
    /// # Errors
    /// A template that fails, a tokenizer that fails, a folder without what the messages need, or a sequence over
    /// `limit` tokens under [`TooLong::Error`]. The inner error is a row to reject.
    pub fn single(
        &self,
        prompt: &[Turn],
        response: &[Turn],
        rules: &TextRules,
        limit: usize,
    ) -> Result<Result<Sequence, Refusal>> {
        settle(self.try_single(prompt, response, rules, limit))
    }

    /// Both sides of a preference, (prompt, response) each. With the same prompt they start at the same token, the
    /// shorter of the two common prefixes, and lose the same tokens on the left; else each is a [`Text::single`].
    ///
    /// # Errors
    /// As [`Text::single`].
    pub fn pair(
        &self,
        chosen: (&[Turn], &[Turn]),
        rejected: (&[Turn], &[Turn]),
        rules: &TextRules,
        limit: usize,
    ) -> Result<Result<(Sequence, Sequence), Refusal>> {
        settle(self.try_pair(chosen, rejected, rules, limit))
    }

    /// A prompt ready for generation: with the generation prompt, and `start` at its end.
    ///
    /// # Errors
    /// As [`Text::single`].
    pub fn prompt(&self, prompt: &[Turn], rules: &TextRules, limit: usize) -> Result<Result<Sequence, Refusal>> {
        settle(self.try_prompt(prompt, rules, limit))
    }

    /// A prompt with each of several texts after it, without EOS: what a judge's labels are scored by. The texts are
    /// tokenised together with the prompt, and all start at the same token, so that their log-probs are comparable.
    ///
    /// # Errors
    /// As [`Text::single`].
    pub fn continuations(
        &self,
        prompt: &[Turn],
        texts: &[&str],
        rules: &TextRules,
        limit: usize,
    ) -> Result<Result<Vec<Sequence>, Refusal>> {
        settle(self.try_continuations(prompt, texts, rules, limit))
    }

    /// The text of generated ids, special tokens left out.
    ///
    /// # Errors
    /// Where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true).map_err(|error| Error::input(format!("decoding token ids: {error}")))
    }

    /// What a sequence says before its completion and in it, special tokens written out.
    ///
    /// # Errors
    /// Where the tokenizer's decoder fails.
    pub fn spelled(&self, sequence: &Sequence) -> Result<(String, String)> {
        let spell = |ids: &[u32]| {
            self.tokenizer.decode(ids, false).map_err(|error| Error::input(format!("decoding token ids: {error}")))
        };
        let before = spell(&sequence.ids[..sequence.start])?;
        // A decoder may treat the first token of a text apart, so the completion is what it adds to the rest.
        match spell(&sequence.ids)?.strip_prefix(&before) {
            Some(completion) => Ok((before, completion.to_owned())),
            None => Ok((before, spell(&sequence.ids[sequence.start..])?)),
        }
    }

    /// How many BOS tokens a sequence has, where the folder names one: all of them, or, where BOS is also an end of
    /// text, those that it begins with.
    pub fn count_bos(&self, sequence: &Sequence) -> Option<usize> {
        let bos = self.special.bos?;
        let is_bos = |id: &&u32| **id == bos;
        Some(match self.special.eos_ids.contains(&bos) {
            true => sequence.ids.iter().take_while(is_bos).count(),
            false => sequence.ids.iter().filter(is_bos).count(),
        })
    }

    /// The ids that end a generation: `eos_token_id` of generation_config.json, else of config.json, and the
    /// tokenizer's EOS token.
    pub fn eos_ids(&self) -> &[u32] {
        &self.special.eos_ids
    }

    /// The ids of all special tokens, sorted.
    pub fn special_ids(&self) -> &[u32] {
        &self.special.ids
    }

    /// The id of the token that text starts with, where the folder names one.
    pub fn bos_id(&self) -> Option<u32> {
        self.special.bos
    }

    /// Whether messages can be given: the folder has a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// One more than the largest id, with the added tokens.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    fn try_single(&self, prompt: &[Turn], response: &[Turn], rules: &TextRules, limit: usize) -> Tried<Sequence> {
        let mut sequences = self.sequences(prompt, &[After::Response(response)], rules, limit)?;
        Ok(sequences.remove(0))
    }

    fn try_pair(
        &self,
        chosen: (&[Turn], &[Turn]),
        rejected: (&[Turn], &[Turn]),
        rules: &TextRules,
        limit: usize,
    ) -> Tried<(Sequence, Sequence)> {
        if chosen.0 == rejected.0 {
            let responses = [After::Response(chosen.1), After::Response(rejected.1)];
            let mut sequences = self.sequences(chosen.0, &responses, rules, limit)?.into_iter();
            let mut next = || sequences.next().expect("one sequence per response");
            Ok((next(), next()))
        } else {
            let chosen = self.try_single(chosen.0, chosen.1, rules, limit)?;
            Ok((chosen, self.try_single(rejected.0, rejected.1, rules, limit)?))
        }
    }

    fn try_prompt(&self, prompt: &[Turn], rules: &TextRules, limit: usize) -> Tried<Sequence> {
        let Encoded { ids, escaped } = self.encode_prompt(prompt, rules)?;
        let start = ids.len();
        let sequence = Sequence { prompt_tokens: start, start, ids, escaped, cut: 0 };
        if start == 0 {
            return Err(Stop::Refused(Refusal::EmptyPrompt));
        }
        Ok(self.fit(vec![sequence], rules, limit)?.remove(0))
    }

    fn try_continuations(
        &self,
        prompt: &[Turn],
        texts: &[&str],
        rules: &TextRules,
        limit: usize,
    ) -> Tried<Vec<Sequence>> {
        let texts = texts.iter().map(|text| After::Text { text, eos: false }).collect::<Vec<_>>();
        self.sequences(prompt, &texts, rules, limit)
    }

    /// Sequences of one prompt, all with the same start and the same cut.
    fn sequences(&self, prompt: &[Turn], afters: &[After], rules: &TextRules, limit: usize) -> Tried<Vec<Sequence>> {
        let alone = self.encode_prompt(prompt, rules)?.ids;
        let mut wholes = Vec::with_capacity(afters.len());
        let mut start = alone.len();
        for after in afters {
            let whole = self.encode_whole(prompt, after, rules)?;
            start = start.min(alone.iter().zip(&whole.ids).take_while(|(a, b)| a == b).count());
            wholes.push(whole);
        }
        if start == 0 {
            return Err(Stop::Refused(Refusal::EmptyPrompt));
        }
        if wholes.iter().any(|whole| whole.ids.len() == start) {
            return Err(Stop::Refused(Refusal::EmptyCompletion));
        }
        if start < alone.len() && rules.on_prefix_mismatch == PrefixMismatch::Reject {
            return Err(Stop::Refused(Refusal::PrefixMismatch { start, prompt_tokens: alone.len() }));
        }
        let sequence = |Encoded { ids, escaped }| Sequence { ids, start, prompt_tokens: alone.len(), escaped, cut: 0 };
        self.fit(wholes.into_iter().map(sequence).collect(), rules, limit)
    }

    /// Applies the limit to sequences of one prompt.
    fn fit(&self, mut sequences: Vec<Sequence>, rules: &TextRules, limit: usize) -> Tried<Vec<Sequence>> {
        let tokens = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
        let cut = tokens.saturating_sub(limit);
        if cut == 0 {
            return Ok(sequences);
        }
        let kept = usize::from(sequences[0].ids.first().copied() == self.special.bos && self.special.bos.is_some());
        match rules.too_long {
            TooLong::Error => Err(Stop::Failed(Error::input(format!(
                "a sequence has {tokens} tokens, the limit is {limit} (`too_long: error`); `reject` or `cut_left` would go on"
            )))),
            // The last prompt token stays: it is what predicts the first completion token.
            TooLong::CutLeft if kept + cut < sequences[0].start => {
                for sequence in &mut sequences {
                    sequence.ids.drain(kept..kept + cut);
                    sequence.start -= cut;
                    sequence.prompt_tokens -= cut;
                    sequence.cut = u32::try_from(cut).expect("a token count");
                }
                Ok(sequences)
            }
            TooLong::CutLeft | TooLong::Reject => Err(Stop::Refused(Refusal::TooLong { tokens, limit })),
        }
    }

    fn encode_prompt(&self, prompt: &[Turn], rules: &TextRules) -> Tried<Encoded> {
        let contents = prompt.iter().map(|turn| turn.content).collect::<Vec<_>>();
        let marker = self.marker(&contents, rules)?;
        match raw(prompt)? {
            Some(text) => self.encode(&marker, marker.mark(text), true),
            None => {
                let rendered = self.render(&marker, prompt, &[], true)?;
                self.encode(&marker, rendered, false)
            }
        }
    }

    fn encode_whole(&self, prompt: &[Turn], after: &After, rules: &TextRules) -> Tried<Encoded> {
        let is_raw = raw(prompt)?;
        let response = match (*after, is_raw) {
            (After::Response(turns), None) if raw(turns)?.is_none() => {
                let contents = prompt.iter().chain(turns).map(|turn| turn.content).collect::<Vec<_>>();
                let marker = self.marker(&contents, rules)?;
                let rendered = self.render(&marker, prompt, turns, false)?;
                return self.encode(&marker, rendered, false);
            }
            (After::Response([turn]), _) => (turn.content, true),
            (After::Response(turns), _) => {
                let detail = format!("a raw text prompt takes one response message, found {}", turns.len());
                return Err(Stop::Refused(Refusal::Form { detail }));
            }
            (After::Text { text, eos }, _) => (text, eos),
        };
        let (text, needs_eos) = response;
        let eos = if needs_eos { Some(self.eos()?) } else { None };
        // An EOS at the very end of a completion is the end, whatever the rule for special-token text.
        let body = eos.and_then(|eos| text.strip_suffix(eos)).unwrap_or(text);
        let (marker, mut marked) = match is_raw {
            Some(prompt) => {
                // The two are one text: a special token may be spelled across their border.
                let joined = format!("{prompt}{body}");
                let marker = self.marker(&[&joined], rules)?;
                let marked = marker.mark(&joined);
                (marker, marked)
            }
            None => {
                let contents = prompt.iter().map(|turn| turn.content).chain([body]).collect::<Vec<_>>();
                let marker = self.marker(&contents, rules)?;
                let rendered = self.render(&marker, prompt, &[], true)?;
                let marked = rendered + &marker.mark(body);
                (marker, marked)
            }
        };
        marked.push_str(eos.unwrap_or_default());
        self.encode(&marker, marked, is_raw.is_some())
    }

    fn render(&self, marker: &Marker, prompt: &[Turn], response: &[Turn], generation_prompt: bool) -> Tried<String> {
        if let Some(turn) = prompt.iter().chain(response).find(|turn| turn.role == "text") {
            let start = turn.content.chars().take(40).collect::<String>();
            let detail =
                format!("a message of the role `text` (\"{start}\") stands among others; raw text stands alone");
            return Err(Stop::Refused(Refusal::Form { detail }));
        }
        let Some(template) = &self.template else {
            return Err(Stop::Failed(Error::file(
                &self.folder,
                "has no chat template (chat_template.jinja, or `chat_template` in tokenizer_config.json); add one, or \
                 give raw text (`form: text`)",
            )));
        };
        let marked =
            prompt.iter().chain(response).map(|turn| (turn.role, marker.mark(turn.content))).collect::<Vec<_>>();
        let messages = marked.iter().map(|(role, content)| (*role, content.as_str())).collect::<Vec<_>>();
        match template.render(&messages, generation_prompt)? {
            Rendering::Text(text) => Ok(text),
            Rendering::Refused(detail) => Err(Stop::Refused(Refusal::Template { detail })),
        }
    }

    /// What the rule for special-token text makes of these contents.
    fn marker(&self, contents: &[&str], rules: &TextRules) -> Tried<Marker<'_>> {
        let unmarked = Marker { special: &self.special, escape: None, escaped: 0 };
        if rules.special_text == SpecialText::Allow {
            return Ok(unmarked);
        }
        let found = contents.iter().flat_map(|content| self.special.find(content)).collect::<Vec<_>>();
        let Some(&(_, first)) = found.first() else {
            return Ok(unmarked);
        };
        let refused = |index: usize| Stop::Refused(Refusal::SpecialText { token: self.special.text(index).to_owned() });
        if rules.special_text == SpecialText::Reject {
            return Err(refused(first));
        }
        let escape = self.special.escape(&self.tokenizer, contents)?;
        if let Some(&(_, index)) = found.iter().find(|(_, index)| escape.is_stubborn(*index)) {
            return Err(refused(index));
        }
        Ok(Marker { escape: Some(escape), escaped: u32::try_from(found.len()).expect("a count"), ..unmarked })
    }

    fn encode(&self, marker: &Marker, text: String, add_special: bool) -> Tried<Encoded> {
        let ids = match &marker.escape {
            Some(escape) => escape.encode(&self.special, &text, add_special)?,
            None => {
                let encoding = self.tokenizer.encode_fast(text.as_str(), add_special);
                encoding.map_err(|error| Error::input(format!("tokenising: {error}")))?.get_ids().to_vec()
            }
        };
        Ok(Encoded { ids, escaped: marker.escaped })
    }

    fn eos(&self) -> Result<&str> {
        let eos = self.special.eos.as_deref();
        eos.ok_or_else(|| Error::file(&self.folder, "names no `eos_token` in tokenizer_config.json to end a text with"))
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Text").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// What stands after a prompt.
#[derive(Clone, Copy)]
enum After<'a> {
    Response(&'a [Turn<'a>]),
    Text { text: &'a str, eos: bool },
}

struct Encoded {
    ids: Vec<u32>,
    escaped: u32,
}

/// Marks special-token text in contents, where that is the rule and there is some.
struct Marker<'a> {
    special: &'a SpecialTokens,
    escape: Option<EscapeRef<'a>>,
    escaped: u32,
}

impl Marker<'_> {
    fn mark(&self, content: &str) -> String {
        self.escape.as_ref().map_or_else(|| content.to_owned(), |escape| escape.mark(self.special, content))
    }
}

/// Why there is no sequence: a row to reject, or a failure.
enum Stop {
    Refused(Refusal),
    Failed(Error),
}

type Tried<T> = Result<T, Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

fn settle<T>(tried: Tried<T>) -> Result<Result<T, Refusal>> {
    match tried {
        Ok(value) => Ok(Ok(value)),
        Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// The raw text, where the turns are one message of the role `text`.
fn raw<'a>(turns: &[Turn<'a>]) -> Tried<Option<&'a str>> {
    match turns {
        [Turn { role: "text", content }] => Ok(Some(content)),
        _ => Ok(None),
    }
}

/// Reads tokenizer.json without truncation and padding (`transformers` switches both off for a plain call).
///
/// Some malformed files make the library panic; that is the same error here as a parse error, and says nothing on stderr.
pub(crate) fn load_tokenizer(folder: &Path) -> Result<Tokenizer> {
    let file = folder.join("tokenizer.json");
    let bytes = std::fs::read(&file).map_err(Error::io(&file))?;
    let wrong = |problem: &str| Error::file(&file, format!("not a tokenizer: {problem}"));
    // The trial shows parts that only fail when they are used; an error is no verdict, since `x` may be unknown.
    let trial = || Tokenizer::from_bytes(&bytes).inspect(|tokenizer| drop(tokenizer.encode_fast("x", true)));
    let mut tokenizer = match quietly(trial) {
        Some(Ok(tokenizer)) => tokenizer,
        Some(Err(error)) => return Err(wrong(&error.to_string())),
        None => return Err(wrong("its parts contradict each other (the tokenizers library gave up on it)")),
    };
    if tokenizer.get_vocab_size(true) == 0 {
        return Err(wrong("its vocabulary is empty"));
    }
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| wrong(&error.to_string()))?;
    Ok(tokenizer)
}
