//! From messages to token ids and back, as TRL 1.16 and `transformers` do it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tokenizers::Tokenizer;

use crate::device::quietly;
use crate::error::{Error, Result, is_there};
use crate::model::adapter_folder::{model_part, tokenizer_part};
use crate::model::facts::TemplateFacts;
use crate::model::gguf::folder_of;
use crate::model::weights::refuse_pointer;
use crate::text::messages;
use crate::text::rules::{PromptMismatch, Refusal, SpecialText, TextRules, TooLong};
use crate::text::scored::{Borders, token_ranges};
use crate::text::sequence::Sequence;
use crate::text::special::{EscapeRef, SpecialTokens, read_json};
use crate::text::template::{ChatTemplate, Rendering};

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
    folder: PathBuf,
    tokenizer: Tokenizer,
    special: SpecialTokens,
    template: Option<ChatTemplate>,
    /// Rows of the model's embedding, where a config.json gives them.
    rows: Option<u64>,
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
        let (ends, folder) = (&model_part(folder_of(folder))?, &tokenizer_part(folder)?);
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

    /// True where messages are accepted: the folder has a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// The properties of the chat template, where the folder has one.
    pub(crate) fn template_facts(&self) -> Option<TemplateFacts> {
        self.template.as_ref().map(|template| TemplateFacts { marks_scored: template.marks_scored() })
    }

    /// Names, texts and ids of the special tokens that the configuration names, and each end of a generation.
    pub(crate) fn named_tokens(&self) -> Vec<(String, String, Option<u32>)> {
        let named = self.special.named.iter();
        let named = named.map(|(name, text)| (name.clone(), text.clone(), self.tokenizer.token_to_id(text)));
        let ends = self.special.eos_ids.iter();
        let ends = ends.map(|id| ("end".to_owned(), self.tokenizer.id_to_token(*id).unwrap_or_default(), Some(*id)));
        named.chain(ends).collect()
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
        let Encoded { ids, escaped, .. } = self.encode_prompt(prompt, rules)?;
        let start = ids.len();
        let sequence = Sequence { escaped, ..Sequence::new(ids, start) };
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
        let alone = self.encode_prompt(prompt, rules)?;
        let prompt_tokens = alone.ids.len();
        let agreed = |whole: &Encoded| alone.ids.iter().zip(&whole.ids).take_while(|(a, b)| a == b).count();
        let mut wholes = Vec::with_capacity(afters.len());
        let mut start = prompt_tokens;
        let mut displaced = false;
        for after in afters {
            let mut whole = self.encode_whole(prompt, after, rules)?;
            if agreed(&whole) + LAST_TOKENS < prompt_tokens && !whole.text.starts_with(&alone.text) {
                displaced = true;
                match rules.on_prefix_mismatch {
                    PromptMismatch::Stop => {
                        return Err(Stop::Refused(self.displaced(&whole, &alone, agreed(&whole))?));
                    }
                    PromptMismatch::Append => whole = self.append(prompt, after, rules, &alone)?,
                    PromptMismatch::Keep | PromptMismatch::Reject => {}
                }
            }
            if let After::Response(response) = after {
                self.writes_words(prompt, response, rules, &whole.text)?;
            }
            start = start.min(agreed(&whole));
            wholes.push(whole);
        }
        if start == 0 {
            return Err(Stop::Refused(Refusal::EmptyPrompt));
        }
        if wholes.iter().any(|whole| whole.ids.len() == start) {
            return Err(Stop::Refused(Refusal::EmptyCompletion));
        }
        if start < prompt_tokens && rules.on_prefix_mismatch == PromptMismatch::Reject {
            return Err(Stop::Refused(Refusal::PrefixMismatch { start, prompt_tokens }));
        }
        let sequence = |Encoded { ids, escaped, scored, .. }: Encoded| -> Tried<Sequence> {
            let unscored = scored.map_or(Vec::new(), |scored| between(&scored, start..ids.len()));
            let sequence = Sequence { ids, start, prompt_tokens, unscored, displaced, escaped, cut: 0 };
            match sequence.completion_tokens() {
                0 => Err(Stop::Refused(Refusal::NothingMarked)),
                _ => Ok(sequence),
            }
        };
        self.fit(wholes.into_iter().map(sequence).collect::<Tried<_>>()?, rules, limit)
    }

    /// The refusal of a whole in which a prompt stands in another way than by itself.
    fn displaced(&self, whole: &Encoded, alone: &Encoded, start: usize) -> Result<Refusal> {
        const SHOWN: usize = 24;
        let beginning = |ids: &[u32]| -> Result<String> {
            let shown = &ids[start..ids.len().min(start + SHOWN)];
            let text = self.tokenizer.decode(shown, false);
            let mut text = text.map_err(|error| Error::input(format!("decoding token ids: {error}")))?;
            // White space at the beginning of a text, and some tokens by themselves, are decoded to nothing.
            if text.trim().is_empty() {
                text = shown.iter().filter_map(|id| self.tokenizer.id_to_token(*id)).collect();
            }
            Ok(if ids.len() > start + SHOWN { text + "…" } else { text })
        };
        let (own, scored) = (beginning(&alone.ids)?, beginning(&whole.ids)?);
        Ok(Refusal::Displaced { start, prompt_tokens: alone.ids.len(), own, scored })
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
                    for range in &mut sequence.unscored {
                        *range = range.start - cut..range.end - cut;
                    }
                    sequence.cut = u32::try_from(cut).expect("a token count");
                }
                Ok(sequences)
            }
            TooLong::CutLeft | TooLong::Reject => Err(Stop::Refused(Refusal::TooLong { tokens, limit })),
        }
    }

    fn encode_prompt(&self, prompt: &[Turn], rules: &TextRules) -> Tried<Encoded> {
        let marker = self.marker(&texts_of(prompt, &[])?, rules)?;
        match raw(prompt)? {
            Some(text) => self.encode(&marker, marker.mark(text), true, None),
            None => {
                let rendered = self.render(&marker, prompt, &[], true, None)?;
                self.encode(&marker, rendered, false, None)
            }
        }
    }

    fn encode_whole(&self, prompt: &[Turn], after: &After, rules: &TextRules) -> Tried<Encoded> {
        let is_raw = raw(prompt)?;
        let response = match (*after, is_raw) {
            (After::Response(turns), None) if raw(turns)?.is_none() => {
                let texts = texts_of(prompt, turns)?;
                let marker = self.marker(&texts, rules)?;
                let borders = Borders::beside(&texts)?;
                let rendered = self.render_scored(&marker, prompt, turns, borders)?;
                self.writes_calls(&marker, prompt, turns)?;
                return self.encode(&marker, rendered, false, Some(borders));
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
                let marker = self.marker(std::slice::from_ref(&joined), rules)?;
                let marked = marker.mark(&joined);
                (marker, marked)
            }
            None => {
                let mut texts = texts_of(prompt, &[])?;
                texts.push(body.to_owned());
                let marker = self.marker(&texts, rules)?;
                let rendered = self.render(&marker, prompt, &[], true, None)?;
                let marked = rendered + &marker.mark(body);
                (marker, marked)
            }
        };
        marked.push_str(eos.unwrap_or_default());
        self.encode(&marker, marked, is_raw.is_some(), None)
    }

    /// Prompt and response by the template, with borders around what is scored, where that is not all of the response.
    fn render_scored(&self, marker: &Marker, prompt: &[Turn], response: &[Turn], borders: Borders) -> Tried<String> {
        let whole = self.render(marker, prompt, response, false, Some(borders))?;
        let is_other = |turn: &Turn| turn.role != ASSISTANT;
        let marks = self.template.as_ref().is_some_and(ChatTemplate::marks_scored);
        if marks || !response.iter().any(is_other) || response.iter().all(is_other) {
            return Ok(whole);
        }
        // What others say lies between the rendering up to them and the one that opens the assistant's next turn.
        let end_of = |turns: usize, opened: bool| -> Tried<usize> {
            let rendered = self.render(marker, prompt, &response[..turns], opened, None)?;
            match whole.starts_with(&rendered) {
                true => Ok(rendered.len()),
                false => Err(Stop::Refused(Refusal::Form {
                    detail: format!(
                        "the response has turns of others, and the chat template writes its first {turns} turns in \
                         another way when more follow: what the assistant said cannot be told; a template with \
                         {{% generation %}} marks says it"
                    ),
                })),
            }
        };
        let mut spans = Vec::new();
        let (mut said_from, mut at) = (0, 0);
        while at < response.len() {
            if !is_other(&response[at]) {
                at += 1;
                continue;
            }
            spans.push(said_from..end_of(at, false)?);
            at += response[at..].iter().take_while(|turn| is_other(turn)).count();
            said_from = if at == response.len() { whole.len() } else { end_of(at, true)? };
        }
        spans.push(said_from..whole.len());
        Ok(borders.around(&whole, &spans))
    }

    /// Refuses an answer whose message is empty but for calls of tools that the template does not write.
    fn writes_calls(&self, marker: &Marker, prompt: &[Turn], response: &[Turn]) -> Tried<()> {
        for (at, turn) in response.iter().enumerate() {
            let Some(extra) = turn.extra.filter(|_| turn.content.trim().is_empty()) else { continue };
            let Some(without) = without_calls(extra) else { continue };
            let mut others = response[..=at].to_vec();
            others[at].extra = Some(&without);
            // A template that refuses the message without its calls does read them.
            let Ok(plain) = self.render(marker, prompt, &others, false, None) else { continue };
            if self.render(marker, prompt, &response[..=at], false, None)? == plain {
                return Err(Stop::Refused(Refusal::CallsLeftOut));
            }
        }
        Ok(())
    }

    /// Refuses an answer of whose words the template writes nothing.
    fn writes_words(&self, prompt: &[Turn], response: &[Turn], rules: &TextRules, whole: &str) -> Tried<()> {
        for (at, turn) in response.iter().enumerate().filter(|(_, turn)| turn.role == ASSISTANT) {
            let words = turn.content.trim();
            if words.is_empty() || whole.contains(words) {
                continue;
            }
            let texts = texts_of(prompt, response)?;
            let (marker, stand_in) = (self.marker(&texts, rules)?, Borders::beside(&texts)?.stand_in());
            let mut probe = response.to_vec();
            probe[at].content = &stand_in;
            // A template that refuses other words does read them.
            let Ok(probed) = self.render(&marker, prompt, &probe, false, None) else { continue };
            if self.render(&marker, prompt, response, false, None)? == probed {
                return Err(Stop::Refused(Refusal::WordsLeftOut));
            }
        }
        Ok(())
    }

    /// The prompt's own rendering with the answer after it, as the template writes the answer.
    fn append(&self, prompt: &[Turn], after: &After, rules: &TextRules, alone: &Encoded) -> Tried<Encoded> {
        let After::Response(response) = *after else {
            return Err(Stop::Failed(Error::internal("only a rendered answer stands after another prompt")));
        };
        let texts = texts_of(prompt, response)?;
        let marker = self.marker(&texts, rules)?;
        let borders = Borders::beside(&texts)?;
        let whole = self.render_scored(&marker, prompt, response, borders)?;
        // A stand-in for the answer shows where the template puts it.
        let stand_in = borders.stand_in();
        let mut probe = response.to_vec();
        probe[0].content = &stand_in;
        let probed = self.render_scored(&marker, prompt, &probe, borders)?;
        let place = probed.find(&stand_in).filter(|at| !probed[at + stand_in.len()..].contains(&stand_in));
        let found = place.filter(|&at| whole.starts_with(&probed[..at]));
        let Some(at) = found else {
            let (start, prompt_tokens) = (alone.ids.len(), alone.ids.len());
            return Err(Stop::Refused(Refusal::PrefixMismatch { start, prompt_tokens }));
        };
        let own = self.render(&marker, prompt, &[], true, None)?;
        // White space that the template writes before an answer and the prompt does not end with.
        let tail = |text: &str| text.len() - text.trim_end().len();
        let before = borders.without(&probed[..at]);
        let (gap, there) = (&before[before.len() - tail(&before)..], &own[own.len() - tail(&own)..]);
        let gap = gap.strip_prefix(there).unwrap_or_default();
        let opened = borders.opened(&probed[..at]);
        self.encode(&marker, [&own, gap, opened.as_str(), &whole[at..]].concat(), false, Some(borders))
    }

    fn render(
        &self,
        marker: &Marker,
        prompt: &[Turn],
        response: &[Turn],
        generation_prompt: bool,
        borders: Option<Borders>,
    ) -> Tried<String> {
        if let Some(turn) = prompt.iter().chain(response).find(|turn| turn.role == "text") {
            let start = turn.content.chars().take(40).collect::<String>();
            let detail =
                format!("a message of the role `text` (\"{start}\") stands among others; raw text stands alone");
            return Err(Stop::Refused(Refusal::Form { detail }));
        }
        let Some(template) = &self.template else { return Err(Stop::Failed(self.no_template())) };
        let (mut messages, mut tools) = (Vec::with_capacity(prompt.len() + response.len()), None);
        for (index, turn) in prompt.iter().chain(response).enumerate() {
            let (message, own) = messages::message(turn, &|text| marker.mark(text))?;
            if index == 0 {
                tools = own;
            }
            messages.push(message);
        }
        match template.render(messages, tools, generation_prompt, borders)? {
            Rendering::Text(text) => Ok(text),
            Rendering::Refused(detail) => Err(Stop::Refused(Refusal::Template { detail })),
        }
    }

    /// The marker of these contents under the rule for special-token text.
    fn marker(&self, contents: &[String], rules: &TextRules) -> Tried<Marker<'_>> {
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

    fn encode(&self, marker: &Marker, text: String, add_special: bool, borders: Option<Borders>) -> Tried<Encoded> {
        let (tokenizer, text) = match &marker.escape {
            Some(escape) => (escape.tokenizer(), escape.plain(&self.special, &text)),
            None => (&self.tokenizer, text),
        };
        let (text, spans) = match borders {
            Some(borders) => borders.take_out(text),
            None => (text, Vec::new()),
        };
        let encoding = match spans.is_empty() {
            true => tokenizer.encode_fast(text.as_str(), add_special),
            // With the places of tokens in the text.
            false => tokenizer.encode(text.as_str(), add_special),
        };
        let encoding = encoding.map_err(|error| Error::input(format!("tokenising: {error}")))?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(escape) = &marker.escape {
            escape.restore(&mut ids);
        }
        if let Some(rows) = self.rows
            && let Some(id) = ids.iter().find(|id| u64::from(**id) >= rows)
        {
            let token = self.tokenizer.id_to_token(*id).unwrap_or_default();
            return Err(Stop::Failed(Error::file(
                &self.folder,
                format!(
                    "the tokenizer's token {token:?} has the id {id}, and the model's `vocab_size` is {rows}; does the \
                     tokenizer belong to this model?"
                ),
            )));
        }
        let scored = (!spans.is_empty()).then(|| token_ranges(encoding.get_offsets(), &spans));
        Ok(Encoded { ids, escaped: marker.escaped, text, scored })
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

/// The text that follows a prompt.
#[derive(Clone, Copy)]
enum After<'a> {
    Response(&'a [Turn<'a>]),
    Text { text: &'a str, eos: bool },
}

