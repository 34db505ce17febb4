//! `matrix:` in a stage: one stage for each combination of settings.
//!
//! ```yaml
//! policy:
//!   kind: train
//!   matrix: {objective: [dpo, gdpo], beta: [0.1, 0.3]}
//!   objective: {name: "${matrix.objective}", beta: "${matrix.beta}"}
//! ```
//! makes `policy@dpo-0.1`, `policy@dpo-0.3`, `policy@gdpo-0.1` and `policy@gdpo-0.3`. An axis is a list of values, or a
//! mapping from labels to values, which may name other axes: `objective: {soft: {name: gdpo, beta: "${matrix.beta}"}}`.
//! A list of matrices with the same axes gives the combinations of each.

use std::collections::{BTreeMap, HashMap};

use super::node::{Content, Entry, Mapping, Node};
use super::selection::Labels;
use super::vars::{Axes as OfAxes, Budget, Environment, Replacer};
use crate::pipeline::problem::{At, Fault, Problem};

/// More stages than this from one matrix are refused.
const MOST: usize = 10_000;

/// The axes of a grid: each a name with its labels and values, in the order of the file.
type Axes = Vec<(String, Vec<(String, Node)>)>;

/// A combination with the value of each axis.
pub type Combination = (Labels, Mapping);

/// The matrices of a document.
#[derive(Debug, Default)]
pub struct Matrices {
    /// The combinations of each stage that has a matrix, in the order of the file.
    pub combinations: BTreeMap<String, Vec<Combination>>,
}

/// Every combination of a grid, the last axis turning fastest.
fn combinations(axes: &Axes) -> Vec<Combination> {
    let mut combinations: Vec<Combination> = vec![(Vec::new(), Mapping::default())];
    for (axis, values) in axes {
        let with = |(labels, item): &Combination| {
            let (labels, item) = (labels.clone(), item.clone());
            let one = move |(label, value): &(String, Node)| {
                let (mut labels, mut item) = (labels.clone(), item.clone());
                labels.push((axis.clone(), label.clone()));
                item.insert(Entry { key: axis.clone(), key_at: At::File, value: value.clone() });
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
    pub fn read(document: &Node, environment: Environment<'_>, budget: &Budget) -> (Matrices, Vec<Problem>) {
        let (mut matrices, mut problems) = (Matrices::default(), Vec::new());
        let stages = document.get("stages").and_then(Node::mapping).into_iter().flat_map(Mapping::iter);
        for (stage, matrix) in stages.filter_map(|entry| Some((&entry.key, entry.value.get("matrix")?))) {
            let mut reader = Reader { stage, document, problems: Vec::new() };
            let mut matrix = matrix.clone();
            let mut path = vec!["stages".to_owned(), stage.clone(), "matrix".to_owned()];
            let mut replacer = Replacer::new(document.get("vars"), environment, budget);
            replacer.axes = OfAxes::Kept;
            replacer.walk(&mut matrix, &mut path, &mut |path, text| reader.report(&path[3..], text));
            let combinations = reader.matrix(&matrix);
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

/// The name of one stage of a matrix.
pub fn name_of(stage: &str, labels: &Labels) -> String {
    let labels: Vec<&str> = labels.iter().map(|(_, label)| label.as_str()).collect();
    format!("{stage}@{}", labels.join("-"))
}

struct Reader<'a> {
    stage: &'a str,
    document: &'a Node,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn report(&mut self, below: &[String], text: String) {
        let path = ["stages", self.stage, "matrix"].map(str::to_owned).into_iter().chain(below.iter().cloned());
        let at = self.document.of_value(&path.collect::<Vec<_>>());
        self.problems.push(Problem { at, stage: Some(self.stage.to_owned()), text, fault: Fault::Pipeline });
    }

    /// The combinations of a matrix, or of a list of them.
    fn matrix(&mut self, value: &Node) -> Vec<Combination> {
        let grids: Vec<(Vec<String>, &Node)> = match &value.content {
            Content::List(grids) => {
                grids.iter().enumerate().map(|(index, grid)| (vec![index.to_string()], grid)).collect()
            }
            _ => vec![(Vec::new(), value)],
        };
        let mut all: Vec<Combination> = Vec::new();
        let mut first: Option<Vec<String>> = None;
        for (below, grid) in grids {
            let mut axes = self.axes(&below, grid);
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

    fn axes(&mut self, below: &[String], value: &Node) -> Axes {
        let mut axes = Axes::new();
        let Some(map) = value.mapping().filter(|map| !map.is_empty()) else {
            let text = "`matrix` is a mapping of axes to their values: `{objective: [dpo, gdpo]}`, or a list of such";
            self.report(below, text.to_owned());
            return axes;
        };
        let mut size = 1_usize;
        for Entry { key: axis, value, .. } in map.iter() {
            let below = [below, std::slice::from_ref(axis)].concat();
            let values: Vec<(String, Node)> = match &value.content {
                Content::List(items) => labelled(axis, items),
                Content::Mapping(named) => {
                    named.iter().map(|entry| (cleaned(&entry.key), entry.value.clone())).collect()
                }
                _ => {
                    let text = "an axis is a list of values or a mapping of labels to values";
                    self.report(&below, format!("{text}, got {}", value.json()));
                    continue;
                }
            };
            if let Some(text) =
                values.iter().filter_map(|(_, value)| value.text()).find(|text| text.contains("${matrix."))
                && matches!(value.content, Content::List(_))
            {
                let text = format!("`{text}` names another axis, so it needs a label of its own: `{{label: value}}`");
                self.report(&below, text);
            }
            if values.is_empty() {
                self.report(&below, format!("axis `{axis}` has no values, so there is no stage"));
            }
            let mut labels: Vec<&str> = values.iter().map(|(label, _)| label.as_str()).collect();
            labels.sort_unstable();
            if let Some(twice) = labels.windows(2).find(|pair| pair[0] == pair[1]) {
                self.report(&below, format!("axis `{axis}` has the label `{}` twice", twice[0]));
            }
            size = size.saturating_mul(values.len());
            axes.push((axis.clone(), values));
        }
        if size > MOST {
            self.report(below, format!("{size} combinations; a matrix has at most {MOST}"));
        }
        axes
    }
}

/// The labels of a list's values: plain values as they are, mappings by their `name`, else by their number.
fn labelled(axis: &str, items: &[Node]) -> Vec<(String, Node)> {
    let given = |value: &Node| match &value.content {
        Content::Text(text) => Some(text.clone()),
        Content::Number(_) | Content::Bool(_) => Some(value.json().to_string()),
        _ => value.get("name").and_then(Node::text).map(str::to_owned),
    };
    let plain: Vec<Option<String>> = items.iter().map(given).collect();
    let mut counts: HashMap<&Option<String>, usize> = HashMap::new();
    plain.iter().for_each(|label| *counts.entry(label).or_default() += 1);
    let label = |(index, value): (usize, &Node)| {
        let unique = counts[&plain[index]] == 1;
        let own = plain[index].clone().filter(|_| unique || value.mapping().is_none());
        (cleaned(&own.unwrap_or_else(|| format!("{axis}{index}"))), value.clone())
    };
    items.iter().enumerate().map(label).collect()
}

/// A label as part of a folder's name.
fn cleaned(label: &str) -> String {
    label.chars().map(|c| if c.is_alphanumeric() || "-_.+".contains(c) { c } else { '_' }).collect()
}
