//! The built binary on what the papers' claims need: calibration, matrices of settings, summaries.

mod calibration;
mod matrix;
