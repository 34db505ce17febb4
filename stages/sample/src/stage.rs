//! The stage contract of `sample`: ports, checks, forecast, run.

use std::path::Path;

use endpoint::{Completions, EXECUTION_KEYS, Endpoint, Protocol, SENT_KEYS};
use kit::{
    Amount, Context, DistinctPrompts, Finding, Forecast, ForecastInputs, InputPort, Job, Outlook, OutputPort,
    Rendering, Result, Stage, Table,
};
use tokens::kinds;

use crate::config::Sample;
use crate::remote::{self, Remote};
use crate::sampling::Sampling;
use crate::work::WorkList;
use crate::{forecast, rendering};

impl Sample {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        if let Some(endpoint) = &self.endpoint {
            return self.count_remotely(endpoint, context);
        }
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

impl Sample {
    fn count_remotely(&self, endpoint: &Endpoint, context: &Context<'_>) -> Result<Forecast> {
        let (prompts, _, _) = remote::read(context)?;
        let draws = prompts.iter().flat_map(|prompt| prompt.draws(self, endpoint, context));
        let cost = endpoint.cost_of(&self.completions(), draws.map(|(_, draw)| Ok(draw)))?;
        let rows = Amount::at_most((prompts.len() * self.k) as u64);
        Ok(Forecast {
            rows,
            requests: Some(rows),
            notes: std::iter::once(endpoint.destination(Completions::PATH)).chain(cost).collect(),
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
        let model = self.model.iter().map(|model| {
            let port = InputPort::new("model", model, Table::Model);
            kinds::language_model(port, kinds::REWARDS_ELSEWHERE)
        });
        std::iter::once(from).chain(model).collect()
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort::new(Table::Responses).without("score"), OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn idle_keys(&self) -> Vec<Finding> {
        self.without_effect()
    }

    fn draws(&self) -> bool {
        // At temperature 0 nothing is drawn, and another seed gives the same responses.
        self.temperature > 0.0
    }

    fn check_model(&self, _key: &str, model: &Path) -> Result<Option<String>> {
        kinds::check_language_model(model, self.precision(), kinds::REWARDS_ELSEWHERE).map(|usable| usable.no_messages)
    }

    fn remarks(&self) -> Vec<Finding> {
        let dtype = self.dtype.remark().map(|text| Finding::at("dtype", text));
        dtype.into_iter().chain(self.endpoint.as_ref().and_then(Endpoint::unset_key)).collect()
    }

    fn execution_keys(&self) -> &'static [&'static str] {
        &EXECUTION_KEYS
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
        ahead.counted(Ok(forecast::estimate(self, ahead)), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(match &self.endpoint {
            Some(endpoint) => Job::sharded(Remote::new(self, endpoint, context)?),
            None => Job::sharded(Sampling::new(self, context)?),
        })
    }

    fn rendered_inputs(&self) -> &'static [&'static str] {
        &["from", "model"]
    }

    fn render(&self, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
        rendering::render(self, context, rows)
    }
}
