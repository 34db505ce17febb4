//! Texts that go round in circles: the commonest fault of small models, and of trainings that went too far.

use std::collections::HashSet;

/// Words in a run whose second appearance counts as a repetition.
const RUN: usize = 4;
/// The share of repeated runs from which on a text is a loop.
const LOOP: f64 = 0.5;

/// The share of a text's runs of four words that stand earlier in it too, 0 to 1 (seq-rep-4 of arXiv 1908.04319); 0 of
/// a text with less than two runs. A script without spaces has no words here, and 0.
pub(crate) fn repetition(text: &str) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let all = (words.len() + 1).saturating_sub(RUN);
    if all < 2 {
        return 0.0;
    }
    let distinct: HashSet<&[&str]> = words.windows(RUN).collect();
    1.0 - distinct.len() as f64 / all as f64
}

/// True where at least half of a text repeats what it said.
pub(crate) fn is_loop(text: &str) -> bool {
    repetition(text) >= LOOP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_come_again_are_counted() {
        // a b c d, b c d a, c d a b, d a b c, and the first of them again.
        assert!((repetition("a b c d a b c d") - 0.2).abs() < 1e-12);
        assert_eq!(repetition("the cat sat on the mat and looked at the dog"), 0.0);
        for short in ["", "no no no", "no no no no"] {
            assert_eq!(repetition(short), 0.0, "{short}");
        }
        // Nine runs, one of them distinct.
        assert!((repetition(&"no ".repeat(12)) - 8.0 / 9.0).abs() < 1e-12);
    }

    #[test]
    fn a_loop_is_a_text_that_mostly_repeats_itself() {
        let sentence = "I am a helpful assistant and I can help you. ";
        assert!(!is_loop(sentence));
        assert!(is_loop(&sentence.repeat(3)));
        // A refrain is none.
        let verse = "We walk along the river in the rain, and sing of all that passed. ";
        assert!(!is_loop(&format!("{verse}Then the morning comes with light on every hill, at last. {verse}")));
    }
}
