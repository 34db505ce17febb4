//! A pipeline for people: the stages of a matrix are one.

use std::collections::BTreeMap;

use crate::engine::plan::Decision;
use crate::pipeline::graph::Graph;

/// A stage, or all stages of a matrix.
pub struct Shown {
    /// The name in the pipeline file.
    pub name: String,
    /// The axes of the matrix with their sizes, such as `3 objective x 5 seed`.
    pub axes: Option<String>,
    /// The kind.
    pub kind: &'static str,
    /// The stages' numbers.
    pub members: Vec<usize>,
}

impl Shown {
    /// The name with the axes.
    pub fn title(&self) -> String {
        match &self.axes {
            None => self.name.clone(),
            Some(axes) => format!("{} ({axes})", self.name),
        }
    }
}

/// The stages in some order, those of a matrix at the place of their first.
pub fn shown(graph: &Graph, order: impl IntoIterator<Item = usize>) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for stage in order {
        let node = &graph.nodes[stage];
        match &node.group {
            Some(group) if places.contains_key(group.name.as_str()) => {
                all[places[group.name.as_str()]].members.push(stage);
            }
            group => {
                let name = group.as_ref().map_or(&node.name, |group| &group.name);
                places.insert(name, all.len());
                all.push(Shown { name: name.clone(), axes: None, kind: node.kind, members: vec![stage] });
            }
        }
    }
    for one in &mut all {
        let labels: Vec<_> = one.members.iter().filter_map(|stage| graph.nodes[*stage].group.as_ref()).collect();
        let Some(first) = labels.first() else { continue };
        let size = |axis: usize| {
            let mut values: Vec<&str> = labels.iter().map(|group| group.labels[axis].1.as_str()).collect();
            values.sort_unstable();
            values.dedup();
            values.len()
        };
        let axes = first.labels.iter().enumerate().map(|(axis, (name, _))| format!("{} {name}", size(axis)));
        one.axes = Some(axes.collect::<Vec<_>>().join(" x "));
    }
    all
}

/// Decisions in words: each sentence once, with how many stages it is about where they are several.
pub fn sentences<'d>(graph: &Graph, decisions: impl IntoIterator<Item = &'d Decision>) -> String {
    let plain = |name: &String| {
        let node = graph.nodes.iter().find(|node| node.name == *name);
        node.and_then(|node| node.group.as_ref()).map_or_else(|| name.clone(), |group| group.name.clone())
    };
    let mut counted: Vec<(String, usize)> = Vec::new();
    let mut all = 0;
    for decision in decisions {
        all += 1;
        let sentence = match decision {
            Decision::Depends(on) => {
                let mut names: Vec<String> = Vec::new();
                on.iter().map(plain).for_each(|name| {
                    if !names.contains(&name) {
                        names.push(name)
                    }
                });
                format!("depends on {}", names.join(", "))
            }
            other => other.sentence(),
        };
        match counted.iter_mut().find(|(known, _)| *known == sentence) {
            Some((_, count)) => *count += 1,
            None => counted.push((sentence, 1)),
        }
    }
    let words = |(sentence, count): &(String, usize)| match all {
        1 => sentence.clone(),
        _ => format!("{count} {sentence}"),
    };
    counted.iter().map(words).collect::<Vec<_>>().join("; ")
}
