//! The stage contract of `embed`: ports, checks, forecast, run.

use std::path::Path;
use std::sync::LazyLock;

use endpoint::{EXECUTION_KEYS, Endpoint, Protocol, SENT_KEYS};
use kit::{
    Amount, CHARACTERS_PER_TOKEN, Context, DistinctPrompts, Expected, Finding, Forecast, ForecastInputs, InputPort,
    Job, Outlook, OutputPort, Result, Stage, Table,
};
use lm::{Load, Purpose};
use tokens::{cost, kinds, lm_error};

use crate::config::Embed;
use crate::embedding::{Embedding, Texts};
use crate::protocol::Vectors;
use crate::remote::{self, Remote};

/// The keys that change how an endpoint is asked and not what it says.
static EMBED_EXECUTION_KEYS: LazyLock<Vec<&str>> =
    LazyLock::new(|| [&["texts_per_request"], EXECUTION_KEYS.as_slice()].concat());

impl Embed {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        if let Some(endpoint) = &self.endpoint {
            return self.count_remotely(endpoint, context);
        }
        let prompts = DistinctPrompts::read(context, "from")?;
        let texts = prompts.messages.values().filter_map(|messages| self.text.of(messages));
        let characters: usize = texts.map(|text| text.chars().count()).sum();
        Ok(Forecast {
            rows: Amount::exact(prompts.messages.len() as u64),
            tokens: Some(Amount::about((characters as f64 / CHARACTERS_PER_TOKEN).ceil() as u64)),
            ..Forecast::default()
        })
    }

    fn count_remotely(&self, endpoint: &Endpoint, context: &Context<'_>) -> Result<Forecast> {
        let (texts, protocol) = (Texts::read(self, context)?, Vectors::new(self.dimensions, self.texts_per_request));
        let questions = texts.all.iter().map(|text| Ok(remote::question(endpoint, &protocol, text).1));
        let cost = endpoint.cost_of(&protocol, questions)?;
        let rows = texts.all.len() as u64;
        Ok(Forecast {
            rows: Amount::exact(rows),
            requests: Some(Amount::at_most(rows.div_ceil(self.texts_per_request as u64))),
            notes: std::iter::once(endpoint.destination(Vectors::PATH)).chain(cost).collect(),
            ..Forecast::default()
        })
    }

    /// The same from what the inputs are expected to hold, and what the ports will.
    fn estimate(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        let Some(from) = ahead.input("from") else { return Ok(Outlook::default()) };
        let Some(prompts) = from.prompts else { return Ok(Outlook::default()) };
        let mut forecast = Forecast::of_rows(prompts);
        if let Some(endpoint) = &self.endpoint {
            let requests = prompts.value.div_ceil(self.texts_per_request as u64);
            forecast.requests = Some(prompts.with(requests).bounded());
            forecast = forecast.note(endpoint.destination(Vectors::PATH));
        }
        if let Some(of_prompt) = from.prompt_tokens {
            let tokens = prompts.value as f64 * of_prompt;
            forecast.tokens = Some(Amount::about(tokens.ceil() as u64));
            let cost = self.endpoint.as_ref().and_then(|endpoint| endpoint.cost_note(tokens.ceil() as u64, 0));
            forecast.notes.extend(cost);
            if let Some(model) = cost::model(ahead, "model", self.dtype) {
                let load = Load { tokens, scored: 0.0, context: of_prompt };
                let tokens_at_once = (self.tokens_per_batch.on(&ahead.device) as u64).min(tokens as u64);
                cost::forward(&mut forecast, &model, load, Purpose::score(load, tokens_at_once));
            }
        }
        let embeddings = Expected { prompts: Some(prompts), ..Expected::of_rows(Table::Embeddings, prompts.bounded()) };
        Ok(Outlook::of(forecast).port("embeddings", embeddings))
    }
}

impl Stage for Embed {
    fn version(&self) -> String {
        format!("2+lm{}", lm::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let from = InputPort::new("from", &self.from, Table::Prompts);
        let from = DistinctPrompts::TABLES[1..].iter().fold(from, |from, &table| from.or(table));
        let model = self.model.iter().map(|model| {
            let port = InputPort::new("model", model, Table::Model);
            kinds::language_model(port, kinds::REWARDS_ELSEWHERE)
        });
        std::iter::once(from).chain(model).collect()
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let embeddings = OutputPort::new(Table::Embeddings).without("source_file").without("source_line");
        vec![embeddings, OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn idle_keys(&self) -> Vec<Finding> {
        self.without_effect()
    }

    fn check_model(&self, _key: &str, model: &Path) -> Result<Option<String>> {
        kinds::refuse_rewards(model, kinds::REWARDS_ELSEWHERE)?;
        lm::check_sentence_encoder(model).map(|()| None).map_err(lm_error)
    }

    fn remarks(&self) -> Vec<Finding> {
        let dtype = self.dtype.remark().map(|text| Finding::at("dtype", text));
        dtype.into_iter().chain(self.endpoint.as_ref().and_then(Endpoint::unset_key)).collect()
    }

    fn execution_keys(&self) -> &'static [&'static str] {
        &EMBED_EXECUTION_KEYS
    }

    fn sent_keys(&self) -> &'static [&'static str] {
        SENT_KEYS
    }

    fn needs_device(&self) -> bool {
        self.endpoint.is_none()
    }

    fn is_row_wise(&self) -> bool {
        self.needs_device()
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(self.estimate(ahead), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(match &self.endpoint {
            Some(endpoint) => Job::sharded(Remote::new(self, endpoint, context)?),
            None => Job::sharded(Embedding::new(self, context)?),
        })
    }
}
