//! Two sides without a prompt beside them: what both begin with, and where it ends.

use crate::bad_row::BadRow;
use crate::dialogue::{Dialogue, has_marks, split_dialogues};
use crate::messages::{Content, Split};
use crate::row::{Doubt, Row};

/// A prompt that was found as the common beginning and is perhaps none.
const UNFINISHED: Doubt = Doubt {
    figure: "prompts that end inside a sentence",
    warning: "have a prompt, found as what both sides begin with, that ends inside a sentence, so that the responses begin \
              there; if it is to end elsewhere, write it in a column `prompt`",
};

impl Row<'_> {
    /// Splits two texts or conversations into what they share at the beginning, the prompt, and two responses. Texts
    /// that are dialogues are split at the last answer; others as TRL's `extract_prompt` does, but never inside a word,
    /// JSON or code: a space before the first difference goes with the responses, and where one side is the beginning
    /// of the other, its last word or message is its response.
    ///
    /// # Errors
    /// When they share nothing, differ where no prompt can end, or one is text and the other messages.
    pub fn split_shared(&mut self, chosen: Content, rejected: Content) -> Result<Split, BadRow> {
        let nothing = "there is no prompt column, and `chosen` and `rejected` begin differently";
        let nothing = || BadRow::new("no_shared_prompt", nothing);
        match (chosen, rejected) {
            (Content::Text(chosen), Content::Text(rejected)) => {
                let same = chosen.chars().zip(rejected.chars()).take_while(|(a, b)| a == b);
                let same = same.map(|(a, _)| a.len_utf8()).sum();
                if has_marks(&chosen[..same]) || (is_dialogue(&chosen) && is_dialogue(&rejected)) {
                    return self.split_dialogues(&chosen, &rejected);
                }
                let (at, structured) = cut(&chosen, &rejected, same);
                if structured && (at == 0 || chosen[at..same].contains("\"role") || chosen[at..same].contains("'role"))
                {
                    let detail = "there is no prompt column, and `chosen` and `rejected` differ inside JSON or code, where \
                                  no prompt ends; give the prompt in a column, or whole conversations as lists of messages \
                                  {role, content}";
                    return Err(BadRow::new("inside_json", detail));
                }
                if chosen[..at].trim().is_empty() {
                    return Err(nothing());
                }
                if is_unfinished(&chosen[..at]) {
                    self.doubt(UNFINISHED);
                }
                let text = |text: &str| Content::Text(text.to_owned());
                Ok((text(&chosen[..at]), text(&chosen[at..]), text(&rejected[at..])))
            }
            (Content::Messages(mut chosen), Content::Messages(mut rejected)) => {
                let same = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
                let at = same.min(chosen.len() - 1).min(rejected.len() - 1);
                if at == 0 {
                    return Err(nothing());
                }
                let rejected = rejected.split_off(at);
                let response = chosen.split_off(at);
                Ok((Content::Messages(chosen), Content::Messages(response), Content::Messages(rejected)))
            }
            _ => Err(BadRow::new("mixed_sides", "one of `chosen` and `rejected` is text and the other messages")),
        }
    }

    /// Splits two dialogues at their last answers.
    ///
    /// # Errors
    /// When a side is no dialogue, or what comes before the last answers differs.
    pub fn split_dialogues(&mut self, chosen: &str, rejected: &str) -> Result<Split, BadRow> {
        let (split, goes_on) = split_dialogues(chosen, rejected, self.form)?;
        if goes_on {
            return Err(BadRow::new("no_answer", "a dialogue ends with the user's words, wanted an answer"));
        }
        self.count("pairs of dialogues as text, split at their last answers");
        Ok(split)
    }
}

/// True where a text is a dialogue from its beginning on.
pub fn is_dialogue(text: &str) -> bool {
    Dialogue::find(text).is_some()
}

/// End of the prompt that two texts share up to some byte; true where JSON or code begins there.
fn cut(chosen: &str, rejected: &str, same: usize) -> (usize, bool) {
    let mut at = same;
    let before = |at: usize| chosen[..at].chars().next_back().map_or(0, char::len_utf8);
    if at == chosen.len() || at == rejected.len() {
        at -= before(at);
    }
    let structure = open_structure(chosen, at);
    at = structure.unwrap_or(at);
    while at > 0 && [chosen, rejected].iter().any(|text| inside_word(text, at)) {
        at -= before(at);
    }
    if chosen[..at].ends_with(' ') {
        at -= 1;
    }
    (at, structure.is_some())
}

