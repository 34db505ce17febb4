//! The pipeline file: its values, where in the text each of them stands, its variables and overrides.

mod document;
mod matrix;
mod set;
mod spans;
mod vars;
mod yaml;

pub use document::{Declared, Group, Pipeline};
pub use matrix::Selection;
pub use spans::Place;
