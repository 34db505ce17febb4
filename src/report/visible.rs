//! Texts that a terminal shows and does not obey.

/// A text with its control characters, but for the end of a line and tabs, as `\\u001b` and the like; and so what turns
/// the direction of writing round. In JSON, where they stand in texts alone, it means the same as before.
///
/// Data, models and servers are not ours: what they say could move the cursor, set the clipboard or hide a line. All that
/// is printed passes through here, but for colours that are put around such a text afterwards.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        let turns = matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (letter.is_control() && !matches!(letter, '\n' | '\t')) || turns {
            shown.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        let said = "a\u{1b}]52;c;eA==\u{7}\u{9b}2J\u{7f}\r\u{8}\u{202e}\tü\n";
        assert_eq!(visible(said), "a\\u001b]52;c;eA==\\u0007\\u009b2J\\u007f\\u000d\\u0008\\u202e\tü\n");
        let json = serde_json::json!({"a": said}).to_string() + "\n";
        assert_eq!(serde_json::from_str::<serde_json::Value>(&visible(&json)).unwrap()["a"], said);
    }
}
