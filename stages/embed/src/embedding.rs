//! Embedding the distinct prompts, shard by shard.

use std::collections::BTreeMap;

use kit::rows::{Embedding, Reject};
use kit::{Context, DistinctPrompts, Error, Outcome, Result, complete_port, run_shards, shard_ranges};
use lm::SentenceEncoder;

use crate::config::Embed;
use tokens::lm_error;

/// Texts between two looks at the interrupt; enough of them that those of similar length can go together.
const TEXTS_PER_CALL: usize = 256;

pub(crate) fn embed(stage: &Embed, context: &Context<'_>) -> Result<Outcome> {
    let mut distinct = DistinctPrompts::read(context, "from")?;
    let (mut texts, mut refused) = (Vec::new(), BTreeMap::new());
    for (id, messages) in std::mem::take(&mut distinct.messages) {
        match stage.text.of(&messages) {
            Some(text) if !text.is_empty() => texts.push((id, text)),
            Some(_) => {
                refused.insert(id, ("no_text".to_owned(), "the text to embed is empty".to_owned()));
            }
            None => {
                let detail = format!("none of its {} messages has the role `user` or `text`", messages.len());
                refused.insert(id, ("no_text".to_owned(), detail));
            }
        }
    }
    let rejects: Vec<Reject> = distinct.rejects("from", &refused).into_iter().map(|(_, reject)| reject).collect();
    let mut shards = shard_ranges(std::iter::repeat_n(1, texts.len()), stage.shard_rows);
    if shards.is_empty() {
        shards.push(0..0);
    }
    let prompts = texts.len() as u64;
    let mut encoder = None;
    let rejected = run_shards(context, "prompts", &shards, |shard, output| {
        if shard.start == 0 {
            rejects.iter().for_each(|reject| output.reject(reject.clone()));
        }
        if encoder.is_none() && !shard.is_empty() {
            let device = lm::open_device(context.device).map_err(lm_error)?;
            stage.dtype.warning(&device).into_iter().for_each(|text| context.warn(text));
            let folder = &context.model("model")?.path;
            encoder = Some(SentenceEncoder::load_in(folder, &device, stage.dtype).map_err(lm_error)?);
        }
        let (start, mut rows) = (shard.start, Vec::new());
        for texts in texts[shard].chunks(TEXTS_PER_CALL) {
            let embeddings = output.batch(|| {
                let encoder = encoder.as_ref().expect("loaded for a shard with texts");
                let plain: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
                let embeddings = encoder.encode(&plain, stage.tokens_per_batch).map_err(lm_error)?;
                texts.iter().zip(embeddings).map(|((id, _), embedding)| unit(id, embedding)).collect::<Result<Vec<_>>>()
            })?;
            for ((id, _), embedding) in texts.iter().zip(embeddings) {
                rows.push(Embedding { prompt_id: id.clone(), embedding, source_file: None, source_line: None });
            }
            let done = (start + rows.len()) as u64;
            context.progress(done, prompts, "prompts", String::new());
        }
        output.write("embeddings", &rows)
    })?;
    complete_port::<Embedding>(context, "embeddings")?;
    let read = distinct.rows.len() as u64;
    Ok(Outcome::default().balance("from", read, read - rejected, rejected).figure("prompts", prompts))
}

/// An embedding with the length made 1 in f64 and checked.
fn unit(prompt_id: &str, embedding: Vec<f32>) -> Result<Vec<f32>> {
    let length = embedding.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if !(length.is_finite() && length > 0.0) {
        return Err(Error::data(format!(
            "prompt `{prompt_id}`: the encoder gives an embedding of length {length}; its weights overflow or hold \
             values that are not numbers"
        )));
    }
    Ok(embedding.into_iter().map(|value| (f64::from(value) / length) as f32).collect())
}
