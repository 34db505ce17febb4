//! Progress of a run and its remaining time: the forecasts of its stages, scaled by the time of the finished ones.

use std::time::{Duration, Instant};

use super::event::{Event, RunEvent};

/// Forecasts that sum up to less say nothing of the machine, in seconds.
const MEANINGFUL: f64 = 1.0;

/// The stages of a run in the order in which they come.
pub struct Course {
    stages: Vec<Step>,
}

struct Step {
    name: String,
    /// Seconds that it was forecast to take.
    forecast: Option<f64>,
    /// Its number among those that were begun or are done, from 1.
    place: Option<usize>,
    at: At,
}

enum At {
    Waiting,
    Running {
        since: Instant,
        pace: Option<Pace>,
    },
    Over {
        /// Seconds of its work, where it was computed in this run.
        seconds: Option<f64>,
        /// True where its result is there.
        done: bool,
    },
}

/// Units done between two moments.
#[derive(Clone, Copy)]
struct Pace {
    first: u64,
    began: Instant,
    done: u64,
    total: u64,
    now: Instant,
}

impl Course {
    /// The selected stages with their forecasts; those whose results are there have none.
    pub fn new(stages: impl IntoIterator<Item = (String, Option<Duration>)>) -> Course {
        let step = |(name, forecast): (String, Option<Duration>)| Step {
            name,
            forecast: forecast.map(|time| time.as_secs_f64()),
            place: None,
            at: At::Waiting,
        };
        Course { stages: stages.into_iter().map(step).collect() }
    }

    /// `7/19`: as the how manieth a stage was begun, of all.
    pub fn place(&self, stage: &str) -> String {
        match self.stages.iter().find(|step| step.name == stage).and_then(|step| step.place) {
            Some(place) => format!("{place}/{}", self.stages.len()),
            None => String::new(),
        }
    }

    /// Numbers of finished stages and of all.
    pub fn done(&self) -> (usize, usize) {
        (self.stages.iter().filter(|step| matches!(step.at, At::Over { done: true, .. })).count(), self.stages.len())
    }

    /// Speed of a stage at work in units a second, and its remaining time.
    pub fn pace(&self, stage: &str) -> Option<(f64, Duration)> {
        let step = self.stages.iter().find(|step| step.name == stage)?;
        let At::Running { pace: Some(pace), .. } = step.at else { return None };
        let left = Duration::try_from_secs_f64(pace.left()?).ok()?;
        Some((pace.rate()?, left))
    }

    /// Takes in an event of a stage or of the run.
    pub fn see(&mut self, stage: Option<&str>, event: &Event, now: Instant) {
        let begun = self.stages.iter().filter(|step| step.place.is_some()).count();
        let Some(step) = self.stages.iter_mut().find(|step| Some(step.name.as_str()) == stage) else { return };
        let mut over = |seconds, done| {
            if done {
                step.place.get_or_insert(begun + 1);
            }
            step.at = At::Over { seconds, done };
        };
        match event {
            Event::Run(RunEvent::StageStarted { .. }) => {
                step.place.get_or_insert(begun + 1);
                step.at = At::Running { since: now, pace: None };
            }
            Event::Run(RunEvent::StageFinished { seconds, .. }) => over(Some(*seconds), true),
            Event::Run(RunEvent::StageReused { .. }) => over(None, true),
            Event::Run(RunEvent::StageSkipped { .. } | RunEvent::StageFailed { .. } | RunEvent::StageInterrupted) => {
                over(None, false)
            }
            Event::Work(kit::Event::Progressed { done, total, .. }) => {
                if let At::Running { pace, .. } = &mut step.at {
                    // A count of another unit begins anew.
                    let known = pace.filter(|pace| pace.total == *total && pace.done <= *done);
                    let (first, began) = known.map_or((*done, now), |pace| (pace.first, pace.began));
                    *pace = Some(Pace { first, began, done: *done, total: *total, now });
                }
            }
            _ => {}
        }
    }

    /// The time that is left for the whole run; nothing where no stage that is still to come has a forecast and none
    /// at work reports its progress.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let factor = self.factor(now);
        let rest = self.stages.iter().filter_map(|step| match &step.at {
            At::Over { .. } => None,
            At::Waiting => step.forecast.map(|forecast| forecast * factor),
            At::Running { since, pace } => {
                let forecast_left = || {
                    let elapsed = now.saturating_duration_since(*since).as_secs_f64();
                    step.forecast.map(|forecast| (forecast * factor - elapsed).max(0.0))
                };
                pace.and_then(Pace::left).or_else(forecast_left)
            }
        });
        rest.reduce(|sum, one| sum + one).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// Ratio of measured to forecast time on this machine.
    fn factor(&self, now: Instant) -> f64 {
        let (mut took, mut expected) = (0.0, 0.0);
        for step in &self.stages {
            let Some(forecast) = step.forecast else { continue };
            match &step.at {
                At::Over { seconds: Some(seconds), .. } => {
                    took += seconds;
                    expected += forecast;
                }
                At::Running { since, pace: Some(pace) } => {
                    let elapsed = now.saturating_duration_since(*since).as_secs_f64();
                    if let Some(left) = pace.left() {
                        took += elapsed + left;
                        expected += forecast;
                    }
                }
                _ => {}
            }
        }
        if expected < MEANINGFUL { 1.0 } else { took / expected }
    }
}

