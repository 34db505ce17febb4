//! Operations and memory of a model's passes over sequences.

use kit::{Forecast, ForecastInputs, Work};
use lm::{Estimate, Load, Precision, Purpose};

/// The estimate for the model of an input, where its configuration is known.
pub fn model(ahead: &ForecastInputs<'_>, key: &str, precision: impl Into<Precision>) -> Option<Estimate> {
    let precision = precision.into();
    ahead.model(key).and_then(|config| Estimate::of(config, precision, &ahead.device).ok())
}

/// Puts a forward pass over `load` into a forecast: its operations, and the memory of `purpose`.
pub fn forward(forecast: &mut Forecast, model: &Estimate, load: Load, purpose: Purpose<'_>) {
    forecast.work = Some(Work { operations: model.forward(load), width: model.width() });
    forecast.memory = Some(model.bytes(purpose));
}

/// Tokens of the trie over some sequences, what they share at the start counted once: in lexical order, each adds what
/// it does not share with its predecessor.
pub fn shared_tokens<'s>(sequences: impl Iterator<Item = &'s [u32]>) -> usize {
    let mut sequences: Vec<&[u32]> = sequences.collect();
    sequences.sort_unstable();
    let mut before: &[u32] = &[];
    let mut tokens = 0;
    for sequence in sequences {
        tokens += sequence.len() - before.iter().zip(sequence).take_while(|(a, b)| a == b).count();
        before = sequence;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_beginnings_count_once() {
        let sequences: [&[u32]; 4] = [&[1, 2, 3], &[1, 2, 4, 5], &[7], &[1, 2, 3]];
        assert_eq!(shared_tokens(sequences.into_iter()), 6);
        assert_eq!(shared_tokens(std::iter::empty()), 0);
    }
}
