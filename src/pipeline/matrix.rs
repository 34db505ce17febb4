//! `matrix:` in a stage: one stage for each combination of settings.
//!
//! ```yaml
//! policy:
//!   kind: train
//!   matrix: {objective: [dpo, gdpo], beta: [0.1, 0.3]}
//!   objective: {name: "${matrix.objective}", beta: "${matrix.beta}"}
//! ```
//! makes `policy@dpo-0.1`, `policy@dpo-0.3`, `policy@gdpo-0.1` and `policy@gdpo-0.3`. An axis is a list of values, or a
//! mapping from labels to values. A list of matrices with the same axes gives the combinations of each.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::spans::Spans;
use super::vars::{Budget, Environment, Replacer};
use crate::pipeline::problem::{Fault, Problem, did_you_mean};

/// More stages than this from one matrix are refused.
const MOST: usize = 10_000;

/// The axes of a grid: each a name with its labels and values, in the order of the file.
type Axes = Vec<(String, Vec<(String, Value)>)>;

/// A combination: the label of each axis.
pub type Labels = Vec<(String, String)>;

/// A combination with the value of each axis.
pub type Combination = (Labels, Map<String, Value>);

/// The matrices of a document.
#[derive(Debug, Default)]
pub struct Matrices {
    /// The combinations of each stage that has a matrix, in the order of the file.
    pub combinations: BTreeMap<String, Vec<Combination>>,
}

/// Every combination of a grid, the last axis turning fastest.
fn combinations(axes: &Axes) -> Vec<Combination> {
    let mut combinations: Vec<Combination> = vec![(Vec::new(), Map::new())];
    for (axis, values) in axes {
        let with = |(labels, item): &Combination| {
            let (labels, item) = (labels.clone(), item.clone());
            let one = move |(label, value): &(String, Value)| {
                let (mut labels, mut item) = (labels.clone(), item.clone());
                labels.push((axis.clone(), label.clone()));
                item.insert(axis.clone(), value.clone());
                (labels, item)
            };
            values.iter().map(one).collect::<Vec<_>>()
        };
        combinations = combinations.iter().flat_map(with).collect();
    }
    combinations
}

impl Matrices {
    /// Reads the `matrix` of every stage, with variables replaced. Stages whose matrix is wrong have none.
    pub fn read(
        document: &Value,
        order: &serde_yaml::Value,
        spans: &Spans,
        environment: Environment<'_>,
        budget: &Budget,
    ) -> (Matrices, Vec<Problem>) {
        let (mut matrices, mut problems) = (Matrices::default(), Vec::new());
        let vars = document.get("vars").cloned().unwrap_or(Value::Null);
        let stages = document.get("stages").and_then(Value::as_object).into_iter().flatten();
        for (stage, value) in stages.filter_map(|(stage, value)| Some((stage, value.get("matrix")?))) {
            let mut reader = Reader { stage, spans, problems: Vec::new() };
            let mut value = value.clone();
            let mut path = vec!["stages".to_owned(), stage.clone(), "matrix".to_owned()];
            let mut replacer = Replacer::new(&vars, environment, budget);
            replacer.walk(&mut value, &mut path, &mut |path, text| reader.report(&path[3..], text));
            let combinations = reader.matrix(&value, &order_of(order, stage));
            if reader.problems.is_empty() {
                matrices.combinations.insert(stage.clone(), combinations);
            }
            problems.extend(reader.problems);
        }
        (matrices, problems)
    }

    /// The labels of each matrix stage, one entry per combination: what `${labels.stage}` stands for.
    pub fn labels(&self) -> BTreeMap<String, Vec<Labels>> {
        let of = |all: &Vec<Combination>| all.iter().map(|(labels, _)| labels.clone()).collect();
        self.combinations.iter().map(|(stage, all)| (stage.clone(), of(all))).collect()
    }
}

/// Some stages of a matrix: `stage[axis=label|label, axis=label].port`.
#[derive(Debug, PartialEq, Eq)]
pub struct Selection<'t> {
    /// The stage that has the matrix.
    pub stage: &'t str,
    /// The labels of each axis that is given.
    pub axes: Vec<(&'t str, Vec<&'t str>)>,
    /// The port after the brackets.
    pub port: Option<&'t str>,
}

