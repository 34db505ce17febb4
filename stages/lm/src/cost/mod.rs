//! The cost of a pass: operations, memory, time.

pub mod estimate;
pub mod speed;
