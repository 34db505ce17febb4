//! Events as plain lines on stderr, for logs and pipes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::course::Course;
use super::detail::Detail;
use super::event::{Event, Reporter, RunEvent};
use crate::store::RunState;
use crate::streams::say;
use crate::units::{size, spoken};

/// Shortest time between two progress lines of a stage.
const EVERY: Duration = Duration::from_secs(5);

/// Prints a line per event.
pub struct Lines {
    state: Mutex<State>,
    detail: Detail,
}

struct State {
    course: Course,
    pace: HashMap<String, Pace>,
}

/// The line last printed about a stage.
struct Pace {
    printed: Instant,
    /// The step of a checkpoint that no line has named.
    checkpoint: Option<u64>,
}

impl Reporter for Lines {
    fn report(&self, stage: Option<&str>, event: &Event) {
        let mut state = self.state.lock().expect("no thread panics while it prints");
        let (name, now) = (stage.unwrap_or_default(), Instant::now());
        state.course.see(stage, event, now);
        let line = match event {
            Event::Work(kit::Event::Progressed { done, total, unit, detail }) => {
                state.progress(name, now, *done, *total, unit, detail)
            }
            // It stands in the next line of the stage.
            Event::Work(kit::Event::CheckpointWritten { step }) if self.detail < Detail::Full => {
                state.pace.entry(name.to_owned()).or_insert_with(|| Pace::new(now)).checkpoint = Some(*step);
                None
            }
            other if is_printed(other, self.detail) => sentence(other),
            _ => None,
        };
        if let Some(line) = line {
            let stage = stage.map(|stage| format!("{stage}: ")).unwrap_or_default();
            say(&format!("{stage}{line}"));
        }
    }
}

impl Lines {
    /// Lines on stderr.
    pub fn new(course: Course, detail: Detail) -> Lines {
        Lines { state: Mutex::new(State { course, pace: HashMap::new() }), detail }
    }
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { printed: now, checkpoint: None }
    }
}

/// True where an event is printed at this detail: a stage that needs no work is one line at the end of the run.
pub(super) fn is_printed(event: &Event, detail: Detail) -> bool {
    let idle = matches!(event, Event::Run(RunEvent::StageReused { .. } | RunEvent::StageSkipped { .. }));
    detail == Detail::Full || !idle
}

impl State {
    fn progress(
        &mut self,
        stage: &str,
        now: Instant,
        done: u64,
        total: u64,
        unit: &str,
        detail: &str,
    ) -> Option<String> {
        let pace = self.pace.entry(stage.to_owned()).or_insert_with(|| Pace::new(now));
        if now - pace.printed < EVERY {
            return None;
        }
        pace.printed = now;
        let mut line = format!("stage {}, {done} of {total} {unit}", self.course.place(stage));
        if let Some((rate, left)) = self.course.pace(stage) {
            line.push_str(&format!(", {} {unit}/s, {} left", rounded(rate), spoken(left)));
        }
        if let Some(left) = self.course.left(now) {
            line.push_str(&format!(", {} left in all", spoken(left)));
        }
        if !detail.is_empty() {
            line.push_str(&format!(", {detail}"));
        }
        if let Some(step) = pace.checkpoint.take() {
            line.push_str(&format!(", checkpoint at step {step}"));
        }
        Some(line)
    }
}

/// A rate with three digits.
pub(super) fn rounded(rate: f64) -> String {
    if rate >= 100.0 {
        format!("{rate:.0}")
    } else if rate >= 10.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.2}")
    }
}

/// The first line of a stage's error, without the stage's name and the list that may follow.
pub(super) fn head(error: &str) -> &str {
    let line = error.lines().next().unwrap_or_default().trim_end_matches(':');
    let named = line.strip_prefix("stage `").and_then(|rest| rest.split_once("`: "));
    named.filter(|(name, _)| !name.contains('`')).map_or(line, |(_, text)| text)
}

