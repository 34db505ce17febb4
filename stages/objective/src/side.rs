//! One side of an edge, and what an objective says about an edge.

use crate::batch::SequenceLogps;

/// A sequence as an edge sees it: the part that the objective scores (response, or prompt and response for JPO).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Side {
    /// Log-prob under the policy.
    pub(crate) policy: f64,
    /// Log-prob under the reference; 0 for objectives without one.
    pub(crate) reference: f64,
    /// Tokens scored.
    pub(crate) tokens: f64,
}

impl Side {
    /// The scored part of a sequence. A missing reference counts as 0; whoever needs one has been refused before.
    pub(crate) fn of(sequence: &SequenceLogps, joint: bool) -> Side {
        let part = |(response, prompt): (f64, f64)| if joint { response + prompt } else { response };
        Side {
            policy: part(sequence.policy),
            reference: sequence.reference.map_or(0.0, part),
            tokens: (sequence.tokens + if joint { sequence.prompt_tokens } else { 0 }) as f64,
        }
    }

    /// s(x, y) = log policy(y|x) - log reference(y|x).
    pub(crate) fn log_ratio(&self) -> f64 {
        self.policy - self.reference
    }

    /// Log-prob per token.
    pub(crate) fn mean(&self) -> f64 {
        self.policy / self.tokens
    }
}

/// The loss of an edge and its derivatives by the policy's log-prob of each side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EdgeTerm {
    pub(crate) loss: f64,
    pub(crate) d_chosen: f64,
    pub(crate) d_rejected: f64,
}

/// The loss of a margin and its derivative by that margin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slope {
    pub(crate) loss: f64,
    pub(crate) slope: f64,
}

/// An objective that is a sum over edges.
pub(crate) trait EdgeObjective {
    /// The term of one edge.
    fn term(&self, chosen: &Side, rejected: &Side, p_hat: f64) -> EdgeTerm;
}

/// An objective that sees of an edge only its margin: the difference of the log-ratios.
pub(crate) trait MarginObjective {
    /// The loss at a margin and its derivative by the margin.
    fn at(&self, margin: f64, p_hat: f64) -> Slope;
}

impl<M: MarginObjective> EdgeObjective for M {
    fn term(&self, chosen: &Side, rejected: &Side, p_hat: f64) -> EdgeTerm {
        let Slope { loss, slope } = self.at(chosen.log_ratio() - rejected.log_ratio(), p_hat);
        EdgeTerm { loss, d_chosen: slope, d_rejected: -slope }
    }
}
