//! What stages on labels share: the sides of rows, gold labels, probabilities and their figures.

pub mod gold;
pub mod interval;
pub mod probability;
pub mod sides;
