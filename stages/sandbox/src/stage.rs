//! The stage.

use kit::{
    Amount, Context, Finding, Forecast, ForecastInputs, InputPort, Job, Outcome, Outlook, OutputPort, Result, Stage,
    Table,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::truth::Truth;
use crate::world::World;

/// A small world with known truth: prompts such as `name three fruits please:`, answers whose worth can be counted, and
/// a small model to learn them, so that an objective can be seen at work in a minute on a CPU.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Sandbox {
    /// Makes the data and the model.
    World(World),
    /// Says what is true of responses and verdicts.
    Truth(Truth),
}

impl Sandbox {
    fn compute(&self, context: &Context<'_>) -> Result<Outcome> {
        match self {
            Sandbox::World(world) => world.run(context),
            Sandbox::Truth(truth) => truth.run(context),
        }
    }
}

impl Sandbox {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        let rows = match self {
            Sandbox::World(world) => world.rows(),
            Sandbox::Truth(truth) => truth.rows(context)?,
        };
        Ok(Forecast::of_rows(Amount::exact(rows)))
    }

    /// The same from what the inputs are expected to hold, and what the ports will.
    fn estimate(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        Ok(match self {
            Sandbox::World(world) => world.estimate(),
            Sandbox::Truth(truth) => truth.estimate(ahead),
        })
    }
}

impl Stage for Sandbox {
    fn version(&self) -> String {
        match self {
            Sandbox::World(_) => format!("2+lm{}", lm::VERSION),
            Sandbox::Truth(_) => "1".to_owned(),
        }
    }

    fn inputs(&self) -> Vec<InputPort> {
        match self {
            Sandbox::World(_) => Vec::new(),
            Sandbox::Truth(truth) => truth.inputs(),
        }
    }

    fn outputs(&self) -> Vec<OutputPort> {
        match self {
            Sandbox::World(world) => {
                let mut outputs = vec![
                    OutputPort::new(Table::Prompts),
                    OutputPort::named("holdout_prompts", Table::Prompts),
                    OutputPort::named("demonstrations", Table::Items),
                    OutputPort::named("judge_data", Table::Items),
                    OutputPort::new(Table::Model).setting("model", lm::LANGUAGE_MODEL),
                    OutputPort::new(Table::Rejects),
                ];
                outputs.extend((world.preferences > 0).then(|| OutputPort::named("preferences", Table::Pairs)));
                outputs
            }
            Sandbox::Truth(truth) => truth.outputs(),
        }
    }

    fn check(&self) -> Vec<Finding> {
        match self {
            Sandbox::World(world) => world.check(),
            Sandbox::Truth(truth) => truth.check(),
        }
    }

    fn draws(&self) -> bool {
        matches!(self, Sandbox::World(_))
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(self.estimate(ahead), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || self.compute(context)))
    }
}