/// True where a word, a number or a letter with its marks continues at a place.
fn inside_word(text: &str, at: usize) -> bool {
    // Scripts without spaces between words have a word in every letter.
    let spaceless = |letter: char| {
        matches!(letter, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{a4cf}')
            || matches!(letter, '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
    };
    let joined = |letter: char| matches!(letter, '\u{300}'..='\u{36f}' | '\u{200d}' | '\u{fe0f}' | '\u{20e3}' | '\u{1f3fb}'..='\u{1f3ff}');
    let worded = |letter: &char| letter.is_alphanumeric() && !spaceless(*letter);
    let connects = |letter: &char| "'’.,_-".contains(*letter);
    let (mut before, mut after) = (text[..at].chars().rev(), text[at..].chars());
    let (Some(last), Some(next)) = (before.next(), after.next()) else { return false };
    let (earlier, later) = (before.next(), after.next());
    joined(next)
        || last == '\u{200d}'
        || (worded(&last) && worded(&next))
        || (worded(&last) && connects(&next) && later.is_some_and(|it| worded(&it)))
        || (connects(&last) && worded(&next) && earlier.is_some_and(|it| worded(&it)))
}

/// Beginning of the outermost JSON, list as Python prints it, or fenced code that is open at a place.
fn open_structure(text: &str, at: usize) -> Option<usize> {
    let fences = text.match_indices("```").map(|(fence, _)| fence);
    let fences: Vec<usize> = fences
        .filter(|fence| *fence < at && text[..*fence].trim_end_matches(' ').ends_with(['\n']) || *fence == 0)
        .collect();
    let fence = (fences.len() % 2 == 1).then(|| fences[fences.len() - 1]);
    let bytes = text.as_bytes();
    let filled = |from: usize| bytes[from..].iter().copied().find(|byte| !byte.is_ascii_whitespace());
    // Where it began, how deep the place is in it, and the quote that is open.
    let (mut start, mut depth, mut quote, mut last) = (None, 0_usize, None, b' ');
    let mut i = 0;
    while i < at {
        let byte = bytes[i];
        match (start, quote) {
            (None, _) => {
                let next = filled(i + 1);
                let begins = match byte {
                    b'{' => matches!(next, Some(b'"' | b'\'')),
                    b'[' => matches!(next, Some(b'"' | b'\'' | b'{' | b'[')),
                    b'"' => matches!(bytes.get(i + 1), Some(b'[' | b'{' | b'\\')),
                    _ => false,
                };
                if begins {
                    (start, depth, quote) = if byte == b'"' { (Some(i), 0, Some(byte)) } else { (Some(i), 1, None) };
                }
            }
            (Some(_), Some(_)) if byte == b'\\' => i += 1,
            (Some(_), Some(b'\''))
                if byte == b'\'' && !matches!(filled(i + 1), Some(b',' | b':' | b']' | b'}' | b')')) => {}
            (Some(_), Some(open)) if byte == open => quote = None,
            (Some(_), Some(_)) => {}
            (Some(_), None) => match byte {
                b'"' => quote = Some(byte),
                b'\'' if b"[{,:(".contains(&last) => quote = Some(byte),
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            },
        }
        if start.is_some() && depth == 0 && quote.is_none() {
            start = None;
        }
        last = if byte.is_ascii_whitespace() { last } else { byte };
        i += 1;
    }
    [start, fence].into_iter().flatten().min()
}

/// True where a text ends inside a sentence: in no line of its own, and behind no sign that closes one.
fn is_unfinished(text: &str) -> bool {
    let said = text.trim_end();
    let closed = said.trim_end_matches(['"', '\'', '”', '’', ')', ']', '}', '*', '_', '`']);
    !text[said.len()..].contains('\n')
        && !closed.ends_with(['.', '?', '!', ':', ';', '…', '。', '？', '！', '：', '>', '|', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_ends_between_words() {
        let check = |chosen: &str, rejected: &str, expected: [&str; 3]| {
            let same =
                chosen.chars().zip(rejected.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
            let (at, _) = cut(chosen, rejected, same);
            assert_eq!([&chosen[..at], &chosen[at..], &rejected[at..]], expected);
        };
        // The examples of TRL's documentation: the space goes with the responses.
        check("The sky is blue.", "The sky is green.", ["The sky is", " blue.", " green."]);
        check("Größe: ä", "Größe: ö", ["Größe:", " ä", " ö"]);
        check("The sky is blue.", "The sky is black.", ["The sky is", " blue.", " black."]);
        check("1 + 2?\nthree", "1 + 2?\ntwo", ["1 + 2?\n", "three", "two"]);
        check("Pi is 3.14", "Pi is 3.2", ["Pi is", " 3.14", " 3.2"]);
        check("So: don't", "So: do", ["So:", " don't", " do"]);
        check("So? Yes", "So? Yes, sure", ["So?", " Yes", " Yes, sure"]);
        check("天空是蓝", "天空是绿", ["天空是", "蓝", "绿"]);
        check("What? e\u{301}", "What? e\u{300}", ["What?", " e\u{301}", " e\u{300}"]);
        check("abc", "abcd", ["", "abc", "abcd"]);
    }

    #[test]
    fn a_prompt_ends_before_json_and_code() {
        let check =
            |text: &str, expected: Option<usize>| assert_eq!(open_structure(text, text.len()), expected, "{text}");
        for (text, expected) in [
            ("Say it: {\"a\": [1, \"x", Some(8)),
            ("Say it: {\"a\": \"}", Some(8)),
            ("Say it: {\"a\": 1} and then", None),
            ("[{'role': 'user', 'content': 'It's [", Some(0)),
            ("\"[{\\\"role\\\": \\\"user\\\", \\\"content\\\": \\\"What", Some(0)),
            ("He said \"[sic] no\". It", None),
            ("f[1] {x} [a, b", None),
            ("Write.\n```python\ndef f(x):\n    return", Some(7)),
            ("```json\n[{\"role", Some(0)),
            ("```\na\n```\nIt is", None),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn sentences_are_told_from_their_beginnings() {
        for text in ["What is 1?", "Question: x\n", "Answer:", "He said \"no.\"", "It is so. ", "###"] {
            assert!(!is_unfinished(text), "{text}");
        }
        for text in ["The sky is", "What is 1? It is", "one,", "天空是"] {
            assert!(is_unfinished(text), "{text}");
        }
    }
}
