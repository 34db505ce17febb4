//! Sentence encoders.

pub mod bert;
pub mod encoder;
pub mod pooling;
