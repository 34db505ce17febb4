//! The objectives that `init` can write: those that the data can serve.

use train::{Forms, Objective};

use super::Holds;

/// Suggested where nothing is asked for: the first that the data can serve.
const SUGGESTED: [&str; 4] = ["gdpo", "gjpo", "rpo", "sft"];

/// The objectives that can be computed on some data, with the knobs to begin with; the suggested one first.
pub fn possible(holds: Holds) -> Vec<Objective> {
    let all = Objective::all().into_iter().map(|facts| Objective::begin(facts, holds.items()));
    let mut possible: Vec<Objective> = all.filter(|objective| serves(holds, objective)).collect();
    let suggested = SUGGESTED.iter().find_map(|name| possible.iter().position(|it| it.name() == *name));
    possible[..=suggested.unwrap_or(0)].rotate_right(1);
    possible
}

fn serves(holds: Holds, objective: &Objective) -> bool {
    // A policy is trained, and compared with where it started.
    if objective.needs_rewards() {
        return false;
    }
    match holds {
        Holds::Items => objective.reads().items(),
        // Without labels there is nothing to reject.
        Holds::Demonstrations => objective.reads().items() && !objective.reads_rejected(),
        _ => {
            let (same, joint) = if holds.joint() { (0, 1) } else { (1, 0) };
            objective.check_forms(Forms { same, joint }, true).is_ok()
        }
    }
}
