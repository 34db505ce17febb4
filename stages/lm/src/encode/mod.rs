//! Sentence encoders.

pub mod bert;
pub mod encoder;
pub mod form;
pub mod modernbert;
pub mod parts;
pub mod pooling;
