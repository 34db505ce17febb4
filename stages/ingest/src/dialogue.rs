//! Dialogues that stand in one text.

use kit::Message;

use crate::bad_row::BadRow;
use crate::format::Form;
use crate::messages::{Said, Split, plain};

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// What stands before the turns of a dialogue in the files of HelpSteer 2.
const TURN: &str = "<extra_id_1>";

/// The messages of a prompt that is a dialogue as text: one that ends with an open `Assistant:`, as beside the
/// responses of HH and Nectar, or one with the marks of HelpSteer 2. Nothing where it is plain text.
pub fn dialogue(prompt: &str) -> Option<Vec<Message>> {
    if is_transcript(prompt) && prompt.trim_end().ends_with(ASSISTANT) {
        return Some(turns(prompt.trim_end()));
    }
    let parts: Vec<&str> = prompt.split(TURN).collect();
    let (first, rest) = parts.split_first().filter(|(first, rest)| !first.trim().is_empty() && !rest.is_empty())?;
    let turn = |part: &&str| {
        let (role, text) = part.split_once('\n')?;
        let role = match role.trim() {
            "User" => "user",
            "Assistant" => "assistant",
            _ => return None,
        };
        Some(Message::new(role, text.trim()))
    };
    let mut turns = rest.iter().map(turn).collect::<Option<Vec<_>>>()?;
    // A turn of the assistant that is still to be said.
    turns.pop_if(|last| last.role == "assistant" && last.content.is_empty());
    Some(std::iter::once(Message::new("user", first.trim())).chain(turns).collect())
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
    fn prompts_that_are_dialogues_become_messages() {
        let expected =
            vec![Message::new("user", "one?"), Message::new("assistant", "1."), Message::new("user", "two?")];
        let hh = "\n\nHuman: one?\n\nAssistant: 1.\n\nHuman: two?\n\nAssistant: ";
        assert_eq!(dialogue(hh), Some(expected.clone()));
        let marked = "one?\n<extra_id_1>Assistant\n1.\n<extra_id_1>User\ntwo?";
        assert_eq!(dialogue(marked), Some(expected.clone()));
        assert_eq!(dialogue(&format!("{marked}\n<extra_id_1>Assistant\n")), Some(expected));
        for text in ["What does \n\nHuman: mean?", "\n\nHuman: q\n\nAssistant: a", "q <extra_id_1> x", ""] {
            assert_eq!(dialogue(text), None, "{text}");
        }
    }
}
