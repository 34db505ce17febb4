//! The check before the run: declared stages become configured ones, references become edges, and all that is wrong
//! is found at once. Nothing is loaded; of tables outside the store only the schema is read.

mod order;
mod references;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use kit::{Finding, Kind, OutputPort, Stage};
use serde_json::Value;

use crate::pipeline::conform::{mismatches, unknown_word};
use crate::pipeline::graph::{Edge, Graph, Node};
use crate::pipeline::groups::{Groups, input_keys};
use crate::pipeline::paths;
use crate::pipeline::problem::{At, Fault, Problem, did_you_mean, once, without_consequences};
use crate::pipeline::{Declared, Pipeline};

/// Reads and checks a pipeline file.
///
/// # Errors
/// All problems, sorted by place.
pub fn check_file(file: &Path, sets: &[String], kinds: &'static [Kind]) -> Result<Graph, Vec<Problem>> {
    let (pipeline, problems) = Pipeline::load(file, sets)?;
    check(&pipeline, problems, kinds)
}

/// Checks a pipeline. `problems` are those found while reading it.
///
/// # Errors
/// All problems, sorted by place.
pub fn check(pipeline: &Pipeline, problems: Vec<Problem>, kinds: &'static [Kind]) -> Result<Graph, Vec<Problem>> {
    let (stages, schemas, wrong) = (pipeline.stages.clone(), BTreeMap::new(), BTreeMap::new());
    let mut by_name = HashMap::new();
    for (stage, declared) in pipeline.stages.iter().enumerate() {
        by_name.entry(declared.name.as_str()).or_insert(stage);
    }
    let matrices = pipeline.stages.iter().filter_map(|declared| Some(declared.group.as_ref()?.name.as_str())).collect();
    let compared = Cell::new(0);
    let near = RefCell::new(HashMap::new());
    let mut checker =
        Checker { pipeline, stages, by_name, matrices, compared, near, schemas, wrong, problems: Vec::new() };
    let groups = Groups::of(&pipeline.stages);
    let configured: Vec<Option<Configured>> =
        (0..pipeline.stages.len()).map(|stage| checker.configure(stage, &groups, kinds)).collect();
    let edges: Vec<Vec<Edge>> = (0..configured.len()).map(|stage| checker.edges(stage, &configured)).collect();
    checker.idle_seeds(&configured);
    let order = checker.order(&edges);
    let mut found = std::mem::take(&mut checker.problems);
    without_consequences(&problems, &mut found);
    found.extend(problems);
    if !found.is_empty() {
        return Err(once(found));
    }
    let remarks = checker.remarks(&configured);
    let nodes = configured.into_iter().flatten().zip(edges).zip(&pipeline.stages);
    let nodes = nodes.map(|((configured, inputs), declared)| Node {
        name: declared.name.clone(),
        kind: configured.kind,
        outputs: configured.outputs,
        stage: configured.stage,
        settings: configured.settings,
        named: configured.named,
        seed: declared.seed.or(pipeline.seed),
        group: declared.group.clone(),
        inputs,
    });
    Ok(Graph {
        file: pipeline.file.clone(),
        name: pipeline.name.clone(),
        seed: pipeline.seed,
        remote: pipeline.remote.clone(),
        nodes: nodes.collect(),
        order,
        warnings: pipeline.warnings.clone(),
        remarks,
    })
}

struct Configured {
    kind: &'static str,
    stage: Box<dyn Stage>,
    settings: Value,
    named: Vec<(Vec<String>, Arc<str>)>,
    outputs: Vec<OutputPort>,
}

