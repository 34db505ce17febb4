//! Events as progress bars on a terminal.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::event::{Happened, Reporter, RunEvent};
use super::lines::{rounded, sentence};
use crate::streams::say;

/// A bar per running stage, lines above for everything else.
pub struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    /// Bars on stderr.
    pub fn new() -> Bars {
        Bars { all: MultiProgress::new(), bars: Mutex::new(HashMap::new()) }
    }

    fn bar(&self, stage: &str) -> ProgressBar {
        let mut bars = self.bars.lock().expect("no thread panics while it draws");
        let fresh = || {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_style(
                ProgressStyle::with_template("{prefix:.bold} {spinner} {elapsed}").expect("the template is right"),
            );
            bar.set_prefix(stage.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        };
        bars.entry(stage.to_owned()).or_insert_with(fresh).clone()
    }

    fn drop_bar(&self, stage: &str) {
        let bar = self.bars.lock().expect("no thread panics while it draws").remove(stage);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }
}

impl Reporter for Bars {
    fn tell(&self, stage: Option<&str>, happened: &Happened) {
        let name = stage.unwrap_or_default();
        match happened {
            Happened::Run(RunEvent::StageStarted { .. }) => drop(self.bar(name)),
            Happened::Run(
                RunEvent::StageFinished { .. }
                | RunEvent::StageFailed { .. }
                | RunEvent::StageInterrupted
                | RunEvent::StageReused { .. },
            ) => self.drop_bar(name),
            Happened::Work(kit::Event::Progressed { done, total, unit, detail }) => {
                let bar = self.bar(name);
                if bar.length() != Some(*total) {
                    let template = "{prefix:.bold} {bar:30} {pos}/{len} UNIT, {rate}/s, {eta} left {msg}";
                    let template = template.replace("UNIT", unit);
                    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                        // Writing into a bar's line cannot fail.
                        let _ = out.write_str(&rounded(state.per_sec()));
                    };
                    let style = ProgressStyle::with_template(&template).expect("the template is right");
                    bar.set_style(style.with_key("rate", rate));
                    bar.set_length(*total);
                    bar.reset_eta();
                }
                bar.set_position(*done);
                bar.set_message(detail.clone());
                return;
            }
            _ => {}
        }
        if let Some(line) = sentence(happened) {
            let stage = stage.map(|stage| format!("{stage}: ")).unwrap_or_default();
            self.all.suspend(|| say(&format!("{stage}{line}")));
        }
    }
}
