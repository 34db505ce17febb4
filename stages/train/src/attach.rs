//! Columns joined from other stages: reference log-probs of sequences and embeddings of prompts.

use std::collections::BTreeMap;

use kit::rows::{Embedding, ReferenceRow};
use kit::{Context, Error, Result};
use objective::Mixture;
use tokens::SequenceKey;

use crate::dataset::Dataset;

impl Dataset {
    /// Takes the reference log-probs of all sequences from the input `reference`.
    pub(crate) fn attach_reference(
        &mut self,
        context: &Context<'_>,
        objective: &Mixture,
        precision: lm::Precision,
    ) -> Result<()> {
        let places: BTreeMap<&SequenceKey, usize> = self.keys.iter().zip(0..).collect();
        let ids = |key: &SequenceKey| (key.prompt_id.clone(), key.response_id.clone());
        let mut starts: BTreeMap<(String, String), Vec<u32>> =
            self.keys.iter().map(|key| (ids(key), Vec::new())).collect();
        for row in context.rows::<ReferenceRow>("reference")? {
            let row = row?;
            if let Some(other) = row.dtype.filter(|other| *other != precision.name()) {
                return Err(Error::Pipeline(format!(
                    "`reference` was computed in {other} and the policy would be in {}: their difference would be one of \
                     precision; give both stages the same `dtype` and `base`",
                    precision.name()
                )));
            }
            let start = row.completion_start;
            let (prompt_id, response_id) = (row.prompt_id, row.response_id);
            let length = row.completion_tokens as usize;
            let key = SequenceKey { prompt_id, response_id, start: start as usize, length };
            if let Some(starts) = starts.get_mut(&ids(&key)) {
                starts.push(start);
            }
            let Some(&place) = places.get(&key) else { continue };
            if objective.needs_prompt_part() && row.prompt_logp.is_none() {
                return Err(Error::Pipeline(format!(
                    "`reference` has no `prompt_logp` for response `{}`, and `{}` scores prompts too: set \
                     `prompt_part: true` in that stage",
                    key.response_id,
                    objective.name()
                )));
            }
            self.reference[place] = Some((row.logp, row.prompt_logp.unwrap_or(0.0)));
        }
        let read = |sequence: usize| !objective.reads_rejected() || self.reference[sequence].is_some();
        for example in &self.examples {
            let missing = example.sequences().into_iter().find(|(_, sequence)| !read(*sequence));
            if let Some((side, sequence)) = missing {
                let SequenceKey { prompt_id, response_id, start, length } = &self.keys[sequence];
                let found = &starts[&ids(&self.keys[sequence])];
                let why = if found.is_empty() {
                    format!(
                        "either `reference` is not computed from the rows of `{}` (its `from` takes a list), or it rejected \
                         this one, as it does with a smaller `tokens.max_tokens` than here: look into its table `rejects`",
                        self.input
                    )
                } else {
                    format!(
                        "it has that response with its completion at token {found:?}, here it starts at {start} and has \
                         {length} tokens: use the same tokenizer and the same `tokens:` in both stages"
                    )
                };
                return Err(Error::Pipeline(format!(
                    "`reference` has no row for the {side} side of `{}` in `{}` (prompt `{prompt_id}`, response \
                     `{response_id}`): {why}",
                    example.id(),
                    self.input
                )));
            }
        }
        Ok(())
    }

    /// Takes the embeddings of all prompts from the input `embeddings`.
    pub(crate) fn attach_embeddings(&mut self, context: &Context<'_>) -> Result<()> {
        let places: BTreeMap<&str, usize> = self.prompts.iter().map(String::as_str).zip(0..).collect();
        self.embeddings = vec![Vec::new(); self.prompts.len()];
        for row in context.rows::<Embedding>("embeddings")? {
            let row = row?;
            let Some(&place) = places.get(row.prompt_id.as_str()) else { continue };
            if row.embedding.is_empty() || row.embedding.iter().all(|value| *value == 0.0) {
                return Err(Error::data(format!(
                    "`embeddings`: prompt `{}` has a vector without direction",
                    row.prompt_id
                )));
            }
            self.embeddings[place] = row.embedding;
        }
        let width = self.embeddings.iter().map(Vec::len).max().unwrap_or(0);
        for example in &self.examples {
            for prompt in example.prompts() {
                let found = self.embeddings[prompt].len();
                if found == width && found > 0 {
                    continue;
                }
                let what = if found == 0 { "no row".to_owned() } else { format!("{found} numbers") };
                return Err(Error::Pipeline(format!(
                    "`embeddings` has {what} for prompt `{}` of `{}` in `{}`, wanted {width} numbers: compute it from \
                     these rows",
                    self.prompts[prompt],
                    example.id(),
                    self.input
                )));
            }
        }
        Ok(())
    }
}
