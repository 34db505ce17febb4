//! References to a stage that has a matrix: from a stage with the same axes to the one with the same labels, from any
//! other to all of them, or with brackets to some: `policy[objective=dpo|gdpo]`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use serde_json::Value;

use crate::pipeline::{Declared, Group, Selection};

/// The stages of each matrix.
pub struct Groups<'a> {
    members: BTreeMap<&'a str, Members<'a>>,
    /// The names of all stages, to separate a port from the rest of a name.
    names: HashSet<&'a str>,
}

/// The stages of one matrix, in the order of their combinations, with what was asked about them before: thousands of
/// readers ask the same.
#[derive(Default)]
struct Members<'a> {
    stages: Vec<(&'a Declared, &'a Group)>,
    /// The labels of each axis.
    axes: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// Stages by their labels on some of the axes.
    by_labels: RefCell<HashMap<Vec<&'a str>, Rc<ByLabels<'a>>>>,
    /// The stages that a reference with brackets means, by its text.
    selected: RefCell<HashMap<String, Rc<Selected>>>,
}

/// The stages that a reference means, or its fault.
type Selected = Result<Vec<bool>, String>;

/// Numbers of stages by their labels.
type ByLabels<'a> = HashMap<Vec<&'a str>, Vec<usize>>;

impl<'a> Members<'a> {
    /// The numbers of the stages by their labels on these axes.
    fn by_labels(&self, axes: &[&'a str]) -> Rc<ByLabels<'a>> {
        let index = || {
            let mut index = ByLabels::new();
            for (number, (_, group)) in self.stages.iter().enumerate() {
                index.entry(axes.iter().map(|axis| label_of(group, axis)).collect()).or_default().push(number);
            }
            Rc::new(index)
        };
        self.by_labels.borrow_mut().entry(axes.to_vec()).or_insert_with(index).clone()
    }

    fn selected(&self, text: &str, selection: &Selection<'_>) -> Rc<Selected> {
        let select = || {
            let labels: Vec<_> = self.stages.iter().map(|(_, group)| group.labels.clone()).collect();
            Rc::new(selection.of(&labels))
        };
        self.selected.borrow_mut().entry(text.to_owned()).or_insert_with(select).clone()
    }
}

/// The label of a stage on an axis that its matrix has.
fn label_of<'a>(group: &'a Group, axis: &str) -> &'a str {
    group.labels.iter().find(|(own, _)| own == axis).map_or("", |(_, label)| label)
}

impl<'a> Groups<'a> {
    /// The groups among some stages.
    pub fn of(stages: &'a [Declared]) -> Groups<'a> {
        let mut members: BTreeMap<&str, Members<'a>> = BTreeMap::new();
        for stage in stages {
            if let Some(group) = &stage.group {
                let members = members.entry(&group.name).or_default();
                members.stages.push((stage, group));
                group.labels.iter().for_each(|(axis, label)| _ = members.axes.entry(axis).or_default().insert(label));
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

    /// The stages that a reference to a matrix means; none where it is not such a reference.
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
        let (mut axes, mut wanted) = (Vec::new(), Vec::new());
        for (axis, label) in given {
            let Some((axis, there)) = members.axes.get_key_value(axis.as_str()) else { continue };
            let Some(label) = there.get(label.as_str()) else {
                let there: Vec<String> = there.iter().map(|label| format!("`{label}`")).collect();
                let there = there.join(", ");
                return Some(Err(format!("`{name}` has no `{label}` on its axis `{axis}`; it has {there}")));
            };
            axes.push(*axis);
            wanted.push(*label);
        }
        let by_labels = members.by_labels(&axes);
        let fitting = by_labels.get(&wanted).map_or(&[][..], Vec::as_slice);
        let meant = selection.as_ref().map(|selection| members.selected(text, selection));
        let meant = match meant.as_deref() {
            Some(Err(text)) => return Some(Err(text.clone())),
            Some(Ok(meant)) => Some(meant),
            None => None,
        };
        let chosen = fitting.iter().filter(|number| meant.is_none_or(|meant| meant[**number]));
        let reference = |number: &usize| {
            let name = &members.stages[*number].0.name;
            port.map_or_else(|| name.clone(), |port| format!("{name}.{port}"))
        };
        Some(Ok(chosen.map(reference).collect()))
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
