//! Answers drawn from a decoder.

pub mod generate;
pub mod sampling;
