//! The values of a row, checked for type and range.

use std::collections::{BTreeMap, BTreeSet};

use kit::Message;
use serde_json::{Map, Value};

use crate::bad_row::{BadRow, shown};
use crate::column::Column;
use crate::columns::Columns;
use crate::form::Form;
use crate::messages::{Content, plain};
use crate::names::put_together;
use crate::source::json_text;
use crate::stored::{list_in, truth_in};

/// A row whose values are taken out one by one.
pub struct Row<'a> {
    /// The fields that are not taken yet.
    pub fields: Map<String, Value>,
    /// The columns of its file.
    pub columns: &'a Columns,
    /// The form of plain strings.
    pub form: Form,
    /// Notes on how it was read, with their counts.
    pub counts: Counts,
    /// Doubts about how it was read.
    pub doubts: BTreeSet<Doubt>,
}

/// Notes on how rows were read, with the number of rows.
pub type Counts = BTreeMap<&'static str, u64>;

/// A doubt about how some rows were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubt {
    /// Name of the rows in the summary.
    pub figure: &'static str,
    /// The warning about them.
    pub warning: &'static str,
}

impl Row<'_> {
    /// Counts something worth knowing.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    /// Notes that something is perhaps not meant so.
    pub fn doubt(&mut self, doubt: Doubt) {
        self.doubts.insert(doubt);
    }

    /// Takes a value; null counts as absent.
    pub fn take(&mut self, column: Column) -> Option<Value> {
        let name = self.columns.get(column)?;
        self.fields.get_mut(name).map(Value::take).filter(|value| !value.is_null())
    }

    /// The column's name in the file.
    pub fn name(&self, column: Column) -> &str {
        self.columns.get(column).unwrap_or(column.name())
    }

    pub fn missing(&self, column: Column) -> BadRow {
        let name = self.name(column);
        let what = if self.fields.contains_key(name) { "is null" } else { "is missing" };
        BadRow::new("missing", format!("column `{name}` {what}, wanted a value"))
    }

    pub fn need(&mut self, column: Column) -> Result<Value, BadRow> {
        self.take(column).ok_or_else(|| self.missing(column))
    }

    pub fn said(&mut self, column: Column) -> Result<Content, BadRow> {
        let value = self.need(column)?;
        self.read_said(column, value)
    }

    /// Text or messages that were taken out of a column.
    pub fn read_said(&mut self, column: Column, value: Value) -> Result<Content, BadRow> {
        let name = self.name(column).to_owned();
        self.read_said_at(&name, value)
    }

    /// Text or messages from some place.
    pub fn read_said_at(&mut self, place: &str, value: Value) -> Result<Content, BadRow> {
        let was_text = value.is_string();
        let said = Content::read(place, value)?;
        if was_text && matches!(said, Content::Messages(_)) {
            self.count("texts that hold messages as JSON, read as messages");
        }
        Ok(said)
    }

    pub fn text(&mut self, column: Column) -> Result<Option<String>, BadRow> {
        match self.take(column) {
            None => Ok(None),
            Some(Value::String(text)) => plain(self.name(column), text).map(Some),
            Some(other) => Err(BadRow::value(self.name(column), shown(&other), "text")),
        }
    }

    pub fn id(&mut self, column: Column) -> Result<Option<String>, BadRow> {
        if self.columns.composed.contains(&column) {
            let made = put_together(self.name(column), &self.fields).map(Some);
            return made.map_err(|name| {
                let detail = format!("column `{name}`, of which the id `{}` is made, has none", self.name(column));
                BadRow::new("missing", detail)
            });
        }
        match self.take(column) {
            None => Ok(None),
            Some(Value::String(id)) if id.is_empty() => Err(BadRow::value(self.name(column), "empty", "an id")),
            Some(Value::String(id)) => plain(self.name(column), id).map(Some),
            Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Ok(Some(id.to_string())),
            Some(other) => Err(BadRow::value(self.name(column), shown(&other), "an id: text or a whole number")),
        }
    }

    pub fn number(&mut self, column: Column) -> Result<Option<f64>, BadRow> {
        match self.take(column) {
            None => Ok(None),
            Some(value) => match number_in(&value).or_else(|| truth_in(&value).filter(|_| column.is_truth())) {
                Some(number) => Ok(Some(number)),
                None => Err(BadRow::value(self.name(column), shown(&value), "a number")),
            },
        }
    }

    /// A number of a column that all rows have or none.
    pub fn number_of_all(&mut self, column: Column, low: f64, high: f64, wanted: &str) -> Result<Option<f64>, BadRow> {
        if !self.columns.has(column) {
            return Ok(None);
        }
        let number = self.number(column)?.ok_or_else(|| self.missing(column))?;
        if (low..=high).contains(&number) {
            Ok(Some(number))
        } else {
            Err(BadRow::value(self.name(column), number, wanted))
        }
    }

    pub fn p_hat(&mut self) -> Result<Option<f64>, BadRow> {
        self.number_of_all(Column::PHat, 0.0, 1.0, "a probability in [0, 1]")
    }

    pub fn weight(&mut self) -> Result<f64, BadRow> {
        Ok(self.number_of_all(Column::Weight, 0.0, f64::MAX, "a weight of at least 0")?.unwrap_or(1.0))
    }

    pub fn label(&mut self) -> Result<f64, BadRow> {
        let value = self.need(Column::Label)?;
        match truth_in(&value).or_else(|| number_in(&value)) {
            Some(label) if (0.0..=1.0).contains(&label) => Ok(label),
            _ => Err(BadRow::value(self.name(Column::Label), shown(&value), "true, false or a number in [0, 1]")),
        }
    }

    /// The system message, where the file has one that is not empty.
    pub fn system(&mut self) -> Result<Option<Message>, BadRow> {
        Ok(self.text(Column::System)?.filter(|text| !text.is_empty()).map(|text| Message::new("system", text)))
    }

    /// The tools of the conversation as a JSON list, where the row has some.
    pub fn tools(&mut self) -> Result<Option<String>, BadRow> {
        let Some(value) = self.take(Column::Tools) else { return Ok(None) };
        let name = self.name(Column::Tools);
        match value {
            Value::String(text) if text.trim().is_empty() => Ok(None),
            Value::String(text) => Ok(Some(json_text(name, &text, "[")?).filter(|tools| tools != "[]")),
            other => Err(BadRow::value(name, shown(&other), "a list of tools")),
        }
    }

    /// The embedding at unit length.
    pub fn embedding(&mut self) -> Result<Vec<f32>, BadRow> {
        let value = self.need(Column::Embedding)?;
        let name = self.name(Column::Embedding);
        let Some(items) = list_in(&value) else {
            return Err(BadRow::value(name, shown(&value), "a list of numbers"));
        };
        let numbers = items.iter().map(|item| {
            item.as_f64()
                .ok_or_else(|| BadRow::value(name, format!("a list with {}", shown(item)), "a list of numbers"))
        });
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        let norm = numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
        if !(norm > 0.0 && norm.is_finite()) {
            let detail = format!("column `{name}` has the length {norm}, which cannot be made 1");
            return Err(BadRow::new("no_direction", detail));
        }
        Ok(numbers.into_iter().map(|x| (x / norm) as f32).collect())
    }
}

/// A finite number, also where it is written as text.
pub fn number_in(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        other => other.as_f64(),
    }
}
