//! Forecasts in words and in JSON.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use kit::{Amount, CHARACTERS_PER_TOKEN, Forecast};
use serde_json::{Value, json};

use crate::engine::device::EFFICIENCY;
use crate::engine::forecast::{Forecaster, StageForecast};
use crate::units::size;
use crate::units::spoken;

/// Remarks under the table, each once.
#[derive(Default)]
pub struct Notes {
    /// The remarks in lines.
    pub text: String,
    known: HashSet<String>,
}

impl Notes {
    /// Adds a remark about a stage.
    pub fn add(&mut self, stage: &str, note: &str) {
        let line = format!("{stage}: {note}\n");
        if !self.known.contains(&line) {
            self.text.push_str(&line);
            self.known.insert(line);
        }
    }
}

/// A stage's forecast in JSON.
pub fn in_json(forecast: &StageForecast) -> Value {
    let mut value = json!(forecast.forecast);
    value["seconds"] = json!(forecast.time.map(|time| time.as_secs_f64()));
    value["counted"] = json!(forecast.counted);
    value
}

/// Forecasts of stages that run one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sum {
    rows: Amount,
    tokens: Option<Amount>,
    too_long: Option<Amount>,
    requests: Option<Amount>,
    memory: Option<u64>,
    time: Option<Duration>,
}

impl Sum {
    /// One of them.
    pub fn of(forecast: &Forecast, time: Option<Duration>) -> Sum {
        Sum {
            rows: forecast.rows,
            tokens: forecast.tokens,
            too_long: forecast.too_long,
            requests: forecast.requests,
            memory: forecast.memory,
            time,
        }
    }

    /// With those of another.
    pub fn plus(self, other: Sum) -> Sum {
        let both = |a: Option<Amount>, b: Option<Amount>| match (a, b) {
            (Some(a), Some(b)) => Some(a.plus(b)),
            (one, other) => one.or(other),
        };
        let time = |a: Option<Duration>, b: Option<Duration>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (one, other) => one.or(other),
        };
        Sum {
            rows: self.rows.plus(other.rows),
            tokens: both(self.tokens, other.tokens),
            too_long: both(self.too_long, other.too_long),
            requests: both(self.requests, other.requests),
            memory: self.memory.max(other.memory),
            time: time(self.time, other.time),
        }
    }

    /// The forecast in words for people.
    pub fn words(&self) -> String {
        let mut words = vec![format!("{} rows", self.rows)];
        words.extend(self.requests.map(|requests| format!("{requests} requests")));
        words.extend(self.tokens.map(|tokens| format!("{tokens} tokens")));
        words.extend(self.too_long.filter(|rows| rows.value > 0).map(|rows| format!("{rows} too long")));
        words.extend(self.memory.map(|bytes| format!("{} of memory", size(bytes))));
        words.extend(self.time.map(|time| format!("about {}", spoken(time))));
        words.join(", ")
    }
}

/// The totals of the whole plan, and the assumptions behind them.
pub struct Total<'a> {
    time: Option<Duration>,
    /// The most that a stage takes, and the stage.
    memory: Option<(u64, &'a str)>,
    device: Option<String>,
    assumptions: Vec<String>,
    /// True while the number of too long rows of some stage is unknown.
    lengths_open: bool,
}

impl<'a> Total<'a> {
    /// The total of some groups of stages.
    pub fn of(
        sums: &[(&'a str, Sum)],
        forecasts: &[Option<kit::Result<StageForecast>>],
        forecaster: &Forecaster<'_>,
    ) -> Total<'a> {
        let all: Vec<&StageForecast> =
            forecasts.iter().flatten().filter_map(|forecast| forecast.as_ref().ok()).collect();
        let work = all.iter().any(|one| one.forecast.work.is_some());
        let device = work.then(|| forecaster.device().to_owned());
        let time = sums.iter().filter_map(|(_, sum)| sum.time).reduce(Duration::saturating_add);
        let memory = sums.iter().filter_map(|(name, sum)| Some((sum.memory?, *name))).max();
        let estimated = |one: &&&StageForecast| !one.counted && one.forecast.tokens.is_some();
        let lengths_open = all.iter().filter(estimated).any(|one| one.forecast.too_long.is_none());
        let mut assumptions = Vec::new();
        if all.iter().any(|one| !one.counted) {
            let text = "inputs that do not exist yet are estimated from the stages before them: nothing rejected, each \
                        response as long as it may be, texts";
            assumptions.push(format!("rows and tokens: {text} of {CHARACTERS_PER_TOKEN} characters a token"));
        }
        if let Some(speed) = forecaster.speed() {
            let speeds: Vec<String> = speed
                .measured
                .iter()
                .map(|(width, speed)| format!("{:.0} GFLOP/s at width {width}", speed / 1e9))
                .collect();
            assumptions.push(format!(
                "time: this machine multiplies matrices with {} threads at {} (measured), models reach {:.0} % of \
                 that, and it does nothing else",
                speed.threads,
                speeds.join(", "),
                EFFICIENCY * 100.0
            ));
        } else if work {
            assumptions.push("time: not forecasts for a GPU".to_owned());
        }
        if memory.is_some() {
            assumptions.push("memory: from the sizes of the models, their precision and the tokens at once".to_owned());
        }
        if all.iter().any(|one| one.forecast.memory.is_some() && one.forecast.tokens.is_none()) {
            assumptions
                .push("memory of tables: what is held of all rows: ids, labels and vectors, no texts".to_owned());
        }
        Total { time, memory, device, assumptions, lengths_open }
    }

    /// For machines.
    pub fn in_json(&self) -> Value {
        json!({
            "seconds": self.time.map(|time| time.as_secs_f64()),
            "memory": self.memory.map(|(bytes, _)| bytes),
            "largest": self.memory.map(|(_, stage)| stage),
            "device": self.device,
            "assumptions": self.assumptions,
        })
    }

    /// For people: a line for the sums, and one for each assumption.
    pub fn text(&self, file: &Path) -> String {
        let mut sums: Vec<String> = self.time.map(|time| format!("about {}", spoken(time))).into_iter().collect();
        sums.extend(self.memory.map(|(bytes, stage)| format!("at most {} of memory (`{stage}`)", size(bytes))));
        let device = self.device.as_ref().map_or(String::new(), |device| format!(" on {device}"));
        let mut text = String::new();
        if !sums.is_empty() {
            text.push_str(&format!("in all{device}: {}\n", sums.join(", ")));
        }
        self.assumptions.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        if self.lengths_open {
            text.push_str(&format!(
                "too long rows: counted once the inputs of a stage are there; `halftone run {} --until STAGE` makes them\n",
                file.display()
            ));
        }
        text
    }
}
