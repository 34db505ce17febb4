//! The quickstart, made small.

use std::process::Command;

use harness::Project;

/// Settings that make the quickstart small.
pub const SMALL: [&str; 16] = [
    "world.prompts=12",
    "world.holdout_prompts=8",
    "world.demonstrations=96",
    "world.judge_rows=96",
    "world.model={width: 16, layers: 1, heads: 2}",
    "imitation.steps=12",
    "imitation.batch.items=8",
    "judge.steps=12",
    "judge.batch.items=8",
    "verdicts.least_mass=0",
    "holdout_verdicts.least_mass=0",
    "samples.k=3",
    "before.k=2",
    "after.k=2",
    "policy.batch.pairs=8",
    "policy.epochs=1",
];

/// The small quickstart, to be run in a project.
pub fn quickstart(project: &Project, args: &[&str]) -> Command {
    let mut command = project.command(&["run", "pipelines/quickstart.yaml", "--json", "--device", "cpu"]);
    SMALL.iter().for_each(|set| _ = command.args(["--set", set]));
    command.args(args);
    command
}
