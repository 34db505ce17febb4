//! Votes in the values that a file has for them, as P(the first response better).

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Meaning of the values of a vote, such as `{first: 1, second: 2, tie: 0}`. Any other value is a bad row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoteScale {
    /// The value, or a list of values, that says that the first response is better.
    pub first: VoteValues,
    /// The value or values that say that the second response is better.
    pub second: VoteValues,
    /// The value or values that say that neither is. Without it, and with a number each for `first` and `second`,
    /// numbers between count by their place: `{first: -3, second: 3}` makes 0 a tie and -1 two thirds for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tie: Option<VoteValues>,
    /// The value or values that say that there is no vote; null and an empty text always do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<VoteValues>,
}

/// Values as the pipeline file has them: texts, numbers or truth values, at least one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct VoteValues(Vec<Value>);

impl<'de> Deserialize<'de> for VoteValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<VoteValues, D::Error> {
        struct VoteValuesVisitor;
        impl<'de> Visitor<'de> for VoteValuesVisitor {
            type Value = VoteValues;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value of a vote (text, number or truth value) or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<VoteValues, E> {
                Ok(VoteValues(vec![text.into()]))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<VoteValues, E> {
                Ok(VoteValues(vec![value.into()]))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<VoteValues, E> {
                Ok(VoteValues(vec![number.into()]))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<VoteValues, E> {
                Ok(VoteValues(vec![number.into()]))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<VoteValues, E> {
                Ok(VoteValues(vec![number.into()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<VoteValues, A::Error> {
                let mut values = Vec::new();
                while let Some(VoteValues(more)) = items.next_element()? {
                    values.extend(more);
                }
                match values.is_empty() {
                    true => Err(Error::custom("an empty list says nothing")),
                    false => Ok(VoteValues(values)),
                }
            }
        }
        deserializer.deserialize_any(VoteValuesVisitor)
    }
}

impl JsonSchema for VoteValues {
    fn schema_name() -> Cow<'static, str> {
        "VoteValues".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = serde_json::json!({"type": ["string", "number", "boolean"]});
        json_schema!({
            "description": "A value of a vote, or several that mean the same",
            "anyOf": [one, {"type": "array", "items": one, "minItems": 1}]
        })
    }
}

/// A value of a vote, however it is written: `2`, `2.0` and `"2"` are one, so are `A` and `a`.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A number.
    Number(f64),
    /// A word in small letters; truth values are words.
    Word(String),
}

impl Token {
    /// A value of a row; nothing where it is none that a vote can be.
    pub fn of(value: &Value) -> Option<Token> {
        match value {
            Value::Number(number) => number.as_f64().map(Token::Number),
            Value::Bool(value) => Some(Token::Word(value.to_string())),
            Value::String(text) => {
                let text = text.trim().to_lowercase();
                let number = text.parse().ok().filter(|number: &f64| number.is_finite());
                Some(number.map_or(Token::Word(text), Token::Number))
            }
            _ => None,
        }
    }

    /// Its place among others, to show them sorted.
    fn key(&self) -> (String, i64) {
        match self {
            Token::Number(number) => (String::new(), (number * 1e6) as i64),
            Token::Word(word) => (word.clone(), 0),
        }
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Number(number) => write!(f, "{number}"),
            Token::Word(word) => f.write_str(word),
        }
    }
}

const FIRST: [&str; 9] = ["a", "first", "left", "model_a", "response_a", "answer_a", "output_a", "assistant_a", "a>b"];
const SECOND: [&str; 9] =
    ["b", "second", "right", "model_b", "response_b", "answer_b", "output_b", "assistant_b", "b>a"];
const TIE: [&str; 12] = [
    "tie",
    "tied",
    "draw",
    "equal",
    "neither",
    "both",
    "same",
    "a=b",
    "both_bad",
    "bothbad",
    "tie (bothbad)",
    "tie_both_bad",
];
const NONE: [&str; 3] = ["", "n/a", "nan"];

/// P(the first better) that a word says, whose meaning is the same everywhere.
pub fn plain_word(word: &str) -> Option<f64> {
    let word = word.trim().to_lowercase();
    let lists = [(&FIRST[..], 1.0), (&SECOND, 0.0), (&TIE, 0.5)];
    lists.into_iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, vote)| vote)
}

/// Values of votes with what they mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// P(the first better) of each value; nothing for those that are no vote.
    meanings: Vec<(Token, Option<f64>)>,
    /// The ends of a range of numbers: the first's and the second's.
    line: Option<(f64, f64)>,
    /// True where it was found, false where it was given.
    found: bool,
}

impl Scale {
    /// A scale that is given.
    ///
    /// # Errors The reason why it has no meaning.
    pub fn given(scale: &VoteScale) -> Result<Scale, String> {
        let mut meanings: Vec<(Token, Option<f64>)> = Vec::new();
        let tie = scale.tie.iter().map(|tie| (tie, Some(0.5)));
        let none = scale.none.iter().map(|none| (none, None));
        for (values, vote) in [(&scale.first, Some(1.0)), (&scale.second, Some(0.0))].into_iter().chain(tie).chain(none)
        {
            for value in &values.0 {
                let token = Token::of(value).expect("a value of a scale is text, a number or a truth value");
                if let Some((_, other)) = meanings.iter().find(|(known, _)| *known == token)
                    && *other != vote
                {
                    return Err(format!("`{token}` stands for two things"));
                }
                meanings.push((token, vote));
            }
        }
        let line = match (scale.first.0.as_slice(), scale.second.0.as_slice(), &scale.tie) {
            ([first], [second], None) => match (Token::of(first), Token::of(second)) {
                (Some(Token::Number(first)), Some(Token::Number(second))) => Some((first, second)),
                _ => None,
            },
            _ => None,
        };
        Ok(Scale { meanings, line, found: false })
    }

