//! Models on their way: a bar on a terminal, a line per file elsewhere.

use std::cell::RefCell;

use indicatif::{ProgressBar, ProgressStyle};

use crate::hub::ModelName;
use crate::streams::say;

/// Tells on stderr how far a model has arrived.
pub struct Fetching {
    name: String,
    bar: ProgressBar,
    file: RefCell<String>,
}

impl Fetching {
    /// For one model.
    pub fn new(name: &ModelName) -> Fetching {
        let bar = ProgressBar::new(0);
        let template = "{prefix:.bold} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is right"));
        bar.set_prefix(name.to_string());
        Fetching { name: name.to_string(), bar, file: RefCell::new(String::new()) }
    }

    /// `done` of `total` bytes of a file are here.
    pub fn tell(&self, file: &str, done: u64, total: u64) {
        if *self.file.borrow() != file {
            file.clone_into(&mut self.file.borrow_mut());
            self.bar.reset();
            self.bar.set_message(file.to_owned());
            if self.bar.is_hidden() {
                let resumed = if done > 0 { format!(", from byte {done}") } else { String::new() };
                say(&format!("fetching {} {file} ({total} bytes{resumed})", self.name));
            }
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
