//! The two sides of a row, and which comparison a row of another table is about.

use std::collections::HashMap;

use crate::table::ids;
use crate::table::rows::{ComparedResponses, Message, PairResponses, VerdictLabels, VerdictResponses};

/// A side: the ids of its prompt and response, and a digest of its text for where ids differ.
#[derive(Debug, Clone, PartialEq)]
struct Side {
    ids: [String; 2],
    /// None where the text was not read.
    text: Option<String>,
}

impl Side {
    fn text(&self) -> &str {
        self.text.as_deref().expect("whoever compares sides that ids do not tell apart reads their texts")
    }

    fn new(prompt: &str, response: &str, messages: Option<&[Message]>) -> Side {
        let text = messages.map(|messages| ids::response_id("", messages));
        Side { ids: [prompt.to_owned(), response.to_owned()], text }
    }
}

/// Both sides of a row, a or chosen first.
#[derive(Debug, Clone, PartialEq)]
pub struct Sides([Side; 2]);

impl From<&ComparedResponses> for Sides {
    fn from(row: &ComparedResponses) -> Sides {
        Sides([
            Side::new(&row.a_prompt_id, &row.a_response_id, Some(&row.a_response)),
            Side::new(&row.b_prompt_id, &row.b_response_id, Some(&row.b_response)),
        ])
    }
}

impl From<&PairResponses> for Sides {
    fn from(row: &PairResponses) -> Sides {
        Sides([
            Side::new(&row.chosen_prompt_id, &row.chosen_response_id, Some(&row.chosen)),
            Side::new(&row.rejected_prompt_id, &row.rejected_response_id, Some(&row.rejected)),
        ])
    }
}

impl Sides {
    /// Those of a verdict; without its responses ids alone can decide: see [`Sides::decided_by_ids`].
    pub fn of(row: &VerdictLabels, responses: Option<&VerdictResponses>) -> Sides {
        Sides([
            Side::new(&row.a_prompt_id, &row.a_response_id, responses.map(|it| it.a_response.as_slice())),
            Side::new(&row.b_prompt_id, &row.b_response_id, responses.map(|it| it.b_response.as_slice())),
        ])
    }

    /// The digest of the ids of both sides, whatever their order.
    pub fn key(&self) -> [u8; 12] {
        let [a, b] = [0, 1].map(|side: usize| (self.0[side].ids[0].as_str(), self.0[side].ids[1].as_str()));
        ids::comparison_bits(a, b)
    }

    /// True where the ids say whether the sides of `other` are these exchanged, so that no text is asked.
    pub fn decided_by_ids(&self, other: &Sides) -> bool {
        self.decided(other, |one, another| one.ids == another.ids).is_some()
    }

    fn decided(&self, other: &Sides, is: impl Fn(&Side, &Side) -> bool) -> Option<bool> {
        let ([a, b], [first, second]) = (&self.0, &other.0);
        let (same, crossed) = (is(first, a) && is(second, b), is(first, b) && is(second, a));
        (same != crossed).then_some(crossed)
    }

    /// True where the sides of `other` are these exchanged; none where they are others. Ids decide, texts where ids
    /// differ.
    ///
    /// # Panics
    /// Where ids do not decide and a text was not read.
    pub fn exchanged(&self, other: &Sides) -> Option<bool> {
        let by_ids = self.decided(other, |one, another| one.ids == another.ids);
        by_ids.or_else(|| self.decided(other, |one, another| one.text() == another.text()))
    }

    /// [`Sides::exchanged`] of two rows about one comparison: where all sides have one text, their orders are the same.
    ///
    /// # Panics
    /// As [`Sides::exchanged`].
    pub fn exchanged_of_one(&self, other: &Sides) -> Option<bool> {
        let ([a, b], [first, second]) = (&self.0, &other.0);
        let alike = || [b, first, second].iter().all(|side| side.text() == a.text()).then_some(false);
        self.exchanged(other).or_else(alike)
    }
}

/// Comparisons by their ids and by their sides.
#[derive(Debug, Default)]
pub struct SidesIndex {
    sides: Vec<Sides>,
    by_id: HashMap<String, usize>,
    by_sides: HashMap<[u8; 12], usize>,
}

impl SidesIndex {
    /// Adds the next comparison and gives its number, from 0; of two with one id or the same sides the first is found.
    pub fn add(&mut self, id: &str, sides: Sides) -> usize {
        let at = self.sides.len();
        self.by_id.entry(id.to_owned()).or_insert(at);
        self.by_sides.entry(sides.key()).or_insert(at);
        self.sides.push(sides);
        at
    }

    /// The number of comparisons.
    pub fn len(&self) -> usize {
        self.sides.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.sides.is_empty()
    }

    /// A comparison by its id.
    pub fn by_id(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The comparison that a row with sides is about: by its id, else by both sides; and whether they are exchanged.
    pub fn find(&self, id: Option<&str>, sides: &Sides) -> Option<(usize, bool)> {
        let by_id = id.and_then(|id| self.by_id(id));
        let by_id = by_id.and_then(|at| Some((at, self.sides[at].exchanged_of_one(sides)?)));
        by_id.or_else(|| {
            let at = *self.by_sides.get(&sides.key())?;
            Some((at, self.sides[at].exchanged(sides)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(a: &str, b: &str) -> Sides {
        Sides([a, b].map(|it| Side { ids: ["p".to_owned(), it.to_owned()], text: Some(it.to_uppercase()) }))
    }

    #[test]
    fn rows_are_found_by_id_and_by_sides_in_either_order() {
        let mut index = SidesIndex::default();
        assert_eq!((index.add("one", sides("x", "y")), index.add("one", sides("u", "v"))), (0, 1));
        assert_eq!(index.find(Some("one"), &sides("y", "x")), Some((0, true)));
        assert_eq!(index.find(Some("other"), &sides("x", "y")), Some((0, false)));
        assert_eq!(index.find(None, &sides("y", "x")), Some((0, true)));
        // The id alone is not enough where the sides are others: the second of that id is found by its sides.
        assert_eq!(index.find(Some("one"), &sides("u", "v")), Some((1, false)));
        assert_eq!(index.find(Some("one"), &sides("u", "w")), None);
        // Equal sides: the id alone says which comparison it is, and nothing says that they are exchanged.
        index.add("equal", sides("z", "z"));
        assert_eq!(index.find(Some("equal"), &sides("z", "z")), Some((2, false)));
        assert_eq!(index.find(None, &sides("z", "z")), None);
        // Other ids and the same texts.
        let Sides(of) = sides("x", "y");
        let renamed = Sides(of.map(|side| Side { ids: ["q".to_owned(), "r".to_owned()], ..side }));
        assert_eq!(index.find(Some("one"), &renamed), Some((0, false)));
    }
}
