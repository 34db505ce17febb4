//! The engine from the inside, on stage kinds that need no model.

mod bases;
mod findings;
mod kinds;
mod matrices;
mod memory;
mod plans;
mod runs;
mod sharing;
mod world;

pub use world::World;