impl<'t> Selection<'t> {
    /// Reads a reference with brackets; nothing where it has none.
    pub fn read(text: &'t str) -> Option<Result<Selection<'t>, String>> {
        let (stage, rest) = text.split_once('[')?;
        let wrong = || format!("`{text}`: write `{stage}[axis=label|label, axis=label]`");
        let Some((inner, port)) = rest.split_once(']') else { return Some(Err(wrong())) };
        let axis = |part: &'t str| {
            let (axis, labels) = part.split_once('=')?;
            Some((axis.trim(), labels.split('|').map(str::trim).collect()))
        };
        let axes: Option<Vec<_>> = inner.split(',').map(axis).collect();
        let port = match port.strip_prefix('.') {
            None if port.is_empty() => None,
            Some(port) if !port.is_empty() => Some(port),
            _ => return Some(Err(wrong())),
        };
        Some(axes.map(|axes| Selection { stage, axes, port }).ok_or_else(wrong))
    }

    /// Checks it against the combinations there are: which of them it means.
    ///
    /// # Errors
    /// An axis or label that there is not.
    pub fn of(&self, combinations: &[Labels]) -> Result<Vec<bool>, String> {
        for (axis, labels) in &self.axes {
            let there: Vec<&str> =
                combinations.iter().flatten().filter(|it| it.0 == *axis).map(|it| it.1.as_str()).collect();
            if there.is_empty() {
                let known = combinations.first().into_iter().flatten().map(|it| it.0.as_str());
                return Err(format!("`{}` has no axis `{axis}`{}", self.stage, did_you_mean(axis, known)));
            }
            if let Some(label) = labels.iter().find(|label| !there.contains(label)) {
                let near = did_you_mean(label, there.iter().copied());
                return Err(format!("`{}` has no `{label}` on its axis `{axis}`{near}", self.stage));
            }
        }
        let means = |combination: &Labels| {
            let fits = |(axis, labels): &(&str, Vec<&str>)| {
                combination.iter().any(|(own, label)| own == axis && labels.contains(&label.as_str()))
            };
            self.axes.iter().all(fits)
        };
        let meant: Vec<bool> = combinations.iter().map(means).collect();
        if !meant.contains(&true) {
            return Err(format!("no stage of `{}` has all of these labels", self.stage));
        }
        Ok(meant)
    }
}

/// The name of one stage of a matrix.
pub fn name_of(stage: &str, labels: &Labels) -> String {
    let labels: Vec<&str> = labels.iter().map(|(_, label)| label.as_str()).collect();
    format!("{stage}@{}", labels.join("-"))
}

