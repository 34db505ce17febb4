//! Ranks: several threads or processes that compute one job together, each on a device of its own.
//!
//! Read [`Collective`](collective::Collective) first.

pub mod collective;
mod messages;
pub mod threads;
pub mod turns;
