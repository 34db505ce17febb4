//! The comparison that a row of another table is about, and the orientation of its sides.

use std::collections::HashMap;

use kit::ids;
use kit::rows::{Comparison, Message, Pair, ScoredVerdict};

/// A side: its ids, and a digest of its text to distinguish sides where ids differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    ids: [String; 2],
    text: String,
}

/// Both sides of a row, a first.
pub type Sides = [Side; 2];

/// The sides of a row with the columns of a comparison.
pub fn sides_of(row: &Comparison) -> Sides {
    [
        side(&row.a_prompt_id, &row.a_response_id, &row.a_response),
        side(&row.b_prompt_id, &row.b_response_id, &row.b_response),
    ]
}

/// The sides of a verdict.
pub fn verdict_sides_of(row: &ScoredVerdict) -> Sides {
    [
        side(&row.a_prompt_id, &row.a_response_id, &row.a_response),
        side(&row.b_prompt_id, &row.b_response_id, &row.b_response),
    ]
}

/// The sides of a pair, the chosen one first.
pub fn pair_sides_of(row: &Pair) -> Sides {
    [
        side(&row.chosen_prompt_id, &row.chosen_response_id, &row.chosen),
        side(&row.rejected_prompt_id, &row.rejected_response_id, &row.rejected),
    ]
}

fn side(prompt: &str, response: &str, messages: &[Message]) -> Side {
    Side { ids: [prompt.to_owned(), response.to_owned()], text: ids::response_id("", messages) }
}

/// Comparisons by their ids and by their sides.
#[derive(Debug, Default)]
pub struct Index {
    sides: Vec<Sides>,
    by_id: HashMap<String, usize>,
    by_sides: HashMap<[[String; 2]; 2], usize>,
}

/// The ids of both sides, whatever their order.
fn sorted([a, b]: &Sides) -> [[String; 2]; 2] {
    let (a, b) = (a.ids.clone(), b.ids.clone());
    if a <= b { [a, b] } else { [b, a] }
}

impl Index {
    /// Adds a comparison; nothing where its id is taken.
    pub fn add(&mut self, id: &str, sides: Sides) -> Option<usize> {
        if self.by_id.contains_key(id) {
            return None;
        }
        let at = self.sides.len();
        self.by_id.insert(id.to_owned(), at);
        self.by_sides.entry(sorted(&sides)).or_insert(at);
        self.sides.push(sides);
        Some(at)
    }

    /// The number of comparisons.
    pub fn len(&self) -> usize {
        self.sides.len()
    }

    /// A comparison by its id.
    pub fn by_id(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The comparison that a row with sides is about: by its id, else by both sides; and whether they are exchanged.
    pub fn find(&self, id: Option<&str>, sides: &Sides) -> Option<(usize, bool)> {
        let known = id.and_then(|id| self.by_id(id));
        let fits = |at: usize| turned(&self.sides[at], sides).or(alike(&self.sides[at], sides).then_some(false));
        let known = known.and_then(|at| Some((at, fits(at)?)));
        known.or_else(|| {
            let at = *self.by_sides.get(&sorted(sides))?;
            Some((at, turned(&self.sides[at], sides)?))
        })
    }
}

/// True where both rows have one text on both sides: with one id their orders are the same.
fn alike([a, b]: &Sides, [first, second]: &Sides) -> bool {
    [b, first, second].iter().all(|side| side.text == a.text)
}

/// True where the second sides are the first exchanged; none where they are others.
fn turned([a, b]: &Sides, [first, second]: &Sides) -> Option<bool> {
    let (same, crossed) = (first.ids == a.ids && second.ids == b.ids, first.ids == b.ids && second.ids == a.ids);
    if same != crossed {
        return Some(crossed);
    }
    let (same, crossed) =
        (first.text == a.text && second.text == b.text, first.text == b.text && second.text == a.text);
    (same != crossed).then_some(crossed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(a: &str, b: &str) -> Sides {
        [a, b].map(|it| Side { ids: ["p".to_owned(), it.to_owned()], text: it.to_uppercase() })
    }

    #[test]
    fn rows_are_found_by_id_and_by_sides_in_either_order() {
        let mut index = Index::default();
        assert_eq!((index.add("one", sides("x", "y")), index.add("one", sides("u", "v"))), (Some(0), None));
        assert_eq!(index.find(Some("one"), &sides("y", "x")), Some((0, true)));
        assert_eq!(index.find(Some("other"), &sides("x", "y")), Some((0, false)));
        assert_eq!(index.find(None, &sides("y", "x")), Some((0, true)));
        // The id alone is not enough where the sides are others.
        assert_eq!(index.find(Some("one"), &sides("u", "v")), None);
        // Equal sides: the id alone says which comparison it is, and nothing says that they are exchanged.
        index.add("equal", sides("z", "z"));
        assert_eq!(index.find(Some("equal"), &sides("z", "z")), Some((1, false)));
        assert_eq!(index.find(None, &sides("z", "z")), None);
        // Other ids and the same texts.
        let renamed = sides("x", "y").map(|side| Side { ids: ["q".to_owned(), "r".to_owned()], ..side });
        assert_eq!(index.find(Some("one"), &renamed), Some((0, false)));
    }
}
