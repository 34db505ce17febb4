//! Errors: batches that lack something, and settings out of range.

/// The result of an evaluation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A batch that the objective cannot be computed on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A sequence lacks its reference log-prob.
    #[error("sequence {sequence} has no reference log-prob, and `{objective}` measures against the reference")]
    NoReference {
        /// The objective's name.
        objective: &'static str,
        /// Index into [`crate::Batch::sequences`].
        sequence: usize,
    },
    /// An edge is labelled against its orientation.
    #[error(
        "edge {edge} has p_hat {p_hat}, and `{objective}` wants the better side first (p_hat at least 0.5): swap the sides and take 1 - p_hat"
    )]
    NotOriented {
        /// The objective's name.
        objective: &'static str,
        /// Index into [`crate::Batch::edges`].
        edge: usize,
        /// Its label.
        p_hat: f64,
    },
    /// A number outside its range.
    #[error("{what} is {got}, wanted {wanted}")]
    OutOfRange {
        /// Name of the number, such as `weight of edge 3`.
        what: String,
        /// Value found.
        got: f64,
        /// Range of the values that are accepted.
        wanted: &'static str,
    },
    /// The matrix of prompt similarities is missing or has another shape.
    #[error("rpo wants prompt similarities of {rows} chosen by {columns} rejected sides, got {got}")]
    Similarities {
        /// Chosen sides.
        rows: usize,
        /// Rejected sides.
        columns: usize,
        /// Form of the data that was given.
        got: String,
    },
    /// KTO without the sequences that estimate its KL term.
    #[error("kto wants mismatched sequences to estimate its KL term, the batch has none")]
    NoKl,
    /// AOT couples sorted margins one to one.
    #[error(
        "aot sorts margins, which parts them from their weights: all weights must be equal, got {first} and {other}"
    )]
    UnequalWeights {
        /// One weight.
        first: f64,
        /// Another one.
        other: f64,
    },
    /// An item that the objective cannot take.
    #[error("item {item} has label {label}: {why}")]
    Label {
        /// Index into [`crate::Batch::items`].
        item: usize,
        /// Its label.
        label: f64,
        /// Form that the objective wants, and the reason.
        why: &'static str,
    },
}
