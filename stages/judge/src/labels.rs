//! The answers that count: for each label a set of spellings, each a sequence of tokens.

use lm::Sequence;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The spellings of the two labels. The probability of a label is the sum over its spellings, each scored as a
/// continuation of the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// Spellings of the label that names what is shown first, such as `[" A", "A"]`.
    pub first: Vec<String>,
    /// Spellings of the label that names what is shown second.
    pub second: Vec<String>,
}

impl Default for Labels {
    fn default() -> Labels {
        let both = |letter: &str| vec![format!(" {letter}"), letter.to_owned()];
        Labels { first: both("A"), second: both("B") }
    }
}

/// Sequences of a question for each label, equal ones once.
#[derive(Debug)]
pub(crate) struct LabelTokens {
    /// Numbers into the question's sequences.
    pub(crate) first: Vec<usize>,
    pub(crate) second: Vec<usize>,
}

impl Labels {
    /// All spellings, those of the first label first.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.first.iter().chain(&self.second).map(String::as_str).collect()
    }

    /// Sorts the tokenised spellings (in the order of [`Labels::texts`]) by label.
    ///
    /// All of them are set to start at the same token, so that they are answers to the same question. Spellings of
    /// one label that are equal as tokens count once.
    ///
    /// # Errors
    /// The two spellings of which one is, or begins, the other: their probabilities would not be of different events.
    pub(crate) fn sort(&self, sequences: &mut [Sequence]) -> Result<LabelTokens, String> {
        let mut sorted = sort([&self.first[..], &self.second].into_iter(), sequences, "labels")?.into_iter();
        let mut next = || sorted.next().expect("there are two labels");
        Ok(LabelTokens { first: next(), second: next() })
    }
}

/// Sorts the tokenised spellings of any number of labels as [`Labels::sort`] does. `key` is where they are configured.
///
/// # Errors
/// As there.
pub(crate) fn sort<'a>(
    labels: impl Iterator<Item = &'a [String]>,
    sequences: &mut [Sequence],
    key: &str,
) -> Result<Vec<Vec<usize>>, String> {
    let start = sequences.iter().map(|sequence| sequence.start).min().unwrap_or(0);
    sequences.iter_mut().for_each(|sequence| sequence.start = start);
    let mut sorted: Vec<Vec<usize>> = Vec::new();
    // The spellings so far: the place among all, the label and the text.
    let mut known: Vec<(usize, usize, &str)> = Vec::new();
    let mut place = 0;
    for (label, spellings) in labels.enumerate() {
        sorted.push(Vec::new());
        for text in spellings {
            let ids = &sequences[place].ids;
            let mut repeated = false;
            for &(other, other_label, other_text) in &known {
                let other = &sequences[other].ids;
                if other == ids && other_label == label {
                    repeated = true;
                } else if other.starts_with(ids) || ids.starts_with(other) {
                    return Err(format!(
                        "the labels {other_text:?} and {text:?} cannot be told apart by this judge's tokenizer: as tokens \
                         one is the beginning of the other; choose other spellings in `{key}`"
                    ));
                }
            }
            if !repeated {
                known.push((place, label, text));
                sorted[label].push(place);
            }
            place += 1;
        }
    }
    Ok(sorted)
}

/// log(sum(exp(x))) over the chosen elements.
pub(crate) fn log_sum(log_probs: &[f64], chosen: &[usize]) -> f64 {
    let largest = chosen.iter().map(|&index| log_probs[index]).fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        // Nothing to scale by: -inf, inf, or not a number, which `max` would hide.
        return chosen.iter().map(|&index| log_probs[index]).sum();
    }
    largest + chosen.iter().map(|&index| (log_probs[index] - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(continuations: &[&[u32]]) -> Vec<Sequence> {
        let sequence = |ids: &&[u32]| Sequence::new([&[7, 8], *ids].concat(), 2);
        continuations.iter().map(sequence).collect()
    }

    fn check(continuations: [&[u32]; 4]) -> Result<(Vec<usize>, Vec<usize>), String> {
        Labels::default().sort(&mut sequences(&continuations)).map(|tokens| (tokens.first, tokens.second))
    }

    #[test]
    fn spellings_are_sorted_by_label() {
        assert_eq!(check([&[1], &[2], &[3], &[4]]), Ok((vec![0, 1], vec![2, 3])));
        assert_eq!(check([&[9, 1], &[2], &[9, 3], &[4]]), Ok((vec![0, 1], vec![2, 3])));
    }

    #[test]
    fn equal_spellings_of_one_label_count_once() {
        assert_eq!(check([&[1], &[1], &[3], &[3]]), Ok((vec![0], vec![2])));
    }

    #[test]
    fn ambiguous_spellings_are_refused() {
        assert!(check([&[1], &[2], &[1], &[4]]).unwrap_err().contains(r#"" A" and " B""#));
        assert!(check([&[1], &[2], &[2, 5], &[4]]).unwrap_err().contains(r#""A" and " B""#));
        // Within one label the longer one is part of the shorter one's probability already.
        assert!(check([&[1], &[1, 2], &[3], &[4]]).unwrap_err().contains(r#"" A" and "A""#));
    }

    #[test]
    fn all_spellings_start_at_the_same_token() {
        let mut sequences = sequences(&[&[1], &[2], &[3], &[4]]);
        sequences[1].start = 1;
        Labels::default().sort(&mut sequences).unwrap();
        assert!(sequences.iter().all(|sequence| sequence.start == 1));
    }

    #[test]
    fn log_sum_is_stable_and_hides_nothing() {
        assert!((log_sum(&[0.25f64.ln(), 0.5f64.ln(), 0.0], &[0, 1]) - 0.75f64.ln()).abs() < 1e-15);
        assert!((log_sum(&[-1000.0, -1000.0], &[0, 1]) - (-1000.0 + 2f64.ln())).abs() < 1e-9);
        assert!(log_sum(&[f64::NAN, 0.0], &[0]).is_nan());
        assert!(log_sum(&[f64::NAN, 0.0], &[0, 1]).is_nan());
    }
}
