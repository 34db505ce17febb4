//! Log-probabilities against those of PyTorch, and the laws of scoring.

use crate::common;

use common::{MODELS, numbers, oracle, rows};
use lm::{Decoder, Device, Sequence};

#[test]
fn log_probabilities_equal_those_of_pytorch() {
    for model in MODELS {
        let decoder = Decoder::load(&oracle(model), &Device::Cpu).unwrap();
        let numbers = numbers(model);
        let rows = rows(&numbers);
        let sequences: Vec<Sequence> = rows.iter().map(|row| row.sequence()).collect();
        let sequences: Vec<&Sequence> = sequences.iter().collect();
        for budget in [200, 4096] {
            let scores = decoder.score(&sequences, true, budget).unwrap();
            let mut worst: f64 = 0.0;
            for (row, score) in rows.iter().zip(&scores) {
                worst = worst.max((score.response - row.logp).abs()).max((score.prompt - row.prompt_logp).abs());
            }
            assert!(worst < 1e-3, "{model}, budget {budget}: off by {worst}");
        }
        let responses = decoder.score(&sequences, false, 1000).unwrap();
        for (row, score) in rows.iter().zip(&responses) {
            assert!((score.response - row.logp).abs() < 1e-3, "{model}");
            assert_eq!(score.prompt, 0.0);
        }
    }
}

/// A prompt without a response, and a single token, have nothing to score; they do not disturb the others.
#[test]
fn nothing_to_score_is_zero() {
    let decoder = Decoder::load(&oracle("llama"), &Device::Cpu).unwrap();
    let sequence = |ids: &[u32], start: usize| Sequence::new(ids.to_vec(), start);
    let [single, prompt, whole] = [sequence(&[5], 1), sequence(&[5, 6, 7], 3), sequence(&[5, 6, 7, 8], 3)];
    assert!(decoder.score(&[], true, 100).unwrap().is_empty());
    let alone = decoder.score(&[&single], true, 100).unwrap()[0];
    assert_eq!((alone.response, alone.prompt), (0.0, 0.0));
    let together = decoder.score(&[&single, &prompt, &whole], true, 100).unwrap();
    let want = decoder.score(&[&whole], true, 100).unwrap()[0];
    assert_eq!(together[0].prompt, 0.0);
    assert_eq!(together[1].response, 0.0);
    assert!((together[1].prompt - want.prompt).abs() < 1e-4 && want.prompt < -5.0);
    assert!((together[2].response - want.response).abs() < 1e-4 && want.response < -1.0);
}

#[test]
fn sequences_that_do_not_fit_the_model_are_errors() {
    let decoder = Decoder::load(&oracle("llama"), &Device::Cpu).unwrap();
    let check = |ids: Vec<u32>, want: &str| {
        let sequence = Sequence::new(ids, 1);
        let error = decoder.score(&[&sequence], false, 100).unwrap_err();
        assert!(error.is_data() && error.to_string().contains(want), "{error}");
    };
    check(vec![1; 1025], "1025 tokens; the model has 1024 positions");
    check(vec![1, 640], "token id 640 is outside");
}
