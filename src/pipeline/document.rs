//! A pipeline file as declared: names and values, not yet checked against the stage kinds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::matrix::{Labels, Matrices, name_of};
use super::spans::Spans;
use super::vars::{self, Budget, Environment, Replacer};
use super::{set, yaml};
use crate::pipeline::problem::{At, Fault, Problem, did_you_mean, without_consequences};

/// A stage as the file declares it.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its name in the file, which is another for a stage of a matrix.
    pub key: String,
    /// The matrix it is one combination of.
    pub group: Option<Group>,
    /// The word after `kind:`, where there is one.
    pub kind: Option<String>,
    /// `seed:`, in place of the pipeline's.
    pub seed: Option<u64>,
    /// Its configuration without `kind`, `seed` and `matrix`.
    pub config: Value,
}

/// A stage's place in a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The name of the stage that has the matrix.
    pub name: String,
    /// The label of each axis.
    pub labels: Labels,
}

/// A pipeline file after overrides and variables.
#[derive(Debug)]
pub struct Pipeline {
    /// The file.
    pub file: PathBuf,
    /// `name:`.
    pub name: String,
    /// `seed:`.
    pub seed: Option<u64>,
    /// The stages, in the order of the file.
    pub stages: Vec<Declared>,
    /// Where everything stands.
    pub spans: Spans,
    /// What is not wrong and hardly meant.
    pub warnings: Vec<Problem>,
}

impl Pipeline {
    /// Reads a pipeline file, with `sets` from the command line. What is wrong beyond repair is an error; everything
    /// else comes back as problems, so that the check can go on and find more.
    ///
    /// # Errors
    /// When the file cannot be read, is too large, or is not YAML.
    pub fn load(file: &Path, sets: &[String]) -> Result<(Pipeline, Vec<Problem>), Vec<Problem>> {
        let refused = |text: String, fault: Fault| {
            vec![Problem { at: At::File, stage: None, text: format!("cannot be read: {text}"), fault }]
        };
        let unreadable = |text: String| refused(text, Fault::Pipeline);
        let by_system = |error: std::io::Error| refused(error.to_string(), Fault::of_system(&error));
        let size = file.metadata().map_err(by_system)?.len();
        if size > yaml::MAX_BYTES {
            return Err(unreadable(format!("{size} bytes; a pipeline file has at most {}", yaml::MAX_BYTES)));
        }
        let bytes = std::fs::read(file).map_err(by_system)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line =
                error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            unreadable(format!("not UTF-8 in line {}", line + 1))
        })?;
        Pipeline::read(file, &text, sets, &|name| std::env::var(name).ok()).map_err(|problem| vec![problem])
    }

    /// As [`Pipeline::load`], from a text.
    ///
    /// # Errors
    /// When it is not YAML.
    pub fn read(
        file: &Path,
        text: &str,
        sets: &[String],
        environment: Environment<'_>,
    ) -> Result<(Pipeline, Vec<Problem>), Problem> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (mut document, mut spans) = yaml::read(text)?;
        let warnings = vars::unused(&document, &spans);
        let mut problems = std::mem::take(&mut spans.duplicates);
        problems.extend(sets.iter().filter_map(|text| set::apply(&mut document, &mut spans, text).err()));
        // JSON objects do not keep the order of the file.
        let ordered = yaml::parse(text).unwrap_or_default();
        let budget = Budget::default();
        let (matrices, wrong) = Matrices::read(&document, &ordered, &spans, environment, &budget);
        problems.extend(wrong);
        let vars = document.get("vars").cloned().unwrap_or(Value::Null);
        problems.extend(vars::replace(&mut document, &spans, environment, &budget, &matrices.labels()));
        let mut reader = Reader {
            spans: &spans,
            vars: &vars,
            matrices: &matrices,
            environment,
            budget: &budget,
            problems: Vec::new(),
        };
        let order = stage_order(&ordered);
        let (name, seed, stages) = reader.top(&document, &order);
        let mut later = reader.problems;
        without_consequences(&problems, &mut later);
        problems.extend(later);
        Ok((Pipeline { file: file.to_owned(), name, seed, stages, spans, warnings }, problems))
    }
}

/// The place of each stage in the file.
fn stage_order(document: &serde_yaml::Value) -> HashMap<&str, usize> {
    let stages = document.get("stages").and_then(serde_yaml::Value::as_mapping);
    stages.into_iter().flat_map(|stages| stages.keys()).filter_map(|key| key.as_str()).zip(0..).collect()
}

