//! Texts and conversations: how values become messages, and where a prompt ends and its response begins.

use kit::Message;
use serde_json::Value;

use crate::bad_row::{BadRow, shown};
use crate::format::Form;

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// A value that is a plain string or a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A plain string.
    Text(String),
    /// A list of messages, at least one.
    Messages(Vec<Message>),
}

impl Said {
    /// Reads a value: a string, or a list of `{role, content}` (ShareGPT's `{from, value}` too).
    ///
    /// # Errors
    /// When it is neither, or a message has parts that are not text.
    pub fn read(column: &str, value: Value) -> Result<Said, BadRow> {
        match value {
            Value::String(text) => plain(column, text).map(Said::Text),
            Value::Array(items) if items.is_empty() => Err(BadRow::value(column, "an empty list", "messages")),
            Value::Array(items) => {
                let messages = items.into_iter().enumerate().map(|(i, item)| message(column, i, item));
                messages.collect::<Result<_, _>>().map(Said::Messages)
            }
            // LLaMA-Factory's preferences have one message and no list.
            Value::Object(_) => Ok(Said::Messages(vec![message(column, 0, value)?])),
            other => Err(BadRow::value(column, shown(&other), "text or messages")),
        }
    }

    /// As the prompt of a response.
    pub fn into_prompt(self, form: Form) -> Vec<Message> {
        self.into_messages(form, "user")
    }

    /// As the response to a prompt.
    pub fn into_response(self, form: Form) -> Vec<Message> {
        self.into_messages(form, "assistant")
    }

    fn into_messages(self, form: Form, role: &str) -> Vec<Message> {
        match (self, form) {
            (Said::Messages(messages), _) => messages,
            (Said::Text(text), Form::Text) => vec![Message::new("text", text)],
            (Said::Text(text), Form::Chat) => vec![Message::new(role, text)],
        }
    }
}

/// Text without NUL bytes: they are what is left of torn files, and models see them as odd tokens.
pub fn plain(column: &str, text: String) -> Result<String, BadRow> {
    match text.find('\0') {
        Some(at) => Err(BadRow::new("nul_byte", format!("column `{column}` has a NUL byte at byte {at}, wanted text"))),
        None => Ok(text),
    }
}

fn message(column: &str, index: usize, value: Value) -> Result<Message, BadRow> {
    let place = format!("{column}[{index}]");
    let Value::Object(mut fields) = value else {
        return Err(BadRow::value(&place, shown(&value), "a message {role, content}"));
    };
    if fields.get("tool_calls").is_some_and(|calls| !calls.is_null() && calls != &Value::Array(Vec::new())) {
        return Err(BadRow::value(&place, "a message with tool calls", "one of text only"));
    }
    let mut take = |names: [&str; 2]| {
        let found = names.into_iter().find_map(|name| fields.remove(name));
        found.ok_or_else(|| BadRow::value(&place, format!("without `{}`", names[0]), "a message {role, content}"))
    };
    let role = match take(["role", "from"])? {
        Value::String(role) => match role.as_str() {
            "human" => "user".to_owned(),
            "gpt" => "assistant".to_owned(),
            _ => role,
        },
        other => return Err(BadRow::value(&format!("{place}.role"), shown(&other), "text")),
    };
    let inner = format!("{place}.content");
    let content = match take(["content", "value"])? {
        Value::String(text) => text,
        Value::Array(parts) => parts.into_iter().map(|part| text_part(&inner, part)).collect::<Result<_, _>>()?,
        other => return Err(BadRow::value(&inner, shown(&other), "text")),
    };
    Ok(Message::new(&role, plain(&inner, content)?))
}

/// A part of a message's content as OpenAI's files have them: `{"type": "text", "text": ...}`.
fn text_part(place: &str, part: Value) -> Result<String, BadRow> {
    match part {
        Value::Object(mut fields) if fields.get("type").is_none_or(|kind| kind == "text") => {
            match fields.remove("text") {
                Some(Value::String(text)) => Ok(text),
                _ => Err(BadRow::value(place, "a part without text", "parts of text")),
            }
        }
        other => Err(BadRow::value(place, shown(&other), "parts of text")),
    }
}

/// The role of the last message of a value that is a conversation.
pub fn last_role(value: &Value) -> Option<String> {
    let Ok(Said::Messages(messages)) = Said::read("", value.clone()) else { return None };
    messages.last().map(|message| message.role.clone())
}

