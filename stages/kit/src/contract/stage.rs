//! The stage contract.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::commit::shard::Job;
use crate::contract::context::Context;
use crate::contract::inputs::{ForecastInputs, Outlook};
use crate::contract::outcome::Outcome;
use crate::contract::port::{InputPort, OutputPort};
use crate::contract::rendering::Rendering;
use crate::error::Result;

/// Something wrong with a stage's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The keys that lead to the value within the stage, such as `["optimizer", "lr"]`.
    pub path: Vec<String>,
    /// The problem and the remedy: a lowercase fragment.
    pub text: String,
    /// True where the content of a file is at fault, which the configuration names rightly.
    pub in_data: bool,
    /// True where the system is at fault, which could not read a file.
    pub in_system: bool,
}

impl Finding {
    /// A finding at a dotted path such as `optimizer.lr`; an empty path is the stage itself.
    pub fn at(path: &str, text: impl Into<String>) -> Finding {
        let path = path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
        Finding { path, text: text.into(), in_data: false, in_system: false }
    }

    /// Says that the system could not read a file.
    pub fn in_system(mut self) -> Finding {
        self.in_system = true;
        self
    }

    /// Says that the content of a file is at fault.
    pub fn in_data(mut self) -> Finding {
        self.in_data = true;
        self
    }
}

/// A configured stage: the values of one entry under `stages:` in a pipeline file.
///
/// The configuration struct is the stage. It derives `Serialize`, `Deserialize` (with `deny_unknown_fields`) and
/// `JsonSchema`; its field docs are the manual.
pub trait Stage: Send + Sync {
    /// Raised when the same inputs and configuration give other bytes than before. Includes the versions of the
    /// rooms it computes with, such as `lm`.
    fn version(&self) -> String;

    /// The inputs that are given.
    fn inputs(&self) -> Vec<InputPort>;

    /// The outputs with this configuration. Every stage that reads rows has the port `rejects`.
    fn outputs(&self) -> Vec<OutputPort>;

    /// Findings beyond types and unknown keys: values out of range, keys without effect.
    fn check(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Keys with a default that nothing reads beside the other values, each with the reason. One that is written down
    /// is a finding, be its value the default or not.
    fn idle_keys(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Checks that the model of an input, an existing folder or file, can be used, from everything but its weights.
    /// Gives the error that conversations would meet, where the model takes none.
    ///
    /// # Errors
    /// The error that the stage would stop with before its first number.
    fn check_model(&self, _key: &str, _model: &Path) -> Result<Option<String>> {
        Ok(None)
    }

    /// Remarks on settings that are allowed and rarely intended on this machine.
    fn remarks(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Keys (dotted below the top) that change how the work is done and not its result; they stay outside the
    /// fingerprint.
    fn execution_keys(&self) -> &'static [&'static str] {
        &[]
    }

    /// Keys (dotted below the top) whose values go to a server; what they take from the environment is recorded by name.
    fn sent_keys(&self) -> &'static [&'static str] {
        &[]
    }

    /// Files and folders that the configuration names, other than inputs; their content is part of the fingerprint.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// True where results depend on the run's seed.
    fn draws(&self) -> bool {
        false
    }

    /// True where it holds a model, so that it needs the device for itself.
    fn needs_device(&self) -> bool {
        false
    }

    /// True where its job is shards that any process may compute beside others. Not where an endpoint is asked, of whose
    /// answers one process keeps the journal.
    fn is_row_wise(&self) -> bool {
        false
    }

    /// Ranks that may do its job together, at most; a power of two.
    fn most_ranks(&self) -> usize {
        1
    }

    /// Checks that need the rows of an input, such as the forms of pairs. Called as soon as an input is there and
    /// before the stages that compute on it run; `context` has the inputs that are there so far.
    ///
    /// # Errors
    /// When the stage would stop at these rows.
    fn check_rows(&self, _context: &Context<'_>) -> Result<()> {
        Ok(())
    }

    /// Forecast of the work and expected content of the ports: estimated from the expected content of the inputs, and
    /// counted where the inputs exist ([`ForecastInputs::counted`]). No work is done.
    ///
    /// # Errors
    /// When an input, or a file that the configuration names, cannot be read.
    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook>;

    /// The work: it reads `context.inputs` and writes every output port under `context.folder`. Row-wise kinds give
    /// their shards, which an executor may compute anywhere.
    ///
    /// # Errors
    /// When the inputs cannot be read, or when the stage would stop at their rows.
    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>>;

    /// All of the work in this process.
    ///
    /// # Errors
    /// Whatever went wrong; what was committed stays and is used when the stage runs again.
    fn run(&self, context: &Context<'_>) -> Result<Outcome> {
        self.job(context)?.run(context)
    }

    /// The inputs that [`Stage::render`] reads; none for a stage that feeds no model.
    fn rendered_inputs(&self) -> &'static [&'static str] {
        &[]
    }

    /// The tokens that the model will be fed for the first rows of the input, in the order of the input; `context` has
    /// the inputs named by [`Stage::rendered_inputs`] and nothing else. No weights are read.
    ///
    /// # Errors
    /// When an input cannot be read, or when the stage would stop at these rows.
    fn render(&self, _context: &Context<'_>, _rows: usize) -> Result<Vec<Rendering>> {
        Ok(Vec::new())
    }
}

impl dyn Stage + '_ {
    /// All findings about the values, `given` being those that are written down.
    pub fn findings(&self, given: &Value) -> Vec<Finding> {
        let is_given = |finding: &Finding| {
            let value = finding.path.iter().try_fold(given, |value, key| value.get(key));
            value.is_some_and(|value| !value.is_null())
        };
        let idle = self.idle_keys().into_iter().filter(is_given);
        self.check().into_iter().chain(idle).collect()
    }
}

/// A stage and its configuration after defaults.
pub type Configured = (Box<dyn Stage>, Value);

/// A kind of stage: what `kind: judge` in a pipeline file names.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The word in pipeline files, and the name of its crate.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// The JSON Schema of its configuration.
    pub schema: fn() -> schemars::Schema,
    /// Reads a configuration.
    pub configure: fn(Value) -> std::result::Result<Configured, Finding>,
}

impl Kind {
    /// The kind whose configuration is `S`.
    pub const fn of<S: Stage + Serialize + DeserializeOwned + JsonSchema + 'static>(
        name: &'static str,
        about: &'static str,
    ) -> Kind {
        Kind { name, about, schema: schema::<S>, configure: configure::<S> }
    }
}

fn schema<S: JsonSchema>() -> schemars::Schema {
    schemars::schema_for!(S)
}

/// The stage and its configuration after defaults.
fn configure<S: Stage + Serialize + DeserializeOwned + 'static>(
    value: Value,
) -> std::result::Result<Configured, Finding> {
    let stage: S = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().iter().map(ToString::to_string).filter(|key| key != "?").collect();
        Finding { path, ..Finding::at("", error.inner().to_string()) }
    })?;
    let settings = serde_json::to_value(&stage).expect("a configuration can be written as JSON");
    Ok((Box::new(stage), settings))
}
