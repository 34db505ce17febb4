//! The stage contract of `embed`: ports, checks, forecast, run.

use std::path::Path;

use kit::{
    Ahead, Amount, CHARACTERS_PER_TOKEN, Context, DistinctPrompts, Expected, Finding, Forecast, InputPort, Job,
    Outlook, OutputPort, Result, Stage, Table,
};
use lm::{Load, Purpose};
use tokens::cost;
use tokens::lm_error;

use crate::config::Embed;
use crate::embedding::Embedding;

impl Embed {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        let prompts = DistinctPrompts::read(context, "from")?;
        let texts = prompts.messages.values().filter_map(|messages| self.text.of(messages));
        let characters: usize = texts.map(|text| text.chars().count()).sum();
        Ok(Forecast {
            rows: Amount::exact(prompts.messages.len() as u64),
            tokens: Some(Amount::about((characters as f64 / CHARACTERS_PER_TOKEN).ceil() as u64)),
            ..Forecast::default()
        })
    }

    /// The same from what the inputs are expected to hold, and what the ports will.
    fn estimate(&self, ahead: &Ahead<'_>) -> Result<Outlook> {
        let Some(from) = ahead.input("from") else { return Ok(Outlook::default()) };
        let Some(prompts) = from.prompts else { return Ok(Outlook::default()) };
        let mut forecast = Forecast::of_rows(prompts);
        if let Some(of_prompt) = from.prompt_tokens {
            let tokens = prompts.value as f64 * of_prompt;
            forecast.tokens = Some(Amount::about(tokens.ceil() as u64));
            if let Some(model) = cost::model(ahead, "model", self.dtype) {
                let load = Load { tokens, scored: 0.0, context: of_prompt };
                let tokens_at_once = (self.tokens_per_batch as u64).min(tokens as u64);
                cost::forward(&mut forecast, &model, load, Purpose::Score { tokens_at_once });
            }
        }
        let embeddings = Expected { prompts: Some(prompts), ..Expected::of_rows(Table::Embeddings, prompts.bounded()) };
        Ok(Outlook::of(forecast).port("embeddings", embeddings))
    }
}

impl Stage for Embed {
    fn version(&self) -> String {
        format!("1+lm{}", lm::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let from = InputPort::new("from", &self.from, Table::Prompts);
        let from = DistinctPrompts::TABLES[1..].iter().fold(from, |from, &table| from.or(table));
        vec![from, InputPort::new("model", &self.model, Table::Model)]
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let embeddings = OutputPort::new(Table::Embeddings).without("source_file").without("source_line");
        vec![embeddings, OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn check_model(&self, _key: &str, model: &Path) -> Result<Option<String>> {
        lm::check_sentence_encoder(model).map(|()| None).map_err(lm_error)
    }

    fn remarks(&self) -> Vec<Finding> {
        self.dtype.remark().map(|text| Finding::at("dtype", text)).into_iter().collect()
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn forecast(&self, ahead: &Ahead<'_>) -> Result<Outlook> {
        ahead.counted(self.estimate(ahead), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::sharded(Embedding::new(self, context)?))
    }
}
