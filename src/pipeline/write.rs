//! Values written as YAML: blocks that a person reads, and texts that are read again as they were.

use serde_json::Value;

use super::node::Content;
use super::scalar;

/// Writes a key with its value, so many levels deep.
pub fn entry(out: &mut String, depth: usize, key: &str, value: &Value) {
    let (indent_here, key) = (indent(depth), text(key));
    // A key before its colon has at most 1024 characters.
    match key.len() > 1000 {
        true => out.push_str(&format!("{indent_here}? {key}\n{indent_here}:")),
        false => out.push_str(&format!("{indent_here}{key}:")),
    }
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            map.iter().for_each(|(key, value)| entry(out, depth + 1, key, value));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            items.iter().for_each(|value| item(out, depth + 1, value));
        }
        Value::String(lines) if is_block(lines) => {
            let end = if lines.ends_with('\n') { "" } else { "-" };
            out.push_str(&format!(" |{end}\n"));
            for line in lines.lines() {
                let indent = if line.is_empty() { String::new() } else { indent(depth + 1) };
                out.push_str(&format!("{indent}{line}\n"));
            }
        }
        _ => out.push_str(&format!(" {}\n", plain(value))),
    }
}

fn item(out: &mut String, depth: usize, value: &Value) {
    let mut block = String::new();
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| entry(&mut block, depth + 1, key, value)),
        Value::Array(items) => items.iter().for_each(|value| item(&mut block, depth + 1, value)),
        _ => {}
    }
    if block.is_empty() {
        block = plain(value) + "\n";
    }
    out.push_str(&format!("{}- {}", indent(depth), block.trim_start_matches(' ')));
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

/// A value in one line: JSON is YAML.
fn plain(value: &Value) -> String {
    match value {
        Value::String(value) => text(value),
        _ => value.to_string(),
    }
}

/// A text without quotes where it is a text to any reader, in those of JSON elsewhere.
pub fn text(text: &str) -> String {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || "_/".contains(c));
    let begins = begins || text.starts_with("./") || text.starts_with("../");
    // To readers of YAML 1.1 some more words are true or false.
    let word = ["y", "n", "yes", "no", "on", "off"].contains(&text.to_lowercase().as_str());
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-@".contains(c);
    let is_text = begins && !word && text.chars().all(plain);
    match is_text && matches!(scalar::value(text, true, None), Ok(Content::Text(_))) {
        true => text.to_owned(),
        false => quoted(text),
    }
}

/// A text in double quotes, with escapes for all that a reader may not take as it is.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let escaped = |c: char| match c {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
            format!("\\u{:04x}", c as u32)
        }
        _ => c.to_string(),
    };
    json.chars().map(escaped).collect()
}

/// True where a text is one of several lines that can be written literally, as a block.
fn is_block(text: &str) -> bool {
    let printable = |c: char| matches!(c, '\n' | ' '..='~') || (c.is_alphanumeric() && c > '\u{a0}');
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n'])
        && !text.ends_with("\n\n")
        && text.lines().all(|line| line.is_empty() || !line.trim().is_empty())
        && text.chars().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::yaml::read;
    use serde_json::json;

    fn written(value: &Value) -> String {
        let mut out = String::new();
        entry(&mut out, 0, "top", value);
        out
    }

    #[test]
    fn values_stand_in_blocks_that_can_be_read() {
        let value = json!({
            "list": ["a", [1, [], {}], {"x": 1, "y": {"z": []}}, "two words"],
            "text": "Which one?\n\n  A or B:\n",
            "words": ["true", "7", "~", "no", "./a/b.jsonl", "models/x", "1.5e3", "", " ", "a: b", "${x}"],
            "number": 1e-7, "none": null,
        });
        insta::assert_snapshot!(written(&value), @r#"
        top:
          list:
            - a
            - - 1
              - []
              - {}
            - x: 1
              "y":
                z: []
            - "two words"
          none: null
          number: 1e-7
          text: |
            Which one?

              A or B:
          words:
            - "true"
            - "7"
            - "~"
            - "no"
            - ./a/b.jsonl
            - models/x
            - "1.5e3"
            - ""
            - " "
            - "a: b"
            - "${x}"
        "#);
    }

    #[test]
    fn odd_characters_have_escapes() {
        let odd = json!([
            "\u{85}",
            "a\u{2028}b",
            "\u{feff}",
            "\u{7f}\u{1}\0",
            "\t",
            "\n",
            "a\r\nb",
            "- x",
            "<<",
            "\u{ffff}",
            "𝄞"
        ]);
        let long = "long".repeat(1000);
        let odd =
            json!({"list": odd, &long: {&long: 1, "x": [{&long: 2}]}, "text": "a\u{2028}\nb", "a\u{2029}b": "\nx\ny"});
        assert_eq!(read(&written(&odd), None).unwrap().root.json()["top"], odd);
    }

    /// Any value, a few levels deep.
    fn values() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let text = "\\PC{0,8}|[ -~\\n\\t]{0,16}|[a\\n ]{0,8}|[0-9+.eox_:-]{0,5}|[#|>&*!%@`'\"{}\\[\\],?-]{0,4}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(text, inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().filter(|(key, _)| key != "<<").collect())),
            ]
        })
    }

    proptest::proptest! {
        /// A value that is written is read back equal, by this reader and by another.
        #[test]
        fn what_is_written_is_read_again(value in values()) {
            let text = written(&value);
            let read = read(&text, None).map_err(|problem| problem.text);
            proptest::prop_assert_eq!(read.map(|document| document.root.json()["top"].clone()), Ok(value.clone()), "{}", text);
            let other: Value = serde_yaml::from_str(&text).unwrap();
            proptest::prop_assert_eq!(&other["top"], &value, "{}", text);
        }
    }
}
