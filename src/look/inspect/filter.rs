//! `--where column=value` and its kin.

use arrow_schema::DataType;
use serde_json::Value;

use super::cells::is_text;
use super::rows::Rows;
use crate::error::{Error, Result};

/// A condition on one column.
#[derive(Debug, Clone)]
pub struct Filter {
    column: usize,
    relation: Relation,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    Unequal,
    AtLeast,
    AtMost,
    Above,
    Below,
    Contains,
}

/// Longer signs first, so that `>=` is not taken for `>`.
const SIGNS: [(&str, Relation); 7] = [
    ("!=", Relation::Unequal),
    (">=", Relation::AtLeast),
    ("<=", Relation::AtMost),
    ("=", Relation::Equal),
    (">", Relation::Above),
    ("<", Relation::Below),
    ("~", Relation::Contains),
];

impl Filter {
    /// Reads `column=value`; also `!=`, `>`, `>=`, `<`, `<=`, and `~` for text that contains another.
    ///
    /// # Errors
    /// When there is no sign or no such column, or when the value is nothing that the column could hold.
    pub fn parse(text: &str, rows: &Rows) -> Result<Filter> {
        let first = SIGNS.iter().filter_map(|(sign, relation)| Some((text.find(sign)?, sign, *relation)));
        let (place, sign, relation) =
            first.min_by_key(|(place, sign, _)| (*place, std::cmp::Reverse(sign.len()))).ok_or_else(|| {
                Error::Usage(format!(
                    "--where {text}: write `column=value`; there are =, !=, >, >=, <, <= and ~ (contains)"
                ))
            })?;
        let column = rows.column(text[..place].trim())?;
        let value = text[place + sign.len()..].trim().to_owned();
        let (name, kind) = &rows.columns[column];
        let refused = |why: String| Err(Error::Usage(format!("--where {text}: {why}")));
        if kind.is_numeric() && relation == Relation::Contains {
            return refused(format!("`{name}` holds numbers; ~ looks for a part of a text"));
        }
        if kind.is_numeric() && value != "null" && value.parse::<f64>().is_err() {
            return refused(format!("`{name}` holds numbers, and `{value}` is none"));
        }
        if *kind == DataType::Boolean && !["true", "false", "null"].contains(&value.as_str()) {
            return refused(format!("`{name}` holds `true` and `false`, and `{value}` is neither"));
        }
        Ok(Filter { column, relation, value })
    }

    /// True where a row meets the condition. Null equals only `null` and is neither above nor below anything.
    pub fn lets_through(&self, cells: &[Value]) -> bool {
        let cell = &cells[self.column];
        let equal = || match cell {
            Value::Number(number) => self.value.parse().is_ok_and(|value: f64| number.as_f64() == Some(value)),
            Value::String(text) => *text == self.value,
            Value::Null => self.value == "null",
            Value::Bool(value) => self.value.parse() == Ok(*value),
            other => is_text(other).is_some_and(|text| text == self.value),
        };
        let ordering = || match cell {
            Value::Number(number) => number.as_f64()?.partial_cmp(&self.value.parse().ok()?),
            Value::String(text) => Some(text.as_str().cmp(&self.value)),
            _ => None,
        };
        match self.relation {
            Relation::Equal => equal(),
            Relation::Unequal => !equal(),
            Relation::AtLeast => ordering().is_some_and(|order| order.is_ge()),
            Relation::AtMost => ordering().is_some_and(|order| order.is_le()),
            Relation::Above => ordering().is_some_and(|order| order.is_gt()),
            Relation::Below => ordering().is_some_and(|order| order.is_lt()),
            Relation::Contains => is_text(cell).is_some_and(|text| text.contains(&self.value)),
        }
    }
}

/// The condition that all filters let a row through.
pub fn all(filters: &[Filter]) -> impl Fn(&[Value]) -> bool {
    move |cells| filters.iter().all(|filter| filter.lets_through(cells))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(filter: &str, wanted: &[usize]) {
        let columns = ["p_hat", "form", "prompt"].map(|name| (name.to_owned(), DataType::Null)).to_vec();
        let rows = Rows { parts: Vec::new(), columns, count: 3 };
        let table = [
            vec![json!(0.5), json!("same"), json!([{"role": "user", "content": "name a fruit"}])],
            vec![json!(1.0), json!("joint"), json!([])],
            vec![json!(null), json!("a=b"), json!(null)],
        ];
        let filter = Filter::parse(filter, &rows).unwrap();
        let through: Vec<usize> = (0..3).filter(|row| filter.lets_through(&table[*row])).collect();
        assert_eq!(through, wanted, "{filter:?}");
    }

    #[test]
    fn conditions_mean_what_they_say() {
        check("p_hat=1", &[1]);
        check("p_hat = 0.50", &[0]);
        check("p_hat=null", &[2]);
        check("p_hat!=1.0", &[0, 2]);
        check("p_hat>=0.5", &[0, 1]);
        check("p_hat>0.5", &[1]);
        check("p_hat<1", &[0]);
        check("form=a=b", &[2]);
        check("form~o", &[1]);
        check("prompt~fruit", &[0]);
    }

    #[test]
    fn what_a_column_cannot_hold_is_refused() {
        let columns = [("p_hat", DataType::Float64), ("form", DataType::Utf8), ("correct", DataType::Boolean)];
        let columns = columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec();
        let rows = Rows { parts: Vec::new(), columns, count: 0 };
        let refused = |text: &str, wanted: &str| {
            let error = Filter::parse(text, &rows).unwrap_err();
            assert_eq!(error.to_string(), format!("--where {text}: {wanted}"));
            assert_eq!(crate::exit::code(&error), crate::exit::USAGE);
        };
        refused("p_hat>abc", "`p_hat` holds numbers, and `abc` is none");
        refused("p_hat=", "`p_hat` holds numbers, and `` is none");
        refused("p_hat~0.5", "`p_hat` holds numbers; ~ looks for a part of a text");
        refused("correct=yes", "`correct` holds `true` and `false`, and `yes` is neither");
        for text in ["p_hat>=5e-1", "p_hat=null", "correct!=true", "form>abc", "form="] {
            assert!(Filter::parse(text, &rows).is_ok(), "{text}");
        }
    }

    #[test]
    fn unknown_columns_are_named() {
        let rows = Rows { parts: Vec::new(), columns: vec![("p_hat".to_owned(), DataType::Null)], count: 0 };
        assert_eq!(
            Filter::parse("phat=1", &rows).unwrap_err().to_string(),
            "there is no column `phat`; did you mean `p_hat`?"
        );
        assert!(Filter::parse("p_hat", &rows).is_err());
    }
}
