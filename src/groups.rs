//! References to a stage that has a matrix: from a stage with the same axes to the one with the same labels, from any
//! other to all of them, or with brackets to some: `policy[objective=dpo|gdpo]`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::pipeline::{Declared, Selection};

/// The stages of each matrix, in the order of their combinations.
pub struct Groups<'a> {
    members: BTreeMap<&'a str, Vec<&'a Declared>>,
    /// The names of all stages, to tell a port from the rest of a name.
    names: BTreeSet<&'a str>,
}

impl<'a> Groups<'a> {
    /// The groups among some stages.
    pub fn of(stages: &'a [Declared]) -> Groups<'a> {
        let mut members: BTreeMap<&str, Vec<&Declared>> = BTreeMap::new();
        for stage in stages {
            if let Some(group) = &stage.group {
                members.entry(&group.name).or_default().push(stage);
            }
        }
        Groups { members, names: stages.iter().map(|stage| stage.name.as_str()).collect() }
    }

    /// Replaces references to matrices in an input's value, as `reader` means them. Gives what is wrong: the number of
    /// the reference in its list, and a text.
    pub fn resolve(&self, value: &mut Value, reader: &Declared) -> Vec<(usize, String)> {
        let mut problems = Vec::new();
        let single = value.is_string();
        let texts: Vec<Value> = match value {
            Value::String(_) => vec![value.clone()],
            Value::Array(items) => items.clone(),
            _ => return problems,
        };
        let mut resolved = Vec::new();
        let mut changed = false;
        for (index, item) in texts.into_iter().enumerate() {
            match item.as_str().and_then(|text| self.references(text, reader)) {
                None => resolved.push(item),
                Some(Ok(references)) => {
                    changed = true;
                    resolved.extend(references.into_iter().map(Value::String));
                }
                Some(Err(text)) => problems.push((index, text)),
            }
        }
        if changed && problems.is_empty() {
            *value = match (&resolved[..], single) {
                ([one], true) => one.clone(),
                _ => Value::Array(resolved),
            };
        }
        problems
    }

    /// What a reference to a matrix means; nothing where it is none.
    fn references(&self, text: &str, reader: &Declared) -> Option<Result<Vec<String>, String>> {
        if text.contains('/') {
            return None;
        }
        let selection = match Selection::read(text).transpose() {
            Ok(selection) => selection,
            Err(text) => return Some(Err(text)),
        };
        let (name, port) = match &selection {
            Some(selection) => (selection.stage, selection.port),
            None => parts_of(text, |name| self.names.contains(name) || self.members.contains_key(name)),
        };
        let members = match (self.members.get(name), &selection) {
            (Some(members), _) => members,
            (None, Some(_)) => return Some(Err(format!("`{name}` is no stage with a `matrix` to choose from"))),
            (None, None) => return None,
        };
        let given: &[(String, String)] = reader.group.as_ref().map_or(&[], |group| &group.labels);
        let labels_of = |member: &Declared| member.group.clone().map(|group| group.labels).unwrap_or_default();
        for (axis, label) in given {
            let there: Vec<String> =
                members.iter().flat_map(|member| labels_of(member)).filter(|it| it.0 == *axis).map(|it| it.1).collect();
            if !there.is_empty() && !there.contains(label) {
                let there: BTreeSet<String> = there.into_iter().map(|label| format!("`{label}`")).collect();
                let there = there.into_iter().collect::<Vec<_>>().join(", ");
                return Some(Err(format!("`{name}` has no `{label}` on its axis `{axis}`; it has {there}")));
            }
        }
        let fits = |member: &&&Declared| {
            labels_of(member)
                .iter()
                .all(|(axis, label)| given.iter().find(|(own, _)| own == axis).is_none_or(|(_, own)| own == label))
        };
        let reference = |member: &&Declared| match port {
            None => member.name.clone(),
            Some(port) => format!("{}.{port}", member.name),
        };
        let all: Vec<_> = members.iter().map(|member| labels_of(member)).collect();
        let meant = match selection.map_or_else(|| Ok(vec![true; all.len()]), |selection| selection.of(&all)) {
            Ok(meant) => meant,
            Err(text) => return Some(Err(text)),
        };
        let chosen = members.iter().zip(meant).filter(|(_, meant)| *meant).map(|(member, _)| member);
        Some(Ok(chosen.filter(fits).map(reference).collect()))
    }
}

/// A reference as the name of a stage and a port. Names of a matrix's stages may hold dots (`policy@gdpo-0.3`).
pub fn parts_of(text: &str, is_stage: impl Fn(&str) -> bool) -> (&str, Option<&str>) {
    if text.contains('@') {
        if is_stage(text) {
            return (text, None);
        }
        if let Some((name, port)) = text.rsplit_once('.').filter(|(name, _)| is_stage(name)) {
            return (name, Some(port));
        }
    }
    text.split_once('.').map_or((text, None), |(name, port)| (name, Some(port)))
}

/// The keys of a configuration that are inputs, by its schema.
pub fn input_keys(schema: &Value) -> BTreeSet<String> {
    let is_input = |property: &Value| {
        let names = |value: &Value| value.get("$ref").is_some_and(|target| *target == "#/$defs/Input");
        names(property) || property.get("anyOf").and_then(Value::as_array).is_some_and(|any| any.iter().any(names))
    };
    let mut keys = BTreeSet::new();
    let own = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    keys.extend(own.filter(|(_, property)| is_input(property)).map(|(key, _)| key.clone()));
    // A kind with modes has one alternative per mode.
    for modes in ["oneOf", "anyOf"].iter().filter_map(|key| schema.get(*key)?.as_array()) {
        for mode in modes {
            keys.extend(input_keys(mode));
            let target = mode.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
            keys.extend(target.and_then(|pointer| schema.pointer(pointer)).iter().flat_map(|mode| input_keys(mode)));
        }
    }
    keys
}
