//! `${vars.x}` and `${env:X}` in the values of a pipeline file; `${matrix.x}` in a stage with a `matrix`, and
//! `${labels.stage}` for the labels of one. `$${` stands for the text `${`.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::node::{Content, Entry, Mapping, Node};
use super::selection::{Labels, Selection};
use super::yaml::{self, Document};
use crate::pipeline::problem::{At, Fault, Problem, TOO_MUCH, UNSET, did_you_mean};

/// Source of the environment's values; tests give their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All references of a file together may stand for so many bytes of text, each value counting as [`BYTES_PER_VALUE`]
/// besides: variables that name others twice double with each.
const MOST_BYTES: usize = 64 << 20;
const BYTES_PER_VALUE: usize = 32;
/// Variables that lead to each other in a row, at most.
const MOST_NESTED: usize = 64;

/// The rest of [`MOST_BYTES`].
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
        left.map(drop).ok_or_else(|| format!("{TOO_MUCH} more than {} MiB in all", MOST_BYTES >> 20))
    }
}

/// The document with every reference replaced, but in stages with a `matrix`: those are replaced for each combination.
/// A scalar that is one whole reference takes the value with its type; inside other text the value is written out.
/// `labels` gives the labels of each stage with a matrix.
pub fn replaced(
    document: &Node,
    environment: Environment<'_>,
    budget: &Budget,
    labels: &BTreeMap<String, Vec<Labels>>,
) -> (Node, Vec<Problem>) {
    let (mut replaced, mut problems) = (document.clone(), Vec::new());
    let mut replacer = Replacer { labels: Some(labels), ..Replacer::new(document.get("vars"), environment, budget) };
    let mut report = |path: &[String], text: String| {
        let stage = (path.len() > 1 && path[0] == "stages").then(|| path[1].clone());
        problems.push(Problem { at: document.of_value(path), stage, text, fault: Fault::Pipeline });
    };
    if let Content::Mapping(top) = &mut replaced.content {
        let top = Rc::make_mut(top);
        // Variables that no stage asks for come last.
        for last in [false, true] {
            for (key, value) in top.values_mut().filter(|(key, _)| (*key == "vars") == last) {
                match &mut value.content {
                    Content::Mapping(stages) if key == "stages" => {
                        let stages = Rc::make_mut(stages).values_mut();
                        for (stage, value) in stages.filter(|(_, value)| value.get("matrix").is_none()) {
                            replacer.walk(value, &mut vec![key.to_owned(), stage.to_owned()], &mut report);
                        }
                    }
                    _ => replacer.walk(value, &mut vec![key.to_owned()], &mut report),
                }
            }
        }
    }
    (replaced, problems)
}

/// Variables of the pipeline file itself that nothing refers to, by name or by an alias of YAML. `document` is the
/// whole with its bases.
pub fn unused(own: &Document, document: &Node) -> Vec<Problem> {
    let mut mentioned = HashSet::new();
    mentions(document, &mut mentioned);
    let vars = own.root.get("vars").and_then(Node::mapping).into_iter().flat_map(Mapping::iter);
    let unused = vars.filter(|entry| !mentioned.contains(entry.key.as_str()) && !own.is_aliased(&entry.value));
    let warning = |entry: &Entry| Problem {
        at: entry.key_at.clone(),
        stage: None,
        text: format!("nothing uses the variable `{}`", entry.key),
        fault: Fault::Pipeline,
    };
    unused.map(warning).collect()
}

/// The variables that texts in a value refer to, or to something below them.
fn mentions<'v>(value: &'v Node, found: &mut HashSet<&'v str>) {
    match &value.content {
        Content::Text(text) => {
            let named = text.split("${vars.").skip(1).filter_map(|rest| Some(&rest[..rest.find(['}', '.'])?]));
            found.extend(named);
        }
        Content::List(items) => items.iter().for_each(|item| mentions(item, found)),
        Content::Mapping(mapping) => mapping.iter().for_each(|entry| mentions(&entry.value, found)),
        _ => {}
    }
}

/// Replaces references in values.
pub struct Replacer<'a> {
    vars: Option<&'a Node>,
    environment: Environment<'a>,
    budget: &'a Budget,
    /// The values of `${labels.x}`, where it is allowed.
    pub labels: Option<&'a BTreeMap<String, Vec<Labels>>>,
    /// The values of `${matrix.x}`, in a stage with a matrix.
    pub item: Option<&'a Mapping>,
    /// How texts with `${matrix.x}` are taken.
    pub axes: Axes,
    /// The names being replaced, to see those that lead back to themselves.
    within: Vec<String>,
}

