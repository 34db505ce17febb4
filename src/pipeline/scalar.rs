//! Scalars by the core schema of YAML 1.2: which text is a number, true or false, or nothing.

use serde_json::Number;

use crate::pipeline::node::Content;

/// The value of a scalar. `plain`: it stands without quotes. `tag` is written out: `!x`, `tag:yaml.org,2002:int`.
///
/// # Errors
/// A tag without meaning or whose meaning the text does not fit, and numbers that nothing can compute with.
pub fn value(text: &str, plain: bool, tag: Option<&str>) -> Result<Content, String> {
    let Some(tag) = tag else {
        return if plain { untagged(text) } else { Ok(Content::Text(text.to_owned())) };
    };
    if let Some(problem) = meaningless(tag) {
        return Err(problem);
    }
    let (value, wanted) = match tag.strip_prefix("tag:yaml.org,2002:") {
        Some("bool") => (boolean(text).map(Content::Bool), "true or false"),
        Some("null") => (is_null(text).then_some(Content::Null), "null"),
        Some("int") => (whole(text).transpose()?.map(Content::Number), "a whole number"),
        Some("float") => (float(text).transpose()?.map(Content::Number), "a number"),
        _ => (Some(Content::Text(text.to_owned())), "text"),
    };
    value.ok_or_else(|| format!("the tag says {wanted}, and `{text}` is not"))
}

/// The finding about a tag, if there is one: tags that a single file defines have no meaning here.
pub fn meaningless(tag: &str) -> Option<String> {
    tag.starts_with('!').then(|| format!("the tag `{tag}` has no meaning here"))
}

fn untagged(text: &str) -> Result<Content, String> {
    if text.is_empty() {
        return Ok(Content::Empty);
    }
    if is_null(text) {
        return Ok(Content::Null);
    }
    if let Some(value) = boolean(text) {
        return Ok(Content::Bool(value));
    }
    if let Some(number) = whole(text) {
        return number.map(Content::Number);
    }
    match float(text).filter(|_| !has_leading_zeros(text)) {
        Some(number) => number.map(Content::Number),
        None => Ok(Content::Text(text.to_owned())),
    }
}

fn is_null(text: &str) -> bool {
    ["null", "Null", "NULL", "~"].contains(&text)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A whole number in base 10, 16 (`0x`), 8 (`0o`) or 2 (`0b`); an error where it is too large for 64 bits.
fn whole(text: &str) -> Option<Result<Number, String>> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let bases = [("0x", 16), ("0o", 8), ("0b", 2)];
    let based = bases.iter().find_map(|(prefix, base)| Some((digits.strip_prefix(prefix)?, *base)));
    let (digits, base) = based.unwrap_or((digits, 10));
    if digits.starts_with(['+', '-']) || (base == 10 && has_leading_zeros(digits)) {
        return None;
    }
    let size = u128::from_str_radix(digits, base).ok()?;
    let number = match negative {
        false => u64::try_from(size).ok().map(Number::from),
        true => i128::try_from(size).ok().and_then(|size| i64::try_from(-size).ok()).map(Number::from),
    };
    Some(number.ok_or_else(|| beyond(text)))
}

/// A number with a point or an exponent; an error where it is infinite or none.
fn float(text: &str) -> Option<Result<Number, String>> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned.len() < text.len() && unsigned.starts_with(['+', '-']) {
        return None;
    }
    let infinite = [".inf", ".Inf", ".INF"].contains(&unsigned.strip_prefix('-').unwrap_or(unsigned));
    if infinite || [".nan", ".NaN", ".NAN"].contains(&text) {
        return Some(Err(beyond(text)));
    }
    unsigned.parse::<f64>().ok().and_then(Number::from_f64).map(Ok)
}

