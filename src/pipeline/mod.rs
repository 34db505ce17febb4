//! The pipeline file: its values, where in the text each of them stands, its variables and overrides.

pub mod check;
pub mod conform;
mod document;
pub mod graph;
pub mod groups;
mod matrix;
pub mod models;
pub mod paths;
pub mod problem;
mod schema;
mod set;
mod spans;
pub mod tables;
mod vars;
mod yaml;

pub use document::{Declared, Group, Pipeline};
pub use matrix::Selection;
pub use schema::json_schema;
pub use spans::Place;
