//! Events as progress bars on a terminal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::course::Course;
use super::detail::{Detail, resident};
use super::event::{Event, Reporter, RunEvent};
use super::fit::{Part, bar, fitted, named, width, wrapped};
use super::lines::{is_printed, rounded, sentence};
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
    /// Nothing before the stage has counted.
    counted: Arc<Mutex<Option<Counted>>>,
    /// The step of its latest checkpoint.
    checkpoint: Option<u64>,
}

/// Progress of a stage.
#[derive(Clone)]
struct Counted {
    done: u64,
    total: u64,
    unit: &'static str,
    detail: String,
    checkpoint: Option<u64>,
}

/// Room for the spinner and the time beside a name.
const ELAPSED: usize = 10;

impl Bars {
    /// Bars on stderr.
    pub fn new(course: Course, detail: Detail) -> Bars {
        let all = MultiProgress::new();
        let course = Arc::new(Mutex::new(course));
        let whole = all.add(ProgressBar::new_spinner());
        Bars { all, whole, bars: Mutex::new(HashMap::new()), course, detail }
    }

    fn with_bar(&self, stage: &str, change: impl FnOnce(&mut Bar)) {
        let mut bars = self.bars.lock().expect("no thread panics while it draws");
        let fresh = || {
            let bar = self.all.insert_before(&self.whole, ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("{prefix:.bold} {spinner} {elapsed}");
            bar.set_style(style.expect("the template is right"));
            bar.set_prefix(fitted(vec![Part::kept(self.name(stage))], width().saturating_sub(ELAPSED)));
            bar.enable_steady_tick(Duration::from_millis(200));
            Bar { bar, counted: Arc::default(), checkpoint: None }
        };
        change(bars.entry(stage.to_owned()).or_insert_with(fresh));
    }

    /// The line of a stage that counts.
    fn counting(&self, stage: &str, counted: Arc<Mutex<Option<Counted>>>) -> ProgressStyle {
        let (course, name) = (self.course.clone(), stage.to_owned());
        let parts = move |width| {
            let pace = course.lock().expect("no thread panics while it draws").pace(&name);
            let counted = counted.lock().expect("no thread panics while it draws");
            counted.as_ref().map_or_else(Vec::new, |counted| parts_of(counted, pace, width))
        };
        drawn(self.name(stage), parts)
    }

    /// `7/19 policy`.
    fn name(&self, stage: &str) -> String {
        format!("{} {stage}", self.course.lock().expect("no thread panics while it draws").place(stage))
    }

    fn drop_bar(&self, stage: &str) {
        let bar = self.bars.lock().expect("no thread panics while it draws").remove(stage);
        if let Some(Bar { bar, .. }) = bar {
            bar.finish_and_clear();
        }
    }
}

/// The parts of the run's line beside its name: `7 of 19 stages done, 12 min left in all, 1.2 GiB of memory`.
fn whole_run(course: &Course, now: Instant, memory: Option<u64>) -> Vec<Part> {
    let (done, all) = course.done();
    let mut parts = vec![Part::kept(format!(" {done} of {all} stages done"))];
    parts.extend(course.left(now).map(|left| Part::new(90, format!(", {} left in all", spoken(left)))));
    parts.extend(memory.map(|bytes| Part::new(10, format!(", {} of memory", size(bytes)))));
    parts
}

/// The parts of a stage's line beside its name: a bar, `10/128 steps, 1.2/s, 3 min left`, and the stage's own values.
fn parts_of(counted: &Counted, pace: Option<(f64, Duration)>, width: usize) -> Vec<Part> {
    let Counted { done, total, unit, detail, checkpoint } = counted;
    let mut parts = vec![
        Part::new(50, format!(" {}", bar(*done, *total, width))),
        Part::new(90, format!(" {done}/{total}")),
        Part::new(70, format!(" {unit}")),
    ];
    if let Some((rate, left)) = pace {
        parts.push(Part::new(40, format!(", {}/s", rounded(rate))));
        parts.push(Part::new(80, format!(", {} left", spoken(left))));
    }
    // The first value that a stage reports is the most important.
    let facts = detail.split(", ").filter(|fact| !fact.is_empty()).take(20);
    parts.extend((0..).zip(facts).map(|(at, fact): (u8, _)| Part::new(35 - at, format!(", {fact}"))));
    parts.extend(checkpoint.map(|step| Part::new(10, format!(", checkpoint at step {step}"))));
    parts
}

/// A style that draws a line anew each time, as wide as the terminal is then: a name in bold, and parts beside it.
pub(super) fn drawn(name: String, parts: impl Fn(usize) -> Vec<Part> + Clone + Send + Sync + 'static) -> ProgressStyle {
    let line = move || {
        let width = width();
        named(&name, parts(width), width)
    };
    let (first, second) = (line.clone(), line);
    // Writing into a bar's line cannot fail.
    let name = move |_: &ProgressState, out: &mut dyn std::fmt::Write| _ = out.write_str(&first().0);
    let rest = move |_: &ProgressState, out: &mut dyn std::fmt::Write| _ = out.write_str(&second().1);
    let style = ProgressStyle::with_template("{name:.bold}{rest}").expect("the template is right");
    style.with_key("name", name).with_key("rest", rest)
}

impl Reporter for Bars {
    fn report(&self, stage: Option<&str>, event: &Event) {
        let name = stage.unwrap_or_default();
        self.course.lock().expect("no thread panics while it draws").see(stage, event, Instant::now());
        match event {
            Event::Run(RunEvent::RunStarted { pipeline, .. }) => {
                let course = self.course.clone();
                let parts = move |_| {
                    whole_run(&course.lock().expect("no thread panics while it draws"), Instant::now(), resident())
                };
                self.whole.set_style(drawn(pipeline.clone(), parts));
            }
            Event::Run(RunEvent::StageStarted { .. }) => {
                // A run in which everything is reused is over before anyone looks.
                self.whole.enable_steady_tick(Duration::from_millis(500));
                self.with_bar(name, |_| ());
            }
            Event::Run(
                RunEvent::StageFinished { .. }
                | RunEvent::StageFailed { .. }
                | RunEvent::StageInterrupted
                | RunEvent::StageReused { .. },
            ) => self.drop_bar(name),
            Event::Run(RunEvent::RunFinished { .. }) => self.whole.finish_and_clear(),
            Event::Work(kit::Event::Progressed { done, total, unit, detail }) => {
                let detail = visible(&kit::redact(detail));
                self.with_bar(name, |Bar { bar, counted, checkpoint }| {
                    let now = Counted { done: *done, total: *total, unit, detail, checkpoint: *checkpoint };
                    let before = counted.lock().expect("no thread panics while it draws").replace(now);
                    if before.is_none() {
                        bar.set_style(self.counting(name, counted.clone()));
                    }
                    bar.set_position(*done);
                    // Both lines are drawn from one moment, or their times would not agree.
                    bar.set_message("");
                    self.whole.set_message("");
                });
                return;
            }
            Event::Work(kit::Event::CheckpointWritten { step }) => {
                self.with_bar(name, |bar| bar.checkpoint = Some(*step));
                return;
            }
            _ => {}
        }
        // That a stage is at work shows its bar; what it came to, the end of the run.
        let shown = matches!(event, Event::Run(RunEvent::StageStarted { .. } | RunEvent::StageFinished { .. }));
        if (shown && self.detail < Detail::Full) || !is_printed(event, self.detail) {
            return;
        }
        if let Some(line) = sentence(event) {
            let stage = stage.map(|stage| format!("{stage}: ")).unwrap_or_default();
            let text = kit::redact(&format!("{stage}{line}"));
            let lines = text.lines().flat_map(|line| wrapped(line, width()));
            self.all.suspend(|| lines.for_each(|line| say(&line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_run_shows_stages_time_and_memory() {
        let stages = [("a", Some(90)), ("b", None)];
        let course = Course::new(stages.map(|(name, time)| (name.to_owned(), time.map(Duration::from_secs))));
        let line = |width| {
            let (name, rest) = named("test", whole_run(&course, Instant::now(), Some(3 << 29)), width);
            name + &rest
        };
        assert_eq!(line(80), "test 0 of 2 stages done, 1 min 30 s left in all, 1.5 GiB of memory");
        assert_eq!(line(60), "test 0 of 2 stages done, 1 min 30 s left in all");
        assert_eq!(line(40), "test 0 of 2 stages done");
        assert_eq!(fitted(whole_run(&Course::new([]), Instant::now(), None), 80), " 0 of 0 stages done");
        if cfg!(target_os = "linux") {
            assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
    #[test]
    fn the_line_of_a_stage_fits_and_keeps_what_matters_most() {
        let counted = Counted {
            done: 64,
            total: 128,
            unit: "steps",
            detail: "loss 0.6931, accuracy 0.5".to_owned(),
            checkpoint: Some(60),
        };
        let line = |width: usize| {
            let pace = Some((1.25, Duration::from_secs(51)));
            let (name, rest) = named("10/19 policy@beta=0.1", parts_of(&counted, pace, width), width);
            name + &rest
        };
        let (half, quarter) = (bar(1, 2, 80), bar(1, 2, 40));
        let long = bar(1, 2, 140);
        for (width, wanted) in [
            (
                139,
                format!(
                    "10/19 policy@beta=0.1 {long} 64/128 steps, 1.25/s, 51 s left, loss 0.6931, accuracy 0.5, \
                     checkpoint at step 60"
                ),
            ),
            (99, format!("10/19 policy@beta=0.1 {long} 64/128 steps, 1.25/s, 51 s left, loss 0.6931")),
            (79, format!("10/19 policy@beta=0.1 {half} 64/128 steps, 1.25/s, 51 s left")),
            (59, format!("10/19 policy@beta=0.1 {quarter} 64/128 steps, 51 s left")),
            (39, "10/19 policy@beta=0.1 64/128, 51 s left".to_owned()),
            (20, "10/19 policy\u{2026} 64/128".to_owned()),
        ] {
            assert_eq!(line(width), wanted);
        }
    }
}
