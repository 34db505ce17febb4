//! Gold labels of some verdicts.

use std::collections::HashMap;

use kit::rows::{Message, Pair, Reject, Verdict};
use kit::{Context, Result, RowReader, Table, ids};

use crate::sides::probability;

/// A side: the ids of its prompt and response, and a digest of its text for where ids differ.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    ids: [String; 2],
    text: String,
}

/// The sides of a row.
pub(crate) type Both = [Named; 2];

/// A gold label and where it stands.
pub(crate) struct Label {
    /// P(the first side better).
    pub(crate) p: f64,
    /// Its number in its table, from 0.
    pub(crate) number: u64,
    comparison: Option<String>,
    sides: Both,
    id: String,
    place: (Option<String>, Option<u64>),
}

fn named(prompt: &str, response: &str, messages: &[Message]) -> Named {
    Named { ids: [prompt.to_owned(), response.to_owned()], text: ids::response_id("", messages) }
}

/// The sides of a verdict.
pub(crate) fn sides_of(row: &Verdict) -> Both {
    [
        named(&row.a_prompt_id, &row.a_response_id, &row.a_response),
        named(&row.b_prompt_id, &row.b_response_id, &row.b_response),
    ]
}

impl Label {
    /// All labels of the input `gold`, in order.
    pub(crate) fn read(context: &Context<'_>) -> Result<Vec<Label>> {
        let mut labels = Vec::new();
        for source in context.sources("gold") {
            let first = labels.len();
            let mut take = |id: String, comparison, sides, p, place: (Option<String>, Option<u64>)| -> Result<()> {
                let p = probability("p_hat", &id, (&place.0, place.1), p)?;
                let number = (labels.len() - first) as u64;
                labels.push(Label { p, number, comparison, sides, id, place });
                Ok(())
            };
            if source.table == Table::Pairs {
                for row in RowReader::<Pair>::open(&[&source.path])? {
                    let row = row?;
                    let sides = [
                        named(&row.chosen_prompt_id, &row.chosen_response_id, &row.chosen),
                        named(&row.rejected_prompt_id, &row.rejected_response_id, &row.rejected),
                    ];
                    take(row.pair_id, row.comparison_id, sides, row.p_hat, (row.source_file, row.source_line))?;
                }
                continue;
            }
            for row in RowReader::<Verdict>::open(&[&source.path])? {
                let row = row?;
                let (sides, id) = (sides_of(&row), row.comparison_id);
                take(id.clone(), Some(id), sides, row.p_hat, (row.source_file, row.source_line))?;
            }
        }
        Ok(labels)
    }

    /// The label as a row that is left out.
    pub(crate) fn reject(self, reason: &str, detail: &str) -> Reject {
        let (source_file, source_line) = self.place;
        let (input, reason, detail) = ("gold".to_owned(), reason.to_owned(), detail.to_owned());
        Reject { input, row_id: self.id, reason, detail, source_file, source_line }
    }
}

/// Verdicts by their comparison's id and by their sides.
#[derive(Default)]
pub(crate) struct Index {
    sides: Vec<Both>,
    by_comparison: HashMap<String, usize>,
    by_sides: HashMap<[[String; 2]; 2], usize>,
}

impl Index {
    /// Adds the next verdict; of two with one id or the same sides the first is found.
    pub(crate) fn add(&mut self, comparison: &str, sides: Both) {
        let at = self.sides.len();
        self.by_comparison.entry(comparison.to_owned()).or_insert(at);
        self.by_sides.entry(sorted(&sides)).or_insert(at);
        self.sides.push(sides);
    }

    /// The verdict that a label is about, by its comparison's id, else by its sides; and P(side a of the verdict
    /// better).
    pub(crate) fn find(&self, label: &Label) -> Option<(usize, f64)> {
        let fits = |at: &usize| Some((*at, turned(&self.sides[*at], &label.sides)?));
        let by_comparison = label.comparison.as_ref().and_then(|id| self.by_comparison.get(id));
        let equal = |at: &usize| alike(&self.sides[*at], &label.sides).then_some((*at, false));
        let found = by_comparison.and_then(|at| fits(at).or(equal(at)));
        let (at, turned) = found.or_else(|| self.by_sides.get(&sorted(&label.sides)).and_then(fits))?;
        Some((at, if turned { 1.0 - label.p } else { label.p }))
    }
}

/// The ids of both sides, whatever their order.
fn sorted([a, b]: &Both) -> [[String; 2]; 2] {
    let (a, b) = (a.ids.clone(), b.ids.clone());
    if a <= b { [a, b] } else { [b, a] }
}

/// True where both rows have one text on both sides: with one id their orders are the same.
fn alike([a, b]: &Both, [first, second]: &Both) -> bool {
    [b, first, second].iter().all(|side| side.text == a.text)
}

/// True where the second sides are the first exchanged; none where they are others.
fn turned([a, b]: &Both, [first, second]: &Both) -> Option<bool> {
    let same = first.ids == a.ids && second.ids == b.ids;
    let crossed = first.ids == b.ids && second.ids == a.ids;
    if same != crossed {
        return Some(crossed);
    }
    let same = first.text == a.text && second.text == b.text;
    let crossed = first.text == b.text && second.text == a.text;
    (same != crossed).then_some(crossed)
}
