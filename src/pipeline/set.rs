//! `--set a.b=<yaml>`: values given on the command line.

use std::rc::Rc;

use super::node::{Content, Entry, Mapping, Node};
use super::yaml;
use crate::pipeline::problem::{At, Fault, Problem, did_you_mean};

/// Puts the value of `set` (`seed=3`, `vars.x=..`, `stage.key=..`) into the document.
///
/// # Errors
/// When it names nothing that is there, or its value is not YAML.
pub fn apply(document: &mut Node, set: &str) -> Result<(), Problem> {
    let at = At::Set(set.into());
    let problem = |text: String| Problem { at: at.clone(), stage: None, text, fault: Fault::Pipeline };
    let (name, text) =
        set.split_once('=').ok_or_else(|| problem("write `stage.key=value`, `vars.x=value` or `seed=value`".into()))?;
    let mut value = yaml::read_value(text).map_err(problem)?;
    place(&mut value, &at);
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
    } else if !["seed", "name", "store"].contains(&head) {
        let known = names(document.get("stages"));
        if !known.contains(&keys[0]) {
            let all = known.iter().map(String::as_str).chain(["vars", "seed", "store"]);
            return Err(problem(format!("there is no stage `{head}`{}", did_you_mean(head, all))));
        }
        if keys.len() == 1 {
            return Err(problem(format!("name a key of the stage: `{head}.key=value`")));
        }
        keys.insert(0, "stages".to_owned());
    }
    put(document, &keys, value).map_err(|key| problem(format!("`{key}` holds a plain value, so it has no keys")))
}

fn names(value: Option<&Node>) -> Vec<String> {
    value.and_then(Node::mapping).into_iter().flat_map(Mapping::keys).map(str::to_owned).collect()
}

/// Gives a value and all below it one place.
fn place(node: &mut Node, at: &At) {
    node.at = at.clone();
    match &mut node.content {
        Content::List(items) => Rc::make_mut(items).iter_mut().for_each(|item| place(item, at)),
        Content::Mapping(mapping) => {
            let placed = |entry: &Entry| {
                let mut entry = Entry { key_at: at.clone(), ..entry.clone() };
                place(&mut entry.value, at);
                entry
            };
            *mapping = Rc::new(mapping.iter().map(placed).collect());
        }
        _ => {}
    }
}

/// On an error gives the key that cannot hold others.
fn put(document: &mut Node, keys: &[String], value: Node) -> Result<(), String> {
    let mut target = document;
    let mut parent = "";
    for (depth, key) in keys.iter().enumerate() {
        if target.is_null() {
            target.content = Content::Mapping(Rc::default());
        }
        target = match &mut target.content {
            Content::Mapping(mapping) => {
                let mapping = Rc::make_mut(mapping);
                // Given values, and mappings made for them, have the place of the command line.
                if depth + 1 == keys.len() || mapping.get(key).is_none() {
                    let below = Node::placed(value.at.clone(), Content::Null);
                    mapping.insert(Entry { key: key.clone(), key_at: value.at.clone(), value: below });
                }
                mapping.get_mut(key).expect("it is there")
            }
            Content::List(items) => {
                let item = key.parse::<usize>().ok().and_then(|index| Rc::make_mut(items).get_mut(index));
                item.ok_or_else(|| format!("{parent}.{key}"))?
            }
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
    use serde_json::{Value, json};

    fn set(sets: &[&str]) -> Result<Value, String> {
        let text = "seed: 1\nvars: {x: 1}\nstages:\n  policy: {objective: {name: dpo, beta: 0.1}, list: [1, 2]}\n";
        let mut value = yaml::read(text, None).unwrap().root;
        for set in sets {
            apply(&mut value, set).map_err(|problem| problem.line("p".as_ref()))?;
        }
        Ok(value.json())
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
