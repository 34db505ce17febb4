//! The manifest of a store entry: its content and the recipe that it was made from.

use std::collections::BTreeMap;
use std::path::Path;

use kit::commit::{commit_json, read_json};
use kit::{Digest, Error, Outcome, OutputPort, PortFiles, Result, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Raised when keys or entries change their form.
/// 2: messages have a column `extra`.
const FORMAT: u32 = 2;
/// The key of a manifest file that holds the digest of all others.
const SEAL: &str = "seal";

/// The content of one source of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDigest {
    /// The table it holds.
    pub table: Table,
    /// The digest of its content.
    pub digest: Digest,
}

/// Everything that decides what a stage writes. The stage's name and the paths of its inputs are not part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The form of this record.
    pub format: u32,
    /// The stage's kind.
    pub kind: String,
    /// The version of the kind and of the rooms it computes with.
    pub version: String,
    /// The configuration after defaults, without inputs and without what changes only how the work is done.
    pub settings: Value,
    /// The pipeline's seed, where the kind draws.
    pub seed: Option<u64>,
    /// The content of each input that is read.
    pub inputs: BTreeMap<String, Vec<InputDigest>>,
    /// The content of each file or folder that the configuration names.
    pub files: BTreeMap<String, Digest>,
}

impl Recipe {
    /// A recipe without inputs and files.
    pub fn new(kind: &str, version: String, settings: Value, seed: Option<u64>) -> Recipe {
        let (inputs, files) = (BTreeMap::new(), BTreeMap::new());
        Recipe { format: FORMAT, kind: kind.to_owned(), version, settings, seed, inputs, files }
    }

    /// The digest of all of it.
    pub fn key(&self) -> Digest {
        Digest::of_value(&serde_json::to_value(self).expect("a recipe can be written as JSON"))
    }

    /// The name of the store entry.
    pub fn entry(&self) -> String {
        format!("{}-{}", self.kind, self.key().short(16))
    }

    /// The changes since another recipe of the same stage, one fragment each.
    pub fn changes_since(&self, before: &Recipe) -> Vec<String> {
        self.differences(before).iter().map(ToString::to_string).collect()
    }

    /// The differences from another recipe of the same stage, key by key.
    pub fn differences(&self, before: &Recipe) -> Vec<Difference> {
        let mut all = Vec::new();
        let text = |text: &str| Some(Value::from(text));
        if self.kind != before.kind {
            return vec![Difference::new(Part::Kind, "", text(&before.kind), text(&self.kind))];
        }
        if self.version != before.version {
            all.push(Difference::new(Part::Version, "", text(&before.version), text(&self.version)));
        }
        if self.format != before.format {
            all.push(Difference::new(Part::Format, "", Some(before.format.into()), Some(self.format.into())));
        }
        settings_differences(Some(&before.settings), Some(&self.settings), "", &mut all);
        if self.seed != before.seed {
            all.push(Difference::new(Part::Seed, "", before.seed.map(Value::from), self.seed.map(Value::from)));
        }
        let digests = |digests: &Vec<InputDigest>| -> Value {
            digests.iter().map(|input| Value::from(input.digest.short(16))).collect()
        };
        for key in keys(&self.inputs, &before.inputs) {
            let (old, new) = (before.inputs.get(key), self.inputs.get(key));
            if old != new {
                all.push(Difference::new(Part::Input, key, old.map(digests), new.map(digests)));
            }
        }
        for path in keys(&self.files, &before.files) {
            let (old, new) = (before.files.get(path), self.files.get(path));
            if old != new {
                let digest = |digest: &Digest| Value::from(digest.short(16));
                all.push(Difference::new(Part::File, path, old.map(digest), new.map(digest)));
            }
        }
        all
    }
}

/// A part of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The stage's kind.
    Kind,
    /// The kind's version.
    Version,
    /// The form of the store's records.
    Format,
    /// A key of the configuration.
    Config,
    Seed,
    /// The content of an input.
    Input,
    /// The content of a file that the configuration names.
    File,
}

/// One way in which two recipes differ. Contents are compared by their digests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The part of the recipe that differs.
    pub part: Part,
    /// Key of the part, such as `optimizer.lr`; empty where there is one part only.
    pub key: String,
    /// The value before; none where there was none.
    pub before: Option<Value>,
    /// The value now; none where there is none.
    pub after: Option<Value>,
}

