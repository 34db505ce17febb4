//! The `tokens:` block of a stage: its field docs are the manual.

use kit::Finding;
use lm::{PrefixMismatch, PromptMismatch, SpecialText, TextRules, TooLong};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rules by which training rows become sequences. A `reference` stage and every stage that reads its log-probs take the
/// same block: another one there is a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RowRules {
    /// Rows with a sequence longer than the limit: `reject` them, `cut_left` (the prompt's beginning goes, equally on
    /// both sides of a pair), or stop with an `error`.
    pub too_long: TooLong,
    /// Text that looks like a special token inside a message: `escape` encodes it as ordinary text, `reject` refuses
    /// the row, `allow` encodes it as the special token.
    pub special_text: SpecialText,
    /// Rows whose prompt, tokenised by itself, is not what stands before its answer. The last token or two may always
    /// differ, where they merge with the answer's. Where a chat template writes the prompt in another way when an
    /// answer follows: `stop`, or `append` the answer, as the template writes it, to the prompt's own rendering, or
    /// `keep` the whole and score whatever follows the common beginning. `reject` refuses every row whose prompt is not
    /// a prefix to the last token.
    pub on_prefix_mismatch: PromptMismatch,
    /// Longest sequence in tokens; without it the model's positions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
}

impl Default for RowRules {
    fn default() -> RowRules {
        RowRules {
            too_long: TooLong::Reject,
            special_text: SpecialText::Escape,
            on_prefix_mismatch: PromptMismatch::Stop,
            max_tokens: None,
        }
    }
}

impl RowRules {
    /// The rules without the limit.
    pub fn text_rules(&self) -> TextRules {
        TextRules {
            special_text: self.special_text,
            too_long: self.too_long,
            on_prefix_mismatch: self.on_prefix_mismatch,
        }
    }

    /// The block as a port's setting, which has to be equal between stages: the keys with their values.
    pub fn setting(&self) -> String {
        let value = serde_json::to_value(self).expect("rules can be written as JSON");
        let keys = value.as_object().into_iter().flatten();
        let words: Vec<String> =
            keys.map(|(key, value)| format!("{key}: {}", value.to_string().trim_matches('"'))).collect();
        format!("{{{}}}", words.join(", "))
    }

    /// A finding where the limit is 0.
    pub fn findings(&self) -> Option<Finding> {
        at_least_one(self.max_tokens)
    }
}

/// Rules by which prompts become token sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromptRules {
    /// Prompts that leave no room for an answer: `reject` them, `cut_left` (they lose their beginning), or stop with an
    /// `error`.
    pub too_long: TooLong,
    /// Text that looks like a special token inside a message: `escape` encodes it as ordinary text, `reject` refuses
    /// the prompt, `allow` encodes it as the special token.
    pub special_text: SpecialText,
    /// Longest prompt in tokens; without it the model's positions less the longest answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
}

impl Default for PromptRules {
    fn default() -> PromptRules {
        PromptRules { too_long: TooLong::Reject, special_text: SpecialText::Escape, max_tokens: None }
    }
}

impl PromptRules {
    /// The rules without the limit. A prompt alone has no border at which tokens could differ.
    pub fn text_rules(&self) -> TextRules {
        let on_prefix_mismatch = PromptMismatch::Keep;
        TextRules { special_text: self.special_text, too_long: self.too_long, on_prefix_mismatch }
    }

    /// A finding where the limit is 0.
    pub fn findings(&self) -> Option<Finding> {
        at_least_one(self.max_tokens)
    }
}

/// Rules by which a question with its labels becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuestionRules {
    /// Questions longer than the limit: `reject` their comparisons, `cut_left` (the question loses its beginning), or
    /// stop with an `error`.
    pub too_long: TooLong,
    /// Text that looks like a special token inside a question: `escape` encodes it as ordinary text, `reject` refuses
    /// the comparison, `allow` encodes it as the special token.
    pub special_text: SpecialText,
    /// Questions whose tokens change when a label follows: `keep` scores from the common prefix on, `reject` refuses
    /// the comparison.
    pub on_prefix_mismatch: PrefixMismatch,
    /// Longest question with its label in tokens; without it the model's positions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
}

