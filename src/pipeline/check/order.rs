//! The order of the stages, and the circles that leave them without one.

use std::collections::BTreeSet;

use super::Checker;
use crate::pipeline::graph::{Edge, Origin};

impl Checker<'_> {
    /// The stages in an order in which each comes after those it reads from, idle inputs included.
    pub(super) fn order(&mut self, edges: &[Vec<Edge>]) -> Vec<usize> {
        let readers_of = |stage: usize| -> Vec<usize> {
            let origins = edges[stage].iter().flat_map(|edge| &edge.sources);
            origins
                .filter_map(|origin| if let Origin::Port { stage, .. } = origin { Some(*stage) } else { None })
                .collect()
        };
        // The first stage of the file that waits for nothing comes next, again and again.
        let mut waits: Vec<BTreeSet<usize>> =
            (0..edges.len()).map(|stage| readers_of(stage).into_iter().collect()).collect();
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
        for (stage, from) in waits.iter().enumerate() {
            from.iter().for_each(|from| followers[*from].push(stage));
        }
        let mut ready: BTreeSet<usize> = (0..edges.len()).filter(|stage| waits[*stage].is_empty()).collect();
        let mut order: Vec<usize> = Vec::new();
        while let Some(stage) = ready.pop_first() {
            order.push(stage);
            for &follower in &followers[stage] {
                waits[follower].remove(&stage);
                if waits[follower].is_empty() {
                    ready.insert(follower);
                }
            }
        }
        let mut left: BTreeSet<usize> = (0..edges.len()).filter(|stage| !waits[*stage].is_empty()).collect();
        while let Some(&start) = left.first() {
            // From any stage left over, walking upstream through stages left over ends in a circle.
            let mut walk = vec![start];
            let circle = loop {
                let here = *walk.last().expect("the walk has a start");
                let next = readers_of(here)
                    .into_iter()
                    .find(|from| left.contains(from))
                    .expect("it waits for a stage left over");
                if let Some(first) = walk.iter().position(|stage| *stage == next) {
                    break walk[first..].to_vec();
                }
                walk.push(next);
            };
            self.report_circle(&circle, edges);
            // A stage that only waits for the circle is not part of one.
            circle.iter().for_each(|stage| _ = left.remove(stage));
            while let Some(&free) =
                left.iter().find(|stage| !readers_of(**stage).iter().any(|from| left.contains(from)))
            {
                left.remove(&free);
            }
        }
        order
    }

    fn report_circle(&mut self, circle: &[usize], edges: &[Vec<Edge>]) {
        let first = *circle.iter().min().expect("a circle has stages");
        let turn = circle.iter().position(|stage| *stage == first).expect("it is one of them");
        // Upstream order turned around: the way the data would flow.
        let mut names: Vec<&str> =
            (0..circle.len()).map(|step| self.stages[circle[(turn + step) % circle.len()]].name.as_str()).collect();
        names.push(names[0]);
        names.reverse();
        let upstream = circle[(turn + 1) % circle.len()];
        let reads = |edge: &&Edge| {
            edge.sources.iter().any(|origin| matches!(origin, Origin::Port { stage, .. } if *stage == upstream))
        };
        let key = edges[first].iter().find(reads).map(|edge| edge.key).unwrap_or_default();
        let text = format!("stages wait for each other: {}", names.join(" -> "));
        let name = self.stages[first].key.clone();
        self.report_value(&name, &key.split('.').map(str::to_owned).collect::<Vec<_>>(), text);
    }
}
