//! The stage contract of `reference`: ports, checks, forecast, run.

use std::path::Path;

use kit::{
    Amount, Context, Error, Finding, Forecast, ForecastInputs, InputPort, Job, Outlook, OutputPort, Rendering, Result,
    Stage, Table,
};
use tokens::SequenceReader;
use tokens::kinds;
use tokens::rendering::{Shown, of_rows};

use crate::config::Reference;
use crate::forecast;
use crate::score::Scoring;
use crate::work::WorkList;

impl Reference {
    fn reader(&self, context: &Context<'_>) -> Result<SequenceReader> {
        SequenceReader::of_rows(&context.model("model")?.path, &self.tokens)
    }

    /// Tokenises every row; no weights are read.
    fn work_list(&self, context: &Context<'_>) -> Result<WorkList> {
        WorkList::read(context, &self.reader(context)?)
    }
}

impl Reference {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        let work = self.work_list(context)?;
        let mut notes = vec![format!("{} distinct sequences", work.sequences())];
        if work.counts.mismatched > 0 {
            notes.push(format!("{} sequences whose prompt is not a token prefix", work.counts.mismatched));
        }
        notes.extend(work.displaced_remark());
        notes.extend(work.stopped.remark());
        Ok(Forecast {
            rows: Amount::exact(work.rows),
            tokens: Some(Amount::exact(work.shared_tokens())),
            too_long: Some(Amount::exact(work.counts.too_long)),
            notes,
            ..Forecast::default()
        })
    }
}

impl Stage for Reference {
    fn version(&self) -> String {
        format!("4+lm{}", lm::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let model = InputPort::new("model", &self.model, Table::Model);
        vec![
            InputPort::new("from", &self.from, Table::Pairs).or(Table::Items),
            kinds::language_model(model, kinds::REWARDS_ELSEWHERE),
        ]
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let reference = OutputPort::new(Table::Reference).setting("dtype", self.precision().name());
        let reference = reference.setting("tokens", self.tokens.setting());
        let reference = if self.prompt_part { reference } else { reference.without("prompt_logp") };
        vec![reference, OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn check_model(&self, _key: &str, model: &Path) -> Result<Option<String>> {
        kinds::check_language_model(model, self.precision(), kinds::REWARDS_ELSEWHERE).map(|usable| usable.no_messages)
    }

    fn remarks(&self) -> Vec<Finding> {
        self.dtype.remark().map(|text| Finding::at("dtype", text)).into_iter().collect()
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn is_row_wise(&self) -> bool {
        self.needs_device()
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(Ok(forecast::estimate(self, ahead)), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        let work = self.work_list(context)?;
        if let Some(text) = work.stopped.stop(work.rows) {
            return Err(Error::Data(text));
        }
        work.displaced_remark().into_iter().for_each(|text| context.warn(text));
        Ok(Job::sharded(Scoring::new(self, context, work)))
    }

    fn rendered_inputs(&self) -> &'static [&'static str] {
        &["from", "model"]
    }

    fn render(&self, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
        of_rows(context, &self.reader(context)?, rows, Shown { rejected: true, mismatched: true, labels: false })
    }
}