/// How texts with `${matrix.x}` are taken: the values of an axis may name other axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// As all others.
    Replaced,
    /// Left as they are: the combination is not known yet.
    Kept,
    /// No other text is touched.
    Alone,
}

impl<'a> Replacer<'a> {
    /// One that knows variables and the environment.
    pub fn new(vars: Option<&'a Node>, environment: Environment<'a>, budget: &'a Budget) -> Replacer<'a> {
        Replacer { vars, environment, budget, labels: None, item: None, axes: Axes::Replaced, within: Vec::new() }
    }

    /// Replaces every reference in a value and below. `path` leads to it; `report` takes what is wrong, and where.
    pub fn walk(&mut self, value: &mut Node, path: &mut Vec<String>, report: &mut dyn FnMut(&[String], String)) {
        match &mut value.content {
            Content::Text(text) if text.contains("${") => match self.text(text) {
                Ok(replaced) => *value = Node { at: value.at.clone(), ..replaced },
                Err(problem) => report(path, problem),
            },
            Content::List(items) => {
                let mut replaced = Vec::with_capacity(items.len());
                for (index, mut item) in items.iter().cloned().enumerate() {
                    // The labels of several stages are one list.
                    let spliced = item.text().is_some_and(|text| text.starts_with("${labels."));
                    path.push(index.to_string());
                    self.walk(&mut item, path, report);
                    path.pop();
                    match &item.content {
                        Content::List(labels) if spliced => replaced.extend(labels.iter().cloned()),
                        _ => replaced.push(item),
                    }
                }
                *items = Rc::new(replaced);
            }
            Content::Mapping(mapping) => {
                let mapping = Rc::make_mut(mapping);
                for (key, item) in mapping.values_mut() {
                    path.push(key.to_owned());
                    self.walk(item, path, report);
                    path.pop();
                }
                // `<<: ${matrix.x}` was not known when the file was read.
                if let Some(merged) = mapping.remove("<<")
                    && let Err(text) = mapping.merge(&merged)
                {
                    path.push("<<".to_owned());
                    report(path, text.to_owned());
                    path.pop();
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) -> Result<Node, String> {
        let of_axes = text.contains("${matrix.");
        if self.axes == Axes::Kept && of_axes || self.axes == Axes::Alone && !of_axes {
            return Ok(Node::of(Content::Text(text.to_owned())));
        }
        if let Some(inner) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
            && !inner.contains(['$', '{', '}'])
        {
            return self.reference(inner);
        }
        let (mut written, mut named, mut any_named) = (String::new(), String::new(), false);
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                written.push_str(&rest[..start - 1]);
                written.push_str("${");
                named.push_str(&rest[..start + 2]);
                rest = &rest[start + 2..];
                continue;
            }
            written.push_str(&rest[..start]);
            named.push_str(&rest[..start]);
            let end = rest[start..].find('}').ok_or("`${` without `}`; `$${` stands for the text `${`")? + start;
            let value = self.reference(&rest[start + 2..end])?;
            let part = match &value.content {
                Content::Text(text) => text.clone(),
                Content::Number(number) => number.to_string(),
                Content::Bool(value) => value.to_string(),
                _ => return Err(format!("`{}` is not plain text, so it cannot stand inside text", &rest[start..=end])),
            };
            written.push_str(&part);
            any_named |= value.named.is_some();
            named.push_str(&value.named.map_or_else(|| part.replace("${", "$${"), |named| named.to_string()));
            rest = &rest[end + 1..];
        }
        written.push_str(rest);
        named.push_str(rest);
        let named = any_named.then(|| named.into());
        Ok(Node { named, ..Node::of(Content::Text(written)) })
    }

    /// The value of a reference.
    fn reference(&mut self, name: &str) -> Result<Node, String> {
        // With nothing left, nothing more is looked up.
        self.budget.spend(1)?;
        let value = self.meant(name)?;
        self.budget.spend(weight(&value))?;
        Ok(value)
    }

    fn meant(&mut self, name: &str) -> Result<Node, String> {
        if let Some(variable) = name.strip_prefix("env:") {
            let text = (self.environment)(variable).ok_or_else(|| {
                let is = if std::env::var_os(variable).is_some() { "no text in UTF-8" } else { "not set" };
                format!("{UNSET}{variable}` is {is}")
            })?;
            let shown = format!("${{env:{variable}}}");
            // `${env:BETA}` is a number where its text reads as one, and a setting like others; text is used and never
            // written down.
            let content = match yaml::read_value(&text) {
                Ok(Node { content: value @ (Content::Number(_) | Content::Bool(_)), .. }) => value,
                _ => {
                    kit::keep_secret(&text, &shown);
                    Content::Text(text)
                }
            };
            return Ok(Node { named: Some(shown.into()), ..Node::of(content) });
        }
        if let Some(axis) = name.strip_prefix("matrix.") {
            let item = self.item.ok_or_else(|| format!("`${{{name}}}` stands in a stage without `matrix`"))?;
            let value = look_up(Some(item), axis, "axis")?;
            // Everything else was replaced when the matrix was read.
            return self.within(name, value, Axes::Alone);
        }
        if let (Some(text), Some(labels)) = (name.strip_prefix("labels."), self.labels) {
            let selection = Selection::read(text).transpose()?;
            let stage = selection.as_ref().map_or(text, |selection| selection.stage);
            let all = labels.get(stage).ok_or_else(|| {
                let near = did_you_mean(stage, labels.keys().map(String::as_str));
                format!("there is no stage `{stage}` with a `matrix`{near}")
            })?;
            let meant = selection.map_or_else(|| Ok(vec![true; all.len()]), |selection| selection.of(all))?;
            let label = |(axis, label): &(String, String)| {
                let value = Node::of(Content::Text(label.clone()));
                Entry { key: axis.clone(), key_at: At::File, value }
            };
            let one = |labels: &Labels| Node::of(Content::Mapping(Rc::new(labels.iter().map(label).collect())));
            let all = all.iter().zip(meant).filter(|(_, meant)| *meant).map(|(labels, _)| one(labels));
            return Ok(Node::of(Content::List(Rc::new(all.collect()))));
        }
        let Some(variable) = name.strip_prefix("vars.") else {
            return Err(format!(
                "unknown reference `${{{name}}}`: write `${{vars.x}}` or `${{env:X}}`; `$${{` stands for the text `${{`"
            ));
        };
        let value = look_up(self.vars.and_then(Node::mapping), variable, "variable")?;
        self.within(name, value, self.axes)
    }

    /// The value that a name stands for, with its own references replaced.
    fn within(&mut self, name: &str, mut value: Node, axes: Axes) -> Result<Node, String> {
        let said = |name: &str| match name.split_once('.') {
            Some(("matrix", axis)) => format!("axis `{axis}`"),
            _ => format!("variable `{}`", name.trim_start_matches("vars.")),
        };
        if self.within.iter().any(|outer| outer == name) {
            return Err(format!("{} leads back to itself", said(name)));
        }
        if self.within.len() == MOST_NESTED {
            return Err(format!("{} leads through more than {MOST_NESTED} others", said(&self.within[0])));
        }
        self.within.push(name.to_owned());
        let outer = std::mem::replace(&mut self.axes, axes);
        let mut failed = None;
        self.walk(&mut value, &mut Vec::new(), &mut |_, problem| _ = failed.get_or_insert(problem));
        self.axes = outer;
        self.within.pop();
        failed.map_or(Ok(value), Err)
    }
}

/// The cost of a value in a [`Budget`], in bytes.
fn weight(value: &Node) -> usize {
    BYTES_PER_VALUE
        + match &value.content {
            Content::Text(text) => text.len(),
            Content::List(items) => items.iter().map(weight).sum(),
            Content::Mapping(mapping) => mapping.iter().map(|entry| entry.key.len() + weight(&entry.value)).sum(),
            _ => 0,
        }
}

/// The value under a dotted name.
fn look_up(values: Option<&Mapping>, name: &str, what: &str) -> Result<Node, String> {
    let (mut found, mut mapping, mut at) = (None, values, 0);
    for key in name.split('.') {
        let before = &name[..at];
        at += key.len() + 1;
        let value = mapping.and_then(|mapping| mapping.get(key)).ok_or_else(|| {
            let names: Vec<String> =
                mapping.into_iter().flat_map(Mapping::keys).map(|near| [before, near].concat()).collect();
            let wrong = [before, key].concat();
            format!("unknown {what} `{name}`{}", did_you_mean(&wrong, names.iter().map(String::as_str)))
        })?;
        (found, mapping) = (Some(value), value.mapping());
    }
    Ok(found.expect("a name has at least one part").clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn replaced(text: &str) -> (Value, Vec<String>) {
        let document = yaml::read(text, None).unwrap();
        let environment = |name: &str| match name {
            "BETA" => Some("0.1".to_owned()),
            "HOME" => Some("/home/x: y".to_owned()),
            _ => None,
        };
        let (value, problems) = super::replaced(&document.root, &environment, &Budget::default(), &BTreeMap::new());
        (value.json(), problems.into_iter().map(|problem| problem.line("p".as_ref())).collect())
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
        let own = yaml::read(text, None).unwrap();
        let lines: Vec<String> = unused(&own, &own.root).iter().map(|warning| warning.line("p".as_ref())).collect();
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
