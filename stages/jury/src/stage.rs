//! The stage contract of `jury`: ports, checks, forecast, run.

use kit::rows::Verdict;
use kit::{
    Amount, Context, Finding, Forecast, ForecastInputs, InputPort, Job, Outcome, Outlook, OutputPort, Result, Stage,
    Table,
};

use crate::bench::base;
use crate::config::{Jury, Method};
use crate::deliberating;
use crate::folds::Deal;

impl Jury {
    fn compute(&self, context: &Context<'_>) -> Result<Outcome> {
        deliberating::deliberate(self, context)
    }

    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        let votes = context.count_rows_of(&["votes"])?;
        let forecast = Forecast::of_rows(Amount::exact(context.count_rows_of(&[base(self)])?));
        Ok(if self.votes.is_some() { forecast.note(format!("{votes} votes")) } else { forecast })
    }

    /// The same from what the inputs are expected to hold, and what the ports will.
    fn estimate(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        let Some(comparisons) = ahead.input(base(self)) else { return Ok(Outlook::default()) };
        let Some(rows) = comparisons.rows else { return Ok(Outlook::default()) };
        let verdicts = comparisons.turned_into(Table::Verdicts, Some(rows.bounded()));
        Ok(Outlook::of(Forecast::of_rows(rows)).port("verdicts", verdicts))
    }
}

impl Stage for Jury {
    fn version(&self) -> String {
        "2".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        let given = |key, from: &Option<kit::Input>, table| from.as_ref().map(|from| InputPort::new(key, from, table));
        let inputs = [
            given("votes", &self.votes, Table::Votes),
            given("comparisons", &self.comparisons, Table::Comparisons),
            given("verdicts", &self.verdicts, Table::Verdicts),
            given("gold", &self.gold, Table::Verdicts).map(|port| port.or(Table::Pairs)),
        ];
        inputs.into_iter().flatten().collect()
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![
            Verdict::OF_QUESTIONS.into_iter().fold(OutputPort::new(Table::Verdicts), OutputPort::without),
            OutputPort::new(Table::Annotators),
            OutputPort::new(Table::Summary),
            OutputPort::new(Table::Rejects),
        ]
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn draws(&self) -> bool {
        self.method == Method::Stack && self.deal.unwrap_or_default() == Deal::Drawn
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(self.estimate(ahead), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || self.compute(context)))
    }
}
