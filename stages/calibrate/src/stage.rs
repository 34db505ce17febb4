//! The stage contract of `calibrate`: ports, checks, forecast, run.

use kit::{
    Amount, Certainty, Context, Finding, Forecast, ForecastInputs, InputPort, Job, Outcome, Outlook, OutputPort,
    Result, Stage, Table,
};

use crate::calibrating;
use crate::config::{Calibrate, Deal, FEWEST};

impl Calibrate {
    /// The forecast for so many verdicts and gold labels.
    fn told(verdicts: Amount, gold: Option<Amount>) -> Forecast {
        let forecast = Forecast::of_rows(verdicts);
        let Some(gold) = gold else { return forecast };
        let fewest = FEWEST;
        // An estimate may be wrong; a count and a bound from above are not.
        match gold.value < fewest && gold.is != Certainty::About {
            true => forecast.note(format!(
                "{gold} gold labels are too few: {fewest} at least have to match a verdict, so it will stop"
            )),
            false => forecast.note(format!("{gold} gold labels, of which those that match a verdict count")),
        }
    }
}

impl Calibrate {
    fn compute(&self, context: &Context<'_>) -> Result<Outcome> {
        calibrating::calibrate(self, context)
    }
}

impl Calibrate {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        let gold = context.count_rows_of(&["gold"])?;
        Ok(Calibrate::told(Amount::exact(context.count_rows_of(&["verdicts"])?), Some(Amount::exact(gold))))
    }

    /// The same from what the inputs are expected to hold, and what the ports will.
    fn estimate(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        let Some(verdicts) = ahead.input("verdicts") else { return Ok(Outlook::default()) };
        let Some(rows) = verdicts.rows else { return Ok(Outlook::default()) };
        let outlook = Outlook::of(Calibrate::told(rows, ahead.rows("gold")));
        Ok(outlook.port("verdicts", verdicts.turned_into(Table::Verdicts, Some(rows.bounded()))))
    }
}

impl Stage for Calibrate {
    fn version(&self) -> String {
        "4".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        let scores = self.scores.iter().map(|from| {
            let fix = "`ingest` stores the scores of a file with `responses`";
            InputPort::new("scores", from, Table::Responses).needs("score").fixed_by(fix)
        });
        let mut inputs = vec![
            InputPort::new("verdicts", &self.verdicts, Table::Verdicts),
            InputPort::new("gold", &self.gold, Table::Verdicts).or(Table::Pairs).or(Table::Truth),
        ];
        inputs.extend(scores);
        inputs
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![
            OutputPort::new(Table::Verdicts),
            OutputPort::new(Table::Calibration),
            OutputPort::new(Table::Reliability),
            OutputPort::new(Table::Summary),
            OutputPort::new(Table::Rejects),
        ]
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn draws(&self) -> bool {
        self.deal == Deal::Drawn || self.max_gold.is_some()
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(self.estimate(ahead), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || self.compute(context)))
    }
}
