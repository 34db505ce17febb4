//! Secrets of this process, and texts of others without them.
//!
//! Code that reads a key or a value of the environment registers it ([`keep_secret`]); code that writes or shows a text
//! of others passes it through [`redact`]. A secret is found as it is, and written as base64, in hexadecimal, or with
//! the escapes of URLs, JSON and HTML.

use std::sync::{PoisonError, RwLock};

use serde_json::Value;

/// Shorter ones would be found in ordinary words.
const SHORTEST: usize = 6;

/// Secrets and what is shown in their place, the longest first.
static SECRETS: RwLock<Vec<(String, String)>> = RwLock::new(Vec::new());

/// From now on `shown` stands where this would. Secrets of less than six bytes are not looked for.
pub fn keep_secret(secret: &str, shown: &str) {
    let mut all = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    if secret.len() >= SHORTEST && !all.iter().any(|(known, _)| known == secret) {
        all.push((secret.to_owned(), shown.to_owned()));
        all.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
    }
}

/// A text in which every secret is replaced.
pub fn redact(text: &str) -> String {
    let all = SECRETS.read().unwrap_or_else(PoisonError::into_inner);
    all.iter().fold(text.to_owned(), |text, (secret, shown)| without(&text, secret, shown))
}

/// A value in whose texts secrets are replaced by their names.
pub fn redacted(value: Value) -> Value {
    match value {
        Value::String(text) => redact(&text).into(),
        Value::Array(items) => items.into_iter().map(redacted).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, redacted(value))).collect(),
        other => other,
    }
}

fn without(text: &str, secret: &str, shown: &str) -> String {
    let mut places = Vec::new();
    let raw: View = text.bytes().enumerate().map(|(at, byte)| (byte, at, at + 1)).collect();
    find(&raw, secret.as_bytes(), &mut places);
    // Escaped once, as in a JSON text, or twice, as in one inside another.
    let once = unescaped(&raw);
    if once.len() < raw.len() {
        find(&once, secret.as_bytes(), &mut places);
        find(&unescaped(&once), secret.as_bytes(), &mut places);
    }
    let lower: View = raw.iter().map(|(byte, from, to)| (byte.to_ascii_lowercase(), *from, *to)).collect();
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    find(&lower, hex.as_bytes(), &mut places);
    for core in base64_cores(secret.as_bytes()) {
        let mut found = Vec::new();
        find(&raw, core.as_bytes(), &mut found);
        // With what stands around it the rest of the secret could be worked out.
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
        places.extend(found.into_iter().map(|(from, to)| {
            let before = text.as_bytes()[..from].iter().rev().take_while(|byte| is_base64(**byte)).count();
            let after = text.as_bytes()[to..].iter().take_while(|byte| is_base64(**byte)).count();
            (from - before, to + after)
        }));
    }
    places.sort_unstable();
    let (mut clean, mut end) = (String::with_capacity(text.len()), 0);
    for (from, to) in places {
        if from >= end {
            clean.push_str(&text[end..from]);
            clean.push_str(shown);
        }
        end = end.max(to);
    }
    clean.push_str(&text[end..]);
    clean
}

/// Bytes, each with the place in the text that it was read from.
type View = Vec<(u8, usize, usize)>;

fn find(view: &View, wanted: &[u8], places: &mut Vec<(usize, usize)>) {
    let Some(last) = view.len().checked_sub(wanted.len()) else { return };
    let mut at = 0;
    while at <= last {
        if view[at..at + wanted.len()].iter().zip(wanted).all(|((byte, ..), wanted)| byte == wanted) {
            places.push((view[at].1, view[at + wanted.len() - 1].2));
            at += wanted.len();
        } else {
            at += 1;
        }
    }
}

/// Reads `%41`, `\u0041`, `\x41`, `\/`, `&#65;`, `&#x41;` and the named ones of HTML as what they stand for.
fn unescaped(view: &View) -> View {
    let mut out = Vec::with_capacity(view.len());
    let mut at = 0;
    while at < view.len() {
        let ahead: Vec<u8> = view[at..].iter().take(10).map(|(byte, ..)| *byte).collect();
        let (character, length) = match escape(&ahead) {
            Some(escape) => escape,
            None => {
                out.push(view[at]);
                at += 1;
                continue;
            }
        };
        let (from, to) = (view[at].1, view[at + length - 1].2);
        // A percent sign stands for a byte, everything else for a character.
        let mut buffer = [0; 4];
        let bytes: &[u8] = match (ahead[0], character as u32) {
            (b'%', code) => {
                buffer[0] = code as u8;
                &buffer[..1]
            }
            _ => character.encode_utf8(&mut buffer).as_bytes(),
        };
        out.extend(bytes.iter().map(|byte| (*byte, from, to)));
        at += length;
    }
    out
}

