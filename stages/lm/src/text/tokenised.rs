//! From messages to sequences of token ids, as TRL 1.16 and `transformers` do it: prompts with the texts after them.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::text::rendered::{Marker, Stop, Tried, texts_of};
use crate::text::rules::{PromptMismatch, Refusal, TextRules, TooLong};
use crate::text::scored::{Borders, token_ranges};
use crate::text::sequence::Sequence;
use crate::text::tokens::{Text, Turn};

impl Text {
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
