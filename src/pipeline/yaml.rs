//! The reading of YAML: events of the parser become nodes, and texts that are not safe to read are refused.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::node::{Content, Entry, Mapping, Node};
use super::scalar;
use crate::pipeline::problem::{At, Fault, Place, Problem};

/// Nesting beyond this is refused.
const MAX_DEPTH: usize = 64;
/// Values beyond this, with every alias written out, are refused.
const MAX_NODES: u64 = 100_000;

/// A YAML text that was read.
#[derive(Debug)]
pub struct Document {
    /// Its value; null where the text holds none.
    pub root: Node,
    /// Keys that stand twice in their mapping; what stands first counts.
    pub duplicates: Vec<Problem>,
    /// The places of anchors that an alias names.
    aliased: BTreeSet<At>,
}

impl Document {
    /// True where an alias names the value, or one below it.
    pub fn is_aliased(&self, node: &Node) -> bool {
        self.aliased.contains(&node.at)
            || match &node.content {
                Content::List(items) => items.iter().any(|item| self.is_aliased(item)),
                Content::Mapping(mapping) => mapping.iter().any(|entry| self.is_aliased(&entry.value)),
                _ => false,
            }
    }
}

/// Reads a text. Merge keys (`<<`) are resolved; a mapping's own keys win over merged ones, and earlier merged mappings
/// over later ones. `file` is the base it stands in, none for the pipeline file itself.
///
/// # Errors
/// Malformed YAML, a second document, an unknown or recursive alias, a document that is too deep or too large, and
/// values that JSON cannot hold: tags, infinities.
pub fn read(text: &str, file: Option<&Arc<Path>>) -> Result<Document, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let reader = Reader {
        file: file.cloned(),
        open: Vec::new(),
        nodes: 0,
        anchors: HashMap::new(),
        document: Document { root: Node::of(Content::Empty), duplicates: Vec::new(), aliased: BTreeSet::new() },
        documents: 0,
    };
    reader.read(text)
}

/// The value of a `--set` or of a variable of the environment.
///
/// # Errors
/// When the text is not YAML, as a sentence.
pub fn read_value(text: &str) -> Result<Node, String> {
    let document = read(text, None).map_err(|problem| problem.text)?;
    document.duplicates.into_iter().next().map_or(Ok(document.root), |problem| Err(problem.text))
}

/// A collection whose end has not been met.
struct Open {
    at: At,
    anchor: usize,
    /// Values before it.
    before: u64,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Mapping { mapping: Mapping, key: Option<(String, At)>, twice: bool },
}

struct Reader {
    file: Option<Arc<Path>>,
    open: Vec<Open>,
    /// Values so far, with every alias written out.
    nodes: u64,
    /// The value of each anchor with how many values it is.
    anchors: HashMap<usize, (Node, u64)>,
    document: Document,
    documents: usize,
}

fn problem(at: At, text: impl Into<String>) -> Problem {
    Problem { at, stage: None, text: text.into(), fault: Fault::Pipeline }
}

