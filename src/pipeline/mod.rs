//! The pipeline file: its values and their places, its bases, variables, matrices and overrides; and its check.

mod base;
pub mod check;
pub mod conform;
mod document;
pub mod graph;
pub mod groups;
mod matrix;
pub mod models;
mod node;
pub mod paths;
pub mod problem;
mod scalar;
mod schema;
mod selection;
mod set;
pub mod settings;
pub mod tables;
mod vars;
pub mod write;
mod yaml;

pub use document::{Declared, Group, Pipeline};
pub use schema::json_schema;
pub use selection::Selection;
