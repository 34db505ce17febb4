//! RPO: every chosen side of the batch against every rejected side, prompts that are alike counting more.

use std::collections::HashMap;
use std::f64::consts::LN_2;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Edge, Item};
use crate::error::{Error, Result};
use crate::evaluation::{Contrasts, Evaluation, NoStep};
use crate::formula::{BatchObjective, Facts, Finding, Formula, Reads, Terms, above_0, finding};
use crate::side::Side;
use crate::stable::{sigmoid, softplus};

/// Relative preference optimization. Labels choose sides; with `labels: soft` they also weigh.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rpo {
    /// Strength of the pull towards the reference; above 0. The paper takes 0.1.
    pub beta: f64,
    /// `embedding` alone: temperature of the softmax over prompt distances; above 0. The paper takes 0.25 to 0.75.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tau: Option<f64>,
    /// Weights of the cells of the matrix.
    #[serde(default)]
    pub weighting: RpoWeighting,
    /// `diagonal` alone: the share of each row's own pair, in [0, 1]; the other columns share the rest. The paper's
    /// code takes 0.8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagonal_weight: Option<f64>,
    /// Source of the sides: pairs, or items with labels of their own.
    #[serde(default)]
    pub form: RpoForm,
    /// Use of the labels' degree.
    #[serde(default, skip_serializing_if = "RpoLabels::is_hard")]
    pub labels: RpoLabels,
}

/// Use of the degree of labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RpoLabels {
    /// Each label is taken as certain.
    #[default]
    Hard,
    /// Each cell is scaled inside the sigmoid by what is known of it: 2 p_hat - 1 of the pairs of the batch that set its
    /// row's response over its column's (a row's own pair, a joint pair), else the geometric mean of the certainties of
    /// its row and its column. At 1/2 a row's own pair has no pull; where all labels are certain this is `hard`. Pairs
    /// that set the column's response over the row's are not asked, as `hard` does not ask them.
    Soft,
}

impl RpoLabels {
    fn is_hard(&self) -> bool {
        *self == RpoLabels::Hard
    }
}

/// Weight of the cell of chosen side i and rejected side j.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RpoWeighting {
    /// By prompt distance, inside the sigmoid: softmax over j of -(1 - cosine_ij) / tau.
    #[default]
    Embedding,
    /// Weight 1 inside the sigmoid for every cell.
    Uniform,
    /// Weight 1 inside the sigmoid; outside, `diagonal_weight` for a row's own pair and the rest for the others.
    Diagonal,
}

/// Source of RPO's chosen and rejected sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RpoForm {
    /// Both sides of each pair.
    #[default]
    Paired,
    /// Items: a label above 0.5 makes a chosen side, one below 0.5 a rejected side. Their numbers may differ.
    Unpaired,
}

/// A row or column of the matrix.
struct Line {
    /// Index of the sequence.
    sequence: usize,
    /// Index of its term: the edge or the item.
    term: usize,
    /// Weight of the row or column.
    weight: f64,
    /// How sure its label is: 2 p_hat - 1 of a pair, |2 label - 1| of an item.
    certainty: f64,
}

impl Rpo {
    /// sum_ij w_i w_j l_ij / (sum_i w_i sum_j w_j), l_ij = -log sigmoid(beta omega_ij (s_i - s_j)), M rows (chosen) by
    /// N columns (rejected), arXiv 2402.10958 and its code. omega_ij = softmax_j((cosine_ij - 1) / tau) multiplies the
    /// *logit*; at M = N = 1 this is DPO. A row's term is its weighted mean over columns. For items, a rejected item's
    /// term is the weighted mean over its column. With soft labels the logit is also multiplied by the cell's certainty,
    /// a choice of this project as GDPO has it for one pair (arXiv 2409.06691, eq. 11); no paper has it for RPO.
    fn matrix(&self, batch: &Batch) -> Result<Evaluation> {
        let (rows, columns) = self.lines(batch);
        let terms = if self.form == RpoForm::Paired { batch.edges.len() } else { batch.items.len() };
        let mut evaluation = Evaluation::empty(batch, terms);
        evaluation.no_step = self.moves_nothing(batch);
        if evaluation.no_step.is_some() {
            return Ok(evaluation);
        }
        let mut weights = self.inner_weights(batch, rows.len(), columns.len())?;
        if self.labels == RpoLabels::Soft {
            weights.iter_mut().zip(certainties(batch, &rows, &columns)).for_each(|(weight, it)| *weight *= it);
        }
        let row_total: f64 = rows.iter().map(|row| row.weight).sum();
        let column_total: f64 = columns.iter().map(|column| column.weight).sum();
        let log_ratio = |line: &Line| Side::of(&batch.sequences[line.sequence], false).log_ratio();
        let rejected: Vec<f64> = columns.iter().map(log_ratio).collect();
        for (i, row) in rows.iter().enumerate() {
            let chosen = log_ratio(row);
            let row_share = row.weight / row_total;
            let outer = self.outer_weights(i, &columns, column_total);
            for (j, column) in columns.iter().enumerate() {
                let scale = self.beta * weights[i * columns.len() + j];
                let z = scale * (chosen - rejected[j]);
                let loss = softplus(-z);
                evaluation.terms[row.term] += outer[j] * loss;
                if self.form == RpoForm::Unpaired {
                    evaluation.terms[column.term] += row_share * loss;
                }
                let slope = -row_share * outer[j] * scale * sigmoid(-z);
                evaluation.d_policy[row.sequence].0 += slope;
                evaluation.d_policy[column.sequence].0 -= slope;
            }
            evaluation.loss += row_share * evaluation.terms[row.term];
        }
        let (rows, columns) = (rows.len(), columns.len());
        evaluation.contrasts = Some(Contrasts { rows, columns, weights });
        Ok(evaluation)
    }

