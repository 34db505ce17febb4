//! The inputs of a stage before it runs: what they are expected to hold, or the inputs themselves; and what follows
//! from them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::contract::context::Context;
use crate::contract::expected::Expected;
use crate::contract::forecast::{Amount, Forecast};
use crate::contract::port::Table;
use crate::error::Result;

/// The inputs of a stage before its run: expected content, or the tables themselves.
#[derive(Clone, Default)]
pub struct ForecastInputs<'a> {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Processes or threads that would share that device; 0 says as much as 1.
    pub jobs: usize,
    /// The sources of each input that is read, by its key.
    pub inputs: BTreeMap<&'static str, Vec<Expected>>,
    /// The inputs themselves, where all are there and shall be counted.
    pub context: Option<&'a Context<'a>>,
}

impl<'a> ForecastInputs<'a> {
    /// The inputs that are there, with nothing estimated of them.
    pub fn of(context: &'a Context<'a>) -> ForecastInputs<'a> {
        ForecastInputs { device: context.device.to_owned(), context: Some(context), ..ForecastInputs::default() }
    }

    /// An estimate, with what is counted in its place where the inputs are there. The memory and the work of the
    /// estimate stay, for the tokens that were counted.
    ///
    /// # Errors
    /// When the estimate or the count fails.
    pub fn counted(
        &self,
        estimate: Result<Outlook>,
        count: impl FnOnce(&Context<'_>) -> Result<Forecast>,
    ) -> Result<Outlook> {
        let Some(context) = self.context else { return estimate };
        let (counted, outlook) = (count(context)?, estimate.unwrap_or_default());
        let forecast = match &outlook.forecast {
            Some(estimated) => counted.instead_of(estimated),
            None => counted,
        };
        Ok(Outlook { forecast: Some(forecast), ..outlook })
    }

    /// All sources of an input as one; nothing where it is not given.
    pub fn input(&self, key: &str) -> Option<Expected> {
        Expected::together(self.inputs.get(key)?)
    }

    /// The rows of an input, where they are known.
    pub fn rows(&self, key: &str) -> Option<Amount> {
        self.input(key)?.rows
    }

    /// The `config.json` of an input that is a model, where it is known.
    pub fn model(&self, key: &str) -> Option<&Value> {
        self.inputs.get(key)?.first()?.model.as_ref()
    }

    /// The table of an input.
    pub fn table_of(&self, key: &str) -> Option<Table> {
        Some(self.inputs.get(key)?.first()?.table)
    }
}

/// The outlook of a stage: its forecast, and the expected content of its ports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outlook {
    /// Its work, time and memory; none where too little is known of its inputs.
    pub forecast: Option<Forecast>,
    /// Expected content of its ports, as far as it is known.
    pub outputs: BTreeMap<String, Expected>,
}

impl Outlook {
    /// An outlook with unknown outputs.
    pub fn of(forecast: Forecast) -> Outlook {
        Outlook { forecast: Some(forecast), outputs: BTreeMap::new() }
    }

    /// With what a port will hold.
    pub fn port(mut self, name: impl Into<String>, expected: Expected) -> Outlook {
        self.outputs.insert(name.into(), expected);
        self
    }
}