impl Difference {
    fn new(part: Part, key: &str, before: Option<Value>, after: Option<Value>) -> Difference {
        Difference { part, key: key.to_owned(), before, after }
    }

    /// The name of the part, such as `optimizer.lr`, `seed` or ``input `from` ``.
    pub fn label(&self) -> String {
        match self.part {
            Part::Kind => "kind".to_owned(),
            Part::Version => "version".to_owned(),
            Part::Format => "the store's format".to_owned(),
            Part::Config => self.key.clone(),
            Part::Seed => "seed".to_owned(),
            Part::Input => format!("input `{}`", self.key),
            Part::File => format!("file `{}`", self.key),
        }
    }

    /// A value in few letters.
    pub fn short(value: Option<&Value>) -> String {
        let text = match value {
            None | Some(Value::Null) => "none".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(items)) if !items.is_empty() && items.iter().all(Value::is_string) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            }
            Some(other) => kit::canonical(other),
        };
        match text.char_indices().nth(60) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (key, before, after) = (&self.key, self.before.as_ref(), self.after.as_ref());
        let values = || format!("{} -> {}", Difference::short(before), Difference::short(after));
        let content = match (before, after) {
            (None, _) => "is new",
            (_, None) => "is gone",
            _ => "changed",
        };
        match self.part {
            Part::Kind => write!(f, "kind changed {}", values()),
            Part::Version => write!(f, "version changed {}", values()),
            Part::Format => f.write_str("the store's format changed"),
            Part::Config => write!(f, "config `{key}` changed {}", values()),
            Part::Seed => write!(f, "seed changed {}", values()),
            Part::Input => write!(f, "input `{key}` {content}"),
            Part::File => write!(f, "file `{key}` {content}"),
        }
    }
}

fn keys<'a, V>(a: &'a BTreeMap<String, V>, b: &'a BTreeMap<String, V>) -> Vec<&'a String> {
    let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn settings_differences(before: Option<&Value>, now: Option<&Value>, path: &str, all: &mut Vec<Difference>) {
    match (before, now) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                settings_differences(old.get(key), new.get(key), &path, all);
            }
        }
        _ => {
            let canonical = |value: Option<&Value>| kit::canonical(value.unwrap_or(&Value::Null));
            if canonical(before) != canonical(now) {
                all.push(Difference::new(Part::Config, path, before.cloned(), now.cloned()));
            }
        }
    }
}

/// The record that makes a folder an entry: committed last, so that what it names is whole. It holds no times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The digest of the recipe.
    pub key: Digest,
    /// The recipe that it was made from.
    pub recipe: Recipe,
    /// Device it was computed on: `cpu` or `cuda:N`.
    pub device: String,
    /// The vector instructions of that CPU.
    pub cpu: String,
    /// The version of halftone.
    pub halftone: String,
    /// The files of each port.
    pub ports: BTreeMap<String, PortFiles>,
    /// The stage's outcome: balance and figures.
    pub outcome: Outcome,
}

