//! The columns of a file that its rows are read from.

use std::collections::{BTreeMap, BTreeSet};

use crate::column::Column;
use crate::scale::Scale;
use crate::scores::Scores;

/// Our columns and the names they have in the file.
pub type Places = BTreeMap<Column, String>;

/// The columns of a file, and what votes and scores in them mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// Places of the columns.
    pub places: Places,
    /// Ids that are put together from columns: their texts in `places` have names in braces.
    pub composed: BTreeSet<Column>,
    /// The columns of votes.
    pub votes: Vec<String>,
    /// Meaning of their values; absent where they hold counts alone.
    pub scale: Option<Scale>,
    /// How scores become labels.
    pub scores: Option<Scores>,
}

impl Columns {
    /// The name in the file of a column, where it has one.
    pub fn get(&self, column: Column) -> Option<&str> {
        self.places.get(&column).map(String::as_str)
    }

    /// How sure a difference of scores makes, where that is given.
    pub fn scaled(&self) -> Option<&Scores> {
        self.scores.as_ref().filter(|scores| scores.scale.is_some())
    }

    /// True where the file has a column.
    pub fn has(&self, column: Column) -> bool {
        self.places.contains_key(&column)
    }
}
