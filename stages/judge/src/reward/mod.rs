//! Judging with a reward model: each response is scored once, and the difference of two scores is the log-odds of a
//! verdict.
//!
//! Nothing is asked, so there is no question, no label and no order of presentation. Read `work.rs` first.

mod config;
mod forecast;
mod rendering;
mod scoring;
mod summary;
mod work;

pub(crate) use config::outputs;
pub(crate) use forecast::{count, estimate};
pub(crate) use rendering::render;
pub(crate) use scoring::Scoring;