    fn moves_nothing(&self, batch: &Batch) -> Option<NoStep> {
        let (rows, columns) = self.lines(batch);
        let weigh = |lines: &[Line]| lines.iter().any(|line| line.weight > 0.0);
        match (weigh(&rows), weigh(&columns)) {
            (true, true) => None,
            (false, false) => Some(NoStep::ZeroWeight),
            _ => Some(NoStep::OneClass),
        }
    }

    fn lines(&self, batch: &Batch) -> (Vec<Line>, Vec<Line>) {
        match self.form {
            RpoForm::Paired => {
                let edges = || batch.edges.iter().enumerate();
                let line = |sequence, (term, edge): (usize, &Edge)| Line {
                    sequence,
                    term,
                    weight: edge.weight,
                    certainty: 2.0 * edge.p_hat - 1.0,
                };
                (
                    edges().map(|(i, edge)| line(edge.chosen, (i, edge))).collect(),
                    edges().map(|(i, edge)| line(edge.rejected, (i, edge))).collect(),
                )
            }
            RpoForm::Unpaired => {
                let items = batch.items.iter().enumerate();
                let (chosen, rejected): (Vec<_>, Vec<_>) = items.partition(|(_, item)| item.label > 0.5);
                let line = |(i, item): (usize, &Item)| Line {
                    sequence: item.sequence,
                    term: i,
                    weight: item.weight,
                    certainty: (2.0 * item.label - 1.0).abs(),
                };
                (chosen.into_iter().map(line).collect(), rejected.into_iter().map(line).collect())
            }
        }
    }

    /// omega, M x N row by row.
    fn inner_weights(&self, batch: &Batch, rows: usize, columns: usize) -> Result<Vec<f64>> {
        let Some(tau) = self.tau.filter(|_| self.weighting == RpoWeighting::Embedding) else {
            return Ok(vec![1.0; rows * columns]);
        };
        let got = match &batch.similarities {
            Some(similarities) if similarities.rows == rows && similarities.columns == columns => {
                return Ok(similarities.values.chunks(columns.max(1)).flat_map(|row| softmax(row, tau)).collect());
            }
            Some(similarities) => format!("{} by {}", similarities.rows, similarities.columns),
            None => "none".to_owned(),
        };
        Err(Error::Similarities { rows, columns, got })
    }

    /// The shares of the columns in row i; they sum to 1.
    fn outer_weights(&self, i: usize, columns: &[Line], total: f64) -> Vec<f64> {
        let diagonal = self.diagonal_weight.filter(|_| self.weighting == RpoWeighting::Diagonal);
        let own = columns.get(i).map_or(0.0, |column| column.weight);
        match diagonal {
            None => columns.iter().map(|column| column.weight / total).collect(),
            // Nobody else in the batch: the row is its own pair.
            Some(_) if total - own <= 0.0 => (0..columns.len()).map(|j| if j == i { 1.0 } else { 0.0 }).collect(),
            Some(share) => {
                let others: f64 = columns.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, c)| c.weight).sum();
                let of = |(j, column): (usize, &Line)| {
                    if j == i { share } else { (1.0 - share) * column.weight / others }
                };
                columns.iter().enumerate().map(of).collect()
            }
        }
    }
}

