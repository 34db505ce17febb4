//! Messages written by the chat template, and what it leaves out.

use crate::error::{Error, Result};
use crate::text::messages;
use crate::text::rules::{Refusal, SpecialText, TextRules};
use crate::text::scored::Borders;
use crate::text::special::{EscapeRef, SpecialTokens};
use crate::text::template::{ChatTemplate, Rendering};
use crate::text::tokens::{Text, Turn};

impl Text {
    /// Prompt and response by the template, with borders around what is scored, where that is not all of the response.
    pub(super) fn render_scored(
        &self,
        marker: &Marker,
        prompt: &[Turn],
        response: &[Turn],
        borders: Borders,
    ) -> Tried<String> {
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
    pub(super) fn writes_calls(&self, marker: &Marker, prompt: &[Turn], response: &[Turn]) -> Tried<()> {
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
    pub(super) fn writes_words(&self, prompt: &[Turn], response: &[Turn], rules: &TextRules, whole: &str) -> Tried<()> {
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

    pub(super) fn render(
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
    pub(super) fn marker(&self, contents: &[String], rules: &TextRules) -> Tried<Marker<'_>> {
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
}

/// The role of what a model says.
pub(super) const ASSISTANT: &str = "assistant";

/// Marks special-token text in contents, where that is the rule and there is some.
pub(super) struct Marker<'a> {
    special: &'a SpecialTokens,
    pub(super) escape: Option<EscapeRef<'a>>,
    pub(super) escaped: u32,
}

impl Marker<'_> {
    pub(super) fn mark(&self, content: &str) -> String {
        self.escape.as_ref().map_or_else(|| content.to_owned(), |escape| escape.mark(self.special, content))
    }
}

/// Everything that the writers of some messages wrote.
pub(super) fn texts_of(prompt: &[Turn], response: &[Turn]) -> Result<Vec<String>> {
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

/// The reason why there is no sequence: a row to reject, or a failure.
pub(super) enum Stop {
    Refused(Refusal),
    Failed(Error),
}

pub(super) type Tried<T> = Result<T, Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}
