//! From the states of a text's tokens to one vector, as sentence-transformers pools.

use std::path::Path;

use serde_json::Value as Json;

use crate::error::{Error, Result};

/// One way to pool; a model may put several side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    Cls,
    Max,
    Mean,
    MeanSqrtLen,
    WeightedMean,
    LastToken,
}

/// The names of `pooling_mode` and the older flags, in the order in which sentence-transformers reads the flags.
const MODES: [(&str, &str, Pooling); 6] = [
    ("cls", "pooling_mode_cls_token", Pooling::Cls),
    ("max", "pooling_mode_max_tokens", Pooling::Max),
    ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
    ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
    ("weightedmean", "pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
    ("lasttoken", "pooling_mode_lasttoken", Pooling::LastToken),
];

impl Pooling {
    /// Reads the config.json of a pooling module: `pooling_mode` as a name or a list of names, or flags.
    pub(crate) fn read(config: &Json, file: &Path) -> Result<Vec<Pooling>> {
        let by_name = |name: &Json| {
            let known = MODES.iter().find(|(mode, ..)| name.as_str() == Some(mode));
            known.map(|(.., pooling)| *pooling).ok_or_else(|| {
                let names = MODES.map(|(mode, ..)| mode).join(", ");
                Error::file(file, format!("`pooling_mode` holds {name}, which is none of {names}"))
            })
        };
        if config.get("include_prompt") == Some(&Json::Bool(false)) {
            let text = "`include_prompt` is false: prompts are pooled with their texts here; ask the encoder through an \
                        `endpoint`";
            return Err(Error::file(file, text));
        }
        match config.get("pooling_mode") {
            Some(Json::Array(names)) if !names.is_empty() => names.iter().map(by_name).collect(),
            Some(name) => Ok(vec![by_name(name)?]),
            None => {
                let on = |(_, flag, _): &&(&str, &str, Pooling)| config.get(flag) == Some(&Json::Bool(true));
                let modes = MODES.iter().filter(on).map(|(.., pooling)| *pooling).collect::<Vec<_>>();
                Ok(if modes.is_empty() { vec![Pooling::Mean] } else { modes })
            }
        }
    }

    /// Pools the states of one text, [T, H] row by row, to H numbers.
    pub(crate) fn pool(self, states: &[f32], width: usize) -> Vec<f64> {
        let rows = states.chunks_exact(width);
        let tokens = rows.len();
        let row = |index: usize| states[index * width..][..width].iter().map(|x| f64::from(*x)).collect();
        let weighted = |weight: &dyn Fn(usize) -> f64, divisor: f64| {
            let mut sum = vec![0.0; width];
            for (index, row) in states.chunks_exact(width).enumerate() {
                let weight = weight(index) / divisor;
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * f64::from(*x));
            }
            sum
        };
        match self {
            Pooling::Cls => row(0),
            Pooling::LastToken => row(tokens - 1),
            Pooling::Mean => weighted(&|_| 1.0, tokens as f64),
            Pooling::MeanSqrtLen => weighted(&|_| 1.0, (tokens as f64).sqrt()),
            Pooling::WeightedMean => weighted(&|index| (index + 1) as f64, (tokens * (tokens + 1) / 2) as f64),
            Pooling::Max => {
                let mut largest = vec![f64::NEG_INFINITY; width];
                for row in rows {
                    largest.iter_mut().zip(row).for_each(|(largest, x)| *largest = largest.max(f64::from(*x)));
                }
                largest
            }
        }
    }
}

/// Pools in every way asked for, side by side, and scales to unit length.
pub(crate) fn embed(modes: &[Pooling], states: &[f32], width: usize) -> Vec<f32> {
    let pooled = modes.iter().flat_map(|mode| mode.pool(states, width)).collect::<Vec<_>>();
    let length = pooled.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
    pooled.into_iter().map(|x| (x / length) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn configs_of_all_ages() {
        let check = |config: Json, expected: &[Pooling]| {
            assert_eq!(Pooling::read(&config, Path::new("p")).unwrap(), expected, "{config}");
        };
        check(json!({}), &[Pooling::Mean]);
        check(json!({"pooling_mode": "lasttoken"}), &[Pooling::LastToken]);
        check(json!({"pooling_mode": ["cls", "mean"]}), &[Pooling::Cls, Pooling::Mean]);
        let flags =
            json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false, "pooling_mode_max_tokens": true});
        check(flags, &[Pooling::Cls, Pooling::Max]);
        let error = Pooling::read(&json!({"pooling_mode": "median"}), Path::new("1_Pooling/config.json")).unwrap_err();
        assert!(error.to_string().starts_with("1_Pooling/config.json: `pooling_mode` holds \"median\""), "{error}");
        check(json!({"pooling_mode": "cls", "include_prompt": true}), &[Pooling::Cls]);
        let error = Pooling::read(&json!({"include_prompt": false}), Path::new("p")).unwrap_err().to_string();
        assert!(error.contains("`include_prompt` is false"), "{error}");
    }

    #[test]
    fn pooled_by_hand() {
        let states = [1.0, -2.0, 3.0, 4.0, 5.0, 0.0]; // three tokens, two columns
        let check = |mode: Pooling, expected: [f64; 2]| {
            let got = mode.pool(&states, 2);
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{mode:?}: {got:?}");
        };
        check(Pooling::Cls, [1.0, -2.0]);
        check(Pooling::LastToken, [5.0, 0.0]);
        check(Pooling::Mean, [3.0, 2.0 / 3.0]);
        check(Pooling::MeanSqrtLen, [9.0 / 3f64.sqrt(), 2.0 / 3f64.sqrt()]);
        check(Pooling::WeightedMean, [(1.0 + 6.0 + 15.0) / 6.0, (-2.0 + 8.0) / 6.0]);
        check(Pooling::Max, [5.0, 4.0]);
        let unit = embed(&[Pooling::Cls, Pooling::LastToken], &states, 2);
        let expected = [1.0, -2.0, 5.0, 0.0].map(|x: f32| x / 30f32.sqrt());
        assert!(unit.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{unit:?}");
    }
}
