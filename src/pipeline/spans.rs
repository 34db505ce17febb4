//! The second reading of a pipeline file: not its values, but where they stand, and whether the text is safe to read.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, Span};

use crate::pipeline::problem::{At, Fault, Problem};

/// Nesting beyond this is refused.
const MAX_DEPTH: usize = 64;
/// Values beyond this, with every alias written out, are refused.
const MAX_NODES: u64 = 100_000;

/// A place in a text, both numbers from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    fn of(span: Span) -> Place {
        Place { line: span.start.line(), column: span.start.col() + 1 }
    }
}

/// A value's place and what lies below it. Aliases share the nodes of their anchor.
#[derive(Debug, Clone)]
struct Spot {
    place: Place,
    below: Rc<Below>,
    /// Values here and below with every alias written out.
    nodes: u64,
    /// The number of its anchor; 0 where it has none.
    anchor: usize,
}

#[derive(Debug)]
enum Below {
    Scalar,
    Sequence(Vec<Spot>),
    Mapping(Entries),
}

/// The keys of a mapping with their places and values.
#[derive(Debug, Default)]
struct Entries {
    all: Vec<(Place, Spot)>,
    /// The first entry of each name.
    by_name: HashMap<String, usize>,
}

impl Entries {
    fn get(&self, name: &str) -> Option<(Place, &Spot)> {
        self.by_name.get(name).map(|at| (self.all[*at].0, &self.all[*at].1))
    }

    fn push(&mut self, name: String, place: Place, value: Spot) {
        self.by_name.entry(name).or_insert(self.all.len());
        self.all.push((place, value));
    }
}

/// Where each key and value of a document stands.
#[derive(Debug)]
pub struct Spans {
    root: Option<Spot>,
    /// Keys that stand twice in their mapping; what stands first counts.
    pub duplicates: Vec<Problem>,
    /// Anchors that an alias names.
    aliased: HashSet<usize>,
    /// Paths that `--set` gave, each with its text.
    overrides: Vec<(Vec<String>, String)>,
}

impl Spans {
    /// Reads the places of a document.
    ///
    /// # Errors
    /// Malformed YAML, a second document, an unknown or recursive alias, or a document that is too deep or too large.
    pub fn read(text: &str) -> Result<Spans, Problem> {
        Reader::default().read(text)
    }

    /// Whether an alias names the value at a path, or one below it.
    pub fn is_aliased(&self, path: &[&str]) -> bool {
        fn aliased(spot: &Spot, names: &HashSet<usize>) -> bool {
            names.contains(&spot.anchor)
                || match &*spot.below {
                    Below::Scalar => false,
                    Below::Sequence(items) => items.iter().any(|item| aliased(item, names)),
                    Below::Mapping(entries) => entries.all.iter().any(|(_, value)| aliased(value, names)),
                }
        }
        let spot = self.root.as_ref();
        let spot = spot.and_then(|root| path.iter().try_fold(root, |spot, name| Some(child(spot, name)?.1)));
        spot.is_some_and(|spot| aliased(spot, &self.aliased))
    }

    /// Notes that the value at a path comes from the command line.
    pub fn overridden(&mut self, path: &[String], text: &str) {
        self.overrides.push((path.to_vec(), text.to_owned()));
    }

    /// Where to point for the value at a path: at a scalar itself, at the key of anything bigger.
    pub fn of_value(&self, path: &[String]) -> At {
        self.find(path, false)
    }

    /// Where the last key of a path stands.
    pub fn of_key(&self, path: &[String]) -> At {
        self.find(path, true)
    }

    /// Follows the path as far as it exists.
    fn find(&self, path: &[String], key_wanted: bool) -> At {
        let given = self.overrides.iter().rev().find(|(prefix, _)| path.starts_with(prefix));
        if let Some((_, text)) = given {
            return At::Set(text.clone());
        }
        let Some(mut spot) = self.root.as_ref() else { return At::File };
        let mut place = spot.place;
        for name in path {
            let name = name.trim_start_matches('[').trim_end_matches(']');
            match child(spot, name) {
                Some((key, next)) => {
                    spot = next;
                    let scalar = matches!(*next.below, Below::Scalar);
                    place = match key {
                        Some(key) if key_wanted || !scalar => key,
                        _ => next.place,
                    };
                }
                None => break,
            }
        }
        At::Place(place)
    }
}

