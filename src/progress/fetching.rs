//! Models on their way: a bar on a terminal, a line per file elsewhere.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::bars::drawn;
use super::fit::{Part, bar};
use crate::hub::ModelName;
use crate::streams::{say, visible};
use crate::units::{size, spoken};

/// Tells on stderr how far a model has arrived.
pub struct Fetching {
    name: String,
    bar: ProgressBar,
    file: RefCell<String>,
    arrived: Arc<Mutex<Option<Arrived>>>,
}

/// Progress of a file.
struct Arrived {
    file: String,
    done: u64,
    total: u64,
    /// Bytes that were there when it began, and when that was.
    first: (u64, Instant),
}

impl Fetching {
    /// For one model.
    pub fn new(name: &ModelName) -> Fetching {
        let bar = ProgressBar::new(0);
        let arrived: Arc<Mutex<Option<Arrived>>> = Arc::default();
        let shared = arrived.clone();
        let parts = move |width| {
            let state = shared.lock().expect("no thread panics while it draws");
            state.as_ref().map_or_else(Vec::new, |state| parts_of(state, Instant::now(), width))
        };
        bar.set_style(drawn(name.to_string(), parts));
        Fetching { name: name.to_string(), bar, file: RefCell::new(String::new()), arrived }
    }

    /// `done` of `total` bytes of a file are here.
    pub fn update(&self, file: &str, done: u64, total: u64) {
        if *self.file.borrow() != file {
            file.clone_into(&mut self.file.borrow_mut());
            let arrived = Arrived { file: visible(file), done, total, first: (done, Instant::now()) };
            *self.arrived.lock().expect("no thread panics while it draws") = Some(arrived);
            self.bar.reset();
            if self.bar.is_hidden() {
                let resumed = if done > 0 { format!(", from byte {done}") } else { String::new() };
                say(&format!("fetching {} {file} ({total} bytes{resumed})", self.name));
            }
        }
        if let Some(arrived) = self.arrived.lock().expect("no thread panics while it draws").as_mut() {
            (arrived.done, arrived.total) = (done, total);
        }
        self.bar.set_position(done);
    }
}

/// The parts of the line beside the model's name.
fn parts_of(arrived: &Arrived, now: Instant, width: usize) -> Vec<Part> {
    let Arrived { file, done, total, first: (first, began) } = arrived;
    let mut parts = vec![
        Part::new(30, format!(" {}", bar(*done, *total, width))),
        Part::new(90, format!(" {}/{}", size(*done), size(*total))),
    ];
    let (seconds, bytes) = (now.saturating_duration_since(*began).as_secs_f64(), done.saturating_sub(*first) as f64);
    if seconds > 0.0 && bytes > 0.0 {
        parts.push(Part::new(40, format!(", {}/s", size((bytes / seconds) as u64))));
        let left = Duration::try_from_secs_f64(total.saturating_sub(*done) as f64 * seconds / bytes);
        parts.extend(left.ok().map(|left| Part::new(80, format!(", {} left", spoken(left)))));
    }
    parts.push(Part::new(60, format!(", {file}")));
    parts
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
