//! The stage contract of `sample`: ports, checks, forecast, run.

use std::path::Path;

use kit::{
    Ahead, Amount, Context, DistinctPrompts, Finding, Forecast, InputPort, Job, Outlook, OutputPort, Rendering, Result,
    Stage, Table,
};
use tokens::lm_error;

use crate::config::Sample;
use crate::sampling::Sampling;
use crate::work::WorkList;
use crate::{ahead, rendering};

impl Sample {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        let work = WorkList::read(self, context)?;
        let prompt_tokens: usize = work.prompts.iter().map(|prompt| prompt.sequence.ids.len()).sum();
        let most = prompt_tokens + work.prompts.len() * self.k * self.max_tokens;
        Ok(Forecast {
            rows: Amount::at_most((work.prompts.len() * self.k) as u64),
            tokens: Some(Amount::at_most(most as u64)),
            too_long: Some(Amount::exact(work.too_long)),
            notes: vec![
                "equal responses to a prompt become one row".to_owned(),
                format!("{prompt_tokens} tokens of prompts, and at most {} each response", self.max_tokens),
            ],
            ..Forecast::default()
        })
    }
}

impl Stage for Sample {
    fn version(&self) -> String {
        format!("1+lm{}", lm::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let from = InputPort::new("from", &self.from, Table::Prompts);
        let from = DistinctPrompts::TABLES[1..].iter().fold(from, |from, &table| from.or(table));
        vec![from, InputPort::new("model", &self.model, Table::Model)]
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort::new(Table::Responses).without("score"), OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn draws(&self) -> bool {
        // At temperature 0 nothing is drawn, and another seed gives the same responses.
        self.temperature > 0.0
    }

    fn check_model(&self, _key: &str, model: &Path) -> Result<Option<String>> {
        lm::check_decoder(model).map(|usable| usable.no_messages).map_err(lm_error)
    }

    fn remarks(&self) -> Vec<Finding> {
        self.dtype.remark().map(|text| Finding::at("dtype", text)).into_iter().collect()
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn forecast(&self, ahead: &Ahead<'_>) -> Result<Outlook> {
        ahead.counted(Ok(ahead::estimate(self, ahead)), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::sharded(Sampling::new(self, context)?))
    }

    fn rendered_inputs(&self) -> &'static [&'static str] {
        &["from", "model"]
    }

    fn render(&self, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
        rendering::render(self, context, rows)
    }
}
