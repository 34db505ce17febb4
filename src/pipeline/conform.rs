//! Configurations checked against their JSON Schema, so that all findings show at once: serde stops at the first.

use serde_json::{Map, Value};

use crate::pipeline::problem::{did_you_mean, nearest};

/// Something wrong in a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// The keys that lead there.
    pub path: Vec<String>,
    /// True where the key itself is unknown, rather than its value wrong.
    pub unknown_key: bool,
    /// The fault and the remedy: a lowercase fragment.
    pub text: String,
}

/// All keys and values that do not fit the schema. Unknown keys are taken out of `value`, so that the rest can be read.
pub fn mismatches(schema: &Value, value: &mut Value) -> Vec<Mismatch> {
    let mut walker = Walker { root: schema, found: Vec::new(), path: Vec::new() };
    walker.walk(schema, value);
    walker.found
}

struct Walker<'a> {
    root: &'a Value,
    found: Vec<Mismatch>,
    path: Vec<String>,
}

impl<'a> Walker<'a> {
    /// Reports something about a key of what the path leads to, or about that itself.
    fn report(&mut self, key: Option<&str>, text: String) {
        let path = self.path.iter().cloned().chain(key.map(str::to_owned)).collect();
        self.found.push(Mismatch { path, unknown_key: false, text });
    }

