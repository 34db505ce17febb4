//! Sampling of the next token from the model's logits.

use std::cmp::Ordering;

use candle_core::{DType, Tensor};
use rand::RngCore;
use rand_chacha::ChaCha12Rng;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
#[cfg(any(feature = "cuda", test))]
use crate::ops::{Kernel, cuda, kernel_for};

/// Rules by which responses are sampled. `top_k` and `top_p` apply after the temperature, in this order, as in
/// transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplingRules {
    /// Divides the logits. 0 always takes the likeliest token.
    pub temperature: f64,
    /// Keep the likeliest tokens that together have at least this probability. Absent: all.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Keep this many of the likeliest tokens (and those exactly as likely as the last of them). Absent: all.
    #[serde(default)]
    pub top_k: Option<usize>,
    /// A response ends after this many tokens at the latest.
    pub max_tokens: usize,
    /// A response ends before the first of these texts; its text does not contain it, its tokens do.
    #[serde(default)]
    pub stop: Vec<String>,
}

/// Rows of logits [n, V], where tokens are chosen from them.
pub(crate) enum Logits {
    /// On the host.
    Here(Vec<Vec<f32>>),
    /// On a GPU, in f32.
    #[cfg(any(feature = "cuda", test))]
    There(Tensor),
}

impl Logits {
    /// The rows of a tensor, which stay on a GPU.
    pub fn new(logits: &Tensor) -> Result<Logits> {
        let logits = logits.to_dtype(DType::F32)?;
        #[cfg(any(feature = "cuda", test))]
        if kernel_for(&[&logits]) == Kernel::Cuda {
            return Ok(Logits::There(logits));
        }
        Ok(Logits::Here(logits.to_vec2()?))
    }
}

/// A token with its log-probability under the model at temperature 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Choice {
    pub token: u32,
    pub logp: f64,
}

impl SamplingRules {
    /// Refuses values out of range.
    ///
    /// # Errors
    /// Names the field, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &str, value: String, range: &str| {
            Err(Error::input(format!("{field} is {value}; it must be {range}")))
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("`temperature`", self.temperature.to_string(), "0 (greedy) or more");
        }
        if let Some(top_p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return wrong("`top_p`", top_p.to_string(), "above 0 and at most 1");
        }
        if self.top_k == Some(0) {
            return wrong("`top_k`", "0".to_owned(), "1 or more");
        }
        if self.max_tokens == 0 {
            return wrong("`max_tokens`", "0".to_owned(), "1 or more");
        }
        if self.stop.iter().any(String::is_empty) {
            return wrong("a text of `stop`", "empty".to_owned(), "one character or more");
        }
        Ok(())
    }

    /// Chooses from some rows of logits, each with random numbers of its own. The log-probability of a row whose logits
    /// are not finite is not finite.
    pub(crate) fn choose_from(
        &self,
        logits: &Logits,
        rows: &[usize],
        random: Vec<&mut ChaCha12Rng>,
    ) -> Result<Vec<Choice>> {
        match logits {
            Logits::Here(all) => {
                let choose = |(&row, random): (&usize, &mut ChaCha12Rng)| {
                    let row = all[row].as_slice();
                    self.choose(row, log_sum_exp(row), random)
                };
                Ok(rows.par_iter().zip(random).map(choose).collect())
            }
            #[cfg(any(feature = "cuda", test))]
            Logits::There(all) => {
                let draw = |random| if self.temperature == 0.0 { 0.0 } else { uniform(random) };
                let uniforms = random.into_iter().map(draw).collect();
                let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
                // More than all is all.
                let top_k = self.top_k.filter(|&k| u32::try_from(k).is_ok());
                let chosen = cuda::sampling::choose(all, &rows, uniforms, self.temperature, (top_k, self.top_p))?;
                Ok(chosen.into_iter().map(|(token, logp)| Choice { token, logp }).collect())
            }
        }
    }

    /// Chooses from one row of logits [V]. Draws one number, or none where the choice is greedy.
    pub(crate) fn choose(&self, logits: &[f32], log_sum_exp: f64, random: &mut ChaCha12Rng) -> Choice {
        let token = if self.temperature == 0.0 { likeliest(logits) } else { self.draw(logits, random) };
        Choice { token: token as u32, logp: f64::from(logits[token]) - log_sum_exp }
    }

    fn draw(&self, logits: &[f32], random: &mut ChaCha12Rng) -> usize {
        let uniform = uniform(random);
        let shift = f64::from(logits[likeliest(logits)]) / self.temperature;
        let weight = |token: usize| (f64::from(logits[token]) / self.temperature - shift).exp();
        match self.kept(logits, weight) {
            None => pick(0..logits.len(), weight, uniform),
            Some(kept) => pick(kept.iter().copied(), weight, uniform),
        }
    }

    /// The tokens that `top_k` and `top_p` leave, by id; None where they leave all.
    fn kept(&self, logits: &[f32], weight: impl Fn(usize) -> f64) -> Option<Vec<usize>> {
        let all = logits.len();
        let top_k = self.top_k.filter(|k| *k < all);
        let top_p = self.top_p.filter(|p| *p < 1.0);
        let mut kept = match (top_k, top_p) {
            (None, None) => return None,
            (Some(k), _) => {
                let mut values = logits.to_vec();
                let (_, threshold, _) = values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
                let threshold = *threshold;
                (0..all).filter(|token| logits[*token] >= threshold).collect::<Vec<_>>()
            }
            (None, Some(_)) => (0..all).collect(),
        };
        if let Some(top_p) = top_p {
            // A token stays while those likelier than it have less than top_p: only the head of the order is needed.
            let total = kept.iter().map(|token| weight(*token)).sum::<f64>();
            let likelier = |a: &usize, b: &usize| -> Ordering { logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)) };
            let (mut sorted, mut mass, mut count) = (0, 0.0, 0);
            while count == sorted && sorted < kept.len() {
                let more = (2 * sorted).max(128).min(kept.len());
                if more < kept.len() {
                    kept[sorted..].select_nth_unstable_by(more - 1 - sorted, likelier);
                }
                kept[sorted..more].sort_unstable_by(likelier);
                sorted = more;
                while count < sorted && (count == 0 || mass < top_p * total) {
                    mass += weight(kept[count]);
                    count += 1;
                }
            }
            kept.truncate(count);
            kept.sort_unstable();
        }
        Some(kept)
    }
}

