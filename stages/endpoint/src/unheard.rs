//! Rows that got no answer from an endpoint, up to a limit.

use kit::rows::Reject;
use kit::{Context, Error, Result, RowReader};

use crate::client::{BAD_ANSWER, REFUSED, SERVER_ERROR};
use crate::config::Endpoint;
use crate::protocol::Protocol;

/// Reasons of missing answers that the endpoint causes, not the model.
const REASONS: [&str; 3] = [BAD_ANSWER, REFUSED, SERVER_ERROR];

/// Counts rows without an answer, and stops a stage that has more of them than `max_rejects` allows.
pub struct Unheard {
    shown: String,
    unit: &'static str,
    max_rejects: f64,
    limit: u64,
    count: u64,
}

impl Unheard {
    /// None so far, of so many rows.
    pub fn new<P: Protocol>(endpoint: &Endpoint, protocol: &P, rows: usize) -> Unheard {
        Unheard {
            shown: endpoint.shown(P::PATH),
            unit: protocol.unit(),
            max_rejects: endpoint.max_rejects,
            limit: (endpoint.max_rejects * rows as f64).ceil() as u64,
            count: 0,
        }
    }

    /// Counts a row that is rejected.
    ///
    /// # Errors
    /// When there are more than the limit allows.
    pub fn count(&mut self, reason: &str, detail: &str) -> Result<()> {
        self.count += u64::from(REASONS.contains(&reason));
        if self.count <= self.limit {
            return Ok(());
        }
        Err(Error::Data(format!(
            "{} {}s got no answer from {}, `max_rejects: {}` allows {}; the last: {reason}: {detail}. The answers of \
             others are kept; these are asked again when you run again",
            self.count, self.unit, self.shown, self.max_rejects, self.limit
        )))
    }

    /// Counts those of all shards instead, of earlier processes too.
    ///
    /// # Errors
    /// When there are more than the limit allows, or when they cannot be read.
    pub fn count_again(&mut self, context: &Context<'_>) -> Result<()> {
        self.count = 0;
        for row in RowReader::<Reject>::open(&[&context.port("rejects")])? {
            let row = row?;
            self.count(&row.reason, &row.detail)?;
        }
        Ok(())
    }
}
