//! The configuration of `reference`: its field docs are the manual.

use kit::{Finding, Input};
use lm::{Dtype, Precision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokens::{Base, RowRules, TokensPerBatch};

/// Scores each distinct sequence of the training rows once under the frozen reference model.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The pairs or items whose sequences are scored. For items with KTO's `kl_response`, that response is scored
    /// under the item's prompt as well.
    pub from: Input,
    /// The reference model: a folder in the Hugging Face format, or the `policy` of a `train` stage.
    pub model: Input,
    /// Also score the prompt's tokens (all but the first), which `jpo` needs.
    #[serde(default)]
    pub prompt_part: bool,
    /// Rules by which rows become tokens: the same in every stage that reads the result.
    #[serde(default)]
    pub tokens: RowRules,
    /// The precision of matrix products, `f32` or `bf16`. `train` has to compute in the same.
    #[serde(default, skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
    /// Bits of the model's weights, where they are put into few: `{bits: 4}` or `{bits: 8}`.
    /// `train` has to hold its base in the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// Tokens in work at once, prompts and responses together; shared beginnings count once. More needs more memory.
    /// Left out, 4096 on a processor and 16384 on a GPU.
    #[serde(default)]
    #[schemars(with = "usize")]
    pub tokens_per_batch: TokensPerBatch,
    /// Sequences in a shard, at least, which is committed as one file; a kill costs the batch in work.
    #[serde(default = "shard_rows")]
    pub shard_rows: usize,
}

fn shard_rows() -> usize {
    256
}

impl Reference {
    /// How its model computes.
    pub(crate) fn precision(&self) -> Precision {
        tokens::precision(self.dtype, self.base)
    }

    /// Findings about the values.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let at_least_one = [("tokens_per_batch", self.tokens_per_batch.everywhere()), ("shard_rows", self.shard_rows)];
        let zero = at_least_one.into_iter().filter(|(_, value)| *value == 0);
        let zero = zero.map(|(key, _)| Finding::at(key, "got 0, wanted at least 1"));
        zero.chain(self.tokens.findings()).chain(Base::finding(self.base)).collect()
    }
}
