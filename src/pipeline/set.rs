//! `--set a.b=<yaml>`: values given on the command line.

use serde_json::{Map, Value};

use super::spans::Spans;
use super::yaml;
use crate::pipeline::problem::{At, Fault, Problem, did_you_mean};

/// Puts the value of `set` (`seed=3`, `vars.x=..`, `stage.key=..`) into the document.
///
/// # Errors
/// When it names nothing that is there, or its value is not YAML.
pub fn apply(document: &mut Value, spans: &mut Spans, set: &str) -> Result<(), Problem> {
    let problem = |text: String| Problem { at: At::Set(set.to_owned()), stage: None, text, fault: Fault::Pipeline };
    let (name, text) =
        set.split_once('=').ok_or_else(|| problem("write `stage.key=value`, `vars.x=value` or `seed=value`".into()))?;
    let value = yaml::read_value(text).map_err(problem)?;
    let mut keys: Vec<String> = name.trim().split('.').map(str::to_owned).collect();
    if keys.iter().any(String::is_empty) {
        return Err(problem(format!("`{name}` has an empty key")));
    }
    let head = keys[0].as_str();
    if head == "vars" {
        let known = names(document.get("vars"));
        let variable = keys.get(1).ok_or_else(|| problem("name the variable: `vars.x=value`".into()))?;
        if !known.contains(variable) {
            let near = did_you_mean(variable, known.iter().map(String::as_str));
            return Err(problem(format!("there is no variable `{variable}`{near}")));
        }
    } else if head != "seed" && head != "name" {
        let known = names(document.get("stages"));
        if !known.contains(&keys[0]) {
            let all = known.iter().map(String::as_str).chain(["vars", "seed"]);
            return Err(problem(format!("there is no stage `{head}`{}", did_you_mean(head, all))));
        }
        if keys.len() == 1 {
            return Err(problem(format!("name a key of the stage: `{head}.key=value`")));
        }
        keys.insert(0, "stages".to_owned());
    }
    put(document, &keys, value).map_err(|at| problem(format!("`{at}` holds a plain value, so it has no keys")))?;
    spans.overridden(&keys, set);
    Ok(())
}

fn names(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_object).map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

/// On an error gives the key that cannot hold others.
fn put(document: &mut Value, keys: &[String], value: Value) -> Result<(), String> {
    let mut target = document;
    let mut parent = "";
    for key in keys {
        if target.is_null() {
            *target = Value::Object(Map::new());
        }
        target = match target {
            Value::Object(map) => map.entry(key.clone()).or_insert(Value::Null),
            Value::Array(items) => key
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get_mut(index))
                .ok_or_else(|| format!("{parent}.{key}"))?,
            _ => return Err(parent.to_owned()),
        };
        parent = key;
    }
    *target = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(sets: &[&str]) -> Result<Value, String> {
        let text = "seed: 1\nvars: {x: 1}\nstages:\n  policy: {objective: {name: dpo, beta: 0.1}, list: [1, 2]}\n";
        let (mut value, mut spans) = yaml::read(text).unwrap();
        for set in sets {
            apply(&mut value, &mut spans, set).map_err(|problem| problem.line("p".as_ref()))?;
        }
        Ok(value)
    }

    #[test]
    fn values_are_yaml() {
        let value = set(&[
            "policy.objective={name: rpo, tau: 0.5}",
            "policy.objective.tau=5e-1",
            "policy.batch.pairs=64",
            "policy.list.1=7",
            "vars.x=[a]",
            "seed=3",
        ])
        .unwrap();
        assert_eq!(value["stages"]["policy"]["objective"], json!({"name": "rpo", "tau": 0.5}));
        assert_eq!(value["stages"]["policy"]["batch"]["pairs"], json!(64));
        assert_eq!(value["stages"]["policy"]["list"], json!([1, 7]));
        assert_eq!((&value["seed"], &value["vars"]["x"]), (&json!(3), &json!(["a"])));
    }

    #[test]
    fn what_is_not_there_is_named_with_its_nearest() {
        for (text, wanted) in [
            ("polcy.lr=1", "--set polcy.lr=1: there is no stage `polcy`; did you mean `policy`?"),
            ("vars.y=1", "--set vars.y=1: there is no variable `y`; did you mean `x`?"),
            ("policy=1", "--set policy=1: name a key of the stage: `policy.key=value`"),
            ("seed", "--set seed: write `stage.key=value`, `vars.x=value` or `seed=value`"),
            (
                "policy.objective.name.x=1",
                "--set policy.objective.name.x=1: `name` holds a plain value, so it has no keys",
            ),
        ] {
            assert_eq!(set(&[text]).unwrap_err(), wanted);
        }
        assert!(set(&["policy.objective={name: "]).unwrap_err().contains("not YAML"));
    }
}
