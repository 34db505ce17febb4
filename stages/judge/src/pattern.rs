//! The verdict in a text: a regular expression finds it, and a list of words says which side it names.

use regex::Regex;

use crate::labels::Labels;
use crate::modes::{Reasoning, Take};

/// The name of the group that captures the verdict.
const GROUP: &str = "verdict";

/// A side, by its place in the question, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    First,
    Second,
    Tie,
}

/// A compiled pattern with its words.
pub(crate) struct Pattern<'a> {
    regex: Regex,
    group: usize,
    take: Take,
    words: Vec<(&'a str, Named)>,
}

impl<'a> Pattern<'a> {
    /// # Errors
    /// A pattern that is no regular expression, or captures nothing.
    pub(crate) fn compile(reasoning: &'a Reasoning, labels: &'a Labels) -> Result<Pattern<'a>, String> {
        let regex = Regex::new(&reasoning.pattern).map_err(|error| {
            let last = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            format!("is no regular expression: {last}")
        })?;
        let named = regex.capture_names().position(|name| name == Some(GROUP));
        let group = named.unwrap_or(1);
        if group >= regex.captures_len() {
            return Err(format!("captures nothing; put the verdict in brackets, or in a group `(?<{GROUP}>...)`"));
        }
        let words = |texts: &'a [String], named: Named| texts.iter().map(move |text| (text.trim(), named));
        let words = words(&labels.first, Named::First)
            .chain(words(&labels.second, Named::Second))
            .chain(words(&reasoning.ties, Named::Tie))
            .collect();
        Ok(Pattern { regex, group, take: reasoning.take, words })
    }

    /// Words that stand for two things.
    pub(crate) fn ambiguous(&self) -> Option<String> {
        let mut words = self.words.iter().enumerate();
        let (_, (word, _)) = words.find(|(at, (word, named))| {
            self.words[..*at].iter().any(|(other, means)| other == word && means != named)
        })?;
        Some(format!("{word:?} stands for two verdicts, in `labels` and `reasoning.ties`"))
    }

    /// The verdict in an answer; none where nothing matches, or where what is captured is none of the words.
    pub(crate) fn read(&self, answer: &str) -> Option<Named> {
        let mut matches = self.regex.captures_iter(answer);
        let found = match self.take {
            Take::First => matches.next(),
            Take::Last => matches.last(),
        };
        let captured = found?.get(self.group)?.as_str().trim();
        self.words.iter().find(|(word, _)| *word == captured).map(|(_, named)| *named)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reasoning(more: Value) -> Reasoning {
        let all = json!({"samples": 2, "temperature": 1.0, "max_tokens": 9, "pattern": r"\[\[(A|B|C|D)\]\]",
            "take": "last", "ties": ["C"]});
        serde_json::from_value(harness::with(all, &more)).unwrap()
    }

    fn read(more: Value, answer: &str) -> Option<Named> {
        Pattern::compile(&reasoning(more), &Labels::default()).unwrap().read(answer)
    }

    #[test]
    fn the_last_or_the_first_match_counts() {
        let text = "[[A]] seems good. On reflection: [[B]]";
        assert_eq!(read(json!({}), text), Some(Named::Second));
        assert_eq!(read(json!({"take": "first"}), text), Some(Named::First));
        assert_eq!(read(json!({}), "[[C]]"), Some(Named::Tie));
        assert_eq!(read(json!({}), "no verdict"), None);
        // The match that counts names nobody: another one does not step in.
        assert_eq!(read(json!({}), "[[A]] or [[D]]"), None);
    }

    #[test]
    fn the_named_group_captures_and_white_space_is_left_out() {
        let pattern = json!({"pattern": r"(?i)(better|worse) is:(?<verdict>.*)"});
        assert_eq!(read(pattern.clone(), "Better is:  A \n"), Some(Named::First));
        assert_eq!(read(pattern, "better is: a"), None, "words are compared letter by letter");
        // A group that takes no part in the match.
        assert_eq!(read(json!({"pattern": "x(?<verdict>A)?"}), "x"), None);
    }

    #[test]
    fn patterns_that_cannot_work_are_explained() {
        let labels = Labels::default();
        let check = |pattern: &str, words: &str| {
            let reasoning = reasoning(json!({"pattern": pattern}));
            let error = Pattern::compile(&reasoning, &labels).err().unwrap();
            assert!(error.contains(words), "{error}");
        };
        check(r"\[\[(A|B", "is no regular expression: error: unclosed group");
        check("A|B", "captures nothing");
        let twice = reasoning(json!({"ties": ["tie", " A"]}));
        let text = Pattern::compile(&twice, &labels).unwrap().ambiguous().unwrap();
        assert!(text.starts_with("\"A\" stands for two verdicts"), "{text}");
    }
}
