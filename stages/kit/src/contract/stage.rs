//! What a stage is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::commit::shard::Job;
use crate::contract::context::Context;
use crate::contract::expected::Ahead;
use crate::contract::forecast::Outlook;
use crate::contract::port::{InputPort, OutputPort};
use crate::contract::rendering::Rendering;
use crate::error::Result;

/// Something wrong with a stage's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The keys that lead to the value within the stage, such as `["optimizer", "lr"]`.
    pub path: Vec<String>,
    /// What is wrong and what to do: a lowercase fragment.
    pub text: String,
    /// Whether the content of a file that the configuration names rightly is at fault.
    pub in_data: bool,
    /// Whether the system is, which could not read one.
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

    /// What is wrong beyond types and unknown keys: values out of range, keys without effect.
    fn check(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Whether the model of an input, a folder or file that is there, can be used, from everything but its weights. Gives
    /// what the stage would say to conversations, where the model takes none.
    ///
    /// # Errors
    /// What the stage would stop at before its first number.
    fn check_model(&self, _key: &str, _model: &Path) -> std::result::Result<Option<String>, String> {
        Ok(None)
    }

    /// What is not wrong and hardly meant on this machine.
    fn remarks(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Keys (dotted below the top) that change how the work is done and not its result; they stay outside the fingerprint.
    fn execution_keys(&self) -> &'static [&'static str] {
        &[]
    }

    /// Files and folders that the configuration names, other than inputs; their content is part of the fingerprint.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Whether results depend on the run's seed.
    fn draws(&self) -> bool {
        false
    }

    /// Whether it holds a model, so that it needs the device for itself.
    fn needs_device(&self) -> bool {
        false
    }

    /// What only the rows of an input can tell, such as the forms of pairs. Called as soon as an input is there and before
    /// the stages that compute on it run; `context` has the inputs that are there so far.
    ///
    /// # Errors
    /// When the stage would stop at these rows.
    fn check_rows(&self, _context: &Context<'_>) -> Result<()> {
        Ok(())
    }

    /// What the stage will have to do and what its ports will hold: estimated from what its inputs are expected to hold,
    /// and counted where they are there ([`Ahead::counted`]). Nothing of it is computed.
    ///
    /// # Errors
    /// When an input, or a file that the configuration names, cannot be read.
    fn forecast(&self, ahead: &Ahead<'_>) -> Result<Outlook>;

    /// The work: it reads `context.inputs` and writes every output port under `context.folder`. Row-wise kinds give their
    /// shards, which an executor may compute anywhere.
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

    /// What the model will be fed for the first rows of the input, in the order of the input; `context` has the inputs
    /// named by [`Stage::rendered_inputs`] and nothing else. No weights are read.
    ///
    /// # Errors
    /// When an input cannot be read, or when the stage would stop at these rows.
    fn render(&self, _context: &Context<'_>, _rows: usize) -> Result<Vec<Rendering>> {
        Ok(Vec::new())
    }
}

/// What came of the rows of one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// The input's key.
    pub input: String,
    /// Rows read.
    pub read: u64,
    /// Rows that went into the output.
    pub kept: u64,
    /// Rows that went into `rejects`.
    pub rejected: u64,
}

/// What a stage did, for its manifest and for people.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Rows read = kept + rejected, for each input that is read row by row. The engine checks it.
    pub balance: Vec<Balance>,
    /// Figures worth showing, such as `position bias: 0.03`. Equal inputs give equal figures: no times, no rates.
    pub figures: BTreeMap<String, Value>,
    /// The few figures that a person looks for first, in that order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headlines: Vec<Headline>,
}

/// A figure that a person looks for first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Headline {
    /// Its name, that of a table's figure or column where it stands in one.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// The ends of its 95 % interval, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// What it is: what the mean is over, what it is held against. A fragment, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Outcome {
    /// Adds the balance of an input.
    pub fn balance(mut self, input: &str, read: u64, kept: u64, rejected: u64) -> Outcome {
        self.balance.push(Balance { input: input.to_owned(), read, kept, rejected });
        self
    }

    /// Adds a figure.
    pub fn figure(mut self, name: &str, value: impl Into<Value>) -> Outcome {
        self.figures.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a figure that a person looks for first. One that is no number is left out; so are infinite intervals.
    pub fn headline(
        mut self,
        name: impl Into<String>,
        value: f64,
        interval: Option<(f64, f64)>,
        note: impl Into<String>,
    ) -> Outcome {
        if value.is_finite() {
            let interval = interval.filter(|(low, high)| low.is_finite() && high.is_finite());
            self.headlines.push(Headline { name: name.into(), value, interval, note: note.into() });
        }
        self
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