impl Manifest {
    /// Commits it under `path`, with the digest of its content beside it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn commit(&self, path: &Path) -> Result<()> {
        commit_json(path, &self.sealed())
    }

    /// As JSON with the digest of its content beside it.
    pub fn sealed(&self) -> Value {
        let mut value = self.value();
        let seal = Digest::of_value(&value);
        value[SEAL] = seal.to_string().into();
        value
    }

    /// Reads one, or nothing where there is none. Those of older versions have no seal.
    ///
    /// # Errors
    /// When it cannot be read, or is not as it was written.
    pub fn open(path: &Path) -> Result<Option<Manifest>> {
        let Some(value) = read_json::<Value>(path)? else { return Ok(None) };
        Manifest::of_value(value, &path.display().to_string()).map(Some)
    }

    /// Reads one that comes from `place`.
    ///
    /// # Errors
    /// When it is not as it was written.
    pub fn of_value(mut value: Value, place: &str) -> Result<Manifest> {
        let damaged = |what: &str| Error::data(format!("{place}: {what}"));
        let fields = value.as_object_mut().ok_or_else(|| damaged("is no manifest"))?;
        let seal = fields.remove(SEAL);
        let sealed = seal.is_some();
        if seal.is_some_and(|seal| seal != Digest::of_value(&value).to_string()) {
            return Err(damaged("has other values than were written"));
        }
        let manifest: Manifest = serde_json::from_value(value.clone()).map_err(|error| damaged(&error.to_string()))?;
        // One bit may turn the seal into something else.
        if !sealed && manifest.value().as_object().map(Map::len) != value.as_object().map(Map::len) {
            return Err(damaged("has a key that is none of a manifest's"));
        }
        Ok(manifest)
    }

    fn value(&self) -> Value {
        serde_json::to_value(self).expect("a manifest can be written as JSON")
    }

    /// The rows of a result as people count them: those of the stage's main output, which is the first of `outputs`,
    /// and of its rows that are held out; where that is a model, the rows that it was made from.
    pub fn rows(&self, outputs: &[OutputPort]) -> u64 {
        let main = outputs.first().filter(|output| output.table != Table::Model);
        match (main, self.outcome.balance.first()) {
            (Some(main), _) => {
                let names = [main.name.clone(), format!("holdout_{}", main.name)];
                names.iter().filter_map(|name| self.ports.get(name)).map(|port| port.rows).sum()
            }
            (None, Some(balance)) => balance.kept,
            (None, None) => 0,
        }
    }

    /// Rows of the first input; none where the stage reads nothing row by row.
    pub fn read(&self) -> Option<u64> {
        self.outcome.balance.first().map(|balance| balance.read)
    }

    /// Rows rejected.
    pub fn rejected(&self) -> u64 {
        self.ports.get("rejects").map_or(0, |port| port.rows)
    }

    /// The ports whose bytes differ from another entry's.
    pub fn differing_ports(&self, other: &Manifest) -> Vec<String> {
        let differs = |name: &&String| {
            self.ports.get(*name).map(PortFiles::digest) != other.ports.get(*name).map(PortFiles::digest)
        };
        keys(&self.ports, &other.ports).into_iter().filter(differs).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn recipe(settings: Value) -> Recipe {
        Recipe::new("train", "1+lm1".to_owned(), settings, Some(17))
    }

    #[test]
    fn key_order_in_settings_does_not_matter() {
        assert_eq!(recipe(json!({"a": 1, "b": 2})).key(), recipe(json!({"b": 2, "a": 1})).key());
        assert_ne!(recipe(json!({"a": 1})).key(), recipe(json!({"a": 2})).key());
    }

    #[test]
    fn a_manifest_is_whole_or_refused_whatever_bit_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let recipe = recipe(json!({"lr": 3e-4}));
        let manifest = Manifest {
            key: recipe.key(),
            recipe,
            device: "cpu".to_owned(),
            cpu: "x86-64-v3".to_owned(),
            halftone: "0.1.0".to_owned(),
            ports: BTreeMap::new(),
            outcome: Outcome::default().balance("from", 3, 2, 1).figure("loss", 0.1 + 0.2),
        };
        assert_eq!(Manifest::open(&path).unwrap(), None);
        manifest.commit(&path).unwrap();
        assert_eq!(Manifest::open(&path).unwrap(), Some(manifest.clone()));
        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            if let Ok(read) = Manifest::open(&path) {
                assert_eq!(read, Some(manifest.clone()), "bit {bit}");
            }
        }
        commit_json(&path, &manifest).unwrap();
        assert_eq!(Manifest::open(&path).unwrap(), Some(manifest), "as older versions wrote it");
    }

    #[test]
    fn every_change_is_named() {
        let input = |text: &[u8]| vec![InputDigest { table: Table::Pairs, digest: Digest::of(text) }];
        let mut before = recipe(json!({"optimizer": {"lr": 1e-4, "clip": 1.0}, "ties": "drop"}));
        before.inputs.insert("from".into(), input(b"1"));
        before.inputs.insert("reference".into(), input(b"2"));
        before.files.insert("t.txt".into(), Digest::of(b"3"));
        let mut now = recipe(json!({"optimizer": {"lr": 3e-4, "clip": 1.0}, "ties": "drop", "new": [1, 2]}));
        now.inputs.insert("from".into(), input(b"4"));
        now.files.insert("t.txt".into(), Digest::of(b"5"));
        (now.version, now.seed) = ("2+lm1".to_owned(), Some(18));
        assert_eq!(
            now.changes_since(&before),
            [
                "version changed 1+lm1 -> 2+lm1",
                "config `new` changed none -> [1,2]",
                "config `optimizer.lr` changed 0.0001 -> 0.0003",
                "seed changed 17 -> 18",
                "input `from` changed",
                "input `reference` is gone",
                "file `t.txt` changed",
            ]
        );
        assert!(before.changes_since(&before).is_empty());
    }
}
