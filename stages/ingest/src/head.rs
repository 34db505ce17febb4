//! The first rows of a file, in which its columns are found.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::column::Column;
use crate::names::{Names, parts};
use crate::stored::is_structured;

/// The names under `columns:`: the file's names of a column, or nothing for one that is left out.
pub type Given = BTreeMap<Column, Option<Names>>;

/// The first rows of a file, and what the user says about its columns.
pub struct Head<'a> {
    rows: &'a [Map<String, Value>],
    /// The names of the columns that `columns:` does not take.
    pub names: BTreeSet<&'a str>,
    /// Those that hold something. Rows of other tools carry columns that are null or empty throughout.
    filled: BTreeSet<&'a str>,
    given: &'a Given,
}

impl<'a> Head<'a> {
    /// Looks at rows.
    pub fn new(rows: &'a [Map<String, Value>], given: &'a Given) -> Head<'a> {
        let mut names: BTreeSet<&str> = rows.iter().flat_map(|row| row.keys().map(String::as_str)).collect();
        let cells = rows.iter().flat_map(Map::iter);
        let filled = cells.filter(|(_, value)| !is_empty(value)).map(|(name, _)| name.as_str()).collect();
        // A column that `columns:` names has this role and no other.
        given.values().flatten().flat_map(Names::all).for_each(|theirs| _ = names.remove(theirs.as_str()));
        Head { rows, names, filled, given }
    }

    /// The same without the columns that hold nothing: these have no part in finding the format. Where all are so, as
    /// in a table without rows, their names count.
    pub fn told(mut self) -> Head<'a> {
        if !self.filled.is_empty() {
            self.names.retain(|name| self.filled.contains(name));
        }
        self
    }

    /// The name in the file of a column, where it has one.
    pub fn find(&self, column: Column) -> Option<String> {
        if let Some(given) = self.given.get(&column) {
            return given.as_ref().map(|names| names.first().to_owned());
        }
        let first = column.of_the_first().and_then(|first| self.find(first));
        let found = || {
            let names = column.names().iter().filter(|name| self.names.contains(**name));
            names.filter(|name| first.as_deref() != Some(**name))
        };
        // Of several, one that holds something.
        let name = found().find(|name| self.filled.contains(**name)).or_else(|| found().next());
        name.map(|name| (*name).to_owned())
    }

    /// The columns that hold votes: those that are given; else a column for each annotator (`annotator1`, `rater_2`);
    /// else one of a known name.
    pub fn votes(&self) -> Vec<String> {
        if let Some(given) = self.given.get(&Column::Votes) {
            return given.iter().flat_map(Names::all).cloned().collect();
        }
        let numbered = |stem: &str| {
            let of = |name: &&&str| {
                let rest = name.strip_prefix(stem).map(|rest| rest.trim_start_matches(['_', '-', ' ']));
                rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
            };
            let mut names: Vec<String> = self.names.iter().filter(of).map(|name| (*name).to_owned()).collect();
            // `annotator10` comes after `annotator2`.
            names.sort_by_key(|name| (name.len(), name.clone()));
            let plain = |name: &String| self.values_of(name.clone()).all(|value| !is_structured(value));
            (names.len() > 1 && names.iter().all(plain)).then_some(names)
        };
        let each = ["annotator", "rater", "voter", "worker", "vote", "annotator_vote"].into_iter().find_map(numbered);
        each.unwrap_or_else(|| self.find(Column::Votes).into_iter().collect())
    }

    /// True where a name of a column is put together from others.
    pub fn is_composed(&self, column: Column, name: &str) -> bool {
        column.is_id() && !self.all_names().contains(name) && !parts(name).is_empty()
    }

    /// True where the file has all of some columns.
    pub fn has(&self, columns: &[Column]) -> bool {
        columns.iter().all(|column| self.find(*column).is_some())
    }

    /// The values of a column that are not null.
    pub fn values(&self, column: Column) -> impl Iterator<Item = &'a Value> {
        let name = self.find(column);
        self.values_of(name.unwrap_or_default())
    }

    /// The values of a column of the file that are not null.
    pub fn values_of(&self, name: String) -> impl Iterator<Item = &'a Value> {
        self.rows.iter().filter_map(move |row| row.get(&name)).filter(|value| !value.is_null())
    }

    /// True where a column has values and all are of a kind.
    pub fn all(&self, column: Column, is: impl Fn(&Value) -> bool) -> bool {
        let mut values = self.values(column).peekable();
        values.peek().is_some() && values.all(is)
    }

    /// True where a column of the file is null or empty throughout, where others are not.
    pub fn is_hollow(&self, name: &str) -> bool {
        !self.filled.is_empty() && !self.filled.contains(name)
    }

    /// True where `columns:` names a column.
    pub fn is_given(&self, column: Column) -> bool {
        self.given.contains_key(&column)
    }

    /// All names of the file.
    pub fn all_names(&self) -> BTreeSet<&'a str> {
        self.rows.iter().flat_map(|row| row.keys().map(String::as_str)).collect()
    }
}

/// True where a value is empty: null, no text but white space, an empty list or object, also where that is JSON as
/// text.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => ["", "[]", "{}"].contains(&text.trim()),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
