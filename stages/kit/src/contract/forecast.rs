//! Forecast of a stage's work, before it runs.

use serde::{Deserialize, Serialize};

/// Memory of a process that holds no rows, bytes.
const PROCESS: u64 = 64 << 20;

/// Certainty of an amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// It was counted.
    #[default]
    Exact,
    /// It was estimated.
    About,
    /// There may be less.
    AtMost,
}

/// A number and how it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// The number.
    pub value: u64,
    /// Its certainty.
    pub is: Certainty,
}

impl Amount {
    /// A counted number.
    pub fn exact(value: u64) -> Amount {
        Amount { value, is: Certainty::Exact }
    }

    /// An estimate.
    pub fn about(value: u64) -> Amount {
        Amount { value, is: Certainty::About }
    }

    /// A bound from above.
    pub fn at_most(value: u64) -> Amount {
        Amount { value, is: Certainty::AtMost }
    }

    /// Another number that is known in the same way.
    pub fn with(self, value: u64) -> Amount {
        Amount { value, ..self }
    }

    /// The same number; what was counted is a bound now.
    pub fn bounded(self) -> Amount {
        if self.is == Certainty::Exact { Amount::at_most(self.value) } else { self }
    }

    /// Two amounts of the same thing together.
    pub fn plus(self, other: Amount) -> Amount {
        Amount { value: self.value.saturating_add(other.value), is: self.is.and(other.is) }
    }

    /// As many of another thing for each.
    pub fn times(self, each: u64) -> Amount {
        self.with(self.value.saturating_mul(each))
    }

    /// No more than so many.
    pub fn up_to(self, most: u64) -> Amount {
        if self.value <= most { self } else { self.with(most).bounded() }
    }
}

impl Certainty {
    /// Certainty of an amount made of two others. An estimate spoils a bound.
    pub fn and(self, other: Certainty) -> Certainty {
        match (self, other) {
            (Certainty::About, _) | (_, Certainty::About) => Certainty::About,
            (Certainty::AtMost, _) | (_, Certainty::AtMost) => Certainty::AtMost,
            (Certainty::Exact, Certainty::Exact) => Certainty::Exact,
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.is {
            Certainty::Exact => write!(f, "{}", self.value),
            Certainty::About => write!(f, "about {}", self.value),
            Certainty::AtMost => write!(f, "at most {}", self.value),
        }
    }
}

/// Arithmetic to be done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Floating-point operations, a product and a sum each.
    pub operations: f64,
    /// The width of the matrices: narrow ones are slower.
    pub width: u64,
}

/// The forecast of a stage's work.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Units of work (rows, sequences, comparisons).
    pub rows: Amount,
    /// Tokens to compute, shared ones once.
    pub tokens: Option<Amount>,
    /// Rows that will be rejected or cut because they are too long.
    pub too_long: Option<Amount>,
    /// Requests to an endpoint.
    pub requests: Option<Amount>,
    /// Peak memory, bytes.
    pub memory: Option<u64>,
    /// Shards, where `shard_rows` does not say their size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<u64>,
    /// The work that takes the time.
    pub work: Option<Work>,
    /// Assumptions and remarks.
    pub notes: Vec<String>,
}

impl Forecast {
    /// A forecast of rows alone.
    pub fn of_rows(rows: Amount) -> Forecast {
        Forecast { rows, ..Forecast::default() }
    }

    /// The counted forecast, with the memory of an estimate, and its work scaled to the tokens that were counted.
    pub fn instead_of(self, estimated: &Forecast) -> Forecast {
        let share = match (self.tokens, estimated.tokens) {
            (Some(counted), Some(estimated)) if estimated.value > 0 => counted.value as f64 / estimated.value as f64,
            _ => 1.0,
        };
        let work = estimated.work.map(|work| Work { operations: work.operations * share, ..work });
        Forecast { work: self.work.or(work), memory: self.memory.or(estimated.memory), ..self }
    }

    /// With the memory of rows that are held, bytes, where it is more than a process takes without any.
    pub fn holding(mut self, bytes: u64) -> Forecast {
        if bytes > PROCESS {
            self.memory = Some(bytes.saturating_add(PROCESS));
        }
        self
    }

    /// With a remark.
    pub fn note(mut self, text: impl Into<String>) -> Forecast {
        self.notes.push(text.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_as_sure_as_what_it_is_made_of() {
        let (exact, about, most) = (Amount::exact(6), Amount::about(5), Amount::at_most(4));
        assert_eq!(exact.plus(exact), Amount::exact(12));
        assert_eq!(exact.plus(most).to_string(), "at most 10");
        assert_eq!(most.plus(about).to_string(), "about 9");
        assert_eq!(exact.times(3), Amount::exact(18));
        assert_eq!((exact.up_to(7), exact.up_to(5)), (exact, Amount::at_most(5)));
        assert_eq!(about.up_to(2), Amount::about(2));
    }
}
