//! The ids of rows that come without one: digests of the row, the same in every stage.

use crate::digest::{id_bits, id_of, id_text};
use crate::table::rows::Message;

/// The id of a prompt.
pub fn prompt_id(messages: &[Message]) -> String {
    id_of(&parts("prompt", &[], messages))
}

/// The id of a response to a prompt.
pub fn response_id(prompt_id: &str, messages: &[Message]) -> String {
    id_of(&parts("response", &[prompt_id], messages))
}

/// The id of a comparison of two (prompt id, response id); a against b has the id of b against a.
pub fn comparison_id(a: (&str, &str), b: (&str, &str)) -> String {
    id_text(comparison_bits(a, b))
}

/// The 96 bits behind [`comparison_id`].
pub fn comparison_bits(a: (&str, &str), b: (&str, &str)) -> [u8; 12] {
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    id_bits(&["comparison", first.0, first.1, second.0, second.1])
}

/// The id of a pair of a chosen and a rejected (prompt id, response id).
pub fn pair_id(chosen: (&str, &str), rejected: (&str, &str)) -> String {
    id_of(&pair_parts(chosen, rejected))
}

/// The 96 bits behind [`pair_id`].
pub fn pair_bits(chosen: (&str, &str), rejected: (&str, &str)) -> [u8; 12] {
    id_bits(&pair_parts(chosen, rejected))
}

fn pair_parts<'a>(chosen: (&'a str, &'a str), rejected: (&'a str, &'a str)) -> [&'a str; 5] {
    ["pair", chosen.0, chosen.1, rejected.0, rejected.1]
}

/// The id of a response with a label of its own.
pub fn item_id(prompt_id: &str, response_id: &str, label: f64) -> String {
    id_of(&["item", prompt_id, response_id, &label.to_string()])
}

fn parts<'a>(table: &'a str, ids: &[&'a str], messages: &'a [Message]) -> Vec<&'a str> {
    let mut parts: Vec<&str> = [table].into_iter().chain(ids.iter().copied()).collect();
    for message in messages {
        parts.extend([message.role.as_str(), message.content.as_str()]);
        // No role is an empty text, so that nothing else makes these parts.
        parts.extend(message.extra.iter().flat_map(|extra| ["", extra.as_str()]));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_matters_for_pairs_and_not_for_comparisons() {
        let (a, b) = (("p0", "r0"), ("p1", "r1"));
        assert_eq!(comparison_id(a, b), comparison_id(b, a));
        assert_ne!(pair_id(a, b), pair_id(b, a));
        assert_ne!(comparison_id(a, b), comparison_id(("p0", "r1"), ("p1", "r0")));
    }

    #[test]
    fn role_and_prompt_are_part_of_what_is_said() {
        let (text, user) = ([Message::new("text", "hello")], [Message::new("user", "hello")]);
        assert_ne!(prompt_id(&text), prompt_id(&user));
        assert_ne!(response_id("p0", &text), response_id("p1", &text));
        assert_ne!(prompt_id(&text), response_id("", &text));
        let tools = Message { extra: Some(r#"{"tools":[]}"#.to_owned()), ..user[0].clone() };
        assert_ne!(prompt_id(&user), prompt_id(&[tools]));
    }
}
