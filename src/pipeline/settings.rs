//! A YAML file of settings beside pipeline files, read as strictly: all findings at once, each at its place.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::base::text_of;
use super::conform::mismatches;
use super::node::Node;
use super::yaml;
use crate::pipeline::problem::{At, Fault, Problem, once};

/// Settings with the places of their values.
pub struct Settings<T> {
    /// The settings.
    pub value: T,
    places: Node,
}

impl<T: DeserializeOwned> Settings<T> {
    /// Reads a file whose values fit a JSON Schema.
    ///
    /// # Errors
    /// All problems, sorted by place.
    pub fn load(file: &Path, schema: &Value) -> Result<Settings<T>, Vec<Problem>> {
        let text = text_of(file).map_err(|unreadable| {
            let text = format!("cannot be read: {}", unreadable.text);
            vec![Problem { at: At::File, stage: None, text, fault: unreadable.fault }]
        })?;
        Settings::read(&text, schema)
    }

    /// As [`Settings::load`], from a text.
    ///
    /// # Errors
    /// All problems, sorted by place.
    pub fn read(text: &str, schema: &Value) -> Result<Settings<T>, Vec<Problem>> {
        let document = yaml::read(text, None).map_err(|problem| vec![problem])?;
        let mut problems = document.duplicates;
        let places = document.root;
        let mut json = places.json();
        for mismatch in mismatches(schema, &mut json) {
            let at = match mismatch.unknown_key {
                true => places.of_key(&mismatch.path),
                false => places.of_value(&mismatch.path),
            };
            problems.push(Problem { at, stage: None, text: mismatch.text, fault: Fault::Pipeline });
        }
        match serde_path_to_error::deserialize::<_, T>(json) {
            Ok(value) if problems.is_empty() => Ok(Settings { value, places }),
            Err(error) if problems.is_empty() => {
                let path: Vec<String> = error.path().iter().map(ToString::to_string).collect();
                let (at, text) = (places.of_value(&path), error.inner().to_string());
                Err(vec![Problem { at, stage: None, text, fault: Fault::Pipeline }])
            }
            _ => Err(once(problems)),
        }
    }

    /// A problem with the key that a path leads to.
    pub fn at_key(&self, path: &[&str], text: impl Into<String>) -> Problem {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        Problem { at: self.places.of_key(&path), stage: None, text: text.into(), fault: Fault::Pipeline }
    }
}
