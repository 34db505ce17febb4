//! Steps on a decoder.

#[cfg(test)]
mod dropout_tests;
#[cfg(test)]
pub mod gradient_tests;
pub mod state;
pub mod training;
