//! Dialogues that stand in one text: who speaks, by the marks before each turn.

use kit::Message;

use crate::bad_row::BadRow;
use crate::form::Form;
use crate::messages::{Content, Split, plain};

/// The mark before the turns of a dialogue in the files of HelpSteer 2.
const TURN: &str = "<extra_id_1>";

/// Marks that name the role between two brackets.
const BRACKETS: [[&str; 2]; 5] = [
    ["<|im_start|>", "\n"],
    ["<|start_header_id|>", "<|end_header_id|>"],
    ["<start_of_turn>", "\n"],
    ["<|", "|>"],
    ["<\u{ff5c}", "\u{ff5c}>"],
];
/// The marks around the user's text in the turns of Llama 2 and Mistral; the answer follows.
const INST: [&str; 2] = ["[INST]", "[/INST]"];
/// The marks around a system message there.
const SYS: [&str; 2] = ["<<SYS>>", "<</SYS>>"];
/// Marks before the first turn and behind each.
const ENDS: [&str; 8] =
    ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "</s>", "<|begin_of_text|>", "<bos>"];

/// The beginning of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark<'a> {
    role: &'static str,
    /// The word that names the role.
    word: &'a str,
    /// The first byte of the mark, and the first behind it.
    at: usize,
    end: usize,
}

/// A text with marks of turns.
#[derive(Debug)]
pub struct Dialogue<'a> {
    text: &'a str,
    marks: Vec<Mark<'a>>,
}

impl<'a> Dialogue<'a> {
    /// Finds the turns of a text that is a dialogue from its beginning on; with `### Instruction:`, words may stand
    /// before. Known are `Human:` and `Assistant:` and their like at the beginnings of lines, also as headings, the
    /// marks of ChatML, Llama, Gemma and Zephyr, and `[INST]`. Nothing where it is none, or nobody answers.
    pub fn find(text: &'a str) -> Option<Dialogue<'a>> {
        let marks = inst(text).or_else(|| brackets(text)).or_else(|| labels(text))?;
        let first = marks.first()?;
        let preamble = !without_ends(&text[..first.at]).is_empty();
        let instructions = ["instruction", "input"].iter().any(|word| first.word.eq_ignore_ascii_case(word));
        let answered = marks.iter().any(|mark| mark.role == "assistant");
        (answered && first.role != "assistant" && (instructions || !preamble)).then_some(Dialogue { text, marks })
    }

    /// Behind the mark of the last answer.
    fn last_answer(&self) -> usize {
        self.marks.iter().rev().find(|mark| mark.role == "assistant").expect("somebody answers").end
    }

    /// True where the user speaks after the last answer.
    fn goes_on(&self) -> bool {
        self.marks.last().is_some_and(|mark| mark.role != "assistant")
    }

    /// The messages before some place.
    fn turns(&self, until: usize) -> Vec<Message> {
        let before = without_ends(&self.text[..self.marks[0].at]);
        let mut turns: Vec<Message> = Vec::new();
        turns.extend((!before.is_empty()).then(|| Message::new("system", before)));
        let marks: Vec<&Mark<'_>> = self.marks.iter().filter(|mark| mark.end < until).collect();
        for (i, mark) in marks.iter().enumerate() {
            let end = self.marks.get(i + 1).map_or(self.text.len(), |next| next.at);
            let mut said = without_ends(&self.text[mark.end..end]);
            if let Some((system, rest)) = said.strip_prefix(SYS[0]).and_then(|rest| rest.split_once(SYS[1])) {
                turns.push(Message::new("system", system.trim()));
                said = rest.trim();
            }
            match turns.last_mut() {
                // The input of an instruction is part of it, as where it has a column of its own.
                Some(last) if mark.word.eq_ignore_ascii_case("input") => last.content += &format!("\n{said}"),
                _ => turns.push(Message::new(mark.role, said)),
            }
        }
        turns
    }
}

/// A text without white space and marks of beginning and end around it.
fn without_ends(text: &str) -> &str {
    let mut text = text.trim();
    loop {
        let begun = ENDS.iter().chain(&["<s>"]).find_map(|end| text.strip_prefix(end));
        match begun.or_else(|| ENDS.iter().find_map(|end| text.strip_suffix(end))) {
            Some(rest) => text = rest.trim(),
            None => return text,
        }
    }
}

fn role(word: &str) -> Option<&'static str> {
    let known = [
        ("user", "user human prompter instruction input"),
        ("assistant", "assistant model gpt bot chatbot ai response"),
        ("system", "system developer"),
    ];
    let word = word.to_ascii_lowercase();
    known.iter().find(|(_, words)| words.split(' ').any(|known| known == word)).map(|(role, _)| *role)
}

