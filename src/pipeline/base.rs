//! `base: FILE`: an experiment as changes to another pipeline file.
//!
//! Mappings are merged key by key; lists and plain values replace those of the base. `null` takes a key of the base
//! away, and a mapping with another `kind` replaces the base's. A base can have a base. `name` is not inherited: runs
//! are filed under it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::node::{Content, Entry, Node};
use super::yaml::{self, Document};
use crate::pipeline::paths;
use crate::pipeline::problem::{Fault, Problem};

/// Larger pipeline files are refused before they are read.
const MAX_BYTES: u64 = 1 << 20;
/// More bases in a row are refused.
const MAX_BASES: usize = 16;

/// The reason why a file cannot be read.
pub struct Unreadable {
    /// The fault.
    pub text: String,
    /// The origin of the fault.
    pub fault: Fault,
}

/// The text of a pipeline file.
///
/// # Errors
/// When the file cannot be read, is too large, or is not UTF-8.
pub fn text_of(file: &Path) -> Result<String, Unreadable> {
    let by_system = |error: std::io::Error| Unreadable { text: error.to_string(), fault: Fault::of_system(&error) };
    let refused = |text: String| Unreadable { text, fault: Fault::Pipeline };
    let file = kit::open_file(file).map_err(|error| match error {
        kit::Error::Io { source, .. } => by_system(source),
        // A pipe may never end.
        error => refused(error.to_string()),
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(by_system)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refused(format!("a pipeline file has at most {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        refused(format!("not UTF-8 in line {}", line + 1))
    })
}

/// The value of a pipeline file over those of its bases; `problems` takes keys of theirs that stand twice.
///
/// # Errors
/// When a base is not there, cannot be read or leads back to a file it is a base of.
pub fn over_bases(own: &Document, file: &Path, problems: &mut Vec<Problem>) -> Result<Node, Problem> {
    let mut layers = vec![own.root.clone()];
    let mut files = vec![file.to_owned()];
    while let Some(base) = taken_out(layers.last_mut().expect("the file itself is one"), "base") {
        let wrong = |text: String, fault| Problem { at: base.at.clone(), stage: None, text, fault };
        let name = base.text().filter(|text| !text.is_empty() && !text.contains("${"));
        let Some(name) = name else {
            let text = format!("`base` is the path of a pipeline file, got {}", base.json());
            return Err(wrong(text, Fault::Pipeline));
        };
        let (path, above) = (PathBuf::from(name), files.last().expect("the file itself is one"));
        if !path.exists() {
            return Err(wrong(paths::absent(&path, above), Fault::Pipeline));
        }
        if files.iter().any(|file| is_same(file, &path)) {
            let circle: Vec<String> = files
                .iter()
                .chain([&path])
                .skip_while(|file| !is_same(file, &path))
                .map(|file| file.display().to_string())
                .collect();
            return Err(wrong(format!("bases lead back: {}", circle.join(" -> ")), Fault::Pipeline));
        }
        if files.len() > MAX_BASES {
            return Err(wrong(format!("more than {MAX_BASES} bases in a row"), Fault::Pipeline));
        }
        let text = text_of(&path).map_err(|it| wrong(format!("`{name}` cannot be read: {}", it.text), it.fault))?;
        let mut document = yaml::read(&text, Some(&path.as_path().into()))?;
        if document.root.mapping().is_none() {
            return Err(wrong(format!("`{name}` is no pipeline file: it holds no mapping"), Fault::Pipeline));
        }
        taken_out(&mut document.root, "name");
        problems.append(&mut document.duplicates);
        layers.push(document.root);
        files.push(path);
    }
    let lowest = layers.pop().expect("the file itself is one");
    Ok(layers.into_iter().rev().fold(lowest, |base, own| laid_over(base, own, problems)))
}

/// Takes a key out of a mapping.
fn taken_out(node: &mut Node, key: &str) -> Option<Node> {
    match &mut node.content {
        Content::Mapping(mapping) if mapping.get(key).is_some() => Rc::make_mut(mapping).remove(key),
        _ => None,
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// The value of a base with that of an experiment over it.
fn laid_over(mut base: Node, own: Node, problems: &mut Vec<Problem>) -> Node {
    let (Content::Mapping(under), Content::Mapping(over)) = (&mut base.content, &own.content) else { return own };
    let other_kind = over.get("kind").zip(under.get("kind")).is_some_and(|(own, base)| own.json() != base.json());
    if other_kind {
        return own;
    }
    let under = Rc::make_mut(under);
    for Entry { key, key_at, value } in over.iter().cloned() {
        match under.get(&key) {
            Some(_) if value.content == Content::Null => _ = under.remove(&key),
            // As when all that was changed is commented out.
            Some(_) if value.content == Content::Empty => {
                let text = format!("`{key}` is empty: say what is changed in the base's, or `null` to take it away");
                problems.push(Problem { at: key_at, stage: None, text, fault: Fault::Pipeline });
            }
            Some(below) => {
                let value = laid_over(below.clone(), value, problems);
                under.insert(Entry { key, key_at, value });
            }
            None => under.insert(Entry { key, key_at, value }),
        }
    }
    Node { at: own.at, ..base }
}
