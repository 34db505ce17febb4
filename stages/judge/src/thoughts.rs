//! Thoughts of a model before its answer, such as between `<think>` and `</think>`.

use kit::Result;
use lm::{Finish, Generation, Sequence, Text};
use tokens::lm_error;

/// A text in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) thoughts: Option<String>,
    /// None where the thoughts do not end.
    pub(crate) answer: Option<String>,
}

/// Parts a text at the last closing mark. `opened`: the opening mark stands before the text already.
pub(crate) fn part(text: &str, opened: bool, marks: &[String; 2]) -> Parts {
    let [open, close] = marks;
    let thoughts = |text: &str| {
        let text = text.trim();
        let text = text.strip_prefix(open.as_str()).unwrap_or(text).trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let (begins, ends) = (text.rfind(open.as_str()), text.rfind(close.as_str()));
    match (begins, ends) {
        (Some(begins), ends) if ends.is_none_or(|ends| ends < begins) => {
            Parts { thoughts: thoughts(text), answer: None }
        }
        (_, Some(ends)) => {
            Parts { thoughts: thoughts(&text[..ends]), answer: Some(text[ends + close.len()..].trim().to_owned()) }
        }
        (_, None) if opened => Parts { thoughts: thoughts(text), answer: None },
        (_, None) => Parts { thoughts: None, answer: Some(text.trim().to_owned()) },
    }
}

/// The parts of what a decoder wrote behind a prompt. Marks are found as well where they are special tokens, which a
/// generation's text leaves out.
pub(crate) fn of_generation(
    text: &Text,
    prompt: &Sequence,
    generation: &Generation,
    marks: &[String; 2],
    stop: &[String],
) -> Result<Parts> {
    let ended = usize::from(generation.finish == Finish::Eos);
    let ids = &generation.ids[..generation.ids.len() - ended];
    let (before, _) = text.spelled(prompt).map_err(lm_error)?;
    let opened = before.trim_end().ends_with(marks[0].as_str());
    let spelled = |ids: &[u32]| text.spelled(&Sequence::new(ids.to_vec(), 0)).map(|(_, all)| all).map_err(lm_error);
    let all = spelled(ids)?;
    let hidden = marks.iter().any(|mark| all.contains(mark.as_str()) && !generation.text.contains(mark.as_str()));
    if !hidden {
        return Ok(part(&generation.text, opened, marks));
    }
    let parts = part(&all, opened, marks);
    if parts.answer.is_none() {
        return Ok(parts);
    }
    // The shortest beginning that has all closing marks: the answer is what follows, without special tokens.
    let count = |text: &str| text.matches(marks[1].as_str()).count();
    let (mut low, mut high, closing) = (0, ids.len(), count(&all));
    while low < high {
        let middle = usize::midpoint(low, high);
        if count(&spelled(&ids[..middle])?) >= closing { high = middle } else { low = middle + 1 }
    }
    let answer = text.decode(&ids[low..]).map_err(lm_error)?;
    let end = stop.iter().filter_map(|stop| answer.find(stop.as_str())).min().unwrap_or(answer.len());
    Ok(Parts { answer: Some(answer[..end].trim().to_owned()), ..parts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_stands_behind_the_last_closing_mark() {
        let check = |text: &str, opened: bool, thoughts: Option<&str>, answer: Option<&str>| {
            let marks = ["<think>".to_owned(), "</think>".to_owned()];
            let expected = Parts { thoughts: thoughts.map(str::to_owned), answer: answer.map(str::to_owned) };
            assert_eq!(part(text, opened, &marks), expected, "{text}");
        };
        check("B is better. [[B]]", false, None, Some("B is better. [[B]]"));
        check("<think>\n[[A]]?\n</think>\n\n[[B]]", false, Some("[[A]]?"), Some("[[B]]"));
        // The template has opened the thoughts.
        check("[[A]]?\n</think>\n[[B]]", true, Some("[[A]]?"), Some("[[B]]"));
        check("[[A]]? hm", true, Some("[[A]]? hm"), None);
        // Thoughts that were cut off say nothing.
        check("<think>[[A]]? hm", false, Some("[[A]]? hm"), None);
        check("<think>x</think>y<think>[[A]]", false, Some("x</think>y<think>[[A]]"), None);
        check("<think></think>[[A]]", false, None, Some("[[A]]"));
        check("", false, None, Some(""));
    }
}
