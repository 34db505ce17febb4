//! Measures of their own, asked for by `measure`; each is a file.

use kit::rows::SummaryRow;
use kit::{
    Amount, Configured, Context, Finding, Forecast, ForecastInputs, InputPort, Job, Kind, Outcome, Outlook, OutputPort,
    Result, Stage, Table,
};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::alternative::AlternativeAnnotator;
use crate::config::Evaluate;
use crate::corrected::CorrectedWinRate;
use crate::leaderboard::Leaderboard;
use crate::length::LengthControlledWinRate;
use crate::measured::{Found, Measured};

/// The kind for the engine's list: [`Evaluate`], or with the key `measure` a [`Measure`].
pub const KIND: Kind = Kind { name: PLAIN.name, about: PLAIN.about, schema, configure };

const PLAIN: Kind =
    Kind::of::<Evaluate>("evaluate", "accuracy, margins, win rates, leaderboards and tests of judges, with intervals");
const MEASURED: Kind = Kind::of::<Measure>(PLAIN.name, PLAIN.about);

/// The configuration as one schema: the plain form first, then one alternative for each measure.
fn schema() -> Schema {
    let mut plain = (PLAIN.schema)().to_value();
    let mut measures = (MEASURED.schema)().to_value();
    let mut definitions = Map::new();
    for schema in [&mut plain, &mut measures] {
        definitions.extend(take(schema, "$defs").and_then(|it| it.as_object().cloned()).unwrap_or_default());
    }
    let (version, about) = (take(&mut plain, "$schema"), plain["description"].clone());
    let of_measures = take(&mut measures, "oneOf").and_then(|it| it.as_array().cloned());
    let mut alternatives = vec![plain];
    alternatives.extend(of_measures.expect("an enum with a tag is one of its variants"));
    json_schema!({
        "$schema": version,
        "title": "Evaluate",
        "description": about,
        "anyOf": alternatives,
        "$defs": definitions,
    })
}

fn take(schema: &mut Value, key: &str) -> Option<Value> {
    schema.as_object_mut().and_then(|map| map.remove(key))
}

fn configure(settings: Value) -> std::result::Result<Configured, Finding> {
    let kind = if settings.get("measure").is_some() { MEASURED } else { PLAIN };
    (kind.configure)(settings)
}

/// A measure that is not one of a policy alone.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "measure", rename_all = "snake_case")]
pub enum Measure {
    /// The win rate by a judge whose errors are known from gold labels.
    CorrectedWinRate(CorrectedWinRate),
    /// The win rate with the judge's liking for length taken out.
    LengthControlledWinRate(LengthControlledWinRate),
    /// The test of a judge in place of a person.
    AlternativeAnnotator(AlternativeAnnotator),
    /// Win rates of many models.
    Leaderboard(Leaderboard),
}

impl Measure {
    fn measured(&self) -> &dyn Measured {
        match self {
            Measure::CorrectedWinRate(measure) => measure,
            Measure::LengthControlledWinRate(measure) => measure,
            Measure::AlternativeAnnotator(measure) => measure,
            Measure::Leaderboard(measure) => measure,
        }
    }

    fn compute(&self, context: &Context<'_>) -> Result<Outcome> {
        let Found { figures, rejects, mut outcome } = self.measured().compute(context)?;
        for row in figures.iter().filter(|row| !row.metric.starts_with("difference/")) {
            outcome = outcome.figure(&row.metric, (row.value * 1e6).round() / 1e6);
        }
        let mut writer = context.writer::<SummaryRow>("summary")?;
        writer.extend(figures)?;
        writer.finish()?;
        context.write_rejects(rejects)?;
        Ok(outcome)
    }

    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        Ok(Forecast::of_rows(Amount::exact(context.count_rows_of(self.measured().counted())?)))
    }

    /// The same from what the inputs are expected to hold.
    fn estimate(&self, ahead: &ForecastInputs<'_>) -> Outlook {
        let given = self.measured().counted().iter().filter(|key| ahead.inputs.contains_key(*key));
        let rows: Option<Vec<Amount>> = given.map(|key| ahead.rows(key)).collect();
        let rows = rows.and_then(|rows| rows.into_iter().reduce(Amount::plus));
        rows.map_or_else(Outlook::default, |rows| Outlook::of(Forecast::of_rows(rows)))
    }
}

impl Stage for Measure {
    fn version(&self) -> String {
        "3".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        self.measured().inputs()
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let mut outputs = self.measured().outputs();
        outputs.extend([OutputPort::new(Table::Summary), OutputPort::new(Table::Rejects)]);
        outputs
    }

    fn check(&self) -> Vec<Finding> {
        self.measured().check()
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(Ok(self.estimate(ahead)), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || self.compute(context)))
    }
}
