//! A pipeline file as declared: names and values, not yet checked against the stage kinds.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::base::{over_bases, text_of};
use super::matrix::{Matrices, name_of};
use super::node::{Content, Entry, Mapping, Node};
use super::selection::Labels;
use super::vars::{self, Budget, Environment, Replacer};
use super::{set, yaml};
use crate::pipeline::problem::{At, Fault, Problem, did_you_mean, without_consequences};
use crate::remote::Address;

/// A stage as the file declares it.
#[derive(Debug, Clone)]
pub struct Declared {
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
    /// The values of the configuration that came from the environment, with names in place of what came from there.
    pub named: Vec<(Vec<String>, Arc<str>)>,
}

/// A stage's place in a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The name of the stage that has the matrix.
    pub name: String,
    /// The label of each axis.
    pub labels: Labels,
}

/// A pipeline file after its bases, overrides and variables.
#[derive(Debug)]
pub struct Pipeline {
    pub file: PathBuf,
    /// `name:`.
    pub name: String,
    /// `seed:`.
    pub seed: Option<u64>,
    /// `store.remote:`, the store that is shared with others.
    pub remote: Option<Address>,
    /// The stages, in the order of the file.
    pub stages: Vec<Declared>,
    /// The file over its bases, with overrides and without variables replaced: where everything stands.
    pub document: Node,
    /// Warnings: settings that are allowed and rarely intended.
    pub warnings: Vec<Problem>,
}

impl Pipeline {
    /// Reads a pipeline file, with `sets` from the command line. What is wrong beyond repair is an error; everything
    /// else comes back as problems, so that the check can go on and find more.
    ///
    /// # Errors
    /// When the file or a base cannot be read, is too large, or is not YAML.
    pub fn load(file: &Path, sets: &[String]) -> Result<(Pipeline, Vec<Problem>), Vec<Problem>> {
        let text = text_of(file).map_err(|unreadable| {
            let text = match file == Path::new("-") && !file.exists() {
                true => "a pipeline is read from a file, not from standard input; write it into one".to_owned(),
                false => format!("cannot be read: {}", unreadable.text),
            };
            vec![Problem { at: At::File, stage: None, text, fault: unreadable.fault }]
        })?;
        Pipeline::read(file, &text, sets, &|name| std::env::var(name).ok()).map_err(|problem| vec![problem])
    }

    /// As [`Pipeline::load`], from a text.
    ///
    /// # Errors
    /// When it is not YAML, or a base cannot be read.
    pub fn read(
        file: &Path,
        text: &str,
        sets: &[String],
        environment: Environment<'_>,
    ) -> Result<(Pipeline, Vec<Problem>), Problem> {
        let mut own = yaml::read(text, None)?;
        let mut problems = std::mem::take(&mut own.duplicates);
        let mut document = over_bases(&own, file, &mut problems)?;
        let warnings = vars::unused(&own, &document);
        problems.extend(sets.iter().filter_map(|text| set::apply(&mut document, text).err()));
        let budget = Budget::default();
        let (matrices, wrong) = Matrices::read(&document, environment, &budget);
        problems.extend(wrong);
        let (replaced, wrong) = vars::replaced(&document, environment, &budget, &matrices.labels());
        problems.extend(wrong);
        let mut reader = Reader {
            document: &document,
            has_base: own.root.get("base").is_some(),
            matrices: &matrices,
            environment,
            budget: &budget,
            problems: Vec::new(),
        };
        let (name, seed, stages) = reader.top(&replaced);
        let remote = reader.remote(&replaced);
        let mut later = reader.problems;
        without_consequences(&problems, &mut later);
        problems.extend(later);
        Ok((Pipeline { file: file.to_owned(), name, seed, remote, stages, document, warnings }, problems))
    }
}