fn inst(text: &str) -> Option<Vec<Mark<'_>>> {
    let of = |mark: &'static str, role| {
        text.match_indices(mark).map(move |(at, word)| Mark { role, word, at, end: at + word.len() })
    };
    let mut marks: Vec<_> = of(INST[0], "user").chain(of(INST[1], "assistant")).collect();
    marks.sort_by_key(|mark| mark.at);
    (!marks.is_empty()).then_some(marks)
}

fn brackets(text: &str) -> Option<Vec<Mark<'_>>> {
    BRACKETS.iter().find_map(|[open, close]| {
        let mark = |(at, _): (usize, &str)| {
            let inner = &text[at + open.len()..];
            let (word, _) = inner.split_once(close)?;
            let role = role(word.trim())?;
            let mut end = at + open.len() + word.len() + close.len();
            // A line's end behind the mark is part of it.
            end += if *close == "\n" { 0 } else { text[end..].bytes().take_while(|byte| *byte == b'\n').count() };
            Some(Mark { role, word, at, end })
        };
        let marks: Vec<_> = text.match_indices(open).filter_map(mark).collect();
        (!marks.is_empty()).then_some(marks)
    })
}

/// Marks at the beginnings of lines: those of the first user and of the first answer, as they are written there, and a
/// system message before.
fn labels(text: &str) -> Option<Vec<Mark<'_>>> {
    let all: Vec<(Mark<'_>, bool)> = lines(text).filter_map(|at| label(text, at)).collect();
    let first = |role: &str| all.iter().find(|(mark, _)| mark.role == role);
    let ((user, hashes), (answer, _)) = (first("user")?, first("assistant")?);
    // Where a blank line is before the answer, as in the files of HH, a line of an answer is no turn without one.
    let blank = |at: usize| text[..at].trim_end_matches([' ', '\t']).ends_with("\n\n");
    let (apart, written) = (blank(answer.at), |mark: &Mark<'_>| [user, answer].iter().any(|it| it.word == mark.word));
    let begins = |at: usize| text[..at].trim().is_empty();
    let marks = all.iter().filter(|(mark, has)| {
        let known =
            written(mark) || (mark.role == "system" && mark.at < user.at) || mark.word.eq_ignore_ascii_case("input");
        known && has == hashes && (!apart || blank(mark.at) || begins(mark.at))
    });
    Some(marks.map(|(mark, _)| *mark).collect())
}

/// The beginnings of lines.
fn lines(text: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1))
}

/// The label that a line begins with, and whether it is a heading: `Human:`, `**User:**`, `<bot>:`, `### Response:`.
fn label(text: &str, at: usize) -> Option<(Mark<'_>, bool)> {
    let line = text[at..].split('\n').next().unwrap_or_default();
    let hashes = line.trim_start().starts_with("###");
    let unmarked = if hashes { line.trim_start().trim_start_matches('#') } else { line };
    let begun = unmarked.trim_start().trim_start_matches(['*', '<']);
    let length = begun.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (word, rest) = begun.split_at(length);
    let role = role(word)?;
    let one_of = |words: &[&str]| words.iter().any(|it| word.eq_ignore_ascii_case(it));
    if one_of(&["model", "developer"]) || (!hashes && one_of(&["instruction", "input", "response"])) {
        return None;
    }
    let behind = rest.trim_start_matches(['*', '>']).trim_start();
    let end = match behind.strip_prefix(':') {
        Some(said) => said.trim_start_matches('*'),
        None if hashes && behind.trim().is_empty() => behind,
        None => return None,
    };
    let mark = Mark { role, word, at: at + (line.len() - line.trim_start().len()), end: at + line.len() - end.len() };
    Some((mark, hashes))
}

/// True where a text has marks of turns, also marks whose dialogues cannot be read whole.
pub fn has_marks(text: &str) -> bool {
    let begins = |at: usize| text[..at].trim().is_empty();
    let line =
        |at| label(text, at).is_some_and(|(mark, _)| mark.role == "assistant" || (mark.role == "user" && begins(at)));
    let inline = |word: &str| {
        let mut at = text.match_indices(word).map(|(at, _)| at);
        at.any(|at| text[..at].ends_with([' ', '>', '\n']) || begins(at))
    };
    let signs = [TURN, "<|im_start|>", INST[0], INST[1]];
    signs.iter().any(|sign| text.contains(sign))
        || brackets(text).is_some()
        || lines(text).any(line)
        || ["ASSISTANT:", "USER:", "HUMAN:"].iter().any(|word| inline(word))
}

