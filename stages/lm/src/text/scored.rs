//! The parts of a rendered text that are scored, marked by borders in it.

use std::ops::Range;

use crate::error::{Error, Result};

/// Two private characters that stand before and after what is scored, and a third that stands in for an answer. They
/// are taken out before a text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Borders {
    open: char,
    close: char,
    stand_in: char,
}

/// The last private characters of Unicode; special tokens are marked with the first ones.
const LAST: u32 = 0x10_FFFD;
const FIRST: u32 = 0x10_0000;

impl Borders {
    /// Borders that occur in none of some texts.
    pub(crate) fn beside(texts: &[String]) -> Result<Borders> {
        let mut last = LAST;
        while last > FIRST + 2 {
            let taken = |character: char| (last - 2..=last).contains(&u32::from(character));
            if !texts.iter().any(|text| text.chars().any(taken)) {
                let private = |code: u32| char::from_u32(code).expect("inside the private planes");
                return Ok(Borders { open: private(last - 2), close: private(last - 1), stand_in: private(last) });
            }
            last -= 3;
        }
        Err(Error::input("a text uses every private character of Unicode; none is left as a mark"))
    }

    /// Text between borders.
    pub(crate) fn enclose(&self, text: &str) -> String {
        format!("{}{text}{}", self.open, self.close)
    }

    /// Borders around some spans of a text, in order.
    pub(crate) fn around(&self, text: &str, spans: &[Range<usize>]) -> String {
        let (mut out, mut copied) = (String::with_capacity(text.len() + 16), 0);
        for span in spans {
            out.push_str(&text[copied..span.start]);
            out.push_str(&self.enclose(&text[span.clone()]));
            copied = span.end;
        }
        out + &text[copied..]
    }

    /// The border before what is scored.
    pub(crate) fn open(self) -> String {
        self.open.to_string()
    }

    /// The border after what is scored.
    pub(crate) fn close(self) -> String {
        self.close.to_string()
    }

    /// The stand-in for an answer.
    pub(crate) fn stand_in(&self) -> String {
        self.stand_in.to_string()
    }

    /// The opening border, where a text ends between borders.
    pub(crate) fn opened(&self, text: &str) -> String {
        let last = text.chars().rfind(|character| [self.open, self.close].contains(character));
        last.filter(|border| *border == self.open).map(String::from).unwrap_or_default()
    }

    /// The text without borders.
    pub(crate) fn without(&self, text: &str) -> String {
        text.replace([self.open, self.close], "")
    }

    /// The text without borders, and the spans that they enclose, in bytes.
    pub(crate) fn take_out(&self, text: String) -> (String, Vec<Range<usize>>) {
        if !text.contains([self.open, self.close]) {
            return (text, Vec::new());
        }
        let (mut out, mut spans) = (String::with_capacity(text.len()), Vec::new());
        let mut from = None;
        for piece in text.split_inclusive([self.open, self.close]) {
            out.push_str(piece.trim_end_matches([self.open, self.close]));
            if piece.ends_with(self.open) {
                from.get_or_insert(out.len());
            } else if piece.ends_with(self.close) {
                spans.extend(from.take().map(|from| from..out.len()));
            }
        }
        spans.extend(from.map(|from| from..out.len()));
        (out, spans)
    }
}

/// The tokens that some spans of a text reach into, in order, from the tokens' places in the text.
pub(crate) fn token_ranges(offsets: &[(usize, usize)], spans: &[Range<usize>]) -> Vec<Range<usize>> {
    let tokens = |span: &Range<usize>| {
        let inside = |&(start, end): &(usize, usize)| start < span.end && end > span.start && start < end;
        let first = offsets.iter().position(inside)?;
        Some(first..offsets.iter().rposition(inside)? + 1)
    };
    spans.iter().filter_map(tokens).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_come_out_as_they_went_in() {
        let borders = Borders::beside(&["a".to_owned(), "\u{10FFFD}".to_owned()]).unwrap();
        assert_ne!(borders, Borders::beside(&["a".to_owned()]).unwrap(), "characters of the text are not taken");
        let marked = borders.around("one two three", &[0..3, 8..13]);
        assert_eq!(borders.take_out(marked.clone()), ("one two three".to_owned(), vec![0..3, 8..13]));
        assert_eq!(borders.without(&marked), "one two three");
        assert_eq!(borders.take_out("plain".to_owned()), ("plain".to_owned(), vec![]));
        assert_eq!(borders.opened(&marked[..6]), borders.open.to_string());
        assert_eq!(borders.opened(&marked), "");
    }

    #[test]
    fn a_token_that_a_span_reaches_into_is_in_it() {
        // "ab", "cd", nothing, "ef"
        let offsets = [(0, 2), (2, 4), (4, 4), (4, 6)];
        assert_eq!(token_ranges(&offsets, &[1..4, 5..6, 6..6]), [0..2, 3..4]);
    }
}
