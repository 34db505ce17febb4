//! Embedding through an endpoint, several texts in a request.

use std::ops::Range;

use endpoint::{Asking, Endpoint, Protocol, RequestResult, Unheard};
use kit::rows::{self, Reject};
use kit::{Context, Outcome, Result, ShardOutput, Sharded, complete_port, id_of};

use crate::config::Embed;
use crate::embedding::{Texts, unit};
use crate::protocol::{Text, Vectors};

/// The distinct prompts as texts, and who asks once a shard needs it.
pub(crate) struct Remote<'a> {
    stage: &'a Embed,
    endpoint: &'a Endpoint,
    context: &'a Context<'a>,
    texts: Texts,
    protocol: Vectors,
    asking: Option<Asking<Vectors>>,
    unheard: Unheard,
}

impl<'a> Remote<'a> {
    /// # Errors
    /// When the prompts cannot be read.
    pub(crate) fn new(stage: &'a Embed, endpoint: &'a Endpoint, context: &'a Context<'a>) -> Result<Remote<'a>> {
        let texts = Texts::read(stage, context)?;
        let protocol = Vectors::new(stage.dimensions, stage.texts_per_request);
        let unheard = Unheard::new(endpoint, &protocol, texts.all.len());
        Ok(Remote { stage, endpoint, context, texts, protocol, asking: None, unheard })
    }
}

/// The question for a text, with the digest that it is known by.
pub(crate) fn question(endpoint: &Endpoint, protocol: &Vectors, (id, text): &(String, String)) -> (String, Text) {
    let text = Text { prompt_id: id.clone(), text: text.clone() };
    (id_of(&[endpoint.address(Vectors::PATH), endpoint.known_by(protocol, &text)]), text)
}

impl Sharded for Remote<'_> {
    fn unit(&self) -> &'static str {
        "prompts"
    }

    fn shards(&self) -> Vec<Range<usize>> {
        self.texts.shards(self.stage.shard_rows)
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        let (unit_name, shards) = (self.unit(), self.shards());
        let Remote { endpoint, context, texts, protocol, asking, unheard, .. } = self;
        if shard.start == 0 {
            texts.refused.iter().for_each(|reject| output.reject(reject.clone()));
        }
        if shard.is_empty() {
            return output.write::<rows::Embedding>("embeddings", &[]);
        }
        let asking = match asking {
            Some(asking) => asking,
            None => {
                let opened = Asking::open(endpoint, protocol.clone(), context)?;
                opened.an_answer().into_iter().for_each(|known| protocol.expect(known));
                asking.insert(opened)
            }
        };
        let of = |text: &(String, String)| question(endpoint, protocol, text);
        let results = asking.ask_shard(context, unit_name, &shards, &shard, |shard| {
            Ok(texts.all[shard.clone()].iter().map(of).collect())
        })?;
        let mut rows = Vec::new();
        for text in &texts.all[shard] {
            let prompt_id = text.0.clone();
            match &results[&of(text).0] {
                RequestResult::Answer(vector) => {
                    let embedding = unit(&prompt_id, vector.clone())?;
                    rows.push(rows::Embedding { prompt_id, embedding, source_file: None, source_line: None });
                }
                RequestResult::Nothing(reason, detail) => {
                    unheard.count(reason, detail)?;
                    output.reject(Reject {
                        input: "texts".to_owned(),
                        row_id: prompt_id,
                        reason: (*reason).to_owned(),
                        detail: detail.clone(),
                        source_file: None,
                        source_line: None,
                    });
                }
            }
        }
        output.write("embeddings", &rows)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        complete_port::<rows::Embedding>(self.context, "embeddings")?;
        self.unheard.count_again(self.context)?;
        let Texts { all, refused, rows } = &self.texts;
        let (texts, refused) = (all.len() as u64, refused.len() as u64);
        let unheard = rejected - refused;
        let outcome = Outcome::default()
            .balance("from", *rows, rows - refused, refused)
            .balance("texts", texts, texts - unheard, unheard)
            .figure("prompts", texts);
        Ok(Asking::bill(self.asking.as_ref(), self.endpoint, self.context)?.add_to(outcome))
    }
}
