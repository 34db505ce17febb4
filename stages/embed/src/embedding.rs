//! Embedding the distinct prompts, shard by shard.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::rows::{self, Reject};
use kit::{Context, DistinctPrompts, Error, Outcome, Result, ShardOutput, Sharded, complete_port, shard_ranges};
use lm::SentenceEncoder;
use tokens::{lm_error, open_device, prepared_ahead};

use crate::config::Embed;

/// Texts between two looks at the interrupt; enough of them that those of similar length can go together.
const TEXTS_PER_CALL: usize = 256;

/// The distinct prompts as texts.
pub(crate) struct Texts {
    /// The ids of prompts with their texts.
    pub(crate) all: Vec<(String, String)>,
    /// The rows whose prompt has no text.
    pub(crate) refused: Vec<Reject>,
    /// Rows read.
    pub(crate) rows: u64,
}

impl Texts {
    /// # Errors
    /// When the prompts cannot be read.
    pub(crate) fn read(stage: &Embed, context: &Context<'_>) -> Result<Texts> {
        let mut distinct = DistinctPrompts::read(context, "from")?;
        let prefix = stage.prefix.as_deref().unwrap_or_default();
        let (mut all, mut refused) = (Vec::new(), BTreeMap::new());
        for (id, messages) in std::mem::take(&mut distinct.messages) {
            match stage.text.of(&messages) {
                Some(text) if !text.is_empty() => all.push((id, format!("{prefix}{text}"))),
                Some(_) => {
                    refused.insert(id, ("no_text".to_owned(), "the text to embed is empty".to_owned()));
                }
                None => {
                    let detail = format!("none of its {} messages has the role `user` or `text`", messages.len());
                    refused.insert(id, ("no_text".to_owned(), detail));
                }
            }
        }
        let refused = distinct.rejects("from", &refused).into_iter().map(|(_, reject)| reject).collect();
        Ok(Texts { all, refused, rows: distinct.rows.len() as u64 })
    }

    /// The shards. The refused rows go with the first, which is there even where every prompt was refused.
    pub(crate) fn shards(&self, size: usize) -> Vec<Range<usize>> {
        let shards = shard_ranges(std::iter::repeat_n(1, self.all.len()), size);
        if shards.is_empty() { std::iter::once(0..0).collect() } else { shards }
    }
}

/// The distinct prompts as texts, and the encoder once a shard needs it.
pub(crate) struct Embedding<'a> {
    stage: &'a Embed,
    context: &'a Context<'a>,
    texts: Texts,
    encoder: Option<SentenceEncoder>,
}

impl<'a> Embedding<'a> {
    /// Reads the prompts.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn new(stage: &'a Embed, context: &'a Context<'a>) -> Result<Embedding<'a>> {
        Ok(Embedding { stage, context, texts: Texts::read(stage, context)?, encoder: None })
    }

    fn load(&self) -> Result<SentenceEncoder> {
        let device = open_device(self.context, self.stage.dtype)?;
        let folder = &self.context.model("model")?.path;
        SentenceEncoder::load_in(folder, &device, self.stage.dtype).map_err(lm_error)
    }
}

impl Sharded for Embedding<'_> {
    fn unit(&self) -> &'static str {
        "prompts"
    }

    fn shards(&self) -> Vec<Range<usize>> {
        self.texts.shards(self.stage.shard_rows)
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        if shard.start == 0 {
            self.texts.refused.iter().for_each(|reject| output.reject(reject.clone()));
        }
        if self.encoder.is_none() && !shard.is_empty() {
            self.encoder = Some(self.load()?);
        }
        let (start, mut rows) = (shard.start, Vec::new());
        let budget = self.stage.tokens_per_batch.on(self.context.device);
        let encoder = || self.encoder.as_ref().expect("loaded for a shard with texts");
        let prepared = self.texts.all[shard].chunks(TEXTS_PER_CALL).map(|texts| {
            // A prefix of the stage stands before the texts already.
            let default = encoder().default_prompt().filter(|_| self.stage.prefix.is_none()).unwrap_or_default();
            let whole: Vec<String> = texts.iter().map(|(_, text)| format!("{default}{text}")).collect();
            let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
            Ok((texts, encoder().tokens(&whole).map_err(lm_error)?))
        });
        prepared_ahead(prepared, |(texts, tokens)| {
            let embeddings = output.batch(|| {
                let embeddings = encoder().encode_tokens(&tokens, budget).map_err(lm_error)?;
                texts.iter().zip(embeddings).map(|((id, _), embedding)| unit(id, embedding)).collect::<Result<Vec<_>>>()
            })?;
            for ((id, _), embedding) in texts.iter().zip(embeddings) {
                rows.push(rows::Embedding { prompt_id: id.clone(), embedding, source_file: None, source_line: None });
            }
            let done = (start + rows.len()) as u64;
            self.context.progress(done, self.texts.all.len() as u64, self.unit(), String::new());
            Ok(())
        })?;
        output.write("embeddings", &rows)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        complete_port::<rows::Embedding>(self.context, "embeddings")?;
        let outcome = Outcome::default().balance("from", self.texts.rows, self.texts.rows - rejected, rejected);
        Ok(outcome.figure("prompts", self.texts.all.len()))
    }
}

/// An embedding with the length made 1 in f64 and checked.
pub(crate) fn unit(prompt_id: &str, embedding: Vec<f32>) -> Result<Vec<f32>> {
    let length = embedding.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if !(length.is_finite() && length > 0.0) {
        return Err(Error::data(format!(
            "prompt `{prompt_id}`: the encoder gives an embedding of length {length}; its weights overflow or hold \
             values that are not numbers"
        )));
    }
    Ok(embedding.into_iter().map(|value| (f64::from(value) / length) as f32).collect())
}
