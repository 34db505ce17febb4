//! The built binary on what the papers' claims need: calibration, matrices of settings, summaries.

mod calibration;
mod matrix;
#[path = "../pipelines/place.rs"]
#[allow(dead_code, reason = "shared with the tests of the pipelines")]
mod place;
