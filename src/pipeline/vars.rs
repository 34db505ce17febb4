//! `${vars.x}` and `${env:X}` in the values of a pipeline file; `${matrix.x}` in a stage with a `matrix`, and
//! `${labels.stage}` for the labels of one. `$${` stands for the text `${`.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use super::matrix::{Labels, Selection};
use super::spans::Spans;
use super::yaml;
use crate::pipeline::problem::{Fault, Problem, UNSET, did_you_mean};

/// Where values of the environment come from; tests give their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All references of a file together may stand for so many bytes of text, each value counting as [`BYTES_PER_VALUE`]
/// besides: variables that name others twice double with each.
const MOST_BYTES: usize = 64 << 20;
const BYTES_PER_VALUE: usize = 32;
/// Variables that lead to each other in a row, at most.
const MOST_NESTED: usize = 64;

/// What is left of [`MOST_BYTES`].
#[derive(Debug)]
pub struct Budget(Cell<usize>);

impl Default for Budget {
    fn default() -> Budget {
        Budget(Cell::new(MOST_BYTES))
    }
}

impl Budget {
    fn spend(&self, bytes: usize) -> Result<(), String> {
        let left = self.0.get().checked_sub(bytes);
        self.0.set(left.unwrap_or(0));
        left.map(drop)
            .ok_or_else(|| format!("the references of this file stand for more than {} MiB in all", MOST_BYTES >> 20))
    }
}

/// Replaces every reference below `stages` (and in `name` and `seed`), but in stages with a `matrix`: those are
/// replaced for each combination. A scalar that is one whole reference takes the value with its type; inside other text
/// the value is written out. `labels` gives the labels of each stage with a matrix.
pub fn replace(
    document: &mut Value,
    spans: &Spans,
    environment: Environment<'_>,
    budget: &Budget,
    labels: &BTreeMap<String, Vec<Labels>>,
) -> Vec<Problem> {
    let vars = document.get("vars").cloned().unwrap_or(Value::Null);
    let mut problems = Vec::new();
    let Value::Object(top) = document else { return problems };
    let mut replacer = Replacer { labels: Some(labels), ..Replacer::new(&vars, environment, budget) };
    let mut report = |path: &[String], text: String| {
        let stage = (path.len() > 1 && path[0] == "stages").then(|| path[1].clone());
        problems.push(Problem { at: spans.of_value(path), stage, text, fault: Fault::Pipeline });
    };
    for (key, value) in top.iter_mut() {
        match value {
            Value::Object(stages) if key == "stages" => {
                for (stage, value) in stages.iter_mut().filter(|(_, value)| value.get("matrix").is_none()) {
                    replacer.walk(value, &mut vec![key.clone(), stage.clone()], &mut report);
                }
            }
            _ => replacer.walk(value, &mut vec![key.clone()], &mut report),
        }
    }
    problems
}

/// Variables that nothing refers to, by name or by an alias of YAML.
pub fn unused(document: &Value, spans: &Spans) -> Vec<Problem> {
    let mut mentioned = HashSet::new();
    mentions(document, &mut mentioned);
    let names = document.get("vars").and_then(Value::as_object).into_iter().flat_map(|vars| vars.keys());
    let unused = names.filter(|name| !mentioned.contains(name.as_str()) && !spans.is_aliased(&["vars", name]));
    let warning = |name: &String| Problem {
        at: spans.of_key(&["vars".to_owned(), name.clone()]),
        stage: None,
        text: format!("nothing uses the variable `{name}`"),
        fault: Fault::Pipeline,
    };
    unused.map(warning).collect()
}

/// The variables that texts in a value refer to, or to something below them.
fn mentions<'v>(value: &'v Value, found: &mut HashSet<&'v str>) {
    match value {
        Value::String(text) => {
            let named = text.split("${vars.").skip(1).filter_map(|rest| Some(&rest[..rest.find(['}', '.'])?]));
            found.extend(named);
        }
        Value::Array(items) => items.iter().for_each(|item| mentions(item, found)),
        Value::Object(map) => map.values().for_each(|item| mentions(item, found)),
        _ => {}
    }
}

/// Replaces references in values.
pub struct Replacer<'a> {
    vars: &'a Value,
    environment: Environment<'a>,
    budget: &'a Budget,
    /// What `${labels.x}` stands for, where it may stand.
    pub labels: Option<&'a BTreeMap<String, Vec<Labels>>>,
    /// What `${matrix.x}` stands for, in a stage with a matrix.
    pub item: Option<&'a Map<String, Value>>,
    /// The variables being replaced, to see those that lead back to themselves.
    within: Vec<String>,
}