struct Reader<'a> {
    document: &'a Node,
    has_base: bool,
    matrices: &'a Matrices,
    environment: Environment<'a>,
    budget: &'a Budget,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, path: &[&str], key: bool, text: String) {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        let at = if key { self.document.of_key(&path) } else { self.document.of_value(&path) };
        let stage = (path.len() > 1 && path[0] == "stages").then(|| path[1].clone());
        self.problems.push(Problem { at, stage, text, fault: Fault::Pipeline });
    }

    fn top(&mut self, document: &Node) -> (String, Option<u64>, Vec<Declared>) {
        const KEYS: [&str; 6] = ["name", "base", "seed", "store", "vars", "stages"];
        let Some(top) = document.mapping() else {
            self.problem(&[], false, "a pipeline file is a mapping with `name`, `seed`, `vars` and `stages`".into());
            return (String::new(), None, Vec::new());
        };
        for key in top.keys().filter(|key| !KEYS.contains(key)) {
            let hint = did_you_mean(key, KEYS);
            let known = || "; known are `name`, `base`, `seed`, `store`, `vars`, `stages`".to_owned();
            let hint = if hint.is_empty() { known() } else { hint };
            self.problem(&[key], true, format!("unknown key `{key}`{hint}"));
        }
        let name = match top.get("name").map(|name| name.text().filter(|name| is_name(name))) {
            Some(Some(name)) => name.to_owned(),
            Some(None) => {
                self.problem(&["name"], false, "a pipeline's name is made of letters, digits, `-`, `_` and `.`".into());
                String::new()
            }
            None => {
                let hint = if self.has_base { ", so it is not inherited" } else { "" };
                self.problem(&[], false, format!("`name` is missing; runs are filed under it{hint}"));
                String::new()
            }
        };
        let seed = top.get("seed").filter(|seed| !seed.is_null()).and_then(|seed| self.seed(&[], seed));
        if top.get("vars").is_some_and(|vars| vars.mapping().is_none() && !vars.is_null()) {
            self.problem(&["vars"], false, "`vars` is a mapping of names to values".into());
        }
        let mut stages = Vec::new();
        match top.get("stages").map(|stages| stages.mapping().filter(|stages| !stages.is_empty())) {
            Some(Some(map)) => map.iter().for_each(|entry| stages.extend(self.stages(&entry.key, &entry.value))),
            Some(None) => self.problem(&["stages"], false, "`stages` is a mapping of names to stages".into()),
            None => self.problem(&[], false, "`stages` is missing".into()),
        }
        (name, seed, stages)
    }

    /// `store: {remote: s3://bucket/prefix}`.
    fn remote(&mut self, document: &Node) -> Option<Address> {
        let store = document.mapping()?.get("store").filter(|store| !store.is_null())?;
        let Some(map) = store.mapping() else {
            self.problem(&["store"], false, "`store` is a mapping: `store: {remote: s3://bucket/prefix}`".into());
            return None;
        };
        for key in map.keys().filter(|key| *key != "remote") {
            let hint = did_you_mean(key, ["remote"]);
            let hint = if hint.is_empty() { "; known is `remote`".to_owned() } else { hint };
            self.problem(&["store", key], true, format!("unknown key `{key}`{hint}"));
        }
        let Some(remote) = map.get("remote") else {
            self.problem(&["store"], false, "`remote` is missing: where the shared store lies".into());
            return None;
        };
        match remote.text().map(str::parse) {
            Some(Ok(address)) => Some(address),
            Some(Err(text)) => {
                self.problem(&["store", "remote"], false, format!("no address of a shared store: {text}"));
                None
            }
            None => {
                self.problem(&["store", "remote"], false, format!("`remote` is an address, got {}", remote.json()));
                None
            }
        }
    }

    /// A seed, of the pipeline or of the stage that `above` leads to. In place of a wrong one stands 0, so that nobody
    /// misses it too.
    fn seed(&mut self, above: &[&str], seed: &Node) -> Option<u64> {
        let value = seed.json();
        if value.as_u64().is_none() {
            let path = [above, &["seed"]].concat();
            self.problem(&path, false, format!("`seed` is a whole number from 0 up, got {value}"));
        }
        Some(value.as_u64().unwrap_or(0))
    }

    /// The stages that an entry of the file stands for: itself, or one for each combination of its matrix.
    fn stages(&mut self, name: &str, value: &Node) -> Vec<Declared> {
        if value.get("matrix").is_none() {
            return self.stage(name, value).into_iter().collect();
        }
        let Some(combinations) = self.matrices.combinations.get(name) else {
            // The matrix is wrong, which has been said; what reads from the stage has no second problem.
            let (name, key) = (name.to_owned(), name.to_owned());
            return vec![Declared {
                name,
                key,
                group: None,
                kind: None,
                seed: None,
                config: Value::Null,
                named: Vec::new(),
            }];
        };
        let mut stages = Vec::new();
        let mut plain = value.clone();
        if let Content::Mapping(map) = &mut plain.content {
            Rc::make_mut(map).remove("matrix");
        }
        for (labels, item) in combinations.clone() {
            let mut value = plain.clone();
            let mut path = vec!["stages".to_owned(), name.to_owned()];
            let mut wrong = Vec::new();
            let mut replacer = Replacer::new(self.document.get("vars"), self.environment, self.budget);
            replacer.item = Some(&item);
            replacer.walk(&mut value, &mut path, &mut |path, text| wrong.push((self.document.of_value(path), text)));
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

    /// The hint on a stage without `kind` that overrides no stage of a base.
    fn unknown_to_bases(&self, name: &str) -> String {
        let stages = self.document.get("stages").and_then(Node::mapping);
        let complete = stages.into_iter().flat_map(Mapping::iter).filter(|entry| entry.value.get("kind").is_some());
        let near = did_you_mean(name, complete.map(|entry| entry.key.as_str()));
        if self.has_base { format!("; no base has a stage `{name}`{near}") } else { String::new() }
    }

    fn stage(&mut self, name: &str, value: &Node) -> Option<Declared> {
        // A run's resolved file has the stages of a matrix by their names: `policy@gdpo-0.3`.
        let (plain, rest) = name.split_once('@').unwrap_or((name, ""));
        if !is_name(plain)
            || plain.contains('.')
            || rest.contains('/')
            || name.bytes().all(|byte| byte.is_ascii_digit())
        {
            let text = format!("`{name}` cannot be a stage's name: letters, digits, `-` and `_`, not digits alone");
            self.problem(&["stages", name], true, text);
        } else if ["vars", "seed", "store", "name"].contains(&name) {
            self.problem(
                &["stages", name],
                true,
                format!("`{name}` cannot be a stage's name: `--set {name}` would be two things"),
            );
        }
        let Some(map) = value.mapping() else {
            let hint = self.unknown_to_bases(name);
            self.problem(&["stages", name], true, format!("a stage is a mapping that begins with `kind`{hint}"));
            return None;
        };
        let kind = match map.get("kind").map(|kind| kind.text().ok_or(kind)) {
            Some(Ok(kind)) => Some(kind.to_owned()),
            Some(Err(other)) => {
                self.problem(&["stages", name, "kind"], false, format!("`kind` is a word, got {}", other.json()));
                None
            }
            None => {
                let hint = self.unknown_to_bases(name);
                self.problem(&["stages", name], true, format!("`kind` is missing{hint}"));
                None
            }
        };
        let seed = map.get("seed").and_then(|seed| self.seed(&["stages", name], seed));
        let config = map.iter().filter(|entry| !["kind", "seed"].contains(&entry.key.as_str()));
        let config = config.map(|Entry { key, value, .. }| (key.clone(), value.json())).collect();
        let (name, key) = (name.to_owned(), name.to_owned());
        Some(Declared { name, key, group: None, kind, seed, config: Value::Object(config), named: value.named() })
    }
}

/// True where a text can be a folder's name on every system.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}
