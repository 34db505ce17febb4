//! The configuration of `reference`, and what the engine asks of it.

use std::path::Path;

use kit::{
    Ahead, Amount, Context, Error, Finding, Forecast, Input, InputPort, Outcome, Outlook, OutputPort, Rendering,
    Result, Stage, Table,
};
use lm::{DecoderConfig, Dtype, PromptMismatch, SpecialText, Text, TextRules, TooLong};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lm_error;
use crate::score::score;
use crate::work::WorkList;
use crate::{ahead, rendering};

/// Scores each distinct sequence of the training rows once under the frozen reference model.
///
/// The token rules have to be those of the `train` stage that reads the result.
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
    /// Rows with a sequence longer than the limit: `reject` them, `cut_left` (the prompt's beginning goes, equally on
    /// both sides of a pair), or stop with an `error`.
    #[serde(default = "too_long")]
    pub too_long: TooLong,
    /// Text that looks like a special token inside a message: `escape` encodes it as ordinary text, `reject` refuses
    /// the row, `allow` encodes it as the special token.
    #[serde(default = "special_text")]
    pub special_text: SpecialText,
    /// Rows whose prompt, tokenised by itself, is not what stands before its answer. The last token or two may always
    /// differ, where they merge with the answer's. Where a chat template writes the prompt in another way when an answer
    /// follows: `stop`, or `append` the answer, as the template writes it, to the prompt's own rendering, or `keep` the
    /// whole and score whatever follows the common beginning. `reject` refuses every row whose prompt is not a prefix to
    /// the last token.
    #[serde(default = "on_prefix_mismatch")]
    pub on_prefix_mismatch: PromptMismatch,
    /// Longest sequence in tokens; without it the model's positions.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// The precision of matrix products, `f32` or `bf16`. `train` has to compute in the same.
    #[serde(default, skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
    /// Tokens computed at once, shared prefixes counted once. More needs more memory.
    #[serde(default = "tokens_per_batch")]
    pub tokens_per_batch: usize,
    /// Sequences in a shard, at least; a shard is what a kill can cost.
    #[serde(default = "shard_rows")]
    pub shard_rows: usize,
}

fn too_long() -> TooLong {
    TooLong::Reject
}

fn special_text() -> SpecialText {
    SpecialText::Escape
}

fn on_prefix_mismatch() -> PromptMismatch {
    PromptMismatch::Stop
}

fn tokens_per_batch() -> usize {
    lm::TOKENS_AT_ONCE
}

fn shard_rows() -> usize {
    256
}

impl Reference {
    pub(crate) fn rules(&self) -> TextRules {
        TextRules {
            special_text: self.special_text,
            too_long: self.too_long,
            on_prefix_mismatch: self.on_prefix_mismatch,
        }
    }

    /// The model's tokenizer and template, and the longest sequence.
    pub(crate) fn text(&self, context: &Context<'_>) -> Result<(Text, usize)> {
        let folder = &context.model("model")?.path;
        let text = Text::load(folder).map_err(lm_error)?;
        let positions = DecoderConfig::from_folder(folder).map_err(lm_error)?.max_positions;
        Ok((text, self.max_tokens.unwrap_or(positions).min(positions)))
    }

    /// Tokenises every row; no weights are read.
    fn work_list(&self, context: &Context<'_>) -> Result<WorkList> {
        let (text, limit) = self.text(context)?;
        WorkList::read(context, &text, &self.rules(), limit)
    }
}

impl Stage for Reference {
    fn version(&self) -> String {
        format!("2+lm{}", lm::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        vec![
            InputPort::new("from", &self.from, Table::Pairs).or(Table::Items),
            InputPort::new("model", &self.model, Table::Model),
        ]
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let reference = OutputPort::new(Table::Reference).setting("dtype", self.dtype.name());
        let reference = if self.prompt_part { reference } else { reference.without("prompt_logp") };
        vec![reference, OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        let at_least_one = [
            ("tokens_per_batch", self.tokens_per_batch),
            ("shard_rows", self.shard_rows),
            ("max_tokens", self.max_tokens.unwrap_or(1)),
        ];
        let zero = at_least_one.into_iter().filter(|(_, value)| *value == 0);
        zero.map(|(key, _)| Finding::at(key, "got 0, wanted at least 1")).collect()
    }

    fn check_model(&self, _key: &str, model: &Path) -> std::result::Result<Option<String>, String> {
        lm::check_decoder(model).map(|usable| usable.no_messages)
    }

    fn remarks(&self) -> Vec<Finding> {
        self.dtype.remark().map(|text| Finding::at("dtype", text)).into_iter().collect()
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn forecast(&self, context: &Context<'_>) -> Result<Forecast> {
        let work = self.work_list(context)?;
        let mut notes = vec![format!("{} distinct sequences", work.sequences())];
        if work.counts.mismatched > 0 {
            notes.push(format!("{} sequences whose prompt is not a token prefix", work.counts.mismatched));
        }
        notes.extend(work.counts.displaced_remark());
        notes.extend(work.stopped.remark());
        Ok(Forecast {
            rows: Amount::exact(work.rows),
            tokens: Some(Amount::exact(work.shared_tokens())),
            too_long: Some(Amount::exact(work.counts.too_long)),
            notes,
            ..Forecast::default()
        })
    }

    fn expect(&self, ahead: &Ahead) -> Result<Outlook> {
        Ok(ahead::expect(self, ahead))
    }

    fn run(&self, context: &Context<'_>) -> Result<Outcome> {
        let work = self.work_list(context)?;
        if let Some(text) = work.stopped.stop(work.rows) {
            return Err(Error::Data(text));
        }
        work.counts.displaced_remark().into_iter().for_each(|text| context.warn(text));
        score(self, context, &work)
    }

    fn rendered_inputs(&self) -> &'static [&'static str] {
        &["from", "model"]
    }

    fn render(&self, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
        rendering::render(self, context, rows)
    }
}
