//! The `base:` block of a stage: its field docs are the manual.

use kit::Finding;
use lm::{Bits, Dtype, Precision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Holds the weights of linear layers in few bits, put there when the model is loaded; embeddings and norms stay as they
/// are. Numbers are made of them each time that they are used. A `reference` stage and every stage that reads its
/// log-probs take the same block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// `4`: NF4, blocks of 64 weights with a scale, 4.5 bits a weight. `8`: Q8_0, blocks of 32, 8.5 bits.
    pub bits: u8,
}

impl Base {
    /// A finding where there are no such bits.
    pub fn finding(base: Option<Base>) -> Option<Finding> {
        let base = base.filter(|base| ![4, 8].contains(&base.bits))?;
        Some(Finding::at("base.bits", format!("got {}, wanted 4 or 8", base.bits)))
    }
}

/// How a stage's model computes.
pub fn precision(dtype: Dtype, base: Option<Base>) -> Precision {
    let bits = base.map(|base| if base.bits == 8 { Bits::Eight } else { Bits::Four });
    Precision { dtype, bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_four_or_eight() {
        let read = |text: &str| serde_json::from_str::<Base>(text);
        for bits in [4, 8] {
            let base = read(&format!("{{\"bits\": {bits}}}")).unwrap();
            assert!(Base::finding(Some(base)).is_none());
            let precision = precision(Dtype::Bf16, Some(base));
            assert_eq!(precision.name(), format!("bf16 over {bits} bits"));
        }
        assert_eq!(precision(Dtype::F32, None).name(), "f32");
        let three = Base::finding(Some(Base { bits: 3 })).unwrap();
        assert_eq!(
            (three.path, three.text.as_str()),
            (vec!["base".to_owned(), "bits".to_owned()], "got 3, wanted 4 or 8")
        );
        assert!(read("{\"bit\": 4}").is_err());
    }
}