/// An event in words, if people want to read it as it happens.
pub(super) fn sentence(event: &Event) -> Option<String> {
    use kit::Event as Work;
    Some(match event {
        Event::Run(event) => match event {
            RunEvent::RunStarted { pipeline, run, device, stages } => {
                format!("run {run} of {pipeline}: {stages} stages, models on {device}")
            }
            RunEvent::StageStarted { why, resumed, .. } => {
                let resumed = if *resumed && !why.iter().any(|why| why.contains("unfinished")) {
                    ", goes on with unfinished work"
                } else {
                    ""
                };
                format!("runs: {}{resumed}", why.join("; "))
            }
            RunEvent::StageReused { .. } => "reused".to_owned(),
            RunEvent::StageSkipped { why } => format!("skipped: {why}"),
            RunEvent::StageWaited { owner } => {
                let owner = owner.as_ref().map_or("another process".to_owned(), ToString::to_string);
                format!("waits for {owner}, which makes the same result")
            }
            RunEvent::StageFinished { read, rows, rejected, seconds, .. } => {
                let read = read.map(|read| format!(" from {read}")).unwrap_or_default();
                let rejected = if *rejected > 0 { format!(", {rejected} rejected") } else { String::new() };
                format!("done: {rows} rows{read}{rejected} in {}", spoken(Duration::from_secs_f64(*seconds)))
            }
            // All of it is the last that a run says.
            RunEvent::StageFailed { error } => format!("failed: {}", head(error)),
            RunEvent::StageInterrupted => "interrupted".to_owned(),
            RunEvent::BytesDiffered { ports } => {
                format!("warning: the forced attempt gave other bytes than before in {}", ports.join(", "))
            }
            RunEvent::EntryDamaged { entry, damage, moved } => {
                format!("warning: entry {entry} is damaged ({damage}); moved to {moved}, computed again")
            }
            RunEvent::TransferStarted { what } => format!("transfers {what}"),
            RunEvent::ResultFetched { from, bytes, seconds, .. } => {
                format!("fetched {} from {from} in {}", size(*bytes), spoken(Duration::from_secs_f64(*seconds)))
            }
            RunEvent::ResultPushed { to, bytes, seconds, .. } => {
                format!("pushed {} to {to} in {}", size(*bytes), spoken(Duration::from_secs_f64(*seconds)))
            }
            RunEvent::SharedResultDamaged { damage, .. } => {
                format!("warning: the shared result is damaged ({damage}); computed again")
            }
            RunEvent::SharedResultDiffers { to, ports, there, .. } => format!(
                "warning: {to} has a result of the same recipe with other bytes in {}, made on {there}; each stays where \
                 it is",
                ports.join(", ")
            ),
            RunEvent::StopRequested => "stopping; a second signal stops at once".to_owned(),
            RunEvent::RunFinished { state, seconds } => {
                let state = match state {
                    RunState::Done => "done",
                    RunState::Failed => "failed",
                    RunState::Interrupted => "interrupted",
                    RunState::Running => return None,
                };
                format!("{state} in {}", spoken(Duration::from_secs_f64(*seconds)))
            }
        },
        Event::Work(event) => match event {
            Work::Resumed { what } => format!("keeps {what}"),
            Work::CheckpointWritten { step } => format!("checkpoint at step {step}"),
            Work::RowsRejected { reason, rows } => format!("{rows} rows rejected: {reason}"),
            Work::Noted { text } => text.clone(),
            Work::Warned { text } => format!("warning: {text}"),
            Work::Progressed { .. } | Work::ShardCommitted { .. } => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::head;

    fn check(error: &str, wanted: &str) {
        assert_eq!(head(error), wanted);
    }

    #[test]
    fn errors_are_shown_by_their_first_line() {
        check(
            "stage `data`: 2 of 5 rows cannot be taken:\n  a.jsonl:2: missing\nmend them",
            "2 of 5 rows cannot be taken",
        );
        check("stage `data` panicked: in `x`: y", "stage `data` panicked: in `x`: y");
        check("stage `data` is being worked on by process 7", "stage `data` is being worked on by process 7");
        check("", "");
    }
}