/// A number in [0, 1).
fn uniform(random: &mut ChaCha12Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// ln sum exp of a row of logits.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let shift = f64::from(logits[likeliest(logits)]);
    shift + logits.iter().map(|logit| (f64::from(*logit) - shift).exp()).sum::<f64>().ln()
}

/// The first of the largest.
fn likeliest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best
}

/// The token at which the sum of weights passes the share `uniform` of their total.
fn pick(tokens: impl Iterator<Item = usize> + Clone, weight: impl Fn(usize) -> f64, uniform: f64) -> usize {
    let total = tokens.clone().map(&weight).sum::<f64>();
    let mut sum = 0.0;
    let mut last = 0;
    for token in tokens {
        let weight = weight(token);
        if weight > 0.0 {
            last = token;
            sum += weight;
            if sum > uniform * total {
                return token;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn rules(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> SamplingRules {
        SamplingRules { temperature, top_p, top_k, max_tokens: 1, stop: Vec::new() }
    }

    /// Logits of given probabilities.
    fn logits(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() as f32).collect()
    }

    fn kept(probabilities: &[f64], top_k: Option<usize>, top_p: Option<f64>) -> Option<Vec<usize>> {
        let logits = logits(probabilities);
        rules(1.0, top_k, top_p).kept(&logits, |token| f64::from(logits[token]).exp())
    }

    // Expected by transformers 5.23: TopKLogitsWarper(k), then TopPLogitsWarper(p), on log of these probabilities.
    #[test]
    fn top_k_and_top_p_keep_what_transformers_keeps() {
        let p = [0.1, 0.4, 0.05, 0.25, 0.2];
        assert_eq!(kept(&p, None, None), None);
        assert_eq!(kept(&p, Some(9), Some(1.0)), None);
        assert_eq!(kept(&p, Some(2), None), Some(vec![1, 3]));
        assert_eq!(kept(&[0.25, 0.25, 0.25, 0.25], Some(2), None), Some(vec![0, 1, 2, 3]), "ties stay");
        assert_eq!(kept(&p, None, Some(0.3)), Some(vec![1]));
        assert_eq!(kept(&p, None, Some(0.6)), Some(vec![1, 3]));
        assert_eq!(kept(&p, None, Some(0.66)), Some(vec![1, 3, 4]));
        assert_eq!(kept(&p, None, Some(0.97)), Some(vec![0, 1, 2, 3, 4]));
        // top_p applies to what top_k left, made to sum to 1: 0.4 / 0.65 = 0.615.
        assert_eq!(kept(&p, Some(2), Some(0.6)), Some(vec![1]));
        assert_eq!(kept(&p, Some(2), Some(0.62)), Some(vec![1, 3]));
    }

    #[test]
    fn top_p_over_a_large_flat_vocabulary() {
        let flat = vec![1.0 / 4096.0; 4096];
        let kept = kept(&flat, None, Some(0.5)).unwrap();
        assert!((2047..=2049).contains(&kept.len()), "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn draws_have_the_right_frequencies() {
        let p = [0.1, 0.4, 0.0, 0.3, 0.2];
        let logits = logits(&p);
        let check = |temperature: f64, top_k: Option<usize>, expected: [f64; 5]| {
            let rules = rules(temperature, top_k, None);
            let mut random = ChaCha12Rng::seed_from_u64(11);
            let mut counts = [0.0; 5];
            for _ in 0..20_000 {
                counts[rules.choose(&logits, 0.0, &mut random).token as usize] += 1.0 / 20_000.0;
            }
            for (count, expected) in counts.iter().zip(expected) {
                // Five standard deviations.
                assert!(
                    (count - expected).abs() <= 5.0 * (expected * (1.0 - expected) / 20_000.0).sqrt(),
                    "{counts:?}"
                );
            }
        };
        check(1.0, None, p);
        let squares = p.map(|p| p * p / 0.3); // temperature 1/2 squares: 0.01 + 0.16 + 0.09 + 0.04 = 0.3
        check(0.5, None, squares);
        check(1.0, Some(2), [0.0, 0.4 / 0.7, 0.0, 0.3 / 0.7, 0.0]);
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest_and_draws_nothing() {
        let mut random = ChaCha12Rng::seed_from_u64(1);
        let logits = [0.0, 3.0, 3.0, -1.0];
        let choice = rules(0.0, None, None).choose(&logits, log_sum_exp(&logits), &mut random);
        assert_eq!(choice.token, 1);
        let expected = 3.0 - (1.0 + 2.0 * 3f64.exp() + (-1f64).exp()).ln();
        assert!((choice.logp - expected).abs() < 1e-12);
        assert_eq!(random.next_u64(), ChaCha12Rng::seed_from_u64(1).next_u64());
    }

    #[test]
    fn a_gpu_chooses_what_the_host_chooses() {
        let (rows, vocab) = (20, 700);
        let mut logits: Vec<f32> = crate::random::normal(3, "logits", rows * vocab, 3.0);
        // A tie of the likeliest, and a row in which one token has all the weight.
        logits[300] = 50.0;
        logits[301] = 50.0;
        logits[vocab..2 * vocab].fill(f32::NEG_INFINITY);
        logits[vocab + 699] = 1.0;
        logits[2 * vocab + 5] = f32::NAN;
        let logits = Tensor::from_vec(logits, (rows, vocab), &candle_core::Device::Cpu).unwrap();
        let order: Vec<usize> = (0..rows).chain([4, 4, 0]).collect();
        for (temperature, top_k, top_p) in [
            (0.0, None, None),
            (0.3, None, None),
            (1.0, None, None),
            (0.0, Some(3), Some(0.5)),
            (1.0, Some(5), None),
            (0.8, None, Some(0.7)),
            (1.5, Some(40), Some(0.6)),
            (1.0, Some(701), Some(1.0)),
        ] {
            let rules = rules(temperature, top_k, top_p);
            let all = |there: bool| {
                let mut random: Vec<_> = (0..order.len() as u64).map(ChaCha12Rng::seed_from_u64).collect();
                let logits = Logits::new(&logits).unwrap();
                assert_eq!(matches!(logits, Logits::There(_)), there);
                rules.choose_from(&logits, &order, random.iter_mut().collect()).unwrap()
            };
            let Some(there) = cuda::emulator::emulated(|| all(true)) else { return };
            for (i, (got, want)) in there.iter().zip(all(false)).enumerate() {
                assert_eq!(got.logp.is_finite(), want.logp.is_finite(), "{i}: {got:?} {want:?}");
                assert_eq!(got.logp.is_finite(), order[i] != 2);
                if order[i] != 2 {
                    assert_eq!(got.token, want.token, "{i}");
                    assert!((got.logp - want.logp).abs() < 1e-5, "{i}: {got:?} {want:?}");
                }
            }
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let check = |rules: SamplingRules, words: &str| {
            let error = rules.validate().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(rules(-1.0, None, None), "`temperature` is -1");
        check(rules(f64::NAN, None, None), "`temperature` is NaN");
        check(rules(1.0, Some(0), None), "`top_k` is 0");
        check(rules(1.0, None, Some(0.0)), "`top_p` is 0");
        check(rules(1.0, None, Some(1.5)), "`top_p` is 1.5");
        check(SamplingRules { max_tokens: 0, ..rules(1.0, None, None) }, "`max_tokens` is 0");
        check(SamplingRules { stop: vec![String::new()], ..rules(1.0, None, None) }, "`stop`");
        assert!(rules(0.7, Some(50), Some(0.9)).validate().is_ok());
    }
}