    /// The scale that some values are on, where no other is possible.
    ///
    /// # Errors
    /// The key to write, where they could mean several things.
    pub fn found(values: &[Token]) -> Result<Scale, String> {
        let mut seen: Vec<Token> = Vec::new();
        for value in values {
            let nothing = matches!(value, Token::Word(word) if NONE.contains(&word.as_str()));
            if !nothing && !seen.contains(value) {
                seen.push(value.clone());
            }
        }
        seen.sort_by_key(Token::key);
        let word = |token: &Token| match token {
            Token::Word(word) => plain_word(word),
            Token::Number(_) => None,
        };
        if !seen.is_empty() && seen.iter().all(|token| word(token).is_some()) {
            let lists = [(&FIRST[..], 1.0), (&SECOND, 0.0), (&TIE, 0.5)];
            let all = lists.into_iter().flat_map(|(words, vote)| words.iter().map(move |word| (*word, vote)));
            let meanings = all.map(|(word, vote)| (Token::Word(word.to_owned()), Some(vote))).collect();
            return Ok(Scale { meanings, line: None, found: true });
        }
        let number = |wanted: f64| Token::Number(wanted);
        if seen.contains(&number(1.0)) && seen.contains(&number(2.0)) {
            let half = seen.contains(&number(1.5));
            if seen.len() == 2 + usize::from(half) {
                let meanings = vec![(number(1.0), Some(1.0)), (number(2.0), Some(0.0))];
                return Ok(Scale { meanings, line: half.then_some((1.0, 2.0)), found: true });
            }
        }
        Err(ambiguous(&seen))
    }

