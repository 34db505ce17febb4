//! Steps on a decoder.

pub mod buckets;
#[cfg(test)]
mod dropout_tests;
#[cfg(test)]
pub mod gradient_tests;
pub mod gradients;
pub mod shares;
pub mod state;
pub mod training;