/// A prompt, and the chosen and the rejected response to it.
pub type Split = (Said, Said, Said);

/// Splits two texts or conversations into what they share at the beginning, the prompt, and two responses, as TRL's
/// `extract_prompt` does: a space before the first difference goes with the responses, and where one side is the
/// beginning of the other, its last character or message is its response.
///
/// # Errors
/// When they share nothing, or one is text and the other messages.
pub fn split_shared(chosen: Said, rejected: Said) -> Result<Split, BadRow> {
    let nothing =
        || BadRow::new("no_shared_prompt", "there is no prompt column, and `chosen` and `rejected` begin differently");
    match (chosen, rejected) {
        (Said::Text(chosen), Said::Text(rejected)) => {
            let same = chosen.chars().zip(rejected.chars()).take_while(|(a, b)| a == b);
            let mut at: usize = same.map(|(a, _)| a.len_utf8()).sum();
            let before = |at: usize| chosen[..at].chars().next_back().map_or(0, char::len_utf8);
            if at == chosen.len() || at == rejected.len() || chosen[..at].ends_with(' ') {
                at -= before(at);
            }
            if at == 0 {
                return Err(nothing());
            }
            let (prompt, chosen, rejected) = (&chosen[..at], &chosen[at..], &rejected[at..]);
            Ok((Said::Text(prompt.to_owned()), Said::Text(chosen.to_owned()), Said::Text(rejected.to_owned())))
        }
        (Said::Messages(mut chosen), Said::Messages(mut rejected)) => {
            let same = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            let at = same.min(chosen.len() - 1).min(rejected.len() - 1);
            if at == 0 {
                return Err(nothing());
            }
            let rejected = rejected.split_off(at);
            let response = chosen.split_off(at);
            Ok((Said::Messages(chosen), Said::Messages(response), Said::Messages(rejected)))
        }
        _ => Err(BadRow::new("mixed_sides", "one of `chosen` and `rejected` is text and the other messages")),
    }
}

/// Whether a text is a dialogue of Anthropic's HH files.
pub fn is_transcript(text: &str) -> bool {
    text.trim_start().starts_with(HUMAN.trim_start()) && text.contains(ASSISTANT)
}

/// Splits two HH transcripts at their last `Assistant:`. As raw text the prompt ends with that word and a colon, as
/// in the code of the DPO paper; in chat form the turns become messages, trimmed.
///
/// # Errors
/// When a side is no transcript, or what comes before the last answers differs.
pub fn split_transcripts(chosen: &str, rejected: &str, form: Form) -> Result<Split, BadRow> {
    let halves = |side: &str, text: &str| match text.rfind(ASSISTANT) {
        Some(at) if is_transcript(text) => Ok(at + ASSISTANT.len()),
        _ => Err(BadRow::new(
            "no_transcript",
            format!("`{side}` is not a dialogue that has \"Human:\" and \"Assistant:\""),
        )),
    };
    let (chosen, response) = chosen.split_at(halves("chosen", chosen)?);
    let (prompt, rejected) = rejected.split_at(halves("rejected", rejected)?);
    if prompt != chosen {
        return Err(BadRow::new("prompts_differ", "the dialogues differ before their last answers"));
    }
    let text = |text: &str| plain("chosen/rejected", text.to_owned());
    Ok(match form {
        Form::Text => (Said::Text(text(prompt)?), Said::Text(text(response)?), Said::Text(text(rejected)?)),
        Form::Chat => (
            Said::Messages(turns(&text(prompt)?)),
            Said::Text(text(response.trim())?),
            Said::Text(text(rejected.trim())?),
        ),
    })
}