    /// The alternatives of a schema, references followed, with nested `anyOf` and `oneOf` laid flat.
    fn alternatives(&self, schema: &'a Value, out: &mut Vec<&'a Map<String, Value>>) {
        let Some(map) = schema.as_object() else { return };
        if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return target.into_iter().for_each(|target| self.alternatives(target, out));
        }
        match map.get("anyOf").or_else(|| map.get("oneOf")).and_then(Value::as_array) {
            // Properties beside the alternatives (flattened enums) belong to each; such schemas are left to serde.
            Some(_) if map.contains_key("properties") => {}
            Some(branches) => branches.iter().for_each(|branch| self.alternatives(branch, out)),
            None => out.push(map),
        }
    }

    fn walk(&mut self, schema: &'a Value, value: &mut Value) {
        let mut branches = Vec::new();
        self.alternatives(schema, &mut branches);
        if branches.is_empty() || branches.iter().any(|branch| is_anything(branch)) {
            return;
        }
        let fitting: Vec<_> = branches.iter().copied().filter(|branch| takes(branch, value)).collect();
        if fitting.is_empty() {
            let text = match (value.as_str(), words(&branches)) {
                (Some(word), words) if !words.is_empty() => unknown_word(word, &words),
                _ => {
                    let more = if is_below_zero(value) { " from 0 up" } else { "" };
                    format!("got {}, wanted {}{more}", named(value), wanted(&branches))
                }
            };
            return self.report(None, text);
        }
        match value {
            Value::Object(map) => self.object(&fitting, map),
            Value::Array(items) => {
                if let [branch] = fitting[..]
                    && let Some(schema) = branch.get("items")
                {
                    for (index, item) in items.iter_mut().enumerate() {
                        self.path.push(index.to_string());
                        self.walk(schema, item);
                        self.path.pop();
                    }
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, branches: &[&'a Map<String, Value>], map: &mut Map<String, Value>) {
        let branch = match branches {
            [branch] => *branch,
            several => match self.choose(several, map) {
                Some(branch) => branch,
                None => return,
            },
        };
        let properties = branch.get("properties").and_then(Value::as_object);
        let others = branch.get("additionalProperties").filter(|others| others.is_object());
        for key in map.keys().cloned().collect::<Vec<_>>() {
            let schema = properties.and_then(|properties| properties.get(&key)).or(others);
            match (schema, properties) {
                (Some(schema), _) => {
                    self.path.push(key.clone());
                    self.walk(schema, &mut map[&key]);
                    self.path.pop();
                }
                (None, Some(properties)) => {
                    let readers = readers(branches, &key);
                    let near = did_you_mean(&key, properties.keys().map(String::as_str));
                    let near = self.below(properties, &key).unwrap_or(near);
                    let free = properties.keys().filter(|known| !map.contains_key(*known)).map(String::as_str);
                    let near = if near.is_empty() { known_keys(&free.collect::<Vec<_>>()) } else { near };
                    let path: Vec<String> = self.path.iter().chain([&key]).cloned().collect();
                    let text = match (&readers[..], tags(branch).first()) {
                        ([], _) => format!("unknown key `{key}`{near}"),
                        ([(tag, word), ..], None) => format!("unknown key `{key}`: `{tag}: {word}` reads it"),
                        (readers, Some((_, word))) => {
                            let words: Vec<&str> = readers.iter().map(|(_, word)| *word).collect();
                            let (verb, names) = (if words.len() == 1 { "reads" } else { "read" }, listed_first(&words));
                            format!("unknown key `{key}`: {names} {verb} it, `{word}` does not")
                        }
                    };
                    self.found.push(Mismatch { path, unknown_key: true, text });
                    map.remove(&key);
                }
                (None, None) => {}
            }
        }
        let required = branch.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for key in required {
            if !map.contains_key(key) {
                self.report(None, format!("`{key}` is missing{}", described(properties, key)));
            }
        }
    }

    /// The block that an unknown key belongs to, such as `tokens` for `too_long`.
    fn below(&self, properties: &'a Map<String, Value>, key: &str) -> Option<String> {
        let holds = |schema: &'a Value| {
            let mut branches = Vec::new();
            self.alternatives(schema, &mut branches);
            branches.iter().any(|branch| branch.get("properties").is_some_and(|inner| inner.get(key).is_some()))
        };
        let (place, _) = properties.iter().find(|(_, schema)| holds(schema))?;
        Some(format!("; it stands under `{place}`: `{place}: {{{key}: ...}}`"))
    }

    /// The alternative that an object means: by its tag (a property with one possible word; without one the alternative
    /// that has none), else by its required keys.
    fn choose(
        &mut self,
        branches: &[&'a Map<String, Value>],
        map: &Map<String, Value>,
    ) -> Option<&'a Map<String, Value>> {
        let lacks = |tag: &str, branch: &&Map<String, Value>| tags(branch).iter().all(|(key, _)| *key != tag);
        // A tag of all alternatives, or of all but one, which is the one without it.
        let tag = (0..2).find_map(|plain| {
            let mut keys = branches.iter().flat_map(|branch| tags(branch)).map(|(key, _)| key);
            keys.find(|tag| branches.iter().filter(|branch| lacks(tag, branch)).count() == plain)
        });
        if let Some(tag) = tag {
            let word_of = |branch: &Map<String, Value>| {
                tags(branch).into_iter().find(|(key, _)| *key == tag).map(|(_, word)| word.to_owned())
            };
            let words: Vec<String> = branches.iter().filter_map(|branch| word_of(branch)).collect();
            return match map.get(tag) {
                Some(Value::String(word)) => {
                    let chosen = branches.iter().find(|branch| word_of(branch).as_ref() == Some(word)).copied();
                    if chosen.is_none() {
                        let words: Vec<&str> = words.iter().map(String::as_str).collect();
                        self.report(Some(tag), unknown_word(word, &words));
                    }
                    chosen
                }
                Some(other) => {
                    let text = format!("got {}, wanted {}", named(other), listed(&words));
                    self.report(Some(tag), text);
                    None
                }
                None => {
                    let plain = branches.iter().copied().find(|branch| lacks(tag, branch));
                    if plain.is_none() {
                        self.report(None, format!("`{tag}` is missing: {}", listed(&words)));
                    }
                    plain
                }
            };
        }
        let complete = |branch: &&&Map<String, Value>| {
            branch
                .get("required")
                .and_then(Value::as_array)
                .is_none_or(|keys| keys.iter().filter_map(Value::as_str).all(|key| map.contains_key(key)))
        };
        let complete: Vec<_> = branches.iter().filter(complete).collect();
        match complete[..] {
            [branch] => Some(branch),
            _ => None,
        }
    }
}

/// The tags of the alternatives that know a key.
fn readers<'a>(branches: &[&'a Map<String, Value>], key: &str) -> Vec<(&'a str, &'a str)> {
    let knows = |branch: &&&Map<String, Value>| branch.get("properties").is_some_and(|all| all.get(key).is_some());
    branches.iter().filter(knows).filter_map(|branch| tags(branch).first().copied()).collect()
}

