//! A model's tokenizer and chat template, and text of token ids.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tokenizers::Tokenizer;

use crate::error::{Error, Result, is_there};
use crate::model::facts::TemplateFacts;
use crate::model::folder::{folder_of, model_part, tokenizer_part};
use crate::text::rules::{PromptMismatch, SpecialText, TextRules, TooLong};
use crate::text::sequence::Sequence;
use crate::text::special::{SpecialTokens, read_json};
use crate::text::template::ChatTemplate;
use crate::text::tokenizer_files::load_tokenizer;

/// The tokenizer and chat template of a model folder. Turns messages into [`Sequence`]s and ids into text.
///
/// A prompt of one message with the role `text` is raw text: no template, encoded with the tokenizer's own
/// post-processor, so that it has the BOS the tokenizer asks for; its completion is raw text too and ends with the EOS
/// token. Any other prompt goes through the chat template, which writes all special tokens itself; a response of the
/// role `text` is then put after the generation prompt as it is, with the EOS token.
///
/// A completion is what follows the common prefix of ids(prompt) and ids(prompt + completion). All of it is scored;
/// where the template has `{% generation %}` marks, what they enclose; else, where others speak in it, such as tools,
/// what the assistant says.
pub struct Text {
    pub(super) folder: PathBuf,
    pub(super) tokenizer: Tokenizer,
    pub(super) special: SpecialTokens,
    pub(super) template: Option<ChatTemplate>,
    /// Rows of the model's embedding, where a config.json gives them.
    pub(super) rows: Option<u64>,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn<'a> {
    /// `system`, `user`, `assistant`, ...; `text` for raw text without a template.
    pub role: &'a str,
    /// The message's text.
    pub content: &'a str,
    /// The message's other fields as the text of a JSON object, such as `tool_calls`, `tool_call_id` and `name`; a
    /// `content` of null in it stands in place of an empty one. That of a conversation's first message may have its
    /// `tools`, which templates take beside the messages.
    pub extra: Option<&'a str>,
}

impl<'a> Turn<'a> {
    /// A message of text.
    pub fn new(role: &'a str, content: &'a str) -> Turn<'a> {
        Turn { role, content, extra: None }
    }
}

impl Text {
    /// Reads `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and the ends of text in
    /// `generation_config.json` and `config.json`.
    ///
    /// # Errors
    /// Names the file that is missing or malformed.
    pub fn load(folder: &Path) -> Result<Text> {
        let (model, folder) = (model_part(folder_of(folder))?, &tokenizer_part(folder)?);
        let ends = folder_of(&model);
        let mut tokenizer = load_tokenizer(folder)?;
        let config_file = folder.join("tokenizer_config.json");
        let config = if is_there(&config_file)? { read_json(&config_file)? } else { serde_json::json!({}) };
        let special = SpecialTokens::load(folder, ends, &mut tokenizer, &config)?;
        let template = ChatTemplate::load(folder, &config, special.named.clone())?;
        let model = ends.join("config.json");
        let model = if is_there(&model)? { read_json(&model)? } else { serde_json::json!({}) };
        let rows = model.get("vocab_size").or_else(|| model.pointer("/text_config/vocab_size")).and_then(Json::as_u64);
        Ok(Text { folder: folder.to_owned(), tokenizer, special, template, rows })
    }

    /// The text of generated ids, special tokens left out.
    ///
    /// # Errors
    /// Where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true).map_err(|error| Error::input(format!("decoding token ids: {error}")))
    }

    /// The text of a sequence, special tokens written out, in runs of tokens that are scored or not.
    ///
    /// # Errors
    /// Where the tokenizer's decoder fails.
    pub fn pieces(&self, sequence: &Sequence) -> Result<Vec<(String, Range<usize>, bool)>> {
        let (before, completion) = self.spelled(sequence)?;
        let Sequence { ids, start, unscored, .. } = sequence;
        let mut pieces = vec![(before, 0..*start, false)];
        if unscored.is_empty() {
            pieces.push((completion, *start..ids.len(), true));
        } else {
            let mut from = *start;
            for range in unscored.iter().cloned().chain(std::iter::once(ids.len()..ids.len())) {
                for (tokens, scored) in [(from..range.start, true), (range.clone(), false)] {
                    let text = self.tokenizer.decode(&ids[tokens.clone()], false);
                    let text = text.map_err(|error| Error::input(format!("decoding token ids: {error}")))?;
                    pieces.push((text, tokens, scored));
                }
                from = range.end;
            }
        }
        pieces.retain(|(_, tokens, _)| !tokens.is_empty());
        Ok(pieces)
    }

    /// The text of a sequence before its completion and in it, special tokens written out.
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

    /// Number of BOS tokens of a sequence, where the folder names one: all of them, or, where BOS is also an end of
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

    /// The id of the token that short texts are filled up with: the tokenizer's padding token, else the first end of text.
    pub fn pad_id(&self) -> Option<u32> {
        self.special.pad.or_else(|| self.special.eos_ids.first().copied())
    }

    /// The properties of the chat template, where the folder has one.
    pub(crate) fn template_facts(&self) -> Option<TemplateFacts> {
        let fails = || self.no_messages().as_ref().map(Error::to_string);
        self.template.as_ref().map(|template| TemplateFacts { marks_scored: template.marks_scored(), fails: fails() })
    }

    /// Names, texts and ids of the special tokens that the configuration names, and each end of a generation.
    pub(crate) fn named_tokens(&self) -> Vec<(String, String, Option<u32>)> {
        let named = self.special.named.iter();
        let named = named.map(|(name, text)| (name.clone(), text.clone(), self.tokenizer.token_to_id(text)));
        let ends = self.special.eos_ids.iter();
        let ends = ends.map(|id| ("end".to_owned(), self.tokenizer.id_to_token(*id).unwrap_or_default(), Some(*id)));
        named.chain(ends).collect()
    }

    /// The error of every message: there is no chat template, or it fails for the shortest conversation.
    pub(crate) fn no_messages(&self) -> Option<Error> {
        let rules = TextRules {
            special_text: SpecialText::Allow,
            too_long: TooLong::Reject,
            on_prefix_mismatch: PromptMismatch::Keep,
        };
        self.prompt(&[Turn::new("user", "a")], &rules, usize::MAX).err()
    }

    /// The error of messages where it has none.
    pub(crate) fn no_template(&self) -> Error {
        Error::file(
            &self.folder,
            "has no chat template (chat_template.jinja, or `chat_template` in tokenizer_config.json); add one, or give \
             raw text (`form: text`)",
        )
    }

    /// One more than the largest id, with the added tokens.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Text").field("folder", &self.folder).finish_non_exhaustive()
    }
}
