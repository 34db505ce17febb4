//! Typed reading of the keys of a `config.json`.

use crate::{Error, Result};
use serde_json::{Map, Value};

/// The keys of an object; null counts as absent, as in transformers.
pub(crate) struct Keys<'a>(pub &'a Map<String, Value>);

impl Keys<'_> {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// True where a key is there, be it null.
    pub fn names(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub fn wrong(key: &str, got: &Value, wanted: &str) -> Error {
        Error::input(format!("`{key}` is {got}; wanted {wanted}"))
    }

    pub fn size(&self, key: &str, default: Option<usize>) -> Result<usize> {
        match self.get(key) {
            Some(value) => {
                value.as_u64().map(|n| n as usize).ok_or_else(|| Self::wrong(key, value, "a whole number from 0 on"))
            }
            None => default.ok_or_else(|| Error::input(format!("`{key}` is missing"))),
        }
    }

    pub fn number(&self, key: &str, default: Option<f64>) -> Result<f64> {
        match self.get(key) {
            Some(value) => value.as_f64().ok_or_else(|| Self::wrong(key, value, "a number")),
            None => default.ok_or_else(|| Error::input(format!("`{key}` is missing"))),
        }
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key)
            .map_or(Ok(default), |value| value.as_bool().ok_or_else(|| Self::wrong(key, value, "true or false")))
    }

    /// One token id or a list of them; a negative id means none.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let one = |value: &Value| match value.as_i64() {
            Some(id) if id < 0 => Ok(None),
            Some(id) => u32::try_from(id).map(Some).map_err(|_| Self::wrong(key, value, "a token id")),
            None => Err(Self::wrong(key, value, "a token id or a list of them")),
        };
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(ids)) => {
                Ok(ids.iter().map(one).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
            }
            Some(id) => Ok(one(id)?.into_iter().collect()),
        }
    }
}