impl Rpo {
    /// Keys that are missing or without effect under the weighting and form.
    fn check_keys(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |wrong: bool, key, text: &str| {
            if wrong {
                findings.push((key, text.to_owned()));
            }
        };
        let embedding = self.weighting == RpoWeighting::Embedding;
        let diagonal = self.weighting == RpoWeighting::Diagonal;
        find(embedding && self.tau.is_none(), "tau", "missing; `weighting: embedding` needs it (the paper takes 0.5)");
        find(!embedding && self.tau.is_some(), "tau", "has no effect: only `weighting: embedding` reads it");
        find(
            diagonal && self.diagonal_weight.is_none(),
            "diagonal_weight",
            "missing; `weighting: diagonal` needs it (the paper's code takes 0.8)",
        );
        find(
            !diagonal && self.diagonal_weight.is_some(),
            "diagonal_weight",
            "has no effect: only `weighting: diagonal` reads it",
        );
        find(
            diagonal && self.form == RpoForm::Unpaired,
            "weighting",
            "`diagonal` means a row's own pair, and unpaired items have none: take `embedding` or `uniform`",
        );
        findings
    }
}

impl BatchObjective for Rpo {
    fn evaluate(&self, batch: &Batch, _denominator: f64) -> Result<Evaluation> {
        self.matrix(batch)
    }

    fn no_step(&self, batch: &Batch) -> Option<NoStep> {
        self.moves_nothing(batch)
    }

    fn value_at_zero(&self) -> Option<f64> {
        Some(LN_2)
    }
}

/// How sure each cell's preference is, M x N row by row, in [0, 1]. Several pairs about one cell count by their weights.
fn certainties(batch: &Batch, rows: &[Line], columns: &[Line]) -> Vec<f64> {
    // Of (chosen, rejected): sums of weight and of weight times certainty.
    let mut known: HashMap<(usize, usize), (f64, f64)> = HashMap::new();
    for edge in batch.edges.iter().filter(|edge| edge.weight > 0.0) {
        let (weight, sum) = known.entry((edge.chosen, edge.rejected)).or_default();
        *weight += edge.weight;
        *sum += edge.weight * (2.0 * edge.p_hat - 1.0);
    }
    let cell = |row: &Line, column: &Line| match known.get(&(row.sequence, column.sequence)) {
        // Pairs that are all certain stay so to the last bit.
        Some((weight, sum)) => sum / weight,
        None => (row.certainty * column.certainty).sqrt(),
    };
    rows.iter()
        .flat_map(|row| columns.iter().map(move |column| (row, column)))
        .map(|(row, column)| cell(row, column))
        .collect()
}

/// softmax of (cosine - 1) / tau over a row.
fn softmax(cosines: &[f64], tau: f64) -> Vec<f64> {
    let top = cosines.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = cosines.iter().map(|cosine| ((cosine - top) / tau).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

impl Formula for Rpo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "rpo",
            title: "relative preference optimization across prompts (Yin et al.; not TRL's rpo_alpha, not reward-aware PO)",
            paper: "arXiv 2402.10958",
            equation: "mean over i, j of -log sigmoid(beta omega_ij (s_i - s_j)), omega_ij = softmax_j((cosine_ij - 1)/tau), s = log pi/ref",
            orientation: "chosen first; the label is taken as certain, or with `labels: soft` scales each cell",
            length: "sums over response tokens",
            at_half: "still pushes the chosen side up; with `labels: soft` no pull",
            joint_pairs: true,
            remark: "also sets answers to similar prompts against each other",
            knobs: "beta: 0.1, tau: 0.5",
            knobs_on_items: "form: unpaired",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn check(&self) -> Vec<Finding> {
        let tau = self.tau.and_then(|tau| above_0("tau", tau));
        let share = self
            .diagonal_weight
            .and_then(|share| finding((0.0..=1.0).contains(&share), "diagonal_weight", share, "0 to 1"));
        tau.into_iter().chain(share).chain(self.check_keys()).collect()
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Batch(self)
    }

    fn reads(&self) -> Option<Reads> {
        Some(if self.form == RpoForm::Unpaired { Reads::Items } else { Reads::Pairs })
    }

    fn needs_similarities(&self) -> bool {
        self.weighting == RpoWeighting::Embedding
    }

    fn reads_p_hat(&self) -> Option<bool> {
        Some(self.labels == RpoLabels::Soft)
    }

    fn accepts_label(&self, label: f64) -> std::result::Result<(), &'static str> {
        if self.form == RpoForm::Unpaired && label == 0.5 {
            return Err("unpaired rpo takes chosen (above 0.5) and rejected (below 0.5) items");
        }
        Ok(())
    }
}
