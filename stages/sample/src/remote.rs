//! Sampling through an endpoint: several draws of a prompt are one request where the endpoint takes `n`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use endpoint::{
    Asking, Completion, Completions, Conversation, Draw, Endpoint, Protocol, Questions, RequestResult, Unheard,
};
use kit::rows::Response;
use kit::rows::{Message, Reject};
use kit::{Context, DistinctPrompts, Outcome, Result, ShardOutput, Sharded, complete_port, id_of, shard_ranges};

use crate::config::Sample;
use crate::sampling::{Figures, Text, responses};

/// Reason and detail for a prompt of raw text.
const RAW_TEXT: (&str, &str) = ("raw_text", "an endpoint continues conversations, no raw text; it needs `model`");

/// The distinct prompts, and who asks once a shard needs it.
pub(crate) struct Remote<'a> {
    stage: &'a Sample,
    endpoint: &'a Endpoint,
    context: &'a Context<'a>,
    prompts: Vec<Prompt>,
    refused: Vec<Reject>,
    rows: u64,
    asking: Option<Asking<Completions>>,
    unheard: Unheard,
}

/// A prompt that can be asked.
pub(crate) struct Prompt {
    pub(crate) id: String,
    pub(crate) messages: Vec<Message>,
    conversation: Arc<Conversation>,
}

impl Prompt {
    /// Its draws, each with the digest that it is known by.
    pub(crate) fn draws(&self, stage: &Sample, endpoint: &Endpoint, context: &Context<'_>) -> Questions<Completions> {
        let protocol = stage.completions();
        let draw = |k: u64| {
            let seed = context.seed.derive("sample", &self.id, k);
            let draw = Draw { conversation: self.conversation.clone(), seed };
            // At temperature 0 no seed is sent; the number tells draws apart all the same.
            let parts = [endpoint.address(Completions::PATH), endpoint.known_by(&protocol, &draw), k.to_string()];
            (id_of(&parts), draw)
        };
        (0..stage.k as u64).map(draw).collect()
    }
}

/// The prompts of the input that an endpoint can be asked, and the rejects of the others.
pub(crate) fn read(context: &Context<'_>) -> Result<(Vec<Prompt>, Vec<Reject>, u64)> {
    let mut distinct = DistinctPrompts::read(context, "from")?;
    let (mut prompts, mut refused) = (Vec::new(), BTreeMap::new());
    for (id, messages) in std::mem::take(&mut distinct.messages) {
        match Conversation::of(&messages) {
            Some(conversation) => prompts.push(Prompt { id, messages, conversation: Arc::new(conversation) }),
            None => _ = refused.insert(id, (RAW_TEXT.0.to_owned(), RAW_TEXT.1.to_owned())),
        }
    }
    let refused = distinct.rejects("from", &refused).into_iter().map(|(_, reject)| reject).collect();
    Ok((prompts, refused, distinct.rows.len() as u64))
}

impl<'a> Remote<'a> {
    /// # Errors
    /// When the prompts cannot be read.
    pub(crate) fn new(stage: &'a Sample, endpoint: &'a Endpoint, context: &'a Context<'a>) -> Result<Remote<'a>> {
        let (prompts, refused, rows) = read(context)?;
        let unheard = Unheard::new(endpoint, &stage.completions(), prompts.len() * stage.k);
        Ok(Remote { stage, endpoint, context, prompts, refused, rows, asking: None, unheard })
    }
}

impl Sharded for Remote<'_> {
    fn unit(&self) -> &'static str {
        "prompts"
    }

    /// The refused rows go with the first shard, which is there even where every prompt was refused.
    fn shards(&self) -> Vec<Range<usize>> {
        let shards = shard_ranges(std::iter::repeat_n(1, self.prompts.len()), self.stage.shard_rows);
        if shards.is_empty() { std::iter::once(0..0).collect() } else { shards }
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        let (unit, shards) = (self.unit(), self.shards());
        let Remote { stage, endpoint, context, prompts, refused, asking, unheard, .. } = self;
        if shard.start == 0 {
            refused.iter().for_each(|reject| output.reject(reject.clone()));
        }
        if shard.is_empty() {
            return output.write::<Response>("responses", &[]);
        }
        let asking = match asking {
            Some(asking) => asking,
            None => asking.insert(Asking::open(endpoint, stage.completions(), context)?),
        };
        let draws = |prompt: &Prompt| prompt.draws(stage, endpoint, context);
        let results = asking.ask_shard(context, unit, &shards, &shard, |shard| {
            Ok(prompts[shard.clone()].iter().flat_map(draws).collect())
        })?;
        let model = id_of(&[endpoint.address(Completions::PATH), endpoint.model.clone()]);
        let mut rows = Vec::new();
        for prompt in &prompts[shard] {
            let mut texts = Vec::new();
            for (k, (id, _)) in draws(prompt).iter().enumerate() {
                match &results[id] {
                    RequestResult::Answer(completion) => texts.push((k, text(completion))),
                    RequestResult::Nothing(reason, detail) => {
                        unheard.count(reason, detail)?;
                        output.reject(Reject {
                            input: "samples".to_owned(),
                            row_id: format!("{}#{k}", prompt.id),
                            reason: (*reason).to_owned(),
                            detail: detail.clone(),
                            source_file: None,
                            source_line: None,
                        });
                    }
                }
            }
            let (responses, empty) = responses((&prompt.id, &prompt.messages), texts, &model);
            rows.extend(responses);
            empty.into_iter().for_each(|reject| output.reject(reject));
        }
        output.write("responses", &rows)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        complete_port::<Response>(self.context, "responses")?;
        self.unheard.count_again(self.context)?;
        let counts = (self.rows, self.refused.len() as u64, self.prompts.len() as u64);
        let figures = Figures::read(self.context)?;
        figures.warnings(self.stage).into_iter().for_each(|text| self.context.warn(text));
        let outcome = figures.outcome(self.stage, counts, rejected);
        Ok(Asking::bill(self.asking.as_ref(), self.endpoint, self.context)?.add_to(outcome))
    }
}

fn text(completion: &Completion) -> Text {
    let Completion { text, finish, logp, tokens } = completion.clone();
    Text { text, finish, logp, tokens }
}