struct Reader<'a> {
    spans: &'a Spans,
    vars: &'a Value,
    matrices: &'a Matrices,
    environment: Environment<'a>,
    budget: &'a Budget,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, path: &[&str], key: bool, text: String) {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        let at = if key { self.spans.of_key(&path) } else { self.spans.of_value(&path) };
        let stage = (path.len() > 1).then(|| path[1].clone());
        self.problems.push(Problem { at, stage, text, fault: Fault::Pipeline });
    }

    fn top(&mut self, document: &Value, order: &HashMap<&str, usize>) -> (String, Option<u64>, Vec<Declared>) {
        const KEYS: [&str; 4] = ["name", "seed", "stages", "vars"];
        let Value::Object(top) = document else {
            self.problem(&[], false, "a pipeline file is a mapping with `name`, `seed`, `vars` and `stages`".into());
            return (String::new(), None, Vec::new());
        };
        for key in top.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            let hint = did_you_mean(key, KEYS);
            let hint = if hint.is_empty() { "; known are `name`, `seed`, `vars`, `stages`".to_owned() } else { hint };
            self.problem(&[key], true, format!("unknown key `{key}`{hint}"));
        }
        let name = match top.get("name") {
            Some(Value::String(name)) if is_name(name) => name.clone(),
            Some(_) => {
                self.problem(&["name"], false, "a pipeline's name is made of letters, digits, `-`, `_` and `.`".into());
                String::new()
            }
            None => {
                self.problem(&[], false, "`name` is missing; runs are filed under it".into());
                String::new()
            }
        };
        let seed = match top.get("seed") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let seed = value.as_u64();
                if seed.is_none() {
                    self.problem(&["seed"], false, format!("`seed` is a whole number from 0 up, got {value}"));
                }
                seed
            }
        };
        if !matches!(top.get("vars"), None | Some(Value::Object(_) | Value::Null)) {
            self.problem(&["vars"], false, "`vars` is a mapping of names to values".into());
        }
        let mut stages = Vec::new();
        match top.get("stages") {
            Some(Value::Object(map)) if !map.is_empty() => {
                let mut names: Vec<&String> = map.keys().collect();
                names.sort_by_key(|name| order.get(name.as_str()).copied().unwrap_or(usize::MAX));
                names.into_iter().for_each(|name| stages.extend(self.stages(name, &map[name])));
            }
            Some(_) => self.problem(&["stages"], false, "`stages` is a mapping of names to stages".into()),
            None => self.problem(&[], false, "`stages` is missing".into()),
        }
        (name, seed, stages)
    }

    /// The stages that an entry of the file stands for: itself, or one for each combination of its matrix.
    fn stages(&mut self, name: &str, value: &Value) -> Vec<Declared> {
        if value.get("matrix").is_none() {
            return self.stage(name, value).into_iter().collect();
        }
        let Some(combinations) = self.matrices.combinations.get(name) else {
            // The matrix is wrong, which has been said; what reads from the stage has no second problem.
            let (name, key) = (name.to_owned(), name.to_owned());
            return vec![Declared { name, key, group: None, kind: None, seed: None, config: Value::Null }];
        };
        let mut stages = Vec::new();
        let mut plain = value.clone();
        plain.as_object_mut().expect("it has a matrix").remove("matrix");
        for (labels, item) in combinations.clone() {
            let mut value = plain.clone();
            let mut path = vec!["stages".to_owned(), name.to_owned()];
            let mut wrong = Vec::new();
            let mut replacer = Replacer::new(self.vars, self.environment, self.budget);
            replacer.item = Some(&item);
            replacer.walk(&mut value, &mut path, &mut |path, text| wrong.push((self.spans.of_value(path), text)));
            let problem = |(at, text)| Problem { at, stage: Some(name.to_owned()), text, fault: Fault::Pipeline };
            self.problems.extend(wrong.into_iter().map(problem));
            let stage = self.stage(name, &value);
            stages.extend(stage.map(|stage| Declared {
                name: name_of(name, &labels),
                group: Some(Group { name: name.to_owned(), labels }),
                ..stage
            }));
        }
        stages
    }

    fn stage(&mut self, name: &str, value: &Value) -> Option<Declared> {
        // A run's resolved file has the stages of a matrix by their names: `policy@gdpo-0.3`.
        let (plain, rest) = name.split_once('@').unwrap_or((name, ""));
        if !is_name(plain)
            || plain.contains('.')
            || rest.contains('/')
            || name.bytes().all(|byte| byte.is_ascii_digit())
        {
            let text = format!("`{name}` cannot be a stage's name: letters, digits, `-` and `_`, not digits alone");
            self.problem(&["stages", name], true, text);
        } else if ["vars", "seed", "name"].contains(&name) {
            self.problem(
                &["stages", name],
                true,
                format!("`{name}` cannot be a stage's name: `--set {name}` would be two things"),
            );
        }
        let Value::Object(map) = value else {
            self.problem(&["stages", name], true, "a stage is a mapping that begins with `kind`".into());
            return None;
        };
        let mut config = map.clone();
        let kind = match config.remove("kind") {
            Some(Value::String(kind)) => Some(kind),
            Some(other) => {
                self.problem(&["stages", name, "kind"], false, format!("`kind` is a word, got {other}"));
                None
            }
            None => {
                self.problem(&["stages", name], true, "`kind` is missing".into());
                None
            }
        };
        let seed = config.remove("seed").and_then(|seed| {
            if seed.as_u64().is_none() {
                self.problem(
                    &["stages", name, "seed"],
                    false,
                    format!("`seed` is a whole number from 0 up, got {seed}"),
                );
            }
            seed.as_u64()
        });
        let (name, key) = (name.to_owned(), name.to_owned());
        Some(Declared { name, key, group: None, kind, seed, config: Value::Object(config) })
    }
}

/// Whether a text can be a folder's name everywhere.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}
