//! What a user reads about an objective.

/// An objective in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// The word in pipeline files.
    pub name: &'static str,
    /// The long name; short ones are taken several times over in this field.
    pub title: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// The loss of one edge or item.
    pub equation: &'static str,
    /// Which side comes first, and what happens when they are swapped.
    pub orientation: &'static str,
    /// Whether log-probs are summed or divided by length.
    pub length: &'static str,
    /// What it does with an edge of p_hat = 0.5.
    pub at_half: &'static str,
}
