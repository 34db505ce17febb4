//! The pipeline file: its values, where in the text each of them stands, its variables and overrides.

mod document;
mod matrix;
mod schema;
mod set;
mod spans;
mod vars;
mod yaml;

pub use document::{Declared, Group, Pipeline};
pub use matrix::Selection;
pub use schema::json_schema;
pub use spans::Place;
