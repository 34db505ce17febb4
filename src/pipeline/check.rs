//! The check before the run: declared stages become configured ones, references become edges, and all that is wrong
//! is found at once. Nothing is loaded; of tables outside the store only the schema is read.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use kit::{Finding, InputPort, Kind, OutputPort, Stage, Table};
use serde_json::Value;

use crate::hub::{self, Cache, ModelName};
use crate::pipeline::conform::{mismatches, unknown_word};
use crate::pipeline::graph::{Edge, Graph, Node, Origin};
use crate::pipeline::groups::{Groups, input_keys, parts_of};
use crate::pipeline::paths;
use crate::pipeline::problem::{At, Fault, Problem, did_you_mean, once, without_consequences};
use crate::pipeline::tables::lacking;
use crate::pipeline::{Declared, Pipeline};

/// Most comparisons of names in the search for the nearest ones.
const MOST_COMPARED: usize = 100_000;

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

/// A reference to a stage, taken apart.
struct Reference<'t> {
    stage: usize,
    name: &'t str,
    port: Option<&'t str>,
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
        let mut found = stage.check();
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

    fn edges(&mut self, stage: usize, configured: &[Option<Configured>]) -> Vec<Edge> {
        let Some(reader) = &configured[stage] else {
            if let Some(wrong) = self.wrong.remove(&stage) {
                self.plain_references(stage, &wrong, configured);
            }
            return Vec::new();
        };
        reader.stage.inputs().into_iter().map(|input| self.edge(stage, input, configured)).collect()
    }

    /// Of a stage that cannot be read: whether the stages, ports and paths that its inputs name are there, but for
    /// those that were found wrong before.
    fn plain_references(&mut self, stage: usize, wrong: &[Vec<String>], configured: &[Option<Configured>]) {
        let declared = self.stages[stage].clone();
        let schema = declared.kind.as_deref().and_then(|kind| self.schemas.get(kind)).cloned().unwrap_or_default();
        let is_wrong = |path: &[String]| {
            let known = wrong.iter().filter(|known| !known.is_empty());
            known.into_iter().any(|known| path.starts_with(known) || known.starts_with(path))
        };
        for key in input_keys(&schema) {
            let texts = match declared.config.get(&key) {
                Some(Value::String(text)) => vec![(vec![key.clone()], text.clone())],
                Some(Value::Array(items)) => {
                    let text = |(index, item): (usize, &Value)| {
                        Some((vec![key.clone(), index.to_string()], item.as_str()?.to_owned()))
                    };
                    items.iter().enumerate().filter_map(text).collect()
                }
                _ => Vec::new(),
            };
            for (path, text) in texts.into_iter().filter(|(path, _)| !is_wrong(path)) {
                let wrong = if !names_path(&text) {
                    self.named_port(&text, configured).err()
                } else if Path::new(&text).exists() || self.is_model_name(&text) {
                    None
                } else {
                    Some(paths::absent(Path::new(&text), &self.pipeline.file))
                };
                wrong.into_iter().for_each(|wrong| self.report_value(&declared.key, &path, wrong));
            }
        }
    }

    /// Checks that a reference names a stage, and one of its ports where it names one.
    fn named_port(&self, text: &str, configured: &[Option<Configured>]) -> Result<(), String> {
        match self.writer(text)? {
            Some(Reference { stage, name, port: Some(port) }) => match &configured[stage] {
                Some(writer) => output_named(name, port, &writer.outputs).map(drop),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn edge(&mut self, stage: usize, input: InputPort, configured: &[Option<Configured>]) -> Edge {
        let declared = self.stages[stage].clone();
        let key: Vec<String> = input.key.split('.').map(str::to_owned).collect();
        let is_list = declared.config.pointer(&format!("/{}", key.join("/"))).is_some_and(Value::is_array);
        let mut accepts = input.accepts.clone();
        let mut sources: Vec<Origin> = Vec::new();
        for (index, text) in input.from.0.iter().enumerate() {
            let below: Vec<String> = key.iter().cloned().chain(is_list.then(|| index.to_string())).collect();
            let origin = if names_path(text) {
                self.named_origin(text, &accepts, &input)
            } else {
                self.port_origin(stage, text, &accepts, &input, configured).map_err(|text| (text, Fault::Pipeline))
            };
            match origin {
                Ok(Some(origin)) => {
                    accepts = vec![origin.table()];
                    sources.push(origin);
                }
                Ok(None) => {}
                Err((text, fault)) => {
                    self.report_value(&declared.key, &below, text);
                    self.problems.last_mut().expect("one was just reported").fault = fault;
                }
            }
        }
        if sources.len() > 1 && sources[0].table() == Table::Model {
            self.report_value(
                &declared.key,
                &key,
                format!("`{}` takes one model folder, got {}", input.key, sources.len()),
            );
        }
        let at = self.pipeline.document.of_value(&Checker::path(&declared.key, &key));
        Edge { key: input.key, idle: input.idle, sources, at }
    }

    /// True where a text can only mean a model of the hub.
    fn is_model_name(&self, text: &str) -> bool {
        let beside = paths::beside(Path::new(text), &self.pipeline.file);
        beside.is_none() && ModelName::read(text).is_ok_and(|name| name.is_some())
    }

    /// The stage that a reference names; nothing where it means no stage of a matrix, which has been said.
    fn writer<'t>(&self, text: &'t str) -> Result<Option<Reference<'t>>, String> {
        let (name, port) = parts_of(text, |name| self.by_name.contains_key(name));
        if let Some(&stage) = self.by_name.get(name) {
            return Ok(Some(Reference { stage, name, port }));
        }
        if text.contains('[') || self.matrices.contains(name) {
            return Ok(None);
        }
        let near = self.near.borrow_mut().entry(name.to_owned()).or_insert_with(|| self.near_stage(name)).clone();
        let hint = match Path::new(text).exists() {
            true => format!("; for the file or folder write `./{text}`"),
            false if near.is_empty() => "; a path contains a `/`".to_owned(),
            false => near,
        };
        Err(format!("there is no stage `{name}`{hint}"))
    }

    /// The nearest name. Where thousands of different names are wrong, only the first ones get one.
    fn near_stage(&self, name: &str) -> String {
        let compared = self.compared.get() + self.stages.len();
        self.compared.set(compared);
        let known = self.stages.iter().filter(|_| compared <= MOST_COMPARED);
        did_you_mean(name, known.map(|declared| declared.name.as_str()))
    }

    /// The port that a reference means; nothing where its stage has problems of its own.
    fn port_origin(
        &self,
        stage: usize,
        text: &str,
        accepts: &[Table],
        input: &InputPort,
        configured: &[Option<Configured>],
    ) -> Result<Option<Origin>, String> {
        let Some(Reference { stage: from, name, port }) = self.writer(text)? else { return Ok(None) };
        if from == stage {
            return Err("a stage cannot read from itself".to_owned());
        }
        let Some(writer) = &configured[from] else { return Ok(None) };
        let found = match port {
            Some(port) => output_named(name, port, &writer.outputs)?,
            None => plain_port(name, &writer.outputs, accepts)?,
        };
        if !accepts.contains(&found.table) {
            return Err(format!(
                "`{name}.{}` holds {}, `{}` wants {}",
                found.name,
                found.table,
                input.key,
                tables(accepts)
            ));
        }
        if input.idle.is_none()
            && let Some(column) = input.columns.iter().find(|column| found.without.contains(*column))
        {
            let fix = fix(input);
            return Err(format!("column `{column}` missing in input `{}`; `{name}` does not write it{fix}", input.key));
        }
        let differs = |(key, value): &&(&str, String)| found.settings.iter().any(|(of, is)| of == key && is != value);
        if input.idle.is_none()
            && let Some((key, value)) = input.shares.iter().find(differs)
        {
            let is = found.settings.iter().find(|(of, _)| of == key).map_or("", |(_, is)| is.as_str());
            return Err(format!(
                "`{name}` has `{key}: {is}` and this stage `{key}: {value}`; both have to have the same"
            ));
        }
        let set = |(key, value, _): &&(&str, String, String)| found.settings.contains(&(*key, value.clone()));
        if input.idle.is_none()
            && let Some((.., why)) = input.refuses.iter().find(set)
        {
            return Err(format!("`{name}.{}`: {why}", found.name));
        }
        Ok(Some(Origin::Port { stage: from, port: found.name.clone(), table: found.table }))
    }

    /// The path that a text means, or the model of that name: in the cache, or to be fetched.
    fn named_origin(
        &self,
        text: &str,
        accepts: &[Table],
        input: &InputPort,
    ) -> Result<Option<Origin>, (String, Fault)> {
        let path = Path::new(text);
        if !accepts.contains(&Table::Model) || path.exists() {
            return self.path_origin(path, accepts, input);
        }
        let wrong = |text: String| (text, Fault::Pipeline);
        let name = ModelName::read(text).map_err(wrong)?;
        let Some(name) = name.filter(|_| paths::beside(path, &self.pipeline.file).is_none()) else {
            return self.path_origin(path, accepts, input);
        };
        let cache = Cache::of_user();
        match cache.find(&name) {
            Some(snapshot) => self.path_origin(&snapshot, &[Table::Model], input),
            None if hub::offline() => Err(wrong(format!(
                "`{name}` is no folder here and not in the cache {}, and HF_HUB_OFFLINE forbids fetching it",
                cache.folder().display()
            ))),
            None => Ok(Some(Origin::Hub { name })),
        }
    }

    fn path_origin(
        &self,
        path: &Path,
        accepts: &[Table],
        input: &InputPort,
    ) -> Result<Option<Origin>, (String, Fault)> {
        let wrong = |text: String| Err((text, Fault::Pipeline));
        if !path.exists() {
            return wrong(paths::absent(path, &self.pipeline.file));
        }
        let origin = |table| Ok(Some(Origin::Path { path: path.to_owned(), table }));
        if accepts.contains(&Table::Model) && models::is_model(path) {
            models::base_of(path).map_err(|problem| {
                let error = kit::Error::of_base(problem);
                let fault = Fault::of(&error);
                (error.to_string(), if fault == Fault::System { fault } else { Fault::Pipeline })
            })?;
            return origin(Table::Model);
        }
        if accepts.contains(&Table::Model) && path.is_file() && path.extension().is_some_and(|kind| kind == "gguf") {
            if !input.gguf {
                return wrong(format!(
                    "`{}` is a GGUF file; `{}` needs a Hugging Face folder",
                    path.display(),
                    input.key
                ));
            }
            let folder = path.parent().filter(|folder| folder.join("tokenizer.json").is_file());
            return if folder.is_some() {
                origin(Table::Model)
            } else {
                wrong(format!("there is no tokenizer.json beside `{}`; put the model's there", path.display()))
            };
        }
        if accepts == [Table::Model] {
            return wrong(format!("`{}` is no model folder: it has no config.json", path.display()));
        }
        if models::is_model(path) {
            let scored = "; name a stage of the kind `reference`, which scores the rows with this model";
            return wrong(format!(
                "`{}` is a model folder, wanted {}{}",
                path.display(),
                tables(accepts),
                if accepts == [Table::Reference] { scored } else { "" }
            ));
        }
        let columns = kit::columns_of(path).map_err(|error| (error.to_string(), Fault::of(&error)))?;
        let Some(&table) =
            accepts.iter().find(|table| **table != Table::Model && lacking(**table, &columns).is_empty())
        else {
            let lacks = lacking(accepts[0], &columns);
            return wrong(format!(
                "`{}` does not hold {}: column `{}` missing",
                path.display(),
                tables(accepts),
                lacks.first().map_or("?", String::as_str)
            ));
        };
        let missing = |column: &&&str| input.idle.is_none() && !columns.iter().any(|(name, _)| name == **column);
        match input.columns.iter().find(missing) {
            Some(column) => wrong(format!(
                "column `{column}` missing in `{}`, input `{}` needs it{}",
                path.display(),
                input.key,
                fix(input)
            )),
            None => origin(table),
        }
    }

    /// The stages in an order in which each comes after those it reads from, idle inputs included.
    fn order(&mut self, edges: &[Vec<Edge>]) -> Vec<usize> {
        let readers_of = |stage: usize| -> Vec<usize> {
            let origins = edges[stage].iter().flat_map(|edge| &edge.sources);
            origins
                .filter_map(|origin| if let Origin::Port { stage, .. } = origin { Some(*stage) } else { None })
                .collect()
        };
        // The first stage of the file that waits for nothing comes next, again and again.
        let mut waits: Vec<BTreeSet<usize>> =
            (0..edges.len()).map(|stage| readers_of(stage).into_iter().collect()).collect();
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
        for (stage, from) in waits.iter().enumerate() {
            from.iter().for_each(|from| followers[*from].push(stage));
        }
        let mut ready: BTreeSet<usize> = (0..edges.len()).filter(|stage| waits[*stage].is_empty()).collect();
        let mut order: Vec<usize> = Vec::new();
        while let Some(stage) = ready.pop_first() {
            order.push(stage);
            for &follower in &followers[stage] {
                waits[follower].remove(&stage);
                if waits[follower].is_empty() {
                    ready.insert(follower);
                }
            }
        }
        let mut left: BTreeSet<usize> = (0..edges.len()).filter(|stage| !waits[*stage].is_empty()).collect();
        while let Some(&start) = left.first() {
            // From any stage left over, walking upstream through stages left over ends in a circle.
            let mut walk = vec![start];
            let circle = loop {
                let here = *walk.last().expect("the walk has a start");
                let next = readers_of(here)
                    .into_iter()
                    .find(|from| left.contains(from))
                    .expect("it waits for a stage left over");
                if let Some(first) = walk.iter().position(|stage| *stage == next) {
                    break walk[first..].to_vec();
                }
                walk.push(next);
            };
            self.report_circle(&circle, edges);
            // A stage that only waits for the circle is not part of one.
            circle.iter().for_each(|stage| _ = left.remove(stage));
            while let Some(&free) =
                left.iter().find(|stage| !readers_of(**stage).iter().any(|from| left.contains(from)))
            {
                left.remove(&free);
            }
        }
        order
    }

    fn report_circle(&mut self, circle: &[usize], edges: &[Vec<Edge>]) {
        let first = *circle.iter().min().expect("a circle has stages");
        let turn = circle.iter().position(|stage| *stage == first).expect("it is one of them");
        // Upstream order turned around: the way the data would flow.
        let mut names: Vec<&str> =
            (0..circle.len()).map(|step| self.stages[circle[(turn + step) % circle.len()]].name.as_str()).collect();
        names.push(names[0]);
        names.reverse();
        let upstream = circle[(turn + 1) % circle.len()];
        let reads = |edge: &&Edge| {
            edge.sources.iter().any(|origin| matches!(origin, Origin::Port { stage, .. } if *stage == upstream))
        };
        let key = edges[first].iter().find(reads).map(|edge| edge.key).unwrap_or_default();
        let text = format!("stages wait for each other: {}", names.join(" -> "));
        let name = self.stages[first].key.clone();
        self.report_value(&name, &key.split('.').map(str::to_owned).collect::<Vec<_>>(), text);
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

/// True where a text names a file, a folder or a model, rather than a stage.
fn names_path(text: &str) -> bool {
    text.contains('/') || text.starts_with(ModelName::PREFIX)
}

/// The port of a stage that a reference names.
fn output_named<'a>(stage: &str, port: &str, outputs: &'a [OutputPort]) -> Result<&'a OutputPort, String> {
    outputs.iter().find(|output| output.name == port).ok_or_else(|| {
        let near = did_you_mean(port, outputs.iter().map(|output| output.name.as_str()));
        let near = if near.is_empty() { format!("; it writes {}", ports(outputs)) } else { near };
        format!("`{stage}` has no output `{port}`{near}")
    })
}

