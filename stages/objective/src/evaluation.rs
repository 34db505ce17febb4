//! A loss and its gradient.

use crate::batch::Batch;

/// The loss of a batch and its derivatives.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The unweighted loss of each edge (or item); for `rpo` of each row of its matrix.
    pub terms: Vec<f64>,
    /// The loss of the batch: sum w l / sum w, or what the objective says; 0 where no step is made.
    pub loss: f64,
    /// d loss / d (response, prompt) log-prob of each sequence under the policy.
    pub d_policy: Vec<(f64, f64)>,
    /// Why this batch moves nothing, where it does not.
    pub no_step: Option<NoStep>,
    /// RPO: the weights inside the sigmoid.
    pub contrasts: Option<Contrasts>,
}

/// Why a batch makes no step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoStep {
    /// All weights are 0, or the batch is empty.
    ZeroWeight,
    /// Unpaired RPO: no chosen or no rejected side with a weight above 0.
    OneClass,
}

/// RPO's weights inside the sigmoid.
#[derive(Debug, Clone, PartialEq)]
pub struct Contrasts {
    /// Chosen sides.
    pub rows: usize,
    /// Rejected sides.
    pub columns: usize,
    /// Row by row; rows sum to 1 when weighted by embeddings.
    pub weights: Vec<f64>,
}

impl Evaluation {
    pub(crate) fn empty(batch: &Batch, terms: usize) -> Evaluation {
        Evaluation {
            terms: vec![0.0; terms],
            loss: 0.0,
            d_policy: vec![(0.0, 0.0); batch.sequences.len()],
            no_step: None,
            contrasts: None,
        }
    }

    pub(crate) fn without_weight(self) -> Evaluation {
        Evaluation { no_step: Some(NoStep::ZeroWeight), ..self }
    }
}
