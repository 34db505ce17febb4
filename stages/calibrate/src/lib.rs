//! The stage kind `calibrate`: soft labels corrected against gold labels.
//!
//! A judge that says 0.95 and is right four times in five is over-confident. From gold labels on some comparisons this
//! kind learns what the judge's probabilities are worth ([`fit`]), without ever using a label for its own row, and
//! rewrites all of them. It knows probabilities and ids; it knows no model. Read [`Calibrate`] first.

mod balance;
mod calibrating;
mod config;
mod corrected;
mod figures;
pub mod fit;
mod fits;
mod folds;
mod gold;
mod margin;
pub mod measure;
mod stage;

pub use config::{Calibrate, Deal};

/// The kind for the engine's list.
pub const KIND: kit::Kind =
    kit::Kind::of::<Calibrate>("calibrate", "corrects soft labels against gold ones, cross-fitted");