/// The port that a stage's plain name means: the one named like an accepted table, else the only one that fits.
fn plain_port<'a>(stage: &str, outputs: &'a [OutputPort], accepts: &[Table]) -> Result<&'a OutputPort, String> {
    let named = accepts
        .iter()
        .find_map(|table| outputs.iter().find(|output| output.table == *table && output.name == table.name()));
    if let Some(output) = named {
        return Ok(output);
    }
    let fits = |output: &&OutputPort| accepts.contains(&output.table) && !output.aside;
    let fitting: Vec<&OutputPort> = outputs.iter().filter(fits).collect();
    match fitting[..] {
        [one] => Ok(one),
        [] => Err(format!("`{stage}` writes no {}; it writes {}", tables(accepts), ports(outputs))),
        _ => {
            let names: Vec<String> = fitting.iter().map(|output| format!("`{stage}.{}`", output.name)).collect();
            Err(format!("`{stage}` can mean {}; name one", names.join(" or ")))
        }
    }
}

/// The remedy for a missing column, where the stage knows one.
fn fix(input: &InputPort) -> String {
    input.fix.as_ref().map_or(String::new(), |fix| format!(": {fix}"))
}

fn tables(tables: &[Table]) -> String {
    tables.iter().map(|table| table.name()).collect::<Vec<_>>().join(" or ")
}

fn ports(outputs: &[OutputPort]) -> String {
    outputs.iter().map(|output| format!("`{}`", output.name)).collect::<Vec<_>>().join(", ")
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
