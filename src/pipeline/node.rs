//! The values of a pipeline file: each with its place, keys in the order of the file.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Number, Value};

use crate::pipeline::problem::At;

/// A value and its place. A clone shares what lies below.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its place in the file.
    pub at: At,
    /// Its content.
    pub content: Content,
    /// Of text that came from the environment, whole or in part: the same with `${env:X}` for what came from there.
    pub named: Option<Arc<str>>,
}

/// The content of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// No value at all: `key:`. As JSON it is null.
    Empty,
    /// A written `null`.
    Null,
    /// True or false.
    Bool(bool),
    /// A finite number.
    Number(Number),
    Text(String),
    List(Rc<Vec<Node>>),
    /// Keys with values.
    Mapping(Rc<Mapping>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    /// Place of the key.
    pub key_at: At,
    pub value: Node,
}

/// Keys with values, in the order of the file; each key once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mapping {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

impl Mapping {
    /// The keys with their values.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// The same, to change the values.
    pub fn values_mut(&mut self) -> impl Iterator<Item = (&str, &mut Node)> {
        self.entries.iter_mut().map(|entry| (entry.key.as_str(), &mut entry.value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    /// True where there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A key with its value.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.by_name.get(key).map(|index| &self.entries[*index])
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.by_name.get(key).map(|index| &mut self.entries[*index].value)
    }

    /// Puts an entry at the place of its key, or at the end.
    pub fn insert(&mut self, entry: Entry) {
        match self.by_name.get(&entry.key) {
            Some(index) => self.entries[*index] = entry,
            None => {
                self.by_name.insert(entry.key.clone(), self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let removed = self.entries.remove(self.by_name.remove(key)?);
        self.by_name.clear();
        self.by_name.extend(self.entries.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)));
        Some(removed.value)
    }

    /// Adds the keys that a mapping, or several in a list, has and this one has not: what `<<` means.
    ///
    /// # Errors
    /// When it is neither.
    pub fn merge(&mut self, merged: &Node) -> Result<(), &'static str> {
        let several = match &merged.content {
            Content::List(several) => several.as_slice(),
            _ => std::slice::from_ref(merged),
        };
        for one in several {
            let Content::Mapping(one) = &one.content else { return Err("`<<` merges a mapping or a list of mappings") };
            one.iter()
                .filter(|entry| !self.by_name.contains_key(&entry.key))
                .cloned()
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|entry| self.insert(entry));
        }
        Ok(())
    }
}

impl FromIterator<Entry> for Mapping {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Mapping {
        let mut mapping = Mapping::default();
        entries.into_iter().for_each(|entry| mapping.insert(entry));
        mapping
    }
}

impl Node {
    /// A value that stands at no place of its own.
    pub fn of(content: Content) -> Node {
        Node::placed(At::File, content)
    }

    /// A value with its place.
    pub fn placed(at: At, content: Content) -> Node {
        Node { at, content, named: None }
    }

    /// The mapping that it is.
    pub fn mapping(&self) -> Option<&Mapping> {
        if let Content::Mapping(mapping) = &self.content { Some(mapping) } else { None }
    }

    /// The text that it is.
    pub fn text(&self) -> Option<&str> {
        if let Content::Text(text) = &self.content { Some(text) } else { None }
    }

    /// The value under a key, where it is a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.mapping()?.get(key)
    }

    /// True where it is null, written or not.
    pub fn is_null(&self) -> bool {
        matches!(self.content, Content::Empty | Content::Null)
    }

    /// The value as JSON.
    pub fn json(&self) -> Value {
        match &self.content {
            Content::Empty | Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => items.iter().map(Node::json).collect(),
            Content::Mapping(mapping) => {
                Value::Object(mapping.iter().map(|entry| (entry.key.clone(), entry.value.json())).collect())
            }
        }
    }

    /// The values here and below that came from the environment: the keys that lead to each, and its text with names.
    pub fn named(&self) -> Vec<(Vec<String>, Arc<str>)> {
        fn walk(node: &Node, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Arc<str>)>) {
            found.extend(node.named.iter().map(|text| (path.clone(), text.clone())));
            let mut below = |key: String, node: &Node| {
                path.push(key);
                walk(node, path, found);
                path.pop();
            };
            match &node.content {
                Content::List(items) => items.iter().enumerate().for_each(|(at, item)| below(at.to_string(), item)),
                Content::Mapping(mapping) => mapping.iter().for_each(|entry| below(entry.key.clone(), &entry.value)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        walk(self, &mut Vec::new(), &mut found);
        found
    }

    /// Place of the value at a path: of a scalar itself, of the key of anything bigger. A missing value has the place
    /// of its parent.
    pub fn of_value(&self, path: &[String]) -> At {
        self.find(path, false)
    }

    /// Place of the last key of a path.
    pub fn of_key(&self, path: &[String]) -> At {
        self.find(path, true)
    }

    /// Follows the path as far as it exists.
    fn find(&self, path: &[String], key_wanted: bool) -> At {
        let (mut node, mut at) = (self, &self.at);
        for name in path {
            (node, at) = match &node.content {
                Content::List(items) => {
                    let index = name.trim_start_matches('[').trim_end_matches(']').parse::<usize>();
                    let Some(item) = index.ok().and_then(|index| items.get(index)) else { break };
                    (item, &item.at)
                }
                Content::Mapping(mapping) => {
                    let Some(entry) = mapping.entry(name) else { break };
                    let bigger = matches!(entry.value.content, Content::List(_) | Content::Mapping(_));
                    (&entry.value, if key_wanted || bigger { &entry.key_at } else { &entry.value.at })
                }
                _ => break,
            };
        }
        at.clone()
    }
}

#[cfg(test)]
mod tests {
    use crate::pipeline::problem::{At, Place};
    use crate::pipeline::yaml::read;

    fn check(text: &str, path: &str, line: usize, column: usize) {
        let root = read(text, None).unwrap().root;
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        assert_eq!(root.of_value(&path), At::Place(Place { file: None, line, column }), "{path:?}");
    }

    #[test]
    fn keys_and_values_have_places() {
        let text = "a: 1\nb:\n  c: [x, yy]\n  d:\n    e: 2\n";
        check(text, "a", 1, 4);
        check(text, "b", 2, 1);
        check(text, "b.c", 3, 3);
        check(text, "b.c.1", 3, 10);
        check(text, "b.d.e", 5, 8);
        // A missing value has the place of its parent.
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
    fn taking_a_key_out_leaves_the_others_in_their_order() {
        let mut mapping = read("{a: 1, b: 2, c: 3}", None).unwrap().root.mapping().unwrap().clone();
        assert!(mapping.remove("a").is_some() && mapping.remove("a").is_none());
        assert_eq!(mapping.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(mapping.get("c").unwrap().json(), 3);
    }
}
