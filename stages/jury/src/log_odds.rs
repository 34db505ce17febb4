//! Log-odds and back.

/// Log-odds of a probability are cut here: those of 0 and 1 are infinite, and a hard vote is not.
pub const FARTHEST: f64 = 1e-6;

/// Log-odds, with `logit(1 - p) = -logit(p)` to the last bit for every p >= 1/2.
pub fn logit(p: f64) -> f64 {
    let upper = if p < 0.5 { 1.0 - p } else { p }.min(1.0 - FARTHEST);
    let z = (upper / (1.0 - upper)).ln();
    if p < 0.5 { -z } else { z }
}

/// 1 / (1 + exp(-x)), with `sigmoid(-x) = 1 - sigmoid(x)` to the last bit.
pub fn sigmoid(x: f64) -> f64 {
    let upper = 1.0 / (1.0 + (-x.abs()).exp());
    if x >= 0.0 { upper } else { 1.0 - upper }
}