impl Default for QuestionRules {
    fn default() -> QuestionRules {
        QuestionRules {
            too_long: TooLong::Reject,
            special_text: SpecialText::Escape,
            on_prefix_mismatch: PrefixMismatch::Keep,
            max_tokens: None,
        }
    }
}

impl QuestionRules {
    /// The rules without the limit.
    pub fn text_rules(&self) -> TextRules {
        TextRules {
            special_text: self.special_text,
            too_long: self.too_long,
            on_prefix_mismatch: self.on_prefix_mismatch.into(),
        }
    }

    /// A finding where the limit is 0.
    pub fn findings(&self) -> Option<Finding> {
        at_least_one(self.max_tokens)
    }
}

fn at_least_one(limit: Option<usize>) -> Option<Finding> {
    (limit == Some(0)).then(|| Finding::at("tokens.max_tokens", "got 0, wanted at least 1"))
}

/// Tokens in work at once where rows are scored or embedded, unless `tokens_per_batch` says otherwise.
pub fn tokens_per_batch() -> usize {
    lm::TOKENS_AT_ONCE
}

/// Tokens in work at once where a GPU scores or embeds rows: fewer leave it idle between launches.
const ON_A_GPU: usize = 16384;

/// Tokens in work at once, at least 1. Where it is left out, the device decides; what identifies a stage holds the
/// number of a processor for it, since no result depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "usize", into = "usize")]
pub struct TokensPerBatch(Option<usize>);

impl TokensPerBatch {
    /// Tokens at once on any device.
    pub fn everywhere(self) -> usize {
        self.0.unwrap_or_else(tokens_per_batch)
    }

    /// Tokens at once on a device, `cpu` or `cuda:N`. Nothing that is committed may be cut by it.
    pub fn on(self, device: &str) -> usize {
        self.0.unwrap_or(if device == "cpu" { tokens_per_batch() } else { ON_A_GPU })
    }
}

impl From<usize> for TokensPerBatch {
    fn from(tokens: usize) -> TokensPerBatch {
        TokensPerBatch(Some(tokens))
    }
}

impl From<TokensPerBatch> for usize {
    fn from(tokens: TokensPerBatch) -> usize {
        tokens.everywhere()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_decides_how_many_tokens_unless_they_are_given() {
        let read = |text| serde_json::from_str::<TokensPerBatch>(text).unwrap();
        let absent = TokensPerBatch::default();
        assert_eq!((absent.everywhere(), absent.on("cpu"), absent.on("cuda:1")), (4096, 4096, 16384));
        assert_eq!((read("300").everywhere(), read("300").on("cpu"), read("300").on("cuda:0")), (300, 300, 300));
        assert_eq!(serde_json::to_string(&[absent, read("4096")]).unwrap(), "[4096,4096]");
    }

    #[test]
    fn rules_read_as_they_are_written() {
        let rules = RowRules { max_tokens: Some(512), too_long: TooLong::CutLeft, ..RowRules::default() };
        let text = "{max_tokens: 512, on_prefix_mismatch: stop, special_text: escape, too_long: cut_left}";
        assert_eq!(rules.setting(), text);
        assert_ne!(rules.setting(), RowRules::default().setting());
        let read: RowRules = serde_json::from_str("{\"max_tokens\": 512, \"too_long\": \"cut_left\"}").unwrap();
        assert_eq!(read, rules);
        assert!(serde_json::from_str::<RowRules>("{\"max_token\": 512}").is_err());
        assert_eq!(RowRules { max_tokens: Some(0), ..rules }.findings().unwrap().path, ["tokens", "max_tokens"]);
    }
}
