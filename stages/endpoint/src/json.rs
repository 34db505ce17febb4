//! JSON as servers write it: what Python's `json` allows itself, and bytes that are no text.

use serde_json::Value;

/// Reads a body. A byte order mark is skipped. Where it is not JSON to the letter, bytes that are no UTF-8, halves of
/// surrogate pairs and control characters in texts are replaced, and `NaN` and infinities are null.
///
/// # Errors
/// The body as text, where it is no JSON even so.
pub fn read(body: &[u8]) -> Result<Value, String> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let text = String::from_utf8_lossy(body).into_owned();
    serde_json::from_str(&mended(&text)).map_err(|_| text)
}

fn mended(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut inside = false;
    while let Some(letter) = rest.chars().next() {
        let mut length = letter.len_utf8();
        match letter {
            '"' => {
                inside = !inside;
                out.push(letter);
            }
            '\\' if inside => {
                length = escape(rest, &mut out);
            }
            _ if inside && letter.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ if inside => out.push(letter),
            _ => match ["NaN", "Infinity", "-Infinity", "inf", "-inf", "nan"]
                .iter()
                .find(|word| rest.starts_with(**word))
            {
                Some(word) => {
                    length = word.len();
                    out.push_str("null");
                }
                None => out.push(letter),
            },
        }
        rest = &rest[length..];
    }
    out
}

/// Copies the escape at the beginning, a lone half of a surrogate pair as the character for what cannot be read. Gives
/// its length.
fn escape(rest: &str, out: &mut String) -> usize {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (copied, length) = match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (&rest[..12], 12),
        (Some(0xd800..=0xdfff), _) => ("\\ufffd", 6),
        (Some(_), _) => (&rest[..6], 6),
        (None, _) => {
            let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            (&rest[..length], length)
        }
    };
    out.push_str(copied);
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_servers_write_is_read() {
        for (text, expected) in [
            (
                r#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN -Infinity"}"#,
                json!({"a": null, "b": [null, null], "c": "NaN -Infinity"}),
            ),
            (
                r#"["\ud83d", "\ude00x", "\ud83d\ude00", "\\ud83d\"", "é\u00e9"]"#,
                json!(["\u{fffd}", "\u{fffd}x", "\u{1f600}", "\\ud83d\"", "éé"]),
            ),
            ("[\"a\nb\tc\"]", json!(["a\nb\tc"])),
            ("\u{feff}{\"a\": 1}", json!({"a": 1})),
        ] {
            assert_eq!(read(text.as_bytes()), Ok(expected), "{text}");
        }
        assert_eq!(read(b"[\"\xff\xe2\x82\"]"), Ok(json!(["\u{fffd}\u{fffd}"])));
        for text in ["", "<html>", "data: {}", "{\"a\": ", "\"\\ud83d", "\"\\", "[NaNa]"] {
            assert_eq!(read(text.as_bytes()), Err(text.to_owned()));
        }
    }
}
