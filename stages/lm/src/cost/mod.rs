//! What a pass takes: operations, memory, time.

pub mod estimate;
pub mod speed;
