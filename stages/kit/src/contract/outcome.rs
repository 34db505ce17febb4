//! The outcome of a stage: its balance of rows, its figures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The balance of one input's rows: read, kept and rejected.
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

/// The outcome of a stage, for its manifest and for people.
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
    /// A note on the figure: the population of a mean, the baseline of a comparison. A fragment, or empty.
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
