//! Configurations that cannot be read, made readable: so that what else is wrong with a stage shows beside the value
//! that stops its reading. What the wrong value should have been nobody knows; a finding counts where it is there
//! whichever of the values that fit stands in its place.

use kit::{Finding, Kind, Stage};
use serde_json::Value;

use crate::pipeline::conform::repair_at;

/// With several wrong values no more than this many ways to mend them are tried.
const MOST: usize = 1000;

/// A wrong value and what could stand in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Repair {
    /// The keys that lead to it.
    pub path: Vec<String>,
    /// Values that could stand there; `None` leaves the key out.
    pub values: Vec<Option<Value>>,
}

/// The stages that a configuration could mean.
pub struct Repaired {
    /// One for each way to mend it that can be read.
    pub stages: Vec<Box<dyn Stage>>,
    /// The paths of the values that were wrong; what is said about them is not the file's.
    paths: Vec<Vec<String>>,
}

impl Repaired {
    /// Mends a configuration of some schema. Gives what was found wrong on the way, too.
    pub fn of(kind: &Kind, schema: &Value, config: &Value, mut repairs: Vec<Repair>) -> (Repaired, Vec<Finding>) {
        let mut found = Vec::new();
        loop {
            let paths: Vec<Vec<String>> = repairs.iter().map(|repair| repair.path.clone()).collect();
            let mut repaired = Repaired { stages: Vec::new(), paths };
            let mut refused = Vec::new();
            for config in ways(config, &repairs) {
                match (kind.configure)(config) {
                    Ok((stage, _)) => repaired.stages.push(stage),
                    Err(finding) => refused.push(vec![finding]),
                }
            }
            // Refused for one and the same reason elsewhere, whatever stands here: that is wrong too.
            let next =
                common(refused).pop().filter(|finding| !finding.path.is_empty() && !repaired.covers(&finding.path));
            match next {
                Some(finding) if repaired.stages.is_empty() => {
                    let repair = repair_at(schema, &finding.path);
                    found.push(finding);
                    if repair.path.is_empty() {
                        return (repaired, found);
                    }
                    repairs.push(repair);
                }
                _ => return (repaired, found),
            }
        }
    }

    /// Whether a path leads to a value that was wrong, or above or below it.
    pub fn covers(&self, path: &[String]) -> bool {
        let wrong = self.paths.iter().filter(|wrong| !wrong.is_empty() && !path.is_empty());
        wrong.into_iter().any(|wrong| path.starts_with(wrong) || wrong.starts_with(path))
    }

    /// What is found in every one of the stages.
    pub fn agreed<T: PartialEq>(&self, mut find: impl FnMut(&dyn Stage) -> Vec<T>) -> Vec<T> {
        common(self.stages.iter().map(|stage| find(&**stage)).collect())
    }
}

/// What all of some lists hold.
pub fn common<T: PartialEq>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut lists = lists.into_iter();
    let mut first = lists.next().unwrap_or_default();
    lists.for_each(|list| first.retain(|item| list.contains(item)));
    first
}

/// The configuration with its wrong values replaced: every combination, or where those are too many, each value of each
/// repair at least once.
fn ways(config: &Value, repairs: &[Repair]) -> Vec<Value> {
    let all =
        repairs.iter().try_fold(1_usize, |all, repair| all.checked_mul(repair.values.len()).filter(|n| *n <= MOST));
    let longest = repairs.iter().map(|repair| repair.values.len()).max().unwrap_or(0);
    let way = |number: usize| {
        let (mut config, mut rest) = (config.clone(), number);
        for repair in repairs {
            let index = if all.is_some() { rest % repair.values.len() } else { number % repair.values.len() };
            rest /= repair.values.len();
            put(&mut config, &repair.path, repair.values[index].as_ref());
        }
        config
    };
    (0..all.unwrap_or(longest)).map(way).collect()
}

/// Puts a value at a path, or takes the key away.
fn put(config: &mut Value, path: &[String], value: Option<&Value>) {
    let Some((last, above)) = path.split_last() else { return };
    let mut target = config;
    for key in above {
        let next = match target {
            Value::Object(map) => map.get_mut(key),
            Value::Array(items) => key.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
            _ => None,
        };
        let Some(next) = next else { return };
        target = next;
    }
    match (target, value) {
        (Value::Object(map), Some(value)) => _ = map.insert(last.clone(), value.clone()),
        (Value::Object(map), None) => _ = map.remove(last),
        (Value::Array(items), Some(value)) => {
            if let Some(item) = last.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                *item = value.clone();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn repair(path: &str, values: &[Value]) -> Repair {
        let path = path.split('.').map(str::to_owned).collect();
        Repair { path, values: values.iter().cloned().map(Some).chain([None]).collect() }
    }

    #[test]
    fn every_combination_is_tried_and_of_too_many_each_value() {
        let config = json!({"a": "?", "b": {"c": ["?"]}, "d": 1});
        let few = ways(&config, &[repair("a", &[json!(1), json!(2)]), repair("b.c.0", &[json!(3)])]);
        assert_eq!(few.len(), 6);
        assert!(few.contains(&json!({"a": 2, "b": {"c": [3]}, "d": 1})));
        assert!(few.contains(&json!({"b": {"c": [3]}, "d": 1})));
        let numbers: Vec<Value> = (0..40).map(Value::from).collect();
        let many = ways(&config, &[repair("a", &numbers), repair("d", &numbers)]);
        assert_eq!(many.len(), 41);
        assert!(many.contains(&json!({"a": 7, "b": {"c": ["?"]}, "d": 7})));
    }

    #[test]
    fn what_all_lists_hold_is_common() {
        assert_eq!(common(vec![vec![1, 2, 3], vec![3, 1], vec![1, 3, 4]]), [1, 3]);
        assert_eq!(common::<u8>(Vec::new()), Vec::<u8>::new());
    }
}
