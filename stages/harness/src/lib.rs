//! Surroundings for tests: stages or the whole program in a temporary folder, the oracle data, a judge's endpoint that fails on request,
//! files that are nearly right, and what a machine lacks. For tests alone.
//!
//! It knows `kit` and no stage. Read [`Place`] for tests of a stage, [`Project`] for tests of the program.

#[cfg(feature = "gguf")]
pub mod gguf;
mod golden;
pub mod mutations;
mod oracles;
mod place;
mod project;
mod requirement;
pub mod server;
mod settings;
mod verdicts;

pub use golden::check_golden;
pub use oracles::{lines, oracle, oracles, pairs, root};
pub use place::{Place, counted};
pub use project::{Project, ran, states, stderr};
pub use requirement::{Requirement, missing};
pub use settings::{findings, keys_found, with};
pub use verdicts::exchanged;
