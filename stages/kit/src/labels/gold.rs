//! Gold labels.

use crate::contract::context::Context;
use crate::contract::port::Table;
use crate::error::{Error, Result};
use crate::labels::sides::Sides;
use crate::table::read::RowReader;
use crate::table::rows::{PairResponses, Reject, VerdictLabels, VerdictResponses};

/// A gold label and where it stands.
#[derive(Debug, Clone)]
pub struct GoldLabel {
    /// The id of its row.
    pub id: String,
    /// The comparison that it is about, where it names one.
    pub comparison: Option<String>,
    /// Its sides.
    pub sides: Sides,
    /// P(first side better), in [0, 1].
    pub p: f64,
    /// Its number in its table, from 0.
    pub number: u64,
    /// The file and the line that it came from.
    pub place: (Option<String>, Option<u64>),
}

impl GoldLabel {
    /// All labels of the input `gold`, in order; of pairs the chosen side is the first.
    ///
    /// # Errors
    /// When it cannot be read, or a label is no probability.
    pub fn read(context: &Context<'_>) -> Result<Vec<GoldLabel>> {
        let mut labels = Vec::new();
        for source in context.sources("gold") {
            if source.table == Table::Pairs {
                for (number, row) in RowReader::<PairResponses>::open(&[&source.path])?.enumerate() {
                    let row = row?;
                    let (sides, place) = (Sides::from(&row), (row.source_file, row.source_line));
                    let (id, comparison, p) = (row.pair_id, row.comparison_id, row.p_hat);
                    labels.push(GoldLabel { id, comparison, sides, p, number: number as u64, place }.checked()?);
                }
                continue;
            }
            let responses = RowReader::<VerdictResponses>::open(&[&source.path])?;
            let rows = RowReader::<VerdictLabels>::open(&[&source.path])?.zip(responses);
            for (number, (row, responses)) in rows.enumerate() {
                let row = row?;
                let (sides, place) = (Sides::of(&row, Some(&responses?)), (row.source_file, row.source_line));
                let (id, comparison, p) = (row.comparison_id.clone(), Some(row.comparison_id), row.p_hat);
                labels.push(GoldLabel { id, comparison, sides, p, number: number as u64, place }.checked()?);
            }
        }
        Ok(labels)
    }

    fn checked(self) -> Result<GoldLabel> {
        if (0.0..=1.0).contains(&self.p) {
            return Ok(self);
        }
        let place = match &self.place {
            (Some(file), Some(line)) => format!(" ({file}:{line})"),
            (Some(file), None) => format!(" ({file})"),
            (None, _) => String::new(),
        };
        Err(Error::data(format!("p_hat of the gold label `{}`{place}: got {}, wanted a probability", self.id, self.p)))
    }

    /// P(first side better) as the other row has its sides.
    pub fn p_of(&self, exchanged: bool) -> f64 {
        if exchanged { 1.0 - self.p } else { self.p }
    }

    /// The label as a row that is left out.
    pub fn reject(self, reason: &str, detail: &str) -> Reject {
        let (source_file, source_line) = self.place;
        let (input, reason, detail) = ("gold".to_owned(), reason.to_owned(), detail.to_owned());
        Reject { input, row_id: self.id, reason, detail, source_file, source_line }
    }
}