/// The value under a name, with its key's place; merged mappings (`<<`) come after the mapping's own keys.
fn child<'a>(spot: &'a Spot, name: &str) -> Option<(Option<Place>, &'a Spot)> {
    match &*spot.below {
        Below::Scalar => None,
        Below::Sequence(items) => items.get(name.parse::<usize>().ok()?).map(|item| (None, item)),
        Below::Mapping(entries) => {
            if let Some((key, value)) = entries.get(name) {
                return Some((Some(key), value));
            }
            let (_, merged) = entries.get("<<")?;
            match &*merged.below {
                Below::Sequence(several) => several.iter().find_map(|one| child(one, name)),
                _ => child(merged, name),
            }
        }
    }
}

/// A collection whose end has not been met.
struct Open {
    place: Place,
    anchor: usize,
    nodes: u64,
    kind: OpenKind,
}

enum OpenKind {
    Sequence(Vec<Spot>),
    Mapping { entries: Entries, key: Option<(String, Place)> },
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, Spot>,
    root: Option<Spot>,
    documents: usize,
    duplicates: Vec<Problem>,
    aliased: HashSet<usize>,
}

fn problem(place: Place, text: impl Into<String>) -> Problem {
    Problem { at: At::Place(place), stage: None, text: text.into(), fault: Fault::Pipeline }
}