struct Checker<'a> {
    pipeline: &'a Pipeline,
    /// The stages, with references to stages that have a matrix replaced by references to one or all of theirs.
    stages: Vec<Declared>,
    /// The number of each stage.
    by_name: HashMap<&'a str, usize>,
    /// The names of the stages that have a matrix.
    matrices: HashSet<&'a str>,
    /// Comparisons of names so far.
    compared: Cell<usize>,
    /// Suggestions for wrong names: thousands of stages may read from the same one.
    near: RefCell<HashMap<String, String>>,
    /// The schema of each kind's configuration.
    schemas: BTreeMap<&'static str, Rc<Value>>,
    /// Of each stage whose configuration cannot be read, the paths of the values that are wrong.
    wrong: BTreeMap<usize, Vec<Vec<String>>>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn path(stage: &str, below: &[String]) -> Vec<String> {
        ["stages", stage].into_iter().map(str::to_owned).chain(below.iter().cloned()).collect()
    }

    fn report(&mut self, at: At, stage: &str, text: impl Into<String>) {
        let (stage, text) = (Some(stage.to_owned()), text.into());
        self.problems.push(Problem { at, stage, text, fault: Fault::Pipeline });
    }

    /// Reports something about a value of a stage, by the stage's key in the file.
    fn report_value(&mut self, stage: &str, below: &[String], text: impl Into<String>) {
        let at = self.pipeline.document.of_value(&Checker::path(stage, below));
        self.report(at, stage, text);
    }

    fn configure(&mut self, stage: usize, groups: &Groups, kinds: &'static [Kind]) -> Option<Configured> {
        let declared = self.stages[stage].clone();
        let name = &declared.key;
        let word = declared.kind.as_deref()?;
        let Some(kind) = kinds.iter().find(|kind| kind.name == word) else {
            let near = did_you_mean(word, kinds.iter().map(|kind| kind.name));
            let known: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
            let near = if near.is_empty() { format!("; known are {}", known.join(", ")) } else { near };
            self.report_value(name, &["kind".to_owned()], format!("unknown kind `{word}`{near}"));
            return None;
        };
        let schema = self.schemas.entry(kind.name).or_insert_with(|| Rc::new((kind.schema)().to_value())).clone();
        let mut config = declared.config.clone();
        for key in input_keys(&schema) {
            let Some(value) = config.get_mut(&key) else { continue };
            for (index, text) in groups.resolve(value, &declared) {
                self.report_value(name, &[key.clone(), index.to_string()], text);
            }
        }
        let mismatches = mismatches(&schema, &mut config);
        self.stages[stage].config = config.clone();
        let mut wrong = Vec::new();
        for mismatch in mismatches {
            let path = Checker::path(name, &mismatch.path);
            let document = &self.pipeline.document;
            let at = if mismatch.unknown_key { document.of_key(&path) } else { document.of_value(&path) };
            self.report(at, name, mismatch.text);
            // Without its unknown keys a configuration can be read.
            wrong.extend((!mismatch.unknown_key).then_some(mismatch.path));
        }
        match (kind.configure)(config) {
            Ok((stage, settings)) => {
                let found = self.found_in(&declared, &*stage);
                self.report_found(name, found);
                let named = sent(&declared, &*stage);
                Some(Configured { kind: kind.name, outputs: stage.outputs(), stage, settings, named })
            }
            Err(finding) => {
                // Where the schema has said it already, it was better placed.
                if wrong.is_empty() {
                    self.report_unread(&declared, &finding);
                    wrong.push(finding.path);
                }
                self.wrong.insert(stage, wrong);
                None
            }
        }
    }

    /// Reports why a configuration cannot be read. Where a word is none of those that can stand there, the nearest comes
    /// first, placed at the key where it is one.
    fn report_unread(&mut self, declared: &Declared, finding: &Finding) {
        let Some((word, text)) = word_among_others(&finding.text) else {
            return self.report_value(&declared.key, &finding.path, finding.text.as_str());
        };
        let mut path = Checker::path(&declared.key, &finding.path);
        let document = &self.pipeline.document;
        let holds_key =
            declared.config.pointer(&pointer(&finding.path)).is_some_and(|value| value.get(&word).is_some());
        let at = match holds_key {
            true => {
                path.push(word);
                document.of_key(&path)
            }
            false => document.of_value(&path),
        };
        self.report(at, &declared.key, text);
    }

    /// Remarks of the stages on their settings on this machine.
    fn remarks(&self, configured: &[Option<Configured>]) -> Vec<Problem> {
        let mut remarks = Vec::new();
        for (declared, configured) in self.pipeline.stages.iter().zip(configured) {
            for finding in configured.iter().flat_map(|configured| configured.stage.remarks()) {
                let at = self.pipeline.document.of_value(&Checker::path(&declared.key, &finding.path));
                let stage = Some(declared.key.clone());
                remarks.push(Problem { at, stage, text: finding.text, fault: Fault::Pipeline });
            }
        }
        remarks
    }

    fn report_found(&mut self, stage: &str, found: Vec<Finding>) {
        for finding in found {
            self.report_value(stage, &finding.path, finding.text);
            let problem = self.problems.last_mut().expect("one was just reported");
            problem.fault = match (finding.in_system, finding.in_data) {
                (true, _) => Fault::System,
                (_, true) => Fault::Data,
                _ => Fault::Pipeline,
            };
        }
    }

    /// Findings about a stage, checked alone.
    fn found_in(&self, declared: &Declared, stage: &dyn Stage) -> Vec<Finding> {
        let mut found = stage.findings(&declared.config);
        let word = declared.kind.as_deref().unwrap_or_default();
        // Files that the configuration names have to be there.
        for file in stage.files().into_iter().filter(|file| !file.exists()) {
            let path = path_of_text(&declared.config, &file.to_string_lossy());
            let text = paths::absent(&file, &self.pipeline.file);
            found.push(Finding { path: path.unwrap_or_default(), ..Finding::at("", text) });
        }
        // Of a matrix some stages may draw and others not.
        if declared.seed.is_some() && declared.group.is_none() && !stage.draws() {
            found.push(Finding::at(
                "seed",
                format!("without effect: `{word}` draws nothing at random with these values"),
            ));
        }
        if stage.draws() && self.pipeline.seed.or(declared.seed).is_none() {
            let text = format!("`{word}` draws at random and the pipeline has no `seed`; add `seed: 17` at the top");
            found.push(Finding::at("kind", text));
        }
        found
    }

    /// A `seed` in a matrix of which no stage draws has no effect.
    fn idle_seeds(&mut self, configured: &[Option<Configured>]) {
        let mut draws: BTreeMap<String, bool> = BTreeMap::new();
        for (declared, configured) in self.stages.iter().zip(configured) {
            if let (Some(group), Some(_)) = (&declared.group, declared.seed) {
                let yes = configured.as_ref().is_none_or(|configured| configured.stage.draws());
                *draws.entry(group.name.clone()).or_default() |= yes;
            }
        }
        for (name, _) in draws.into_iter().filter(|(_, draws)| !draws) {
            let text = "without effect: no stage of the matrix draws anything at random".to_owned();
            self.report_value(&name, &["seed".to_owned()], text);
        }
    }
}

