//! Events as progress bars on a terminal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::course::Course;
use super::detail::{Detail, resident};
use super::event::{Happened, Reporter, RunEvent};
use super::lines::{is_told, rounded, sentence};
use crate::streams::say;
use crate::streams::visible;
use crate::units::size;
use crate::units::spoken;

/// A bar per running stage and one line for the whole run, lines above for everything else.
pub struct Bars {
    all: MultiProgress,
    whole: ProgressBar,
    bars: Mutex<HashMap<String, Bar>>,
    course: Arc<Mutex<Course>>,
    detail: Detail,
}

/// A stage's bar, and what stands beside it.
struct Bar {
    bar: ProgressBar,
    /// The step of its latest checkpoint.
    checkpoint: Option<u64>,
}

impl Bars {
    /// Bars on stderr.
    pub fn new(course: Course, detail: Detail) -> Bars {
        let all = MultiProgress::new();
        let course = Arc::new(Mutex::new(course));
        let told = course.clone();
        let whole = all.add(ProgressBar::new_spinner());
        let state = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let course = told.lock().expect("no thread panics while it draws");
            // Writing into a bar's line cannot fail.
            let _ = out.write_str(&whole_run(&course, Instant::now(), resident()));
        };
        let style = ProgressStyle::with_template("{prefix:.bold} {state}").expect("the template is right");
        whole.set_style(style.with_key("state", state));
        Bars { all, whole, bars: Mutex::new(HashMap::new()), course, detail }
    }

    fn with_bar(&self, stage: &str, change: impl FnOnce(&mut Bar)) {
        let mut bars = self.bars.lock().expect("no thread panics while it draws");
        let fresh = || {
            let bar = self.all.insert_before(&self.whole, ProgressBar::new_spinner());
            bar.set_style(
                ProgressStyle::with_template("{prefix:.bold} {spinner} {elapsed}").expect("the template is right"),
            );
            let place = self.course.lock().expect("no thread panics while it draws").place(stage);
            bar.set_prefix(format!("{place} {stage}"));
            bar.enable_steady_tick(Duration::from_millis(200));
            Bar { bar, checkpoint: None }
        };
        change(bars.entry(stage.to_owned()).or_insert_with(fresh));
    }

    fn drop_bar(&self, stage: &str) {
        let bar = self.bars.lock().expect("no thread panics while it draws").remove(stage);
        if let Some(Bar { bar, .. }) = bar {
            bar.finish_and_clear();
        }
    }
}

/// `7 of 19 stages done, 12 min left, 1.2 GiB of memory`.
fn whole_run(course: &Course, now: Instant, memory: Option<u64>) -> String {
    let (over, all) = course.over();
    let mut words = vec![format!("{over} of {all} stages done")];
    words.extend(course.left(now).map(|left| format!("{} left in all", spoken(left))));
    words.extend(memory.map(|bytes| format!("{} of memory", size(bytes))));
    words.join(", ")
}

impl Reporter for Bars {
    fn tell(&self, stage: Option<&str>, happened: &Happened) {
        let name = stage.unwrap_or_default();
        self.course.lock().expect("no thread panics while it draws").see(stage, happened, Instant::now());
        match happened {
            Happened::Run(RunEvent::RunStarted { pipeline, .. }) => self.whole.set_prefix(pipeline.clone()),
            Happened::Run(RunEvent::StageStarted { .. }) => {
                // A run in which everything is reused is over before anyone looks.
                self.whole.enable_steady_tick(Duration::from_millis(500));
                self.with_bar(name, |_| ());
            }
            Happened::Run(
                RunEvent::StageFinished { .. }
                | RunEvent::StageFailed { .. }
                | RunEvent::StageInterrupted
                | RunEvent::StageReused { .. },
            ) => self.drop_bar(name),
            Happened::Run(RunEvent::RunFinished { .. }) => self.whole.finish_and_clear(),
            Happened::Work(kit::Event::Progressed { done, total, unit, detail }) => {
                self.with_bar(name, |Bar { bar, checkpoint }| {
                    if bar.length() != Some(*total) {
                        bar.set_style(counting(unit));
                        bar.set_length(*total);
                        bar.reset_eta();
                    }
                    bar.set_position(*done);
                    let kept = checkpoint.map(|step| format!(" (checkpoint at step {step})")).unwrap_or_default();
                    bar.set_message(format!("{}{kept}", visible(&kit::redact(detail))));
                });
                return;
            }
            Happened::Work(kit::Event::CheckpointWritten { step }) => {
                self.with_bar(name, |bar| bar.checkpoint = Some(*step));
                return;
            }
            _ => {}
        }
        // That a stage is at work shows its bar; what it came to, the end of the run.
        let shown = matches!(happened, Happened::Run(RunEvent::StageStarted { .. } | RunEvent::StageFinished { .. }));
        if (shown && self.detail < Detail::Full) || !is_told(happened, self.detail) {
            return;
        }
        if let Some(line) = sentence(happened) {
            let stage = stage.map(|stage| format!("{stage}: ")).unwrap_or_default();
            self.all.suspend(|| say(&format!("{stage}{line}")));
        }
    }
}

/// The bar of work whose amount is known.
fn counting(unit: &str) -> ProgressStyle {
    let template = "{prefix:.bold} {bar:30} {pos}/{len} UNIT, {rate}/s, {eta} left {msg}".replace("UNIT", unit);
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // Writing into a bar's line cannot fail.
        let _ = out.write_str(&rounded(state.per_sec()));
    };
    ProgressStyle::with_template(&template).expect("the template is right").with_key("rate", rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_run_tells_stages_time_and_memory() {
        let stages = [("a", Some(90)), ("b", None)];
        let course = Course::new(stages.map(|(name, time)| (name.to_owned(), time.map(Duration::from_secs))));
        let line = whole_run(&course, Instant::now(), Some(3 << 29));
        assert_eq!(line, "0 of 2 stages done, 1 min 30 s left in all, 1.5 GiB of memory");
        assert_eq!(whole_run(&Course::new([]), Instant::now(), None), "0 of 0 stages done");
        if cfg!(target_os = "linux") {
            assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