/// The turns of a transcript that ends with an open `Assistant:`.
fn turns(prompt: &str) -> Vec<Message> {
    let prompt = format!("\n\n{}", prompt.trim_start());
    let mut rest = prompt.strip_suffix(ASSISTANT).expect("the prompt was cut behind this word");
    let mut turns = Vec::new();
    while !rest.is_empty() {
        let (human, assistant) = (rest.rfind(HUMAN), rest.rfind(ASSISTANT));
        let at = human.max(assistant).expect("a transcript begins with a turn");
        let (role, word) = if human > assistant { ("user", HUMAN) } else { ("assistant", ASSISTANT) };
        turns.push(Message::new(role, rest[at + word.len()..].trim()));
        rest = &rest[..at];
    }
    turns.reverse();
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Said {
        Said::Text(text.to_owned())
    }

    #[test]
    fn what_both_texts_begin_with_is_the_prompt() {
        let check = |chosen: &str, rejected: &str, expected: [&str; 3]| {
            let (prompt, chosen, rejected) = split_shared(text(chosen), text(rejected)).unwrap();
            assert_eq!([prompt, chosen, rejected], expected.map(text));
        };
        // The examples of TRL's documentation: the space goes with the responses.
        check("The sky is blue.", "The sky is green.", ["The sky is", " blue.", " green."]);
        check("Größe: ä", "Größe: ö", ["Größe:", " ä", " ö"]);
        check("abc", "abcd", ["ab", "c", "cd"]);
        assert_eq!(split_shared(text("x"), text("y")).unwrap_err().reason, "no_shared_prompt");
        assert_eq!(split_shared(text(""), text("y")).unwrap_err().reason, "no_shared_prompt");
    }

    #[test]
    fn shared_messages_are_the_prompt() {
        let said = |texts: &[(&str, &str)]| {
            Said::Messages(texts.iter().map(|(role, content)| Message::new(role, *content)).collect())
        };
        let split =
            split_shared(said(&[("user", "q"), ("assistant", "a")]), said(&[("user", "q"), ("assistant", "b")]));
        assert_eq!(split.unwrap(), (said(&[("user", "q")]), said(&[("assistant", "a")]), said(&[("assistant", "b")])));
        let error = split_shared(said(&[("assistant", "a")]), said(&[("assistant", "b")])).unwrap_err();
        assert_eq!(error.reason, "no_shared_prompt");
    }

    #[test]
    fn transcripts_are_cut_at_the_last_answer() {
        let shared = "\n\nHuman: one?\n\nAssistant: 1.\n\nHuman: two?\n\nAssistant:";
        let (chosen, rejected) = (format!("{shared} 2."), format!("{shared} three"));
        let (prompt, good, bad) = split_transcripts(&chosen, &rejected, Form::Text).unwrap();
        assert_eq!([prompt, good, bad], [text(shared), text(" 2."), text(" three")]);
        let (prompt, good, bad) = split_transcripts(&chosen, &rejected, Form::Chat).unwrap();
        let turns = vec![Message::new("user", "one?"), Message::new("assistant", "1."), Message::new("user", "two?")];
        assert_eq!([prompt, good, bad], [Said::Messages(turns), text("2."), text("three")]);
        let other = "\n\nHuman: else?\n\nAssistant: x";
        assert_eq!(split_transcripts(&chosen, other, Form::Text).unwrap_err().reason, "prompts_differ");
        assert_eq!(split_transcripts(&chosen, "x", Form::Text).unwrap_err().reason, "no_transcript");
    }

    #[test]
    fn messages_of_other_tools_are_understood() {
        let read = |json: &str| Said::read("chosen", serde_json::from_str(json).unwrap());
        let expected = Said::Messages(vec![Message::new("user", "q"), Message::new("assistant", "a")]);
        assert_eq!(read(r#"[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]"#).unwrap(), expected);
        let parts = r#"[{"role":"user","content":[{"type":"text","text":"q"}]},{"role":"assistant","content":"a","tool_calls":null}]"#;
        assert_eq!(read(parts).unwrap(), expected);
        let one = Said::Messages(vec![Message::new("assistant", "a")]);
        assert_eq!(read(r#"{"from":"gpt","value":"a"}"#).unwrap(), one);
        for (json, detail) in [
            (r#"[{"role":"user","content":null}]"#, "column `chosen[0].content` is null, wanted text"),
            (r#"[{"role":"user"}]"#, "column `chosen[0]` is without `content`, wanted a message {role, content}"),
            (r#"["q"]"#, "column `chosen[0]` is the text \"q\", wanted a message {role, content}"),
            (
                r#"[{"role":"assistant","content":"","tool_calls":[{"id":1}]}]"#,
                "column `chosen[0]` is a message with tool calls, wanted one of text only",
            ),
            (r#"[]"#, "column `chosen` is an empty list, wanted messages"),
            (r#"17"#, "column `chosen` is the number 17, wanted text or messages"),
        ] {
            assert_eq!(read(json).unwrap_err().detail, detail);
        }
    }
}