/// Some words; of many the first ones.
fn listed_first(words: &[&str]) -> String {
    const FIRST: usize = 4;
    match words.len() {
        count if count > FIRST => {
            let quoted: Vec<String> = words[..FIRST - 1].iter().map(|word| format!("`{word}`")).collect();
            format!("{} and {} more", quoted.join(", "), count - FIRST + 1)
        }
        _ => listed(words).replace(" or ", " and "),
    }
}

/// The properties of an alternative that can only be one word.
fn tags(branch: &Map<String, Value>) -> Vec<(&str, &str)> {
    let properties = branch.get("properties").and_then(Value::as_object).into_iter().flatten();
    properties.filter_map(|(key, schema)| Some((key.as_str(), schema.get("const")?.as_str()?))).collect()
}

fn is_below_zero(value: &Value) -> bool {
    value.as_i64().is_some_and(|number| number < 0)
}

fn is_anything(branch: &Map<String, Value>) -> bool {
    !["type", "const", "enum", "properties", "required", "items"].iter().any(|key| branch.contains_key(*key))
}

/// True where the class of the value (text, number, ...) and, for words, the word itself fits.
fn takes(branch: &Map<String, Value>, value: &Value) -> bool {
    if let Some(only) = branch.get("const") {
        return only == value;
    }
    if let Some(words) = branch.get("enum").and_then(Value::as_array) {
        return words.contains(value);
    }
    let class = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" if is_below_zero(value) => {
            branch.get("minimum").and_then(Value::as_f64).is_none_or(|least| least < 0.0)
        }
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    match branch.get("type") {
        Some(Value::String(name)) => class(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(class),
        _ => !branch.contains_key("properties") || value.is_object(),
    }
}

/// The words that the alternatives allow, where text can be nothing else.
fn words<'a>(branches: &[&'a Map<String, Value>]) -> Vec<&'a str> {
    let mut words = Vec::new();
    for branch in branches {
        words.extend(branch.get("const").and_then(Value::as_str));
        words.extend(branch.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str));
    }
    words
}

/// The finding about a word that is none of `words`.
pub fn unknown_word(word: &str, words: &[&str]) -> String {
    match nearest(word, words.iter().copied()) {
        Some(near) => format!("unknown value `{word}`; did you mean `{near}`?"),
        None => format!("unknown value `{word}`; wanted {}", listed(words)),
    }
}

