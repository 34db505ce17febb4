//! The configuration of `calibrate`, and what the engine asks of it.

use kit::{
    Ahead, Amount, Certainty, Context, Finding, Forecast, Input, InputPort, Outcome, Outlook, OutputPort, Result,
    Stage, Table,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::calibrating;
use crate::fit::Method;

/// Corrects a judge's soft labels against gold ones on some of the comparisons.
///
/// A row whose prompt has gold labels is corrected by a fit that saw none of them (the folds are by prompt), the others
/// by the fit to all gold labels. So calibration before and after is compared on rows that the fit has not seen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibrate {
    /// The soft labels to correct.
    pub verdicts: Input,
    /// Better labels of some of the comparisons, hard (0 or 1) or soft: `verdicts` (as `ingest` makes them of a file with
    /// two responses and `feedback`, `preference` or `p_hat`), `pairs` (of people's choices), or the sandbox's `truth`.
    /// They are matched by the ids of both sides, or by the comparison's id, and turned where the sides are exchanged.
    /// Several labels of one comparison are averaged. At least 30 comparisons have to match.
    pub gold: Input,
    /// `temperature` (one factor of the log-odds), `platt` (factor and offset), or `isotonic` (any non-decreasing
    /// curve; wants some hundreds of labels).
    pub method: Method,
    /// Folds of the cross-fitting, by prompt.
    #[serde(default = "folds")]
    pub folds: u32,
    /// Uses at most this many gold labels, drawn; the others are as if they were not there.
    #[serde(default)]
    pub max_gold: Option<u64>,
    /// Bins of the reliability diagram, over [0.5, 1].
    #[serde(default = "bins")]
    pub bins: u32,
}

fn folds() -> u32 {
    5
}

/// Bins beyond this would each hold a verdict or none.
const MOST_BINS: u32 = 10_000;

fn bins() -> u32 {
    10
}

impl Calibrate {
    /// What is told of so many verdicts and gold labels.
    fn told(verdicts: Amount, gold: Option<Amount>) -> Forecast {
        let forecast = Forecast::of_rows(verdicts);
        let Some(gold) = gold else { return forecast };
        let fewest = calibrating::FEWEST;
        // An estimate may be wrong; a count and a bound from above are not.
        match gold.value < fewest && gold.is != Certainty::About {
            true => forecast.note(format!(
                "{gold} gold labels are too few: {fewest} at least have to match a verdict, so it will stop"
            )),
            false => forecast.note(format!("{gold} gold labels, of which those that match a verdict count")),
        }
    }
}

impl Stage for Calibrate {
    fn version(&self) -> String {
        "1".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        vec![
            InputPort::new("verdicts", &self.verdicts, Table::Verdicts),
            InputPort::new("gold", &self.gold, Table::Verdicts).or(Table::Pairs).or(Table::Truth),
        ]
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
        let mut findings = Vec::new();
        if self.folds < 2 {
            findings.push(Finding::at("folds", format!("got {}, wanted at least 2", self.folds)));
        }
        if !(1..=MOST_BINS).contains(&self.bins) {
            findings.push(Finding::at("bins", format!("got {}, wanted 1 to {MOST_BINS}", self.bins)));
        }
        if let Some(max) = self.max_gold.filter(|max| *max < calibrating::FEWEST) {
            let text = format!("got {max}, wanted at least {}: fewer labels teach nothing", calibrating::FEWEST);
            findings.push(Finding::at("max_gold", text));
        }
        findings
    }

    fn draws(&self) -> bool {
        true
    }

    fn forecast(&self, context: &Context<'_>) -> Result<Forecast> {
        let gold = context.count_rows_of(&["gold"])?;
        Ok(Calibrate::told(Amount::exact(context.count_rows_of(&["verdicts"])?), Some(Amount::exact(gold))))
    }

    fn expect(&self, ahead: &Ahead) -> Result<Outlook> {
        let Some(verdicts) = ahead.input("verdicts") else { return Ok(Outlook::default()) };
        let Some(rows) = verdicts.rows else { return Ok(Outlook::default()) };
        let outlook = Outlook::of(Calibrate::told(rows, ahead.rows("gold")));
        Ok(outlook.port("verdicts", verdicts.turned_into(Table::Verdicts, Some(rows.bounded()))))
    }

    fn run(&self, context: &Context<'_>) -> Result<Outcome> {
        calibrating::calibrate(self, context)
    }
}
