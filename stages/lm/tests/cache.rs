//! Continuing a text through the cache gives what computing it as a whole gives.

use crate::common;

use common::{MODELS, numbers, oracle, rows};
use lm::{Decoder, Device, Sequence};

#[test]
fn a_grown_text_has_the_log_probability_of_the_whole() {
    for model in MODELS {
        let decoder = Decoder::load(&oracle(model), &Device::Cpu).unwrap();
        let numbers = numbers(model);
        let all: Vec<Sequence> = rows(&numbers).iter().take(4).map(|row| row.sequence()).collect();
        let want = decoder.score(&all.iter().collect::<Vec<_>>(), false, 4096).unwrap();
        let prompts: Vec<&[u32]> = all.iter().map(|s| &s.ids[..s.start]).collect();
        let longest = all.iter().map(|s| s.ids.len() - s.start).max().unwrap();
        // Two samples of each text, the second one two tokens behind, to see that they do not disturb each other.
        let (mut cache, first) = decoder.prefill(&prompts, all.len() * 2 * longest).unwrap();
        let texts: Vec<(usize, usize)> = (0..all.len()).flat_map(|i| [(i, 0), (i, 2)]).collect();
        let first = first.to_vec2::<f32>().unwrap();
        let mut logits: Vec<Vec<f32>> = texts.iter().map(|&(i, _)| first[i].clone()).collect();
        let mut slots: Vec<_> = texts.iter().map(|&(i, _)| Some(cache.fork(i, longest).unwrap())).collect();
        assert!(cache.fork(0, 1).is_none(), "all rows are taken");
        let mut sums = vec![0f64; texts.len()];
        for step in 0..longest + 2 {
            let mut extended = Vec::new();
            for (at, &(i, delay)) in texts.iter().enumerate() {
                let completion = &all[i].ids[all[i].start..];
                let Some(slot) = slots[at].filter(|_| step >= delay) else { continue };
                let token = completion[step - delay];
                sums[at] += log_probability(&logits[at], token);
                if step - delay + 1 == completion.len() {
                    assert_eq!(cache.len(slot), all[i].ids.len() - 1);
                    cache.release(slot);
                    slots[at] = None;
                } else {
                    extended.push((at, slot, token));
                }
            }
            let tokens: Vec<_> = extended.iter().map(|&(_, slot, token)| (slot, token)).collect();
            if !tokens.is_empty() {
                let fresh = decoder.extend(&mut cache, &tokens).unwrap().to_vec2::<f32>().unwrap();
                for ((at, _, _), row) in extended.into_iter().zip(fresh) {
                    logits[at] = row;
                }
            }
        }
        for (&(i, _), sum) in texts.iter().zip(sums) {
            assert!((sum - want[i].response).abs() < 1e-3, "{model}: {sum} for {}", want[i].response);
        }
        assert!(cache.fork(0, all.len() * 2 * longest).is_some(), "released rows are joined again");
    }
}

fn log_probability(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - largest).exp()).sum();
    f64::from(logits[token as usize] - largest) - sum.ln()
}