/// The character that an escape at the beginning stands for, and the escape's length.
fn escape(ahead: &[u8]) -> Option<(char, usize)> {
    let number = |digits: &[u8], radix| {
        let text = std::str::from_utf8(digits).ok()?;
        text.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, radix).ok())?
    };
    match ahead {
        [b'%', high, low, ..] => Some((char::from_u32(number(&[*high, *low], 16)?)?, 3)),
        [b'\\', b'u', digits @ ..] => Some((char::from_u32(number(digits.get(..4)?, 16)?)?, 6)),
        [b'\\', b'x', digits @ ..] => Some((char::from_u32(number(digits.get(..2)?, 16)?)?, 4)),
        [b'\\', other @ (b'/' | b'"' | b'\\' | b'\''), ..] => Some((char::from(*other), 2)),
        [b'&', ..] => {
            let end = ahead.iter().position(|byte| *byte == b';')?;
            let character = match &ahead[1..end] {
                b"amp" => '&',
                b"lt" => '<',
                b"gt" => '>',
                b"quot" => '"',
                b"apos" => '\'',
                [b'#', b'x' | b'X', digits @ ..] => char::from_u32(number(digits, 16)?)?,
                [b'#', digits @ ..] => char::from_u32(number(digits, 10)?)?,
                _ => return None,
            };
            Some((character, end + 1))
        }
        _ => None,
    }
}

/// The base64 forms of a secret that begins at the first, second or third of three bytes, without the characters that
/// depend on the text before and after it; in the alphabets of files and of URLs.
fn base64_cores(secret: &[u8]) -> Vec<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let core = |before: usize| -> String {
        let bits: Vec<u8> = std::iter::repeat_n(&0, before)
            .chain(secret)
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
            .collect();
        let whole = bits.chunks_exact(6).skip((8 * before).div_ceil(6));
        whole.map(|six| char::from(ALPHABET[six.iter().fold(0, |sum, bit| 2 * sum + usize::from(*bit))])).collect()
    };
    let mut cores: Vec<String> = (0..3).map(core).filter(|core| core.len() >= SHORTEST).collect();
    let of_urls: Vec<String> = cores.iter().map(|core| core.replace('+', "-").replace('/', "_")).collect();
    cores.extend(of_urls);
    cores.dedup();
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        let secret = "sk-canary/4fd1+c0ffee";
        let check = |text: &str, expected: &str| assert_eq!(without(text, secret, "[key]"), expected, "{text}");
        check("bad key sk-canary/4fd1+c0ffee.", "bad key [key].");
        check("sk-canary/4fd1+c0ffeesk-canary/4fd1+c0ffee", "[key][key]");
        check("sk-canary/4fd1+c0fee ü", "sk-canary/4fd1+c0fee ü");
        // `printf ... | base64`, with `Bearer `, `x:` and nothing before it.
        check("Basic c2stY2FuYXJ5LzRmZDErYzBmZmVl", "Basic [key]");
        check("(QmVhcmVyIHNrLWNhbmFyeS80ZmQxK2MwZmZlZQ==)", "([key])");
        check("eDpzay1jYW5hcnkvNGZkMStjMGZmZWU= ü", "[key] ü");
        check("ü 736b2d63616E6172792f346664312b633066666565", "ü [key]");
        check("?key=sk-canary%2F4fd1%2Bc0ffee&x", "?key=[key]&x");
        check("%73%6b-canary%2f4fd1%2bc0ffee", "[key]");
        check("sk-canary%252F4fd1%252Bc0ffee", "[key]");
        check(r#"{"k": "sk-canary\/4fd1\u002bc0ffee"}"#, r#"{"k": "[key]"}"#);
        check(r#""{\"k\": \"sk-canary\\/4fd1\\u002bc0ffee\"}""#, r#""{\"k\": \"[key]\"}""#);
        check("<b>sk-canary&#x2f;4fd1&#43;c0ffee</b>", "<b>[key]</b>");
        check("100 % of \\ and & stay %zz \\u00 &#;", "100 % of \\ and & stay %zz \\u00 &#;");
    }

    #[test]
    fn secrets_of_the_process_are_replaced_the_longest_first() {
        keep_secret("canary-one", "[one]");
        keep_secret("canary-one-and-two", "[two]");
        keep_secret("a", "[a]");
        assert_eq!(redact("a canary-one and canary-one-and-two"), "a [one] and [two]");
    }
}
