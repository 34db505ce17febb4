//! Lines that fit into a terminal: of a line that is too long the least important parts go, and no word is cut.

use std::io::stderr;

use rustix::termios::tcgetwinsize;

/// Characters in a line where the terminal does not say.
const USUAL: usize = 80;

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its importance, from 0; none for a part that always stays.
    importance: Option<u8>,
    /// Its text, with the separator from the part before.
    text: String,
}

impl Part {
    /// A part that goes before all that are more important.
    pub fn new(importance: u8, text: impl Into<String>) -> Part {
        Part { importance: Some(importance), text: text.into() }
    }

    /// A part that stays.
    pub fn kept(text: impl Into<String>) -> Part {
        Part { importance: None, text: text.into() }
    }
}

/// A name and what fits beside it into a width. A long name is cut before the most important part goes.
pub fn named(name: &str, parts: Vec<Part>, width: usize) -> (String, String) {
    let first = parts.iter().max_by_key(|part| part.importance.unwrap_or(u8::MAX)).map_or(0, |part| long(&part.text));
    let name = cut(name, width.saturating_sub(first));
    let rest = fitted(parts, width.saturating_sub(long(&name)));
    (name, rest)
}

/// The parts that fit into a width, in their order: the least important ones go first, of equal ones the last. What
/// stays and is too long for itself is cut, with a mark.
pub fn fitted(mut parts: Vec<Part>, width: usize) -> String {
    loop {
        let long: usize = parts.iter().map(|part| long(&part.text)).sum();
        let droppable = parts.iter().enumerate().rev().filter_map(|(place, part)| Some((part.importance?, place)));
        match droppable.min_by_key(|(importance, _)| *importance) {
            Some((_, place)) if long > width => _ = parts.remove(place),
            _ => break,
        }
    }
    cut(&parts.into_iter().map(|part| part.text).collect::<String>(), width)
}

/// The start of a text that fits into a width, with a mark where that is not all of it.
fn cut(text: &str, width: usize) -> String {
    if long(text) <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = |letter: &char| room.checked_sub(columns(*letter)).map(|left| room = left).is_some();
    text.chars().take_while(fits).chain((width > 0).then_some('\u{2026}')).collect()
}

/// A text in lines that fit into a width: broken between words where that can be, all lines but the first indented.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    let words = text.trim_start();
    let mut lines = vec![text[..text.len() - words.len()].to_owned()];
    for word in words.split(' ') {
        let line = lines.last_mut().expect("there is one from the beginning");
        if line.trim().is_empty() {
            line.push_str(word);
        } else if long(line) + 1 + long(word) > width {
            lines.push(format!("{INDENT}{word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines
}

/// The columns that a text takes.
fn long(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// The columns that a letter takes at most: two in the scripts and pictures that terminals draw wide.
fn columns(letter: char) -> usize {
    if matches!(letter, '\0'..='\u{10ff}' | '\u{1e00}'..='\u{2e7f}') { 1 } else { 2 }
}

/// The width of the terminal behind stderr, in characters. The last stays free: some terminals begin a new line there.
pub fn width() -> usize {
    let columns = tcgetwinsize(stderr()).map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { USUAL - 1 } else { columns - 1 }
}

/// A bar with so much of it filled: 30 characters wide, and less on a narrow terminal.
pub fn bar(done: u64, total: u64, width: usize) -> String {
    let long = match width {
        0..60 => 8,
        60..90 => 16,
        _ => 30,
    };
    let share = done.min(total) as f64 / total.max(1) as f64;
    let full = (share * long as f64) as usize;
    "\u{2588}".repeat(full) + &"\u{2591}".repeat(long - full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_important_parts_go_first() {
        let parts = || vec![Part::kept("name"), Part::new(2, " 1 of 2"), Part::new(1, ", 3/s"), Part::new(1, ", slow")];
        for (width, wanted) in [
            (99, "name 1 of 2, 3/s, slow"),
            (22, "name 1 of 2, 3/s, slow"),
            (21, "name 1 of 2, 3/s"),
            (15, "name 1 of 2"),
            (10, "name"),
            (3, "na\u{2026}"),
            (1, "\u{2026}"),
            (0, ""),
        ] {
            assert_eq!(fitted(parts(), width), wanted);
        }
    }

    #[test]
    fn lines_are_broken_between_words() {
        let check = |text: &str, width: usize, wanted: &[&str]| assert_eq!(wrapped(text, width), wanted, "{text}");
        check("data: warning: three rows", 99, &["data: warning: three rows"]);
        check("data: warning: three rows", 15, &["data: warning:", "  three rows"]);
        check("data: warning: three rows", 14, &["data: warning:", "  three rows"]);
        check("data: warning: three rows", 11, &["data:", "  warning:", "  three", "  rows"]);
        // A word alone is left to the terminal.
        check("see ./a/very/long/path now", 8, &["see", "  ./a/very/long/path", "  now"]);
        check("", 8, &[""]);
        check("   three rows", 10, &["   three", "  rows"]);
        check("\u{65e5}\u{672c} \u{65e5}\u{672c}", 8, &["\u{65e5}\u{672c}", "  \u{65e5}\u{672c}"]);
    }

    #[test]
    fn wide_letters_take_two_columns() {
        assert_eq!(named("\u{65e5}\u{672c}\u{8a9e}", vec![Part::new(1, " 1/2")], 9).0, "\u{65e5}\u{672c}\u{2026}");
        assert_eq!(named("\u{e4}\u{e4}", vec![Part::kept(" 1/2")], 6), ("\u{e4}\u{e4}".to_owned(), " 1/2".to_owned()));
    }

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(bar(1, 4, 40), "\u{2588}\u{2588}\u{2591}\u{2591}\u{2591}\u{2591}\u{2591}\u{2591}");
        assert_eq!(bar(0, 0, 100), "\u{2591}".repeat(30));
        assert_eq!(bar(9, 4, 60), "\u{2588}".repeat(16));
    }
}
