//! Pairs and items in the forms that TRL's trainers read, as a folder that `datasets.load_dataset` opens.

mod dataset;
mod example;
mod reference;
mod text;

pub use dataset::{Dataset, Format, Options, Prompt, Split};
pub use reference::Reference;
