//! The contract between a stage and the engine: ports, context, events, forecast.

pub mod context;
pub mod ending;
pub mod event;
pub mod expected;
pub mod forecast;
pub mod inputs;
pub mod outcome;
pub mod port;
pub mod rendering;
pub mod stage;