/// Digits after a leading zero are text: `007`.
fn has_leading_zeros(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn beyond(text: &str) -> String {
    format!("{text} is not a number to compute with")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::pipeline::yaml::read;

    fn check(text: &str, wanted: Value) {
        let found = read(text, None).unwrap_or_else(|problem| panic!("{text}: {problem:?}")).root.json();
        assert!(found == wanted && found.is_f64() == wanted.is_f64(), "{text}: {found}");
    }

    #[test]
    fn plain_scalars_have_the_types_of_the_core_schema() {
        for text in ["", "~", "null", "Null", "NULL", "# nothing"] {
            check(text, json!(null));
        }
        for (text, wanted) in [("true", true), ("True", true), ("TRUE", true), ("false", false), ("FALSE", false)] {
            check(text, json!(wanted));
        }
        for text in [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "tRUE",
            "nULL",
            "None",
            "1_000",
            "12:30",
            "0x",
            "0xg",
            "0o8",
            "0b2",
            "007",
            "-007",
            "+007",
            "1e400",
            "inf",
            "nan",
            "infinity",
            ".",
            "e5",
            "--5",
            "+-5",
            "-+5",
            "0x-5",
            "-0x-5",
            "5 apples",
            "2026-01-01",
            "1.2.3",
            "+.nan",
            "-.nan",
            "٣",
        ] {
            check(text, json!(text));
        }
        for (text, wanted) in [
            ("0", 0),
            ("-0", 0),
            ("7", 7),
            ("+7", 7),
            ("-7", -7),
            ("0x1F", 31),
            ("-0x1f", -31),
            ("+0x1F", 31),
            ("0o17", 15),
            ("-0o17", -15),
            ("0b101", 5),
            ("-0b101", -5),
            ("0x007", 7),
            ("-9223372036854775808", i64::MIN),
        ] {
            check(text, json!(wanted));
        }
        check("18446744073709551615", json!(u64::MAX));
        for (text, wanted) in [
            ("1.0", 1.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("-.5", -0.5),
            ("5e-7", 5e-7),
            ("1.0E+3", 1e3),
            ("+1.5", 1.5),
            ("0.1", 0.1),
            ("00.5", 0.5),
            ("1e5", 1e5),
            ("-0.0", -0.0),
            ("5.0e-324", 5e-324),
            ("123456789012345678901234567890123456789012345678901234567890", 1.2345678901234568e59),
        ] {
            check(text, json!(wanted));
        }
    }

    #[test]
    fn quotes_blocks_and_tags_decide_before_the_text() {
        for text in ["'7'", "\"7\"", "|-\n  7", ">-\n  7", "!!str 7", "!!str '7'", "!<tag:yaml.org,2002:str> 7"] {
            check(text, json!("7"));
        }
        check("''", json!(""));
        check("\"a\\u00e9\\n\\t\\x41\\\"\"", json!("aé\n\tA\""));
        check("'it''s'", json!("it's"));
        check("|\n  a\n   b\n\n", json!("a\n b\n"));
        check(">+\n  a\n  b\n\n", json!("a b\n\n"));
        check("!!int '7'", json!(7));
        check("!!float 7", json!(7.0));
        check("!!bool 'true'", json!(true));
        check("!!null '~'", json!(null));
        check("!!map {a: !!seq [1]}", json!({"a": [1]}));
    }

    #[test]
    fn what_cannot_be_computed_with_is_refused_at_its_place() {
        for (value, wanted) in [
            (".inf", ".inf is not a number to compute with"),
            ("+.INF", "+.INF is not a number to compute with"),
            ("-.Inf", "-.Inf is not a number to compute with"),
            (".NaN", ".NaN is not a number to compute with"),
            ("18446744073709551616", "18446744073709551616 is not a number to compute with"),
            ("-9223372036854775809", "-9223372036854775809 is not a number to compute with"),
            ("!x 3", "the tag `!x` has no meaning here"),
            ("!x {a: 1}", "the tag `!x` has no meaning here"),
            ("! [1]", "the tag `!` has no meaning here"),
            ("!!int x", "the tag says a whole number, and `x` is not"),
            ("!!bool yes", "the tag says true or false, and `yes` is not"),
            ("!!null x", "the tag says null, and `x` is not"),
        ] {
            let problem = read(&format!("a:\n  - [1, {value}]\n"), None).unwrap_err();
            assert_eq!(problem.line("p".as_ref()), format!("p:2:9: {wanted}"));
        }
    }
}