impl Reader {
    fn read(mut self, text: &str) -> Result<Spans, Problem> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let place = Place { line: error.marker().line(), column: error.marker().col() + 1 };
                problem(place, format!("not YAML: {}", error.info()))
            })?;
            self.take(event, Place::of(span))?;
        }
        let Reader { root, duplicates, aliased, .. } = self;
        Ok(Spans { root, duplicates, aliased, overrides: Vec::new() })
    }

    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(problem(place, "a second YAML document begins here; a pipeline file holds one"));
                }
            }
            Event::Scalar(text, _, anchor, _) => {
                let spot = Spot { place, below: Rc::new(Below::Scalar), nodes: 1, anchor };
                if self.awaits_key() {
                    self.key(text.into_owned(), place);
                    self.anchor(anchor, &spot);
                } else {
                    self.value(spot, anchor)?;
                }
            }
            Event::Alias(anchor) => {
                let inside = self.open.iter().any(|open| open.anchor == anchor);
                let Some(spot) = self.anchors.get(&anchor).filter(|_| !inside).cloned() else {
                    return Err(problem(place, "this alias names an anchor that is not finished or not there"));
                };
                if self.awaits_key() {
                    return Err(problem(place, "an alias cannot be a key"));
                }
                self.aliased.insert(anchor);
                self.value(spot, 0)?;
            }
            Event::SequenceStart(anchor, _) => self.begin(place, anchor, OpenKind::Sequence(Vec::new()))?,
            Event::MappingStart(anchor, _) => {
                self.begin(place, anchor, OpenKind::Mapping { entries: Entries::default(), key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Nothing => {}
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: OpenKind::Mapping { key: None, .. }, .. }))
    }

    fn begin(&mut self, place: Place, anchor: usize, kind: OpenKind) -> Result<(), Problem> {
        if self.awaits_key() {
            return Err(problem(place, "a key has to be plain text"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(problem(place, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(Open { place, anchor, nodes: 1, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let open = self.open.pop().expect("the parser ends only what it began");
        let below = match open.kind {
            OpenKind::Sequence(items) => Below::Sequence(items),
            OpenKind::Mapping { entries, .. } => Below::Mapping(entries),
        };
        let Open { place, nodes, anchor, .. } = open;
        self.value(Spot { place, below: Rc::new(below), nodes, anchor }, anchor)
    }

    fn key(&mut self, name: String, place: Place) {
        let Some(Open { kind: OpenKind::Mapping { entries, key }, .. }) = self.open.last_mut() else {
            unreachable!("a key is awaited only inside a mapping")
        };
        if let Some((first, _)) = entries.get(&name) {
            let text = format!("key `{name}` stands twice; first in line {}", first.line);
            self.duplicates.push(problem(place, text));
        }
        *key = Some((name, place));
    }

    fn value(&mut self, spot: Spot, anchor: usize) -> Result<(), Problem> {
        self.anchor(anchor, &spot);
        let Some(open) = self.open.last_mut() else {
            self.root = Some(spot);
            return Ok(());
        };
        open.nodes = open.nodes.saturating_add(spot.nodes);
        if open.nodes > MAX_NODES {
            return Err(problem(spot.place, format!("more than {MAX_NODES} values with every alias written out")));
        }
        match &mut open.kind {
            OpenKind::Sequence(items) => items.push(spot),
            OpenKind::Mapping { entries, key } => {
                let (name, place) = key.take().expect("a value follows its key");
                entries.push(name, place, spot);
            }
        }
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, spot: &Spot) {
        if anchor > 0 {
            self.anchors.insert(anchor, spot.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, path: &str, line: usize, column: usize) {
        let spans = Spans::read(text).unwrap();
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        assert_eq!(spans.of_value(&path), At::Place(Place { line, column }), "{path:?}");
    }

    fn refused(text: &str, line: usize, wanted: &str) {
        let problem = Spans::read(text).unwrap_err();
        assert!(matches!(problem.at, At::Place(place) if place.line == line), "{problem:?}");
        assert!(problem.text.contains(wanted), "{problem:?}");
    }

    #[test]
    fn keys_and_values_have_places() {
        let text = "a: 1\nb:\n  c: [x, yy]\n  d:\n    e: 2\n";
        check(text, "a", 1, 4);
        check(text, "b", 2, 1);
        check(text, "b.c", 3, 3);
        check(text, "b.c.1", 3, 10);
        check(text, "b.d.e", 5, 8);
        // What is not there is pointed at by what should hold it.
        check(text, "b.d.missing.deeper", 4, 3);
    }

    #[test]
    fn aliases_and_merges_lead_to_the_anchor() {
        let text = "base: &base\n  lr: 1\n  deep: {x: 2}\nuse:\n  <<: *base\n  own: 3\nlist: [*base]\n";
        check(text, "use.lr", 2, 7);
        check(text, "use.deep.x", 3, 13);
        check(text, "use.own", 6, 8);
        check(text, "list.0.lr", 2, 7);
    }

    #[test]
    fn of_a_key_that_stands_twice_the_first_counts() {
        let text = "a: 1\nb: {c: 1, c: 2, c: 3}\na: 3\n";
        check(text, "a", 1, 4);
        let duplicates = Spans::read(text).unwrap().duplicates;
        let lines: Vec<String> = duplicates.iter().map(|problem| problem.line("p".as_ref())).collect();
        assert_eq!(
            lines,
            [
                "p:2:11: key `c` stands twice; first in line 2",
                "p:2:17: key `c` stands twice; first in line 2",
                "p:3:1: key `a` stands twice; first in line 1",
            ]
        );
    }

    #[test]
    fn aliases_are_noted() {
        let spans = Spans::read("a: &a {x: 1}\nb: {y: &y [1]}\nc: &c 3\nd: [*a, *y]\n").unwrap();
        for (name, wanted) in [("a", true), ("b", true), ("c", false), ("d", true), ("e", false)] {
            assert_eq!(spans.is_aliased(&[name]), wanted, "{name}");
        }
    }

    #[test]
    fn unsafe_texts_are_refused() {
        refused(&format!("a: {}", "[".repeat(100)), 1, "nested deeper");
        refused("a: 1\n---\nb: 2\n", 2, "second YAML document");
        refused("a: &x [*x]\n", 1, "alias");
        refused("a: {b: 1\nc: 2\n", 2, "not YAML");
        let mut bomb = "x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*x{}", level - 1); 9].join(", ");
            bomb.push_str(&format!("x{level}: &x{level} [{aliases}]\n"));
        }
        refused(&bomb, 5, "values with every alias");
    }
}
