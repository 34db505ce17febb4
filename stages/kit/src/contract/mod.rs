//! What a stage is to the engine: its ports, its context, its events, its forecast.

pub mod ahead;
pub mod context;
pub mod ending;
pub mod event;
pub mod expected;
pub mod forecast;
pub mod outcome;
pub mod port;
pub mod rendering;
pub mod stage;