impl Pace {
    /// Units a second.
    fn rate(self) -> Option<f64> {
        let (units, seconds) = ((self.done - self.first) as f64, (self.now - self.began).as_secs_f64());
        (units > 0.0 && seconds > 0.0).then(|| units / seconds)
    }

    /// Seconds for the rest at this pace.
    fn left(self) -> Option<f64> {
        self.rate().map(|rate| self.total.saturating_sub(self.done) as f64 / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Event {
        Event::Run(RunEvent::StageStarted {
            kind: "train",
            why: Vec::new(),
            entry: String::new(),
            device: "cpu".to_owned(),
            resumed: false,
        })
    }

    fn finished(seconds: f64) -> Event {
        let figures = Default::default();
        let entry = String::new();
        Event::Run(RunEvent::StageFinished { entry, read: None, rows: 1, rejected: 0, seconds, figures })
    }

    fn progressed(done: u64) -> Event {
        Event::Work(kit::Event::Progressed { done, total: 100, unit: "steps", detail: String::new() })
    }

    #[test]
    fn what_is_left_follows_the_forecast_and_then_the_machine() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let stage = |name: &str, seconds: Option<u64>| (name.to_owned(), seconds.map(Duration::from_secs));
        let mut course = Course::new([stage("data", None), stage("a", Some(10)), stage("b", Some(100))]);
        assert_eq!(course.left(at(0)), Some(Duration::from_secs(110)));
        assert_eq!((course.place("b"), course.done()), (String::new(), (0, 3)));
        course.see(Some("data"), &finished(1.0), at(0));
        course.see(Some("a"), &started(), at(0));
        assert_eq!(course.left(at(4)), Some(Duration::from_secs(106)));
        // Twice as slow as forecast: so will be the rest.
        course.see(Some("a"), &finished(20.0), at(20));
        assert_eq!(course.left(at(20)), Some(Duration::from_secs(200)));
        // At work, a stage's own pace counts: 10 of 100 were there before, 30 more took 60 s.
        course.see(Some("b"), &started(), at(20));
        course.see(Some("b"), &progressed(10), at(20));
        course.see(Some("b"), &progressed(40), at(80));
        assert_eq!(course.left(at(80)), Some(Duration::from_secs(120)));
        course.see(Some("b"), &finished(180.0), at(200));
        assert_eq!((course.left(at(200)), course.done()), (None, (3, 3)));
    }

    #[test]
    fn the_place_of_a_stage_is_one_more_than_what_was_begun_before() {
        let now = Instant::now();
        let mut course = Course::new(["a", "b", "c", "d"].map(|name| (name.to_owned(), None)));
        let (reused, failed) = (
            RunEvent::StageReused { entry: String::new(), read: None, rows: 1, rejected: 0 },
            RunEvent::StageInterrupted,
        );
        for (stage, event, place, done) in [
            ("c", Event::Run(reused), "1/4", 1),
            ("a", started(), "2/4", 1),
            ("d", started(), "3/4", 1),
            ("d", finished(1.0), "3/4", 2),
            ("b", started(), "4/4", 2),
            ("a", Event::Run(failed), "2/4", 2),
            ("none", started(), "", 2),
        ] {
            course.see(Some(stage), &event, now);
            assert_eq!((course.place(stage).as_str(), course.done()), (place, (done, 4)), "{stage}");
        }
    }

    #[test]
    fn without_forecasts_only_the_stage_at_work_reports() {
        let now = Instant::now();
        let mut course = Course::new([("a".to_owned(), None), ("b".to_owned(), None)]);
        assert_eq!(course.left(now), None);
        course.see(Some("a"), &started(), now);
        course.see(Some("a"), &progressed(0), now);
        course.see(Some("a"), &progressed(50), now + Duration::from_secs(5));
        assert_eq!(course.left(now + Duration::from_secs(5)), Some(Duration::from_secs(5)));
        // The line of the stage says what the line of the run adds up.
        assert_eq!(course.pace("a"), Some((10.0, Duration::from_secs(5))));
        assert_eq!(course.pace("b"), None);
    }
}
