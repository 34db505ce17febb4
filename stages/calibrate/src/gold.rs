//! Gold labels, and which verdict each of them is about.

use std::collections::HashMap;

use kit::rows::{Reject, TruthRow, VerdictLabels};
use kit::{Context, Error, GoldLabel, Result, Sides, Table};

/// All gold labels.
#[derive(Default)]
pub struct GoldLabels {
    rows: Vec<Gold>,
    by_sides: HashMap<[u8; 12], Vec<usize>>,
    by_comparison: HashMap<String, Vec<usize>>,
}

/// A label as it was read, and whether its verdict was found.
struct Gold {
    label: Label,
    found: bool,
}

enum Label {
    Of(GoldLabel),
    /// A row of `truth` has no sides, but the label of the verdict it was made from.
    Truth(TruthRow),
}

impl Label {
    fn comparison(&self) -> Option<&String> {
        match self {
            Label::Of(label) => label.comparison.as_ref(),
            Label::Truth(row) => Some(&row.comparison_id),
        }
    }

    /// P(a better) as a verdict has its sides; none where the label is about others.
    fn of(&self, verdict: &VerdictLabels, sides: &Sides) -> Option<f64> {
        match self {
            Label::Of(label) => {
                let one = label.comparison.as_ref() == Some(&verdict.comparison_id);
                let exchanged = if one { sides.exchanged_of_one(&label.sides) } else { sides.exchanged(&label.sides) };
                Some(label.p_of(exchanged?))
            }
            // Made from verdicts: from these, or from the same ones with sides exchanged.
            Label::Truth(row) if row.p_hat == verdict.p_hat => Some(row.p_star),
            Label::Truth(row) => (row.p_hat == 1.0 - verdict.p_hat).then_some(1.0 - row.p_star),
        }
    }
}

impl GoldLabels {
    /// Reads the input `gold`.
    ///
    /// # Errors
    /// When it cannot be read, or a label is no probability.
    pub fn read(context: &Context<'_>) -> Result<GoldLabels> {
        let mut labels = GoldLabels::default();
        if context.table_of("gold") == Some(Table::Truth) {
            for row in context.rows::<TruthRow>("gold")? {
                let row = row?;
                if !(0.0..=1.0).contains(&row.p_star) {
                    let (id, got) = (&row.comparison_id, row.p_star);
                    return Err(Error::data(format!("gold label of `{id}`: got {got}, wanted a probability")));
                }
                labels.add(Label::Truth(row));
            }
        } else {
            GoldLabel::read(context)?.into_iter().for_each(|label| labels.add(Label::Of(label)));
        }
        Ok(labels)
    }

    fn add(&mut self, label: Label) {
        let index = self.rows.len();
        if let Label::Of(label) = &label {
            self.by_sides.entry(label.sides.key()).or_default().push(index);
        }
        if let Some(id) = label.comparison() {
            self.by_comparison.entry(id.clone()).or_default().push(index);
        }
        self.rows.push(Gold { label, found: false });
    }

    /// The number of gold rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The labels that name a verdict's comparison or are of its sides' ids, in their order.
    fn of_ids(&self, verdict: &VerdictLabels) -> Vec<usize> {
        let a = (verdict.a_prompt_id.as_str(), verdict.a_response_id.as_str());
        let key = kit::ids::comparison_bits(a, (&verdict.b_prompt_id, &verdict.b_response_id));
        let mut indices = self.by_sides.get(&key).cloned().unwrap_or_default();
        indices.extend(self.by_comparison.get(&verdict.comparison_id).into_iter().flatten());
        indices.sort_unstable();
        indices.dedup();
        indices
    }

    /// True where some label may be about a verdict, by its ids.
    pub fn mention(&self, verdict: &VerdictLabels) -> bool {
        !self.of_ids(verdict).is_empty()
    }

    /// True where ids do not say how the sides of a verdict and of a label go together, so that texts have to.
    pub fn ask_for_texts(&self, verdict: &VerdictLabels, sides: &Sides) -> bool {
        self.of_ids(verdict).into_iter().any(|index| match &self.rows[index].label {
            Label::Of(label) => !sides.decided_by_ids(&label.sides),
            Label::Truth(_) => false,
        })
    }

    /// The gold P(a better) of a verdict: the mean over its gold labels, each turned to the verdict's sides.
    pub fn of(&mut self, verdict: &VerdictLabels, sides: &Sides) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0.0);
        for index in self.of_ids(verdict) {
            let gold = &mut self.rows[index];
            let Some(p) = gold.label.of(verdict, sides) else { continue };
            gold.found = true;
            sum += p;
            count += 1.0;
        }
        (count > 0.0).then(|| sum / count)
    }

    /// The gold rows that are about no verdict, for the table of rejects.
    pub fn unmatched(&self) -> Vec<Reject> {
        let detail = "no verdict has this comparison's id with the same sides, or the ids of both its sides";
        let unmatched = self.rows.iter().filter(|gold| !gold.found);
        unmatched
            .map(|gold| match &gold.label {
                Label::Of(label) => label.clone().reject("no_verdict", detail),
                Label::Truth(row) => Reject {
                    input: "gold".to_owned(),
                    row_id: row.comparison_id.clone(),
                    reason: "no_verdict".to_owned(),
                    detail: detail.to_owned(),
                    source_file: None,
                    source_line: None,
                },
            })
            .collect()
    }
}
