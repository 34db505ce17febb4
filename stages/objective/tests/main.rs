//! Objectives against PyTorch, and their laws.

mod bandit;
mod common;
mod laws;
mod oracles;
