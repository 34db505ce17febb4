//! The end of a run in few lines: the stages that ran or were reused, the main figures, and the next command.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kit::Headline;

use super::lines::head;
use super::table::{WIDTH, aligned, broken, digits, travelled};
use crate::store::{Records, RunRecord, RunState, StageRecord, StageState};
use crate::units::spoken;

/// Ports that a person looks into first, the most important first.
const MAIN_PORTS: [&str; 7] = ["summary", "results", "scores", "metrics", "verdicts", "pairs", "responses"];

/// A stage, or all stages of a matrix.
struct Shown<'a> {
    name: &'a str,
    members: Vec<&'a StageRecord>,
}

/// The end of a run, or how far one is; and the reasons of failed stages where `with_reasons`.
pub fn ending(record: &RunRecord, records: &Records, work: &Path, with_reasons: bool) -> String {
    let all = shown(record);
    let is_idle = |shown: &&Shown<'_>| shown.members.iter().all(|stage| idle(stage.state));
    let rows: Vec<Vec<String>> =
        all.iter().filter(|shown| !is_idle(shown)).map(|shown| line(shown, with_reasons)).collect();
    let mut text = String::new();
    if !rows.is_empty() {
        let titles = ["stage", "state", "read", "rows", "rejected", "time", ""].map(str::to_owned).to_vec();
        let rows: Vec<Vec<String>> = std::iter::once(titles).chain(rows).collect();
        text.push_str(&aligned(&rows, &[2, 3, 4, 5]));
    }
    for (state, word) in [
        (StageState::Reused, "reused"),
        (StageState::Skipped, "skipped"),
        (StageState::Waiting, "waiting"),
        (StageState::Pending, "not begun"),
    ] {
        text.push_str(&together(&all, state, word, record.stages.len()));
    }
    text.push_str(&travelled(record));
    text.extend(all.iter().map(figures));
    text.push_str(&next(record, records, work));
    text
}

/// A state that needs no line of its own.
fn idle(state: StageState) -> bool {
    matches!(state, StageState::Reused | StageState::Skipped | StageState::Waiting | StageState::Pending)
}

fn shown(record: &RunRecord) -> Vec<Shown<'_>> {
    let mut all: Vec<Shown<'_>> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, stage) in record.order.iter().filter_map(|name| record.stages.get_key_value(name)) {
        // Only the stages of a matrix have an `@` in their names.
        let group = name.split('@').next().unwrap_or(name);
        match places.get(group) {
            Some(place) => all[*place].members.push(stage),
            None => {
                places.insert(group, all.len());
                all.push(Shown { name: group, members: vec![stage] });
            }
        }
    }
    all
}

/// A stage that did something.
fn line(shown: &Shown<'_>, with_reasons: bool) -> Vec<String> {
    let members = &shown.members;
    let name = match members.len() {
        1 => shown.name.to_owned(),
        count => format!("{} x {count}", shown.name),
    };
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    members.iter().for_each(|stage| *states.entry(stage.state.word()).or_default() += 1);
    let state = match &states.iter().collect::<Vec<_>>()[..] {
        [(state, _)] => (**state).to_owned(),
        several => several.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", "),
    };
    let sum = |of: fn(&StageRecord) -> Option<u64>| {
        let all: Vec<u64> = members.iter().filter_map(|stage| of(stage)).collect();
        if all.is_empty() { String::new() } else { all.iter().sum::<u64>().to_string() }
    };
    let seconds: Vec<f64> = members.iter().filter_map(|stage| stage.seconds).collect();
    let time = match seconds.is_empty() {
        true => String::new(),
        false => spoken(Duration::from_secs_f64(seconds.iter().sum())),
    };
    // The end of a run is followed by its error.
    let ended = |stage: &&&StageRecord| match stage.state {
        StageState::Failed => with_reasons,
        state => matches!(state, StageState::Stale),
    };
    let why = members.iter().find(ended).and_then(|stage| stage.why.as_deref()).map(head).unwrap_or_default();
    vec![name, state, sum(|it| it.read), sum(|it| it.rows), sum(|it| it.rejected), time, why.to_owned()]
}

/// All stages in a state, in one line.
fn together(all: &[Shown<'_>], state: StageState, word: &str, of: usize) -> String {
    let is = |stage: &&&StageRecord| stage.state.word() == state.word();
    // Those of a matrix that are not all alike stand in its line.
    let whole = |shown: &&Shown<'_>| shown.members.iter().filter(is).count() == shown.members.len();
    let names: Vec<&str> = all.iter().filter(whole).map(|shown| shown.name).collect();
    let count: usize = all.iter().filter(whole).map(|shown| shown.members.len()).sum();
    if count == 0 {
        return String::new();
    }
    if count == of {
        let whole = if count == 1 { "the one stage".to_owned() } else { format!("all {count} stages") };
        return format!("{whole} {word}\n");
    }
    let mut line = format!("{count} of {of} stages {word}: ");
    for (index, name) in names.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        if line.chars().count() + name.chars().count() + comma.len() > WIDTH {
            line.push_str(&format!(" and {} more", names.len() - index));
            break;
        }
        line.push_str(&format!("{comma}{name}"));
    }
    line + "\n"
}

