//! Gold labels, and which verdict each of them is about.

use std::collections::BTreeMap;

use kit::rows::{Message, Pair, Reject, TruthRow, Verdict};
use kit::{Context, Error, Result, Table, ids};

use crate::margin::place;

/// A response under its prompt.
type Side = (String, String);

/// A gold label as it was read.
struct Gold {
    row_id: String,
    comparison_id: Option<String>,
    sides: Option<[Named; 2]>,
    /// `truth` rows have no sides, but the label of the verdict they were made from.
    p_hat: Option<f64>,
    /// P(first side better).
    p: f64,
    source_file: Option<String>,
    source_line: Option<u64>,
    /// Labels of its verdict, once found.
    found: bool,
}

struct Named {
    ids: Side,
    /// A digest of the response's text, to distinguish sides where the ids differ.
    text: String,
}

/// All gold labels.
pub struct GoldLabels {
    rows: Vec<Gold>,
    by_sides: BTreeMap<[Side; 2], Vec<usize>>,
    by_comparison: BTreeMap<String, Vec<usize>>,
}

/// A row, reduced to its id, the ids of its sides and its label.
struct Sides<'a> {
    a: (&'a str, &'a str, &'a [Message]),
    b: (&'a str, &'a str, &'a [Message]),
}

impl Sides<'_> {
    fn named(&self) -> [Named; 2] {
        [self.a, self.b].map(|(prompt, response, text)| Named {
            ids: (prompt.to_owned(), response.to_owned()),
            text: ids::response_id("", text),
        })
    }
}

fn sorted(a: &Side, b: &Side) -> [Side; 2] {
    if a <= b { [a.clone(), b.clone()] } else { [b.clone(), a.clone()] }
}

impl GoldLabels {
    /// Reads the input `gold`.
    ///
    /// # Errors
    /// When it cannot be read, or a label is no probability.
    pub fn read(context: &Context<'_>) -> Result<GoldLabels> {
        let mut labels = GoldLabels { rows: Vec::new(), by_sides: BTreeMap::new(), by_comparison: BTreeMap::new() };
        match context.table_of("gold") {
            Some(Table::Truth) => {
                for row in context.rows::<TruthRow>("gold")? {
                    let row = row?;
                    labels.take(Gold {
                        row_id: row.comparison_id.clone(),
                        comparison_id: Some(row.comparison_id),
                        sides: None,
                        p_hat: Some(row.p_hat),
                        p: row.p_star,
                        source_file: None,
                        source_line: None,
                        found: false,
                    })?;
                }
            }
            Some(Table::Pairs) => {
                for row in context.rows::<Pair>("gold")? {
                    let row = row?;
                    let sides = Sides {
                        a: (&row.chosen_prompt_id, &row.chosen_response_id, &row.chosen),
                        b: (&row.rejected_prompt_id, &row.rejected_response_id, &row.rejected),
                    };
                    let sides = Some(sides.named());
                    labels.take(Gold {
                        row_id: row.pair_id,
                        comparison_id: row.comparison_id,
                        sides,
                        p_hat: None,
                        p: row.p_hat,
                        source_file: row.source_file,
                        source_line: row.source_line,
                        found: false,
                    })?;
                }
            }
            _ => {
                for row in context.rows::<Verdict>("gold")? {
                    let row = row?;
                    let sides = Some(sides_of(&row).named());
                    labels.take(Gold {
                        row_id: row.comparison_id.clone(),
                        comparison_id: Some(row.comparison_id),
                        sides,
                        p_hat: None,
                        p: row.p_hat,
                        source_file: row.source_file,
                        source_line: row.source_line,
                        found: false,
                    })?;
                }
            }
        }
        Ok(labels)
    }

    fn take(&mut self, gold: Gold) -> Result<()> {
        if !(0.0..=1.0).contains(&gold.p) {
            let place = place(gold.source_file.as_deref(), gold.source_line);
            return Err(Error::data(format!(
                "gold label of `{}`{place}: got {}, wanted a probability",
                gold.row_id, gold.p
            )));
        }
        let index = self.rows.len();
        if let Some([a, b]) = &gold.sides {
            self.by_sides.entry(sorted(&a.ids, &b.ids)).or_default().push(index);
        }
        if let Some(id) = &gold.comparison_id {
            self.by_comparison.entry(id.clone()).or_default().push(index);
        }
        self.rows.push(gold);
        Ok(())
    }

    /// The number of gold rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The gold P(a better) of a verdict: the mean over its gold labels, each turned to the verdict's sides.
    pub fn of(&mut self, verdict: &Verdict) -> Option<f64> {
        let sides = sides_of(verdict).named();
        let key = sorted(&sides[0].ids, &sides[1].ids);
        let mut indices = self.by_sides.get(&key).cloned().unwrap_or_default();
        indices.extend(self.by_comparison.get(&verdict.comparison_id).into_iter().flatten());
        indices.sort_unstable();
        indices.dedup();
        let (mut sum, mut count) = (0.0, 0.0);
        for index in indices {
            let gold = &mut self.rows[index];
            let one_id = gold.comparison_id.as_ref() == Some(&verdict.comparison_id);
            let equal = (one_id && alike(gold, &sides)).then_some(false);
            let Some(turned) = turned(gold, &sides, verdict.p_hat).or(equal) else { continue };
            gold.found = true;
            sum += if turned { 1.0 - gold.p } else { gold.p };
            count += 1.0;
        }
        (count > 0.0).then(|| sum / count)
    }

    /// The gold rows that are about no verdict, for the table of rejects.
    pub fn unmatched(&self) -> Vec<Reject> {
        let unmatched = self.rows.iter().filter(|gold| !gold.found);
        unmatched
            .map(|gold| Reject {
                input: "gold".to_owned(),
                row_id: gold.row_id.clone(),
                reason: "no_verdict".to_owned(),
                detail: "no verdict has this comparison's id with the same sides, or the ids of both its sides"
                    .to_owned(),
                source_file: gold.source_file.clone(),
                source_line: gold.source_line,
            })
            .collect()
    }
}

/// True where both rows have one text on both sides: with one id their orders are the same.
fn alike(gold: &Gold, [a, b]: &[Named; 2]) -> bool {
    let other = |[first, second]: &[Named; 2]| [b, first, second].iter().all(|side| side.text == a.text);
    gold.sides.as_ref().is_some_and(other)
}

/// True where a gold label's first side is the verdict's side b; none where that cannot be decided.
fn turned(gold: &Gold, [a, b]: &[Named; 2], p_hat: f64) -> Option<bool> {
    let Some([first, second]) = &gold.sides else {
        // Made from verdicts: from these, or from the same ones with sides exchanged.
        let given = gold.p_hat?;
        return if given == p_hat { Some(false) } else { (given == 1.0 - p_hat).then_some(true) };
    };
    let (same, crossed) = (first.ids == a.ids && second.ids == b.ids, first.ids == b.ids && second.ids == a.ids);
    if same != crossed {
        return Some(crossed);
    }
    let (same, crossed) =
        (first.text == a.text && second.text == b.text, first.text == b.text && second.text == a.text);
    (same != crossed).then_some(crossed)
}

fn sides_of(row: &Verdict) -> Sides<'_> {
    Sides {
        a: (&row.a_prompt_id, &row.a_response_id, &row.a_response),
        b: (&row.b_prompt_id, &row.b_response_id, &row.b_response),
    }
}