impl<'a> Replacer<'a> {
    /// One that knows variables and the environment.
    pub fn new(vars: &'a Value, environment: Environment<'a>, budget: &'a Budget) -> Replacer<'a> {
        Replacer { vars, environment, budget, labels: None, item: None, within: Vec::new() }
    }

    /// Replaces every reference in a value and below. `path` leads to it; `report` takes what is wrong, and where.
    pub fn walk(&mut self, value: &mut Value, path: &mut Vec<String>, report: &mut dyn FnMut(&[String], String)) {
        match value {
            Value::String(text) if text.contains("${") => match self.text(text) {
                Ok(replaced) => *value = replaced,
                Err(problem) => report(path, problem),
            },
            Value::Array(items) => {
                let mut replaced = Vec::with_capacity(items.len());
                for (index, mut item) in std::mem::take(items).into_iter().enumerate() {
                    // The labels of several stages are one list.
                    let spliced = item.as_str().is_some_and(|text| text.starts_with("${labels."));
                    path.push(index.to_string());
                    self.walk(&mut item, path, report);
                    path.pop();
                    match item {
                        Value::Array(labels) if spliced => replaced.extend(labels),
                        item => replaced.push(item),
                    }
                }
                *items = replaced;
            }
            Value::Object(entries) => {
                for (key, item) in entries.iter_mut() {
                    path.push(key.clone());
                    self.walk(item, path, report);
                    path.pop();
                }
                // `<<: ${matrix.x}` was not known when the file was read.
                match entries.remove("<<") {
                    None => {}
                    Some(Value::Object(merged)) => {
                        merged.into_iter().for_each(|(key, value)| _ = entries.entry(key).or_insert(value));
                    }
                    Some(_) => {
                        path.push("<<".to_owned());
                        report(path, "`<<` merges a mapping or a list of mappings".to_owned());
                        path.pop();
                    }
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) -> Result<Value, String> {
        if let Some(inner) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
            && !inner.contains(['$', '{', '}'])
        {
            return self.reference(inner);
        }
        let mut written = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                written.push_str(&rest[..start - 1]);
                written.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            written.push_str(&rest[..start]);
            let end = rest[start..].find('}').ok_or("`${` without `}`; `$${` stands for the text `${`")? + start;
            match self.reference(&rest[start + 2..end])? {
                Value::String(text) => written.push_str(&text),
                value @ (Value::Number(_) | Value::Bool(_)) => written.push_str(&value.to_string()),
                _ => return Err(format!("`{}` is not plain text, so it cannot stand inside text", &rest[start..=end])),
            }
            rest = &rest[end + 1..];
        }
        written.push_str(rest);
        Ok(Value::String(written))
    }

    /// The value of a reference.
    fn reference(&mut self, name: &str) -> Result<Value, String> {
        // With nothing left, nothing more is looked up.
        self.budget.spend(1)?;
        let value = self.meant(name)?;
        self.budget.spend(weight(&value))?;
        Ok(value)
    }

    fn meant(&mut self, name: &str) -> Result<Value, String> {
        if let Some(variable) = name.strip_prefix("env:") {
            let text = (self.environment)(variable).ok_or_else(|| format!("{UNSET}{variable}` is not set"))?;
            // It is used and never written down: records name it.
            kit::keep_secret(&text, &format!("${{env:{variable}}}"));
            // `${env:BETA}` is a number where its text reads as one.
            return Ok(match yaml::read_value(&text) {
                Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
                _ => Value::String(text),
            });
        }
        if let Some(variable) = name.strip_prefix("matrix.").or_else(|| name.strip_prefix("item.")) {
            let item = self.item.ok_or_else(|| format!("`${{{name}}}` stands in a stage without `matrix`"))?;
            return look_up(&Value::Object(item.clone()), variable, "axis");
        }
        if let (Some(text), Some(labels)) = (name.strip_prefix("labels."), self.labels) {
            let selection = Selection::read(text).transpose()?;
            let stage = selection.as_ref().map_or(text, |selection| selection.stage);
            let all = labels.get(stage).ok_or_else(|| {
                let near = did_you_mean(stage, labels.keys().map(String::as_str));
                format!("there is no stage `{stage}` with a `matrix`{near}")
            })?;
            let meant = selection.map_or_else(|| Ok(vec![true; all.len()]), |selection| selection.of(all))?;
            let one = |labels: &Labels| {
                Value::Object(labels.iter().map(|(axis, label)| (axis.clone(), Value::String(label.clone()))).collect())
            };
            return Ok(all.iter().zip(meant).filter(|(_, meant)| *meant).map(|(labels, _)| one(labels)).collect());
        }
        let Some(variable) = name.strip_prefix("vars.") else {
            return Err(format!(
                "unknown reference `${{{name}}}`: write `${{vars.x}}` or `${{env:X}}`; `$${{` stands for the text `${{`"
            ));
        };
        if self.within.iter().any(|outer| outer == variable) {
            return Err(format!("variable `{variable}` leads back to itself"));
        }
        if self.within.len() == MOST_NESTED {
            return Err(format!("variable `{}` leads through more than {MOST_NESTED} others", self.within[0]));
        }
        let mut value = look_up(self.vars, variable, "variable")?;
        self.within.push(variable.to_owned());
        let mut failed = None;
        self.walk(&mut value, &mut Vec::new(), &mut |_, problem| _ = failed.get_or_insert(problem));
        self.within.pop();
        failed.map_or(Ok(value), Err)
    }
}

/// What a value counts in a [`Budget`].
fn weight(value: &Value) -> usize {
    BYTES_PER_VALUE
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
            _ => 0,
        }
}

/// The value under a dotted name.
fn look_up(values: &Value, name: &str, what: &str) -> Result<Value, String> {
    let mut value = values;
    for key in name.split('.') {
        value = value.get(key).ok_or_else(|| {
            let names: Vec<&str> =
                value.as_object().map(|map| map.keys().map(String::as_str).collect()).unwrap_or_default();
            format!("unknown {what} `{name}`{}", did_you_mean(key, names))
        })?;
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> (Value, Vec<String>) {
        let (mut value, spans) = yaml::read(text).unwrap();
        let environment = |name: &str| match name {
            "BETA" => Some("0.1".to_owned()),
            "HOME" => Some("/home/x: y".to_owned()),
            _ => None,
        };
        let problems = replace(&mut value, &spans, &environment, &Budget::default(), &BTreeMap::new());
        (value, problems.into_iter().map(|problem| problem.line("p".as_ref())).collect())
    }

    #[test]
    fn whole_scalars_keep_their_type() {
        let (value, problems) = replaced(
            "vars: {n: 3, list: [1, '${vars.n}'], deep: {x: true}}\nstages:\n  s: {a: '${vars.n}', b: 'n${vars.n}-${env:BETA}', c: '${vars.list}', d: '${env:BETA}', e: '${vars.deep.x}', f: '$${x}', g: '${env:HOME}'}\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            value["stages"]["s"],
            serde_json::json!({"a": 3, "b": "n3-0.1", "c": [1, 3], "d": 0.1, "e": true, "f": "${x}", "g": "/home/x: y"})
        );
    }

    #[test]
    fn variables_that_nothing_uses_are_named() {
        let text = "vars: {a: 1, ab: 2, list: [x], base: &base {kind: x}, deep: {x: 1}, old: 3}\nstages:\n  s: {<<: *base, a: 'x${vars.ab}', d: '${vars.deep.x}', l: '${vars.list}'}\n";
        let (document, spans) = yaml::read(text).unwrap();
        let lines: Vec<String> = unused(&document, &spans).iter().map(|warning| warning.line("p".as_ref())).collect();
        assert_eq!(lines, ["p:1:8: nothing uses the variable `a`", "p:1:69: nothing uses the variable `old`"]);
    }

    #[test]
    fn variables_that_double_and_lead_on_for_ever_are_refused_soon() {
        let began = std::time::Instant::now();
        for (twice, last) in [("'${vars.vN}${vars.vN}'", "xx"), ("['${vars.vN}', '${vars.vN}']", "[1]")] {
            let mut text = format!("vars:\n  v0: {last}\n");
            for level in 1..50 {
                text.push_str(&format!("  v{level}: {}\n", twice.replace('N', &(level - 1).to_string())));
            }
            text.push_str("stages:\n  s: {a: '${vars.v49}', b: '${vars.v3}'}\n");
            let (_, problems) = replaced(&text);
            assert!(problems[0].starts_with("p:53:10: s: the references of this file stand for more"), "{problems:?}");
        }
        let chain: String = (1..20_000).map(|level| format!("  v{level}: '${{vars.v{}}}'\n", level - 1)).collect();
        let (_, problems) = replaced(&format!("vars:\n  v0: 1\n{chain}stages:\n  s: {{a: '${{vars.v19999}}'}}\n"));
        assert!(problems.iter().any(|line| line.contains("variable `v19999` leads through more than 64 others")));
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    }

    #[test]
    fn what_cannot_be_replaced_is_placed() {
        let (_, problems) = replaced(
            "vars: {policy: a, x: '${vars.y}', y: '${vars.x}'}\nstages:\n  s:\n    a: '${vars.polcy}'\n    b: '${env:NONE}'\n    c: 'a ${b}'\n    d: 'a ${vars'\n    e: '${vars.x}'\n",
        );
        assert!(problems.contains(&"p:4:8: s: unknown variable `polcy`; did you mean `policy`?".to_owned()));
        assert!(problems.contains(&"p:5:8: s: the environment variable `NONE` is not set".to_owned()));
        assert!(problems.iter().any(|line| line.starts_with("p:6:8: s: unknown reference `${b}`")));
        assert!(problems.iter().any(|line| line.starts_with("p:7:8: s: `${` without `}`")));
        assert!(problems.iter().any(|line| line.starts_with("p:8:8: s: variable `x` leads back to itself")));
    }
}