fn listed<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match &quoted[..] {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn known_keys(keys: &[&str]) -> String {
    match keys {
        [] => String::new(),
        [one] => format!("; `{one}` can stand here"),
        several => {
            let quoted: Vec<String> = several.iter().map(|key| format!("`{key}`")).collect();
            format!("; {} can stand here", quoted.join(", "))
        }
    }
}

/// The first sentence of a key's documentation.
fn described(properties: Option<&Map<String, Value>>, key: &str) -> String {
    let text = properties.and_then(|properties| properties.get(key)?.get("description")?.as_str()).unwrap_or_default();
    // A dot within a number ends no sentence.
    let line = text.lines().next().unwrap_or_default();
    let sentence = line.split_once(". ").map_or(line, |(sentence, _)| sentence).trim().trim_end_matches('.');
    if sentence.is_empty() { String::new() } else { format!(" ({sentence})") }
}

fn named(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text `{}`", text.chars().take(60).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

fn wanted(branches: &[&Map<String, Value>]) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for branch in branches {
        let mut add = |name: &str| {
            let name = match name {
                "boolean" => "true or false",
                "integer" => "a whole number",
                "number" => "a number",
                "string" => "text",
                "array" => "a list",
                "object" => "a mapping",
                _ => return,
            };
            if !kinds.iter().any(|kind| kind == name) {
                kinds.push(name.to_owned());
            }
        };
        if branch.contains_key("const") || branch.contains_key("enum") {
            continue;
        }
        match branch.get("type") {
            Some(Value::String(name)) => add(name),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).for_each(add),
            _ => {}
        }
    }
    let words = words(branches);
    if !words.is_empty() {
        kinds.push(listed(&words));
    }
    kinds.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;
    use serde_json::json;

    #[derive(JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Config {
        lr: f64,
        steps: Option<u32>,
        ties: Ties,
        objective: Objective,
        tags: Vec<Part>,
        limit: Limit,
        measure: Option<Measured>,
    }

    /// A form without a tag beside some with one.
    #[derive(JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Measured {
        Plain(Plain),
        Of(Measure),
    }

    #[derive(JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Plain {
        pairs: Option<String>,
    }

    #[derive(JsonSchema)]
    #[serde(tag = "measure", rename_all = "snake_case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Measure {
        Leaderboard { votes: String },
        Corrected { gold: String },
    }

    #[derive(JsonSchema)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Ties {
        /// Leave them out.
        Drop,
        Keep,
    }

    #[derive(JsonSchema)]
    #[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Objective {
        Dpo { beta: f64 },
        Rpo { beta: f64, tau: f64 },
    }

    #[derive(JsonSchema)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Limit {
        None,
        Rows { count: u32 },
    }

    #[derive(JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Part {
        /// Its name, such as 0.1. Any text is accepted.
        name: String,
    }

    fn check(mut value: Value, wanted: &[&str]) {
        let schema = schemars::schema_for!(Config).to_value();
        let found: Vec<String> = mismatches(&schema, &mut value)
            .into_iter()
            .map(|mismatch| format!("{}: {}", mismatch.path.join("."), mismatch.text))
            .collect();
        assert_eq!(found, wanted);
    }

    fn good() -> Value {
        json!({"lr": 1, "ties": "drop", "objective": {"name": "rpo", "beta": 0.1, "tau": 1.0}, "tags": [{"name": "x"}],
               "limit": {"rows": {"count": 3}}})
    }

    #[test]
    fn a_good_value_passes() {
        check(good(), &[]);
        let mut value = good();
        value["steps"] = Value::Null;
        value["limit"] = json!("none");
        check(value, &[]);
    }

    #[test]
    fn everything_wrong_shows_at_once() {
        let value = json!({
            "lr": "fast", "step": 3, "ties": "drpo",
            "objective": {"name": "dpo", "beta": 0.1, "tau": 0.5}, "tags": [{"name": 3}, {"nam": "x"}], "limit": 7,
        });
        check(
            value,
            &[
                "limit: got the number 7, wanted a mapping or `none`",
                "lr: got the text `fast`, wanted a number",
                "objective.tau: unknown key `tau`: `rpo` reads it, `dpo` does not",
                "step: unknown key `step`; did you mean `steps`?",
                "tags.0.name: got the number 3, wanted text",
                "tags.1.nam: unknown key `nam`; did you mean `name`?",
                "tags.1: `name` is missing (Its name, such as 0.1)",
                "ties: unknown value `drpo`; did you mean `drop`?",
            ],
        );
    }

    #[test]
    fn tags_choose_the_alternative() {
        let mut value = good();
        value["objective"] = json!({"name": "rpoo", "bta": 3});
        check(value, &["objective.name: unknown value `rpoo`; did you mean `rpo`?"]);
        let mut value = good();
        value["objective"] = json!({"beta": 3});
        check(value, &["objective: `name` is missing: `dpo` or `rpo`"]);
    }

    #[test]
    fn without_a_tag_the_alternative_without_one_is_meant() {
        let measured = |measure: Value, wanted: &[&str]| {
            let mut value = good();
            value["measure"] = measure;
            check(value, wanted);
        };
        measured(json!({"pairs": "p"}), &[]);
        measured(json!({"measure": "corrected", "gold": "g"}), &[]);
        measured(json!({"pair": "p"}), &["measure.pair: unknown key `pair`; did you mean `pairs`?"]);
        measured(json!({"gold": "g"}), &["measure.gold: unknown key `gold`: `measure: corrected` reads it"]);
        measured(
            json!({"measure": "leaderbord", "votes": "v"}),
            &["measure.measure: unknown value `leaderbord`; did you mean `leaderboard`?"],
        );
        measured(
            json!({"measure": "leaderboard", "votes": "v", "gold": "g"}),
            &["measure.gold: unknown key `gold`: `corrected` reads it, `leaderboard` does not"],
        );
    }
}
