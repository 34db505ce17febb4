//! The files of a configuration: one, or a list; patterns stand for several.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Paths as the pipeline file has them, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Files(pub Vec<String>);

impl Files {
    /// A file that fits a pattern and whose name cannot be written in a pipeline file, as far as it can be shown.
    pub(crate) fn unreadable(&self) -> Option<String> {
        let names = self.0.iter().filter_map(|path| names_fitting(path)).flatten();
        names.filter(|name| name.to_str().is_none()).map(|name| name.to_string_lossy().into_owned()).min()
    }

    /// The paths with those that fit in place of a pattern, in the order of their names; each once. A pattern that
    /// nothing fits stays as it is.
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = Vec::new();
        for path in &self.0 {
            let fitting = fitting(path).unwrap_or_else(|| vec![path.clone()]);
            fitting.into_iter().for_each(|path| {
                if !paths.contains(&path) {
                    paths.push(path);
                }
            });
        }
        paths
    }
}

/// The paths that fit a pattern, sorted; nothing where it is none, or where none does.
fn fitting(pattern: &str) -> Option<Vec<String>> {
    // Names that are not UTF-8 are no paths, and refused elsewhere.
    let names = names_fitting(pattern).filter(|names| !names.is_empty())?;
    let folder = pattern.rsplit_once('/').map(|(folder, _)| folder);
    let path = |name: String| match folder {
        Some(folder) => format!("{folder}/{name}"),
        None => name,
    };
    let mut paths: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).map(path).collect();
    paths.sort();
    Some(paths)
}

/// The names of the files that fit a pattern; nothing where it is none.
fn names_fitting(pattern: &str) -> Option<Vec<OsString>> {
    let (folder, last) = pattern.rsplit_once('/').map_or(("", pattern), |(folder, last)| (folder, last));
    if !last.contains(['*', '?']) || Path::new(pattern).exists() {
        return None;
    }
    let place = match (folder, pattern.starts_with('/')) {
        ("", true) => "/",
        ("", false) => ".",
        (folder, _) => folder,
    };
    let last: Vec<char> = last.chars().collect();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(place).ok()? {
        let name = entry.ok()?.file_name();
        let shown = name.to_string_lossy();
        if !shown.starts_with('.') && fits(&last, &shown.chars().collect::<Vec<_>>()) {
            names.push(name);
        }
    }
    Some(names)
}

/// True where a name fits a pattern.
fn fits(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=name.len()).any(|taken| fits(rest, &name[taken..])),
        (['?', pattern @ ..], [_, name @ ..]) => fits(pattern, name),
        ([wanted, pattern @ ..], [letter, name @ ..]) => wanted == letter && fits(pattern, name),
        _ => false,
    }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Files, D::Error> {
        struct Paths;

        impl<'de> Visitor<'de> for Paths {
            type Value = Files;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a path or a list of paths")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<Files, E> {
                Ok(Files(vec![path.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut paths: A) -> Result<Files, A::Error> {
                let mut list: Vec<String> = Vec::new();
                while let Some(path) = paths.next_element()? {
                    if list.contains(&path) {
                        return Err(A::Error::custom(format!("`{path}` stands twice in the list")));
                    }
                    list.push(path);
                }
                if list.is_empty() { Err(A::Error::custom("an empty list names no file")) } else { Ok(Files(list)) }
            }
        }

        deserializer.deserialize_any(Paths)
    }
}

impl JsonSchema for Files {
    fn schema_name() -> Cow<'static, str> {
        "Files".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a path or a list of paths",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, name: &str, wanted: bool) {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(fits(&letters(pattern), &letters(name)), wanted, "{pattern} {name}");
    }

    #[test]
    fn stars_and_question_marks_stand_for_letters() {
        check("*.jsonl", "a.jsonl", true);
        check("*.jsonl", ".jsonl", true);
        check("*.jsonl", "a.jsonl.gz", false);
        check("part-??.csv", "part-07.csv", true);
        check("part-??.csv", "part-7.csv", false);
        check("a*b*c", "a--b-bc", true);
        check("a*b*c", "a--b-b", false);
        check("*", "ä", true);
    }

    #[test]
    fn patterns_give_sorted_paths_each_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.jsonl", "a.jsonl", "c.csv", ".hidden.jsonl", "odd*.jsonl"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let path = |name: &str| folder.path().join(name).display().to_string();
        let paths = |given: &[&str]| Files(given.iter().map(|name| path(name)).collect()).paths();
        assert_eq!(paths(&["b.jsonl", "?.jsonl"]), [path("b.jsonl"), path("a.jsonl")]);
        assert_eq!(paths(&["*.csv", "*.tsv"]), [path("c.csv"), path("*.tsv")]);
        assert_eq!(paths(&["odd*.jsonl"]), [path("odd*.jsonl")]);
        assert_eq!(Files(vec!["Cargo.*".to_owned()]).paths(), ["Cargo.toml"]);
    }

    #[test]
    fn names_that_are_not_utf_8_are_named_and_never_skipped() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        for name in [&b"a.jsonl"[..], b"b\xff.jsonl", b"c\xff.csv"] {
            std::fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
        }
        let files = |name: &str| Files(vec![folder.path().join(name).display().to_string()]);
        assert_eq!(files("*.jsonl").unreadable().unwrap(), "b\u{fffd}.jsonl");
        assert_eq!((files("a.*").unreadable(), files("*.tsv").unreadable()), (None, None));
        // It is not said to be missing as well.
        assert_eq!(files("c*").paths(), [""; 0]);
    }
}