/// The messages of a prompt that is a dialogue as text: one that ends with an open answer, as beside the responses of
/// HH and Nectar, or one with the marks of HelpSteer 2. Nothing where it is plain text.
pub fn dialogue(prompt: &str) -> Option<Vec<Message>> {
    let found = Dialogue::find(prompt.trim_end());
    if let Some(found) = found.filter(|found| found.last_answer() == found.text.len()) {
        return Some(found.turns(found.text.len()));
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

/// True where a text is a dialogue of Anthropic's HH files.
pub fn is_transcript(text: &str) -> bool {
    text.trim_start().starts_with("Human:") && text.contains("\n\nAssistant:")
}

/// Splits two dialogues at the mark of their last answers. As raw text the prompt ends with that mark, as in the code
/// of the DPO paper; in chat form the turns become messages, without white space and marks of their ends. Tells besides
/// whether the user speaks after the last answer of a side.
///
/// # Errors
/// When a side is no dialogue, or what comes before the last answers differs.
pub fn split_dialogues(chosen: &str, rejected: &str, form: Form) -> Result<(Split, bool), BadRow> {
    let halves = |side: &str, text| {
        let found = Dialogue::find(text).ok_or_else(|| {
            let detail = format!(
                "`{side}` is not a dialogue that has \"Human:\" and \"Assistant:\", or other marks that are known; write \
                 it as a list of messages {{role, content}}, or give the prompt in a column of its own"
            );
            BadRow::new("no_transcript", detail)
        })?;
        let at = found.last_answer();
        Ok((found, at))
    };
    let ((first, at), (second, end)) = (halves("chosen", chosen)?, halves("rejected", rejected)?);
    let (prompt, good, bad) = (&chosen[..at], &chosen[at..], &rejected[end..]);
    if prompt != &rejected[..end] {
        return Err(BadRow::new("prompts_differ", "the dialogues differ before their last answers"));
    }
    let text = |text: &str| plain("chosen/rejected", text.to_owned()).map(Content::Text);
    let split = match form {
        Form::Text => (text(prompt)?, text(good)?, text(bad)?),
        Form::Chat => {
            text(prompt)?;
            (Content::Messages(first.turns(at)), text(without_ends(good))?, text(without_ends(bad))?)
        }
    };
    Ok((split, first.goes_on() || second.goes_on()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Content {
        Content::Text(text.to_owned())
    }

    #[test]
    fn transcripts_are_cut_at_the_last_answer() {
        let shared = "\n\nHuman: one?\n\nAssistant: 1.\n\nHuman: two?\n\nAssistant:";
        let (chosen, rejected) = (format!("{shared} 2.\nUser: x\nHuman: y"), format!("{shared} three"));
        let ((prompt, good, bad), _) = split_dialogues(&chosen, &rejected, Form::Text).unwrap();
        assert_eq!([prompt, good, bad], [text(shared), text(" 2.\nUser: x\nHuman: y"), text(" three")]);
        let ((prompt, good, bad), _) = split_dialogues(&chosen, &rejected, Form::Chat).unwrap();
        let turns = vec![Message::new("user", "one?"), Message::new("assistant", "1."), Message::new("user", "two?")];
        assert_eq!([prompt, good, bad], [Content::Messages(turns), text("2.\nUser: x\nHuman: y"), text("three")]);
        let other = "\n\nHuman: else?\n\nAssistant: x";
        let refused = |chosen: &str, rejected: &str| split_dialogues(chosen, rejected, Form::Text).unwrap_err().reason;
        assert_eq!(refused(&chosen, other), "prompts_differ");
        assert_eq!(refused(&chosen, "x"), "no_transcript");
        let later = |word: &str| format!("{other}\n\nHuman: {word}");
        assert!(split_dialogues(&later("y"), &later("z"), Form::Text).unwrap().1);
    }

    #[test]
    fn known_marks_are_turns() {
        let check = |shared: &str, ends: &str, expected: &[(&str, &str)]| {
            let side = |answer: &str| format!("{shared}It is {answer}.{ends}");
            let (chosen, rejected) = (side("three"), side("blue"));
            let messages = expected.iter().map(|&(role, content)| Message::new(role, content)).collect();
            let split = split_dialogues(&chosen, &rejected, Form::Chat).unwrap();
            let expected = ((Content::Messages(messages), text("It is three."), text("It is blue.")), false);
            assert_eq!(split, expected, "{shared}");
            let ((Content::Text(prompt), Content::Text(good), _), _) =
                split_dialogues(&chosen, &rejected, Form::Text).unwrap()
            else {
                panic!("{shared}")
            };
            assert_eq!(format!("{prompt}{good}"), chosen);
            assert_eq!(prompt.trim_end(), shared.trim_end());
            assert!(has_marks(&format!("{shared}It is")));
        };
        let one = [("user", "What?")];
        for [user, assistant] in [
            ["Human: ", "Assistant: "],
            ["HUMAN: ", "ASSISTANT: "],
            ["\n\nHUMAN: ", "Assistant: "],
            ["User: ", "Assistant: "],
            ["user: ", "bot: "],
            ["### Human: ", "### Assistant: "],
            ["### Instruction:\n", "### Response:\n"],
            ["###Instruction\n", "###Response\n"],
            ["**User:** ", "**Assistant:** "],
            ["**User**: ", "**AI**: "],
            ["<human>: ", "<bot>: "],
        ] {
            check(&format!("{user}What?\n{assistant}"), "", &one);
            check(&format!("{user}What?\n\n{assistant}"), "", &one);
            let more = [("user", "What?"), ("assistant", "a\nb: c"), ("user", "And?")];
            check(&format!("{user}What?\n\n{assistant}a\nb: c\n\n{user}And?\n\n{assistant}"), "\n", &more);
        }
        let chat =
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n";
        check(chat, "<|im_end|>\n", &[("system", "Be brief."), ("user", "What?")]);
        let llama = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhat?<|eot_id|>\
                     <|start_header_id|>assistant<|end_header_id|>\n\n";
        check(llama, "<|eot_id|>", &one);
        check("<bos><start_of_turn>user\nWhat?<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>", &one);
        check("<|user|>\nWhat?</s>\n<|assistant|>\n", "</s>", &one);
        check("<|prompter|>What?<|endoftext|><|assistant|>", "<|endoftext|>", &one);
        check("[INST] What? [/INST] ", "", &one);
        check("<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat? [/INST] ", " </s>", &[("system", "Be brief."), one[0]]);
        let alpaca = "Below is an instruction.\n\n### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n";
        check(alpaca, "", &[("system", "Below is an instruction."), ("user", "Add.\n1 and 2")]);
        check("System: Be brief.\nUser: What?\nAssistant: ", "", &[("system", "Be brief."), one[0]]);
    }

    #[test]
    fn other_marks_are_seen_and_plain_text_has_none() {
        for text in
            ["A chat. USER: What? ASSISTANT: It is", "User: What?\nRobot: It is", "Some words.\n\nAssistant: It"]
        {
            assert!(has_marks(text) && Dialogue::find(text).is_none(), "{text}");
        }
        for text in [
            "The user: it",
            "What is 1? It is",
            "a <b> c: d",
            "System: x",
            "An assistant: x",
            "### Response time",
            "# Model\n",
            "q\n### Input\n",
        ] {
            assert!(!has_marks(text), "{text}");
        }
    }

    #[test]
    fn prompts_that_are_dialogues_become_messages() {
        let expected =
            vec![Message::new("user", "one?"), Message::new("assistant", "1."), Message::new("user", "two?")];
        let hh = "\n\nHuman: one?\n\nAssistant: 1.\n\nHuman: two?\n\nAssistant: ";
        assert_eq!(dialogue(hh), Some(expected.clone()));
        assert_eq!(dialogue("[INST] one? [/INST] 1.</s>[INST] two? [/INST]"), Some(expected.clone()));
        let marked = "one?\n<extra_id_1>Assistant\n1.\n<extra_id_1>User\ntwo?";
        assert_eq!(dialogue(marked), Some(expected.clone()));
        assert_eq!(dialogue(&format!("{marked}\n<extra_id_1>Assistant\n")), Some(expected));
        for text in ["What does \n\nHuman: mean?", "\n\nHuman: q\n\nAssistant: a", "q <extra_id_1> x", ""] {
            assert_eq!(dialogue(text), None, "{text}");
        }
    }
}
