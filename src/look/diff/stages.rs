//! The settings that decided the results of two runs: configurations after defaults, seeds, versions and contents.

use serde::Serialize;

use super::Side;
use crate::store::Difference;

/// A stage, or all stages of a matrix that differ in the same way.
#[derive(Debug, Serialize)]
pub struct Stages {
    /// The stage's name, or `name@*`.
    pub stage: String,
    /// Number of stages it stands for.
    pub count: usize,
    /// The differences, key by key.
    pub differences: Vec<Difference>,
    /// The stage's state in each run, where one has no recipe for it: (first, second).
    pub states: Option<(String, String)>,
}

/// The stages that differ, in the order of the second pipeline.
pub fn stages(a: &Side<'_>, b: &Side<'_>) -> Vec<Stages> {
    let mut names: Vec<&String> = b.record.order.iter().collect();
    names.extend(a.record.order.iter().filter(|name| !b.record.stages.contains_key(*name)));
    let mut all: Vec<Stages> = Vec::new();
    for name in names {
        let (old, new) = (a.record.stages.get(name), b.record.stages.get(name));
        let recipe = |record: Option<&crate::store::StageRecord>| record.and_then(|record| record.recipe.clone());
        let (mut differences, mut states) = (Vec::new(), None);
        match (recipe(old), recipe(new)) {
            (Some(old), Some(new)) => differences = new.differences(&old),
            (None, None) if old.is_some() == new.is_some() => {}
            _ => {
                let state = |record: Option<&crate::store::StageRecord>| {
                    record.map_or("not in it".to_owned(), |record| record.state.word().to_owned())
                };
                states = Some((state(old), state(new)));
            }
        }
        if differences.is_empty() && states.is_none() {
            continue;
        }
        let group = name.split_once('@').map(|(group, _)| format!("{group}@"));
        let same = all.iter_mut().find(|known| {
            let of_group = group.as_ref().is_some_and(|group| known.stage.starts_with(group));
            of_group && known.differences == differences && known.states == states
        });
        match same {
            Some(known) => {
                known.count += 1;
                known.stage = format!("{}*", group.unwrap_or_default());
            }
            None => all.push(Stages { stage: name.clone(), count: 1, differences, states }),
        }
    }
    all
}