    /// P(the first better) by a value; nothing where it is no vote.
    ///
    /// # Errors
    /// The value as it is shown, where it is not on the scale.
    pub fn read(&self, value: &Value) -> Result<Option<f64>, String> {
        if value.is_null() {
            return Ok(None);
        }
        let Some(token) = Token::of(value) else { return Err(crate::bad_row::shown(value)) };
        if let Some((_, vote)) = self.meanings.iter().find(|(known, _)| *known == token) {
            return Ok(*vote);
        }
        match (&token, self.line) {
            (Token::Word(word), _) if NONE.contains(&word.as_str()) => Ok(None),
            (Token::Number(number), Some((first, second))) => {
                let vote = (second - number) / (second - first);
                if (0.0..=1.0).contains(&vote) { Ok(Some(vote)) } else { Err(token.to_string()) }
            }
            _ => Err(token.to_string()),
        }
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut by_vote: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        for (token, vote) in &self.meanings {
            let place = match vote {
                Some(vote) if *vote == 1.0 => 0,
                Some(vote) if *vote == 0.0 => 1,
                Some(_) => 2,
                None => 3,
            };
            by_vote.entry(place).or_default().push(token.to_string());
        }
        let names = ["the first", "the second", "a tie", "no vote"];
        let said: Vec<String> = by_vote
            .iter()
            .map(|(place, values)| {
                // Of known words one is enough.
                let values = if self.found && values.len() > 3 { &values[..1] } else { &values[..] };
                format!("{} = {}", values.join(", "), names[*place as usize])
            })
            .collect();
        f.write_str(&said.join("; "))?;
        if self.line.is_some() {
            f.write_str("; between them by distance")?;
        }
        Ok(())
    }
}

/// The setting to write where values can mean several things.
fn ambiguous(seen: &[Token]) -> String {
    let shown: Vec<String> = seen.iter().take(8).map(ToString::to_string).collect();
    let more = if seen.len() > shown.len() { ", ..." } else { "" };
    let values = format!("the values {}{more} can mean several things", shown.join(", "));
    let numbers: Vec<f64> = seen
        .iter()
        .filter_map(|token| match token {
            Token::Number(number) => Some(*number),
            Token::Word(_) => None,
        })
        .collect();
    let (low, high) =
        numbers.iter().fold((f64::MAX, f64::MIN), |(low, high), number| (low.min(*number), high.max(*number)));
    let whole = numbers.iter().all(|number| number.fract() == 0.0);
    let way = if numbers.len() != seen.len() || seen.is_empty() {
        "say which is which: `votes: {first: VALUE, second: VALUE, tie: VALUE}`".to_owned()
    } else if whole && low >= 0.0 && high <= 2.0 && numbers.contains(&2.0) {
        "say which is which: `votes: {first: 1, second: 2, tie: 0}`, or counted from 0 `votes: {first: 0, second: 1, \
         tie: 2}`"
            .to_owned()
    } else if whole && low >= 0.0 && high <= 1.0 {
        "say which is which: `votes: {first: 1, second: 0}` where 1 says that the first is better, `votes: {first: 0, \
         second: 1}` where it is the number of the better one"
            .to_owned()
    } else {
        format!(
            "say which end is the first response's: `votes: {{first: {low}, second: {high}}}` or `votes: {{first: \
             {high}, second: {low}}}`, with the ends of the whole scale"
        )
    };
    format!("{values}; {way}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given(scale: Value) -> Result<Scale, String> {
        Scale::given(&serde_json::from_value(scale).map_err(|error| error.to_string())?)
    }

    fn found(values: Value) -> Result<Scale, String> {
        let values = values.as_array().unwrap();
        Scale::found(&values.iter().map(|value| Token::of(value).unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn a_scale_says_what_each_value_means_and_nothing_else_is_a_vote() {
        let scale = given(json!({"first": 1, "second": 2, "tie": 0, "none": ["garbage", -1]})).unwrap();
        for (value, vote) in [
            (json!(1), Some(1.0)),
            (json!("2.0"), Some(0.0)),
            (json!(0), Some(0.5)),
            (json!(null), None),
            (json!("garbage"), None),
            (json!(" "), None),
        ] {
            assert_eq!(scale.read(&value), Ok(vote), "{value}");
        }
        for value in [json!(3), json!(1.5), json!("a"), json!([1]), json!(true)] {
            assert!(scale.read(&value).is_err(), "{value}");
        }
        assert_eq!(scale.to_string(), "1 = the first; 2 = the second; 0 = a tie; garbage, -1 = no vote");
        let words = given(json!({"first": ["A", "left"], "second": "B", "tie": ["tie", "C"]})).unwrap();
        assert_eq!([words.read(&json!("LEFT")), words.read(&json!("c "))], [Ok(Some(1.0)), Ok(Some(0.5))]);
    }

    #[test]
    fn numbers_between_the_ends_count_by_their_place() {
        let scale = given(json!({"first": -3, "second": 3})).unwrap();
        let votes = [-3.0, -1.0, 0.0, 1.5, 3.0].map(|value| scale.read(&json!(value)).unwrap().unwrap());
        assert_eq!(votes, [1.0, 4.0 / 6.0, 0.5, 0.25, 0.0]);
        assert!(scale.read(&json!(4)).is_err() && scale.read(&json!(-3.01)).is_err());
        let turned = given(json!({"first": 3, "second": -3})).unwrap();
        assert_eq!(turned.read(&json!(-1)), Ok(Some(2.0 / 6.0)));
        // With a tie of its own nothing else is between.
        assert!(given(json!({"first": -3, "second": 3, "tie": 0})).unwrap().read(&json!(1)).is_err());
        assert!(given(json!({"first": 1, "second": 1})).unwrap_err().contains("`1` stands for two things"));
    }

    #[test]
    fn only_what_can_mean_one_thing_is_found() {
        let words = found(json!(["A", "tie", "b", ""])).unwrap();
        assert_eq!(words.read(&json!("model_b")), Ok(Some(0.0)));
        assert_eq!(words.to_string(), "a = the first; b = the second; tie = a tie");
        let numbers = found(json!([1, "2", 1])).unwrap();
        assert_eq!((numbers.read(&json!(2)), numbers.read(&json!(1.5)).is_err()), (Ok(Some(0.0)), true));
        assert_eq!(found(json!([1, 1.5, 2])).unwrap().read(&json!(1.25)), Ok(Some(0.75)));
        for (values, key) in [
            (json!([0, 1, 2]), "`votes: {first: 1, second: 2, tie: 0}`, or counted from 0 `votes: {first: 0"),
            (json!([2]), "`votes: {first: 1, second: 2, tie: 0}`"),
            (json!([0, 1]), "`votes: {first: 1, second: 0}` where 1 says"),
            (json!([-3, 1, 3]), "`votes: {first: -3, second: 3}` or `votes: {first: 3, second: -3}`"),
            (json!([1, 5, 2]), "`votes: {first: 1, second: 5}`"),
            (json!(["good", "bad"]), "`votes: {first: VALUE"),
            (json!([true, false]), "`votes: {first: VALUE"),
            (json!(["A", 1]), "`votes: {first: VALUE"),
        ] {
            let error = found(values.clone()).unwrap_err();
            assert!(error.contains(key), "{values}: {error}");
        }
    }
}