/// The figures that a stage names, in a line; of a matrix from the least to the greatest.
fn figures(shown: &Shown<'_>) -> String {
    let mut names: Vec<&str> = Vec::new();
    let headlines = shown.members.iter().flat_map(|stage| &stage.headlines);
    headlines.for_each(|figure| {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name)
        }
    });
    if names.is_empty() {
        return String::new();
    }
    let of = |name: &str| -> Vec<&Headline> {
        shown.members.iter().flat_map(|stage| &stage.headlines).filter(|figure| figure.name == name).collect()
    };
    let fact = |name: &&str| match &of(name)[..] {
        [figure] => {
            let interval = figure.interval.map(|(low, high)| format!(" ({} to {})", digits(low), digits(high)));
            format!("{name} {}{}", digits(figure.value), interval.unwrap_or_default())
        }
        several => {
            let values = || several.iter().map(|figure| figure.value);
            let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
            format!("{name} {} to {} in {} stages", digits(low), digits(high), several.len())
        }
    };
    let mut facts: Vec<String> = names.iter().map(fact).collect();
    // A note that all figures share stands once.
    let notes: Vec<&str> = names.iter().flat_map(|name| of(name)).map(|figure| figure.note.as_str()).collect();
    if let (Some(first), Some(last)) = (notes.first(), facts.last_mut())
        && !first.is_empty()
        && notes.iter().all(|note| note == first)
    {
        last.push_str(&format!(" ({first})"));
    }
    broken(shown.name, &facts)
}

/// The folder of the results, and the next command.
fn next(record: &RunRecord, records: &Records, work: &Path) -> String {
    let mut text = format!("results: {}/<stage>/<table>\n", records.pipeline(&record.pipeline).display());
    let folder = match work.to_string_lossy() {
        default if default == crate::store::WORK => String::new(),
        other if other.contains(' ') => format!(" --work '{other}'"),
        other => format!(" --work {other}"),
    };
    let mut asks = Vec::new();
    if let Some(table) = main_table(record) {
        asks.push(format!("`halftone inspect {table}{folder}`"));
    }
    asks.push(format!("all figures with `halftone status {} -v{folder}`", record.pipeline));
    text.push_str(&format!("look: {}\n", asks.join(", ")));
    let has_result = |stage: &StageRecord| matches!(stage.state, StageState::Ran | StageState::Reused);
    // The finished work of an interrupted stage is kept too.
    let kept = match record.state {
        RunState::Failed => record.stages.values().any(has_result),
        state => matches!(state, RunState::Interrupted),
    };
    if kept {
        text.push_str("what is done is kept: the same command goes on from there\n");
    }
    text
}

/// The main table of a run, of its last stages.
fn main_table(record: &RunRecord) -> Option<String> {
    MAIN_PORTS.iter().find_map(|port| {
        let has = |stage: &&String| record.stages[*stage].ports.iter().any(|known| known == port);
        let stage = record.order.iter().rev().filter(|stage| record.stages.contains_key(*stage)).find(has)?;
        Some(if stage == port { stage.clone() } else { format!("{stage}.{port}") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stage's name, state and figures.
    type Given<'a> = (&'a str, StageState, &'a [(&'a str, f64)]);

    fn record(stages: &[Given]) -> RunRecord {
        let stage = |state: StageState, figures: &[(&str, f64)]| {
            let headline = |(name, value): &(&str, f64)| Headline {
                name: (*name).to_owned(),
                value: *value,
                interval: (*name == "accuracy").then_some((value - 0.01, value + 0.01)),
                note: if *name == "accuracy" { String::new() } else { "mean of the last 10 of 73 steps".to_owned() },
            };
            let mut record = StageRecord::new(state);
            record.headlines = figures.iter().map(headline).collect();
            if !idle(state) {
                (record.read, record.rows, record.rejected, record.seconds) =
                    (Some(100), Some(98), Some(2), Some(75.0));
                record.ports = vec!["summary".to_owned()];
            }
            if let StageState::Failed = state {
                record.why = Some("stage `x`: 2 rows cannot be taken:\nrow 1".to_owned());
            }
            record
        };
        RunRecord {
            pipeline: "test".to_owned(),
            run: 2,
            file: "pipeline.yaml".into(),
            command: Vec::new(),
            started: String::new(),
            finished: None,
            state: RunState::Done,
            order: stages.iter().map(|(name, ..)| (*name).to_owned()).collect(),
            stages: stages.iter().map(|(name, state, it)| ((*name).to_owned(), stage(*state, it))).collect(),
        }
    }

    fn text(record: &RunRecord) -> String {
        ending(record, &Records::new(Path::new("w")), Path::new("w"), true)
    }

    #[test]
    fn a_run_ends_in_few_lines() {
        use StageState::{Ran, Reused, Skipped};
        let record = record(&[
            ("data", Reused, &[]),
            ("pairs", Reused, &[]),
            ("embeddings", Skipped, &[]),
            ("policy@a", Ran, &[("loss", 0.61234)]),
            ("policy@b", Ran, &[("loss", 0.7)]),
            ("single", Ran, &[("loss", 0.5), ("rewards/margins", 1.25)]),
            ("evaluation", Reused, &[("accuracy", 0.74003)]),
        ]);
        insta::assert_snapshot!("end_of_a_run", text(&record));
    }

    #[test]
    fn a_run_in_which_nothing_ran_and_one_that_failed() {
        use StageState::{Failed, Pending, Reused};
        let mut idle = record(&[("data", Reused, &[]), ("evaluation", Reused, &[("accuracy", 0.5)])]);
        insta::assert_snapshot!("end_of_an_idle_run", text(&idle));
        idle = record(&[("data", Failed, &[]), ("pairs", Pending, &[])]);
        idle.state = RunState::Failed;
        insta::assert_snapshot!("end_of_a_failed_run", text(&idle));
    }
}