struct Encoded {
    ids: Vec<u32>,
    escaped: u32,
    /// The text that was tokenised.
    text: String,
    /// The tokens that are scored, in order, where that is not all after the prompt.
    scored: Option<Vec<Range<usize>>>,
}

/// Tokens at the end of a prompt that may differ from what stands before its answer.
const LAST_TOKENS: usize = 2;

/// The role of what a model says.
const ASSISTANT: &str = "assistant";

/// The rest of `all` without some ranges, which are in order.
fn between(ranges: &[Range<usize>], all: Range<usize>) -> Vec<Range<usize>> {
    let (mut rest, mut at) = (Vec::new(), all.start);
    for range in ranges {
        if at < range.start.min(all.end) {
            rest.push(at..range.start.min(all.end));
        }
        at = at.max(range.end);
    }
    if at < all.end {
        rest.push(at..all.end);
    }
    rest
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

/// The reason why there is no sequence: a row to reject, or a failure.
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
        [Turn { role: "text", content, .. }] => Ok(Some(content)),
        _ => Ok(None),
    }
}

/// Everything that the writers of some messages wrote.
fn texts_of(prompt: &[Turn], response: &[Turn]) -> Result<Vec<String>> {
    let mut texts = Vec::with_capacity(prompt.len() + response.len());
    prompt.iter().chain(response).try_for_each(|turn| messages::texts(turn, &mut texts))?;
    Ok(texts)
}

/// A message's other fields without its calls of tools; nothing where it makes none.
fn without_calls(extra: &str) -> Option<String> {
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(extra).ok()?;
    let mut calls =
        ["tool_calls", "function_call"].into_iter().filter_map(|key| fields.remove(key)).collect::<Vec<_>>();
    calls.retain(|calls| !calls.is_null() && calls.as_array().is_none_or(|calls| !calls.is_empty()));
    if calls.is_empty() { None } else { serde_json::to_string(&fields).ok() }
}

/// Reads tokenizer.json without truncation and padding (`transformers` switches both off for a plain call).
///
/// Some malformed files make the library panic; that is the same error here as a parse error, and says nothing on stderr.
pub(crate) fn load_tokenizer(folder: &Path) -> Result<Tokenizer> {
    let file = folder.join("tokenizer.json");
    refuse_pointer(&file)?;
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