impl Reader {
    fn read(mut self, text: &str) -> Result<Document, Problem> {
        if let Some((at, character)) = self.control_character(text) {
            let text = format!("the control character U+{:04X}; in double quotes it has an escape", character as u32);
            return Err(problem(at, text));
        }
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                problem(self.at(error.marker().line(), error.marker().col()), format!("not YAML: {}", error.info()))
            })?;
            let at = self.at_span(span);
            self.take(event, at)?;
        }
        Ok(self.document)
    }

    /// The first character that YAML does not allow in a text.
    fn control_character(&self, text: &str) -> Option<(At, char)> {
        let allowed = |c: char| {
            matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
                || c > '\u{ffff}'
        };
        let (index, character) = text.char_indices().find(|(_, c)| !allowed(*c))?;
        let line = text[..index].rsplit('\n').next().unwrap_or_default();
        Some((self.at(text[..index].matches('\n').count() + 1, line.chars().count()), character))
    }

    /// A place; lines count from 1, columns from 0.
    fn at(&self, line: usize, column: usize) -> At {
        At::Place(Place { file: self.file.clone(), line, column: column + 1 })
    }

    fn at_span(&self, span: Span) -> At {
        self.at(span.start.line(), span.start.col())
    }

    fn take(&mut self, event: Event<'_>, at: At) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(problem(at, "a second YAML document begins here; a pipeline file holds one"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map(|tag| written(&tag));
                let content = scalar::value(&text, style == ScalarStyle::Plain, tag.as_deref());
                if self.awaits_key() {
                    // `.inf` is a name as good as any.
                    let content =
                        if tag.is_none() { content.or(Ok(Content::Text(text.into_owned()))) } else { content };
                    return self.key(content.map_err(|text| problem(at.clone(), text))?, anchor, at);
                }
                let content = content.map_err(|text| problem(at.clone(), text))?;
                self.value(Node::placed(at, content), 1, anchor)?;
            }
            Event::Alias(anchor) => {
                let inside = self.open.iter().any(|open| open.anchor == anchor);
                let Some((node, nodes)) = self.anchors.get(&anchor).filter(|_| !inside).cloned() else {
                    return Err(problem(at, "this alias names an anchor that is not finished or not there"));
                };
                if self.awaits_key() {
                    return Err(problem(at, "an alias cannot be a key"));
                }
                self.document.aliased.insert(node.at.clone());
                self.value(node, nodes, 0)?;
            }
            Event::SequenceStart(anchor, tag) => self.begin(at, anchor, tag.as_deref(), OpenKind::List(Vec::new()))?,
            Event::MappingStart(anchor, tag) => {
                let kind = OpenKind::Mapping { mapping: Mapping::default(), key: None, twice: false };
                self.begin(at, anchor, tag.as_deref(), kind)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Nothing => {}
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: OpenKind::Mapping { key: None, .. }, .. }))
    }

    fn begin(&mut self, at: At, anchor: usize, tag: Option<&Tag>, kind: OpenKind) -> Result<(), Problem> {
        if self.awaits_key() {
            return Err(problem(at, "a key has to be plain text"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(problem(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if let Some(text) = tag.and_then(|tag| scalar::meaningless(&written(tag))) {
            return Err(problem(at, text));
        }
        self.open.push(Open { at, anchor, before: self.nodes, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let open = self.open.pop().expect("the parser ends only what it began");
        let content = match open.kind {
            OpenKind::List(items) => Content::List(Rc::new(items)),
            OpenKind::Mapping { mut mapping, .. } => {
                // `<<: ${matrix.x}` is not known yet.
                let known = |merged: &&Node| !merged.text().is_some_and(|text| text.starts_with("${"));
                if mapping.get("<<").filter(known).is_some()
                    && let Some(merged) = mapping.remove("<<")
                {
                    mapping.merge(&merged).map_err(|text| problem(merged.at, text))?;
                }
                Content::Mapping(Rc::new(mapping))
            }
        };
        let below = self.nodes - open.before;
        self.nodes = open.before;
        self.value(Node::placed(open.at, content), below + 1, open.anchor)
    }

    /// Keys are texts; numbers, true and false are taken as they are written out.
    fn key(&mut self, content: Content, anchor: usize, at: At) -> Result<(), Problem> {
        let node = Node::placed(at.clone(), content);
        let name = match &node.content {
            Content::Text(text) => text.clone(),
            Content::Number(number) => number.to_string(),
            Content::Bool(value) => value.to_string(),
            _ => return Err(problem(at, "a key has to be plain text")),
        };
        let Some(Open { kind: OpenKind::Mapping { mapping, key, twice }, .. }) = self.open.last_mut() else {
            unreachable!("a key is awaited only inside a mapping")
        };
        *twice = mapping.entry(&name).is_some();
        if let Some(Entry { key_at: At::Place(first), .. }) = mapping.entry(&name) {
            let text = format!("key `{name}` stands twice; first in line {}", first.line);
            self.document.duplicates.push(problem(at.clone(), text));
        }
        *key = Some((name, at));
        self.anchor(anchor, &node, 1);
        Ok(())
    }

    fn value(&mut self, node: Node, nodes: u64, anchor: usize) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(problem(node.at, format!("more than {MAX_NODES} values with every alias written out")));
        }
        self.anchor(anchor, &node, nodes);
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.document.root = node,
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Mapping { mapping, key, twice }) => {
                let (key, key_at) = key.take().expect("a value follows its key");
                if !*twice {
                    mapping.insert(Entry { key, key_at, value: node });
                }
            }
        }
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, node: &Node, nodes: u64) {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
    }
}

/// A tag with its handle written out.
fn written(tag: &Tag) -> String {
    format!("{}{}", tag.handle, tag.suffix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(text: &str, line: usize, wanted: &str) {
        let problem = read(text, None).unwrap_err();
        assert!(matches!(&problem.at, At::Place(place) if place.line == line), "{problem:?}");
        assert!(problem.text.contains(wanted), "{problem:?}");
    }

    #[test]
    fn merges_nest_and_own_keys_win() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: [*b, {x: 9, z: 3}], w: 5e-7}\n";
        let root = read(text, None).unwrap().root;
        assert_eq!(root.get("c").unwrap().json(), json!({"x": 1, "y": 2, "z": 3, "w": 5e-7}));
        // Own keys come first, then the merged ones.
        assert_eq!(root.get("c").unwrap().mapping().unwrap().keys().collect::<Vec<_>>(), ["w", "y", "x", "z"]);
        refused("a:\n  <<: 3", 2, "merges a mapping");
        refused("a:\n  <<: [{x: 1}, '${vars.x}']", 2, "merges a mapping");
        let later = read("a: {<<: '${vars.x}', y: 1}", None).unwrap().root.json();
        assert_eq!(later["a"], json!({"<<": "${vars.x}", "y": 1}));
    }

    #[test]
    fn of_a_key_that_stands_twice_the_first_counts() {
        let text = "a: 1\nb: {c: 1, c: 2, c: 3}\na: 3\n0x1: x\n1: y\n\"1\": z\nTrue: x\ntrue: y\n";
        let document = read(text, None).unwrap();
        assert_eq!(document.root.json(), json!({"a": 1, "b": {"c": 1}, "1": "x", "true": "x"}));
        let lines: Vec<String> = document.duplicates.iter().map(|problem| problem.line("p".as_ref())).collect();
        assert_eq!(
            lines,
            [
                "p:2:11: key `c` stands twice; first in line 2",
                "p:2:17: key `c` stands twice; first in line 2",
                "p:3:1: key `a` stands twice; first in line 1",
                "p:5:1: key `1` stands twice; first in line 4",
                "p:6:1: key `1` stands twice; first in line 4",
                "p:8:1: key `true` stands twice; first in line 7",
            ]
        );
    }

    #[test]
    fn aliases_are_noted() {
        let document = read("a: &a {x: 1}\nb: {y: &y [1]}\nc: &c 3\nd: [*a, *y]\n", None).unwrap();
        for (name, wanted) in [("a", true), ("b", true), ("c", false), ("d", true)] {
            assert_eq!(document.is_aliased(document.root.get(name).unwrap()), wanted, "{name}");
        }
    }

    #[test]
    fn an_anchor_can_stand_on_anything_and_again() {
        let text = "&k key: &n 7\na: *k\nb: *n\nc: &n 8\nd: *n\ne: &e\nf: *e\n";
        let wanted = json!({"key": 7, "a": "key", "b": 7, "c": 8, "d": 8, "e": null, "f": null});
        assert_eq!(read(text, None).unwrap().root.json(), wanted);
    }

    #[test]
    fn unsafe_texts_are_refused() {
        refused(&format!("a: {}", "[".repeat(100)), 1, "nested deeper");
        refused("a: 1\n---\nb: 2\n", 2, "second YAML document");
        refused("a: &x [*x]\n", 1, "alias");
        refused("a: 1\nb: *x\n", 2, "unknown anchor");
        refused("a: {b: 1\nc: 2\n", 2, "not YAML");
        refused("a: &a 1\n*a : 2\n", 2, "an alias cannot be a key");
        for key in ["[1]", "{x: 1}", "~", "!!null ~"] {
            refused(&format!("a: 1\n? {key}\n: 2\n"), 2, "a key has to be plain text");
        }
        refused("a: 1\n: 2\n", 2, "a key has to be plain text");
        refused("a: 1\n!x b: 2\n", 2, "the tag `!x` has no meaning here");
        let mut bomb = "x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*x{}", level - 1); 9].join(", ");
            bomb.push_str(&format!("x{level}: &x{level} [{aliases}]\n"));
        }
        refused(&bomb, 5, "values with every alias");
        refused(&format!("a: [{}]", "1, ".repeat(100_001)), 1, "values with every alias");
    }

    #[test]
    fn control_characters_are_refused_and_escapes_are_not() {
        for character in ['\0', '\u{1}', '\u{7f}', '\u{9f}', '\u{feff}', '\u{fffe}'] {
            let problem = read(&format!("a: 1\nb: é{character}\n"), None).unwrap_err();
            let wanted = format!("p:2:5: the control character U+{:04X};", character as u32);
            assert!(problem.line("p".as_ref()).starts_with(&wanted), "{problem:?}");
        }
        let text = "\u{feff}a: \"\\0\\x7f\\ufeff\"\nb: \u{85}é\u{fffd}𝄞";
        assert_eq!(read(text, None).unwrap().root.json()["a"], json!("\0\u{7f}\u{feff}"));
    }

    #[test]
    fn line_breaks_of_other_alphabets_are_text() {
        let wanted = json!({"a\u{85}b": "x\u{2028}y\u{2029}z"});
        assert_eq!(read("a\u{85}b: x\u{2028}y\u{2029}z\n", None).unwrap().root.json(), wanted);
    }
}
