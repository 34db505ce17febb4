//! A first pipeline for one's own data: what the data calls for, as a YAML file with comments.

mod objective;
mod plan;
mod yaml;

pub use objective::possible;
pub use plan::{Holds, Wish};
pub use yaml::{in_line, text};