struct Reader<'a> {
    stage: &'a str,
    spans: &'a Spans,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn report(&mut self, below: &[String], text: String) {
        let path = ["stages", self.stage, "matrix"].map(str::to_owned).into_iter().chain(below.iter().cloned());
        let at = self.spans.of_value(&path.collect::<Vec<_>>());
        self.problems.push(Problem { at, stage: Some(self.stage.to_owned()), text, fault: Fault::Pipeline });
    }

    /// The combinations of a matrix, or of a list of them.
    fn matrix(&mut self, value: &Value, order: &Order) -> Vec<Combination> {
        let grids: Vec<(Vec<String>, &Value)> = match value {
            Value::Array(grids) => {
                grids.iter().enumerate().map(|(index, grid)| (vec![index.to_string()], grid)).collect()
            }
            grid => vec![(Vec::new(), grid)],
        };
        let mut all: Vec<Combination> = Vec::new();
        let mut first: Option<Vec<String>> = None;
        for (below, grid) in grids {
            let mut axes = self.axes(&below, grid, order);
            if !self.problems.is_empty() {
                continue;
            }
            let names: Vec<String> = axes.iter().map(|(axis, _)| axis.clone()).collect();
            let first = first.get_or_insert(names.clone());
            axes.sort_by_key(|(axis, _)| first.iter().position(|other| other == axis));
            if axes.len() != first.len() || axes.iter().zip(&*first).any(|((axis, _), other)| axis != other) {
                let text = format!("has the axes {}, and the first {}", names.join(", "), first.join(", "));
                self.report(&below, text);
                continue;
            }
            all.extend(combinations(&axes));
            if all.len() > MOST {
                self.report(&below, format!("more than {MOST} combinations in one matrix"));
                return all;
            }
        }
        if all.is_empty() && self.problems.is_empty() {
            self.report(&[], "a list without a matrix makes no stage".to_owned());
        }
        let mut names: Vec<String> = all.iter().map(|(labels, _)| name_of(self.stage, labels)).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            self.report(&[], format!("`{}` stands for two combinations; give the values other labels", twice[0]));
        }
        if let Some(long) = names.iter().find(|name| name.len() > 200) {
            self.report(&[], format!("`{long}` is too long a name; give the values short labels"));
        }
        all
    }

    fn axes(&mut self, below: &[String], value: &Value, order: &Order) -> Axes {
        let mut axes = Axes::new();
        let map = match value {
            Value::Object(map) if !map.is_empty() => map,
            _ => {
                let text =
                    "`matrix` is a mapping of axes to their values: `{objective: [dpo, gdpo]}`, or a list of such";
                self.report(below, text.to_owned());
                return axes;
            }
        };
        let mut size = 1_usize;
        for axis in order.sorted(below, map) {
            let below = [below, std::slice::from_ref(&axis)].concat();
            let values = match &map[&axis] {
                Value::Array(items) => labelled(&axis, items),
                Value::Object(named) => {
                    let labels = order.sorted(&below, named);
                    labels.into_iter().map(|label| (cleaned(&label), named[&label].clone())).collect()
                }
                other => {
                    self.report(
                        &below,
                        format!("an axis is a list of values or a mapping of labels to values, got {other}"),
                    );
                    continue;
                }
            };
            if values.is_empty() {
                self.report(&below, format!("axis `{axis}` has no values, so there is no stage"));
            }
            let mut labels: Vec<&str> = values.iter().map(|(label, _)| label.as_str()).collect();
            labels.sort_unstable();
            if let Some(twice) = labels.windows(2).find(|pair| pair[0] == pair[1]) {
                self.report(&below, format!("axis `{axis}` has the label `{}` twice", twice[0]));
            }
            size = size.saturating_mul(values.len());
            axes.push((axis, values));
        }
        if size > MOST {
            self.report(below, format!("{size} combinations; a matrix has at most {MOST}"));
        }
        axes
    }
}

/// The labels of a list's values: plain values as they are, mappings by their `name`, else by their number.
fn labelled(axis: &str, items: &[Value]) -> Vec<(String, Value)> {
    let given = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Object(map) => map.get("name").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let plain: Vec<Option<String>> = items.iter().map(given).collect();
    let mut counts: HashMap<&Option<String>, usize> = HashMap::new();
    plain.iter().for_each(|label| *counts.entry(label).or_default() += 1);
    let label = |(index, value): (usize, &Value)| {
        let unique = counts[&plain[index]] == 1;
        let own = plain[index].clone().filter(|_| unique || !value.is_object());
        (cleaned(&own.unwrap_or_else(|| format!("{axis}{index}"))), value.clone())
    };
    items.iter().enumerate().map(label).collect()
}

/// A label as part of a folder's name.
fn cleaned(label: &str) -> String {
    label.chars().map(|c| if c.is_alphanumeric() || "-_.+".contains(c) { c } else { '_' }).collect()
}

/// The order of keys below a stage's `matrix`, which JSON objects do not keep.
struct Order(serde_yaml::Value);

fn order_of(document: &serde_yaml::Value, stage: &str) -> Order {
    let matrix = document.get("stages").and_then(|stages| stages.get(stage)).and_then(|stage| stage.get("matrix"));
    Order(matrix.cloned().unwrap_or_default())
}

impl Order {
    fn sorted(&self, below: &[String], map: &Map<String, Value>) -> Vec<String> {
        let mut value = Some(&self.0);
        for key in below {
            value = value.and_then(|value| match key.parse::<usize>() {
                Ok(index) if value.is_sequence() => value.get(index),
                _ => value.get(key.as_str()),
            });
        }
        let key = |key: &serde_yaml::Value| match key {
            serde_yaml::Value::String(text) => Some(text.clone()),
            serde_yaml::Value::Number(number) => Some(number.to_string()),
            serde_yaml::Value::Bool(value) => Some(value.to_string()),
            _ => None,
        };
        let ordered = value.and_then(serde_yaml::Value::as_mapping).into_iter().flat_map(|map| map.keys());
        let order: HashMap<String, usize> = ordered.filter_map(key).zip(0..).collect();
        let mut keys: Vec<String> = map.keys().cloned().collect();
        keys.sort_by_key(|key| order.get(key).copied().unwrap_or(usize::MAX));
        keys
    }
}
