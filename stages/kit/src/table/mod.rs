//! Rows in Parquet: their types, how they are read, written and looked up.

pub mod cached_rows;
mod cells;
pub mod columns;
mod conform;
pub mod gathered;
pub mod ids;
pub mod message;
pub mod parts;
pub mod prompts;
pub mod read;
pub mod row;
pub mod rows;
mod spilled;
pub mod texts;
pub mod watched;
pub mod write;