fn pointer(path: &[String]) -> String {
    path.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect()
}

/// The word that serde did not find among those that it expected, and what is said of it.
fn word_among_others(text: &str) -> Option<(String, String)> {
    let (word, words) = text.strip_prefix("unknown variant `")?.split_once("`, expected ")?;
    let words: Vec<&str> = words.split('`').skip(1).step_by(2).collect();
    Some((word.to_owned(), unknown_word(word, &words)))
}

/// The values of a stage that go to a server and came from the environment, however short they are. What the server
/// repeats of them is shown by name too.
fn sent(declared: &Declared, stage: &dyn Stage) -> Vec<(Vec<String>, Arc<str>)> {
    let keys: Vec<Vec<&str>> = stage.sent_keys().iter().map(|key| key.split('.').collect()).collect();
    let is_sent = |path: &[String]| keys.iter().any(|key| path.len() >= key.len() && key.iter().eq(&path[..key.len()]));
    let sent: Vec<_> = declared.named.iter().filter(|(path, _)| is_sent(path)).cloned().collect();
    for (path, text) in &sent {
        let value = path.iter().try_fold(&declared.config, |value, key| match value {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            other => other.get(key),
        });
        match value {
            Some(Value::String(value)) => kit::keep_secret(value, text),
            Some(Value::Number(value)) => kit::keep_secret(&value.to_string(), text),
            _ => {}
        }
    }
    sent
}

/// The keys that lead to a text within a value.
fn path_of_text(value: &Value, wanted: &str) -> Option<Vec<String>> {
    let below = |key: String, value: &Value| {
        path_of_text(value, wanted).map(|path| std::iter::once(key).chain(path).collect::<Vec<_>>())
    };
    match value {
        Value::String(text) => (text == wanted).then(Vec::new),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| below(index.to_string(), item)),
        Value::Object(map) => map.iter().find_map(|(key, item)| below(key.clone(), item)),
        _ => None,
    }
}
