//! A store that several machines share: results found there are fetched, new ones are pushed. It never decides a key.
//!
//! `store.json` names the store. `data/DIGEST` is a file under the digest of its bytes. `entries/ENTRY.json` is the
//! manifest of a result: created once, after all of its files, and never changed. A reader trusts nothing that no
//! manifest names, and no byte whose digest is another. Read [`Shared`] first.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kit::commit::{commit_bytes, commit_file};
use kit::{Digest, Error, Result};
use serde_json::{Value, json};

use super::manifest::{Manifest, Recipe};
use super::objects::{Objects, create};

/// The object that names a shared store.
const NAME: &str = "store.json";
/// Raised when the layout changes.
const FORMAT: u64 = 1;
/// The folder of marks within a work folder.
const MARKS: &str = "shared";
/// The file beside the marks that holds the store's address.
const ADDRESS: &str = ".address";
/// Files that travel at once.
const AT_ONCE: usize = 4;

/// What a command does with a shared store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It looks; an empty place stays empty.
    Look,
    /// It fetches and pushes; an empty place becomes a store.
    Work,
}

/// A shared store as one work folder sees it.
pub struct Shared {
    objects: Box<dyn Objects>,
    /// The folder with a mark for each result that is known to be there; none while the place is empty.
    marks: Option<PathBuf>,
    /// Entries and files there that turned out to be damaged in this process.
    doubted: Mutex<BTreeSet<String>>,
}

/// What is under an entry's name.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A result of this recipe.
    Whole(Box<Manifest>),
    /// Something else: what is wrong.
    Damaged(String),
}

/// What came of fetching a result.
#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Its files are here; so many bytes travelled.
    Whole { bytes: u64 },
    /// It is damaged there.
    Damaged(String),
}

/// What came of pushing a result.
#[derive(Debug)]
pub enum Pushed {
    /// It is there now; so many files and bytes travelled.
    New { files: usize, bytes: u64 },
    /// The same result was there before.
    There,
    /// Another result of the same recipe is there: the ports that differ.
    Other { theirs: Box<Manifest>, ports: Vec<String> },
}

/// What is wrong there with a result that is whole here.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is not there.
    Missing,
    /// It is another, or parts of it are missing: a fragment that says which.
    Damaged(String),
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({})", self.objects.address())
    }
}

impl Shared {
    /// The shared store at a place, for the work folder at `root`. It is asked for its name, so that a place that
    /// cannot be reached, read or (for work) written is found out here.
    ///
    /// # Errors
    /// When it cannot be reached, refuses, or holds something else.
    pub fn open(objects: Box<dyn Objects>, root: &Path, access: Access) -> Result<Shared> {
        let address = objects.address().to_owned();
        let mut name = objects.read(NAME)?;
        if name.is_none() && access == Access::Work {
            let own = json!({"halftone_store": FORMAT, "id": new_id()?}).to_string();
            name = Some(create(&*objects, NAME, own.as_bytes())?);
        }
        let marks = name.map(|name| id_of(&name, &address).map(|id| root.join(MARKS).join(id))).transpose()?;
        if let (Some(marks), Access::Work) = (&marks, access)
            && !marks.join(ADDRESS).is_file()
        {
            commit_bytes(&marks.join(ADDRESS), address.as_bytes())?;
        }
        Ok(Shared { objects, marks, doubted: Mutex::default() })
    }

    /// The addresses of the shared stores that a work folder has used.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn known(root: &Path) -> Result<Vec<String>> {
        let folder = root.join(MARKS);
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut known = BTreeSet::new();
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path().join(ADDRESS);
            match std::fs::read_to_string(&path) {
                Ok(address) => _ = known.insert(address),
                // A kill between the folder and the file in it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Io { path, source }),
            }
        }
        Ok(known.into_iter().collect())
    }

    /// Its address.
    pub fn address(&self) -> &str {
        self.objects.address()
    }

    /// True where a result is known to be there as it is here.
    pub fn is_marked(&self, entry: &str) -> bool {
        self.marks.as_ref().is_some_and(|marks| marks.join(entry).exists())
    }

    /// What is there under the name of a recipe's result. What turned out to be damaged is not found again.
    ///
    /// # Errors
    /// When the place cannot be reached, or refuses.
    pub fn find(&self, recipe: &Recipe) -> Result<Found> {
        let entry = recipe.entry();
        if self.marks.is_none() || self.is_doubted(&entry) {
            return Ok(Found::Nothing);
        }
        self.look_up(recipe)
    }

    fn look_up(&self, recipe: &Recipe) -> Result<Found> {
        let key = manifest_key(&recipe.entry());
        let Some(bytes) = self.objects.read(&key)? else { return Ok(Found::Nothing) };
        let place = format!("{}/{key}", self.address());
        let read = serde_json::from_slice::<Value>(&bytes).map_err(|error| Error::data(format!("{place}: {error}")));
        let manifest = match read.and_then(|value| Manifest::of_value(value, &place)) {
            Ok(manifest) => manifest,
            Err(Error::Data(text)) => return Ok(Found::Damaged(text)),
            Err(error) => return Err(error),
        };
        if manifest.key != recipe.key() || manifest.recipe.key() != manifest.key {
            return Ok(Found::Damaged(format!("{place}: belongs to another recipe")));
        }
        if let Some(name) = strange_name(&manifest) {
            return Ok(Found::Damaged(format!("{place}: names a file `{name}`, which would lie outside its folder")));
        }
        Ok(Found::Whole(Box::new(manifest)))
    }

    /// Remembers for this process that a result there cannot be used.
    pub fn doubt(&self, entry: &str) {
        self.doubted().insert(entry.to_owned());
    }

    /// Brings the files of a result into a folder, each with the digest that the manifest says. Those that an earlier
    /// attempt brought are not fetched again.
    ///
    /// # Errors
    /// When the place cannot be reached, when a file cannot be written, and when `check` says so.
    pub fn fetch(&self, manifest: &Manifest, folder: &Path, check: Check<'_>) -> Result<Fetched> {
        for port in manifest.ports.keys() {
            let port = folder.join(port);
            std::fs::create_dir_all(&port).map_err(Error::io(&port))?;
        }
        let files = files_of(manifest, folder);
        let (bytes, damage) = (Mutex::new(0), Mutex::new(None));
        side_by_side(&files, &|file| {
            check()?;
            if kept(&damage).is_some() || is_there(file)? {
                return Ok(());
            }
            match self.bring(file)? {
                None => *kept(&bytes) += file.bytes,
                Some(what) => *kept(&damage) = Some(what),
            }
            Ok(())
        })?;
        if let Some(damage) = kept(&damage).take() {
            self.doubt(&manifest.recipe.entry());
            return Ok(Fetched::Damaged(damage));
        }
        Ok(Fetched::Whole { bytes: *kept(&bytes) })
    }

    /// Fetches a file; what is wrong with it, where its bytes are not those that were pushed.
    fn bring(&self, file: &Travelling) -> Result<Option<String>> {
        let key = data_key(&file.digest);
        let place = format!("{}/{key}", self.address());
        let damaged = |what: String| {
            self.doubted().insert(key.clone());
            Ok(Some(format!("{place}: {what}")))
        };
        match self.objects.size(&key)? {
            None => return damaged("is missing".to_owned()),
            Some(size) if size != file.bytes => {
                return damaged(format!("has {size} bytes, was pushed with {}", file.bytes));
            }
            Some(_) => {}
        }
        let fetched = commit_file(&file.path, |to| {
            self.objects.fetch(&key, file.bytes, to)?;
            // By its temporary name nobody can know it: read through the handle.
            match digest_of(to, &file.path)? == file.digest {
                true => Ok(()),
                false => Err(Error::data("has other bytes than were pushed")),
            }
        });
        match fetched {
            Err(Error::Data(what)) => damaged(what),
            other => other.map(|()| None),
        }
    }

    /// Brings a result from its folder here to there: its files first, its manifest last.
    ///
    /// # Errors
    /// When the place cannot be reached, when a file cannot be read, and when `check` says so.
    pub fn push(&self, manifest: &Manifest, folder: &Path, check: Check<'_>) -> Result<Pushed> {
        let entry = manifest.recipe.entry();
        let mut files = files_of(manifest, folder);
        // A file that stands in the result twice travels once.
        files.sort_by_key(|file| file.digest);
        files.dedup_by_key(|file| file.digest);
        let travelled = Mutex::new((0, 0));
        side_by_side(&files, &|file| {
            check()?;
            let key = data_key(&file.digest);
            if !self.is_doubted(&key) && self.objects.size(&key)? == Some(file.bytes) {
                return Ok(());
            }
            self.objects.put(&key, &file.path)?;
            let mut travelled = kept(&travelled);
            *travelled = (travelled.0 + 1, travelled.1 + file.bytes);
            Ok(())
        })?;
        check()?;
        let own = manifest.sealed().to_string();
        let there = create(&*self.objects, &manifest_key(&entry), own.as_bytes())?;
        if there != own.as_bytes()
            && let Some(pushed) = self.compared(manifest)?
            && !matches!(pushed, Pushed::There)
        {
            return Ok(pushed);
        }
        self.mark(&entry)?;
        let (files, bytes) = *kept(&travelled);
        Ok(Pushed::New { files, bytes })
    }

    /// The result that is there beside the one here; none where there is none, or where files of it are damaged.
    ///
    /// # Errors
    /// When the place cannot be reached; when what is there is no manifest.
    pub fn compared(&self, manifest: &Manifest) -> Result<Option<Pushed>> {
        let entry = manifest.recipe.entry();
        let theirs = match self.look_up(&manifest.recipe)? {
            Found::Nothing => return Ok(None),
            Found::Whole(theirs) => theirs,
            Found::Damaged(damage) => {
                let text =
                    format!("{damage}; remove that object, and run again to push the result of this work folder");
                return Err(Error::Data(text));
            }
        };
        let ports = manifest.differing_ports(&theirs);
        // Of files that are damaged there the right bytes are here.
        if ports.is_empty() && !self.is_doubted(&entry) {
            self.mark(&entry)?;
            return Ok(Some(Pushed::There));
        }
        Ok((!ports.is_empty()).then_some(Pushed::Other { theirs, ports }))
    }

    /// What is wrong there with a result that is whole here. Sizes are compared; bytes are when they are fetched.
    ///
    /// # Errors
    /// When the place cannot be reached, or refuses.
    pub fn verify(&self, manifest: &Manifest) -> Result<Option<Wrong>> {
        let wrong = match self.look_up(&manifest.recipe)? {
            Found::Nothing => Some(Wrong::Missing),
            Found::Damaged(damage) => Some(Wrong::Damaged(damage)),
            Found::Whole(theirs) => match &manifest.differing_ports(&theirs)[..] {
                [] => {
                    let of = |file: &Travelling| {
                        let key = data_key(&file.digest);
                        let text = format!("{key} is missing or has another size");
                        Ok((self.objects.size(&key)? != Some(file.bytes)).then_some(Wrong::Damaged(text)))
                    };
                    files_of(manifest, Path::new("")).iter().map(of).find_map(Result::transpose).transpose()?
                }
                ports => Some(Wrong::Damaged(format!("has other bytes in {}", ports.join(", ")))),
            },
        };
        if wrong.is_some()
            && let Some(marks) = &self.marks
        {
            // The next run looks for itself, and pushes what is missing.
            remove_file(&marks.join(manifest.recipe.entry()))?;
        }
        Ok(wrong)
    }

    /// Remembers that a result is there as it is here.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn mark(&self, entry: &str) -> Result<()> {
        let Some(marks) = &self.marks else { return Ok(()) };
        let path = marks.join(entry);
        // Lost, it costs a look at the shared store.
        File::create(&path).map(drop).map_err(Error::io(&path))
    }

    fn is_doubted(&self, key: &str) -> bool {
        self.doubted().contains(key)
    }

    fn doubted(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        kept(&self.doubted)
    }
}

/// Asked between files; its error ends the work.
pub type Check<'a> = &'a (dyn Fn() -> Result<()> + Sync);

/// A file of a result.
struct Travelling {
    path: PathBuf,
    bytes: u64,
    digest: Digest,
}

fn files_of(manifest: &Manifest, folder: &Path) -> Vec<Travelling> {
    let ports = manifest.ports.iter();
    ports
        .flat_map(|(port, files)| files.parts.iter().map(move |part| (port, part)))
        .map(|(port, part)| Travelling {
            path: folder.join(port).join(&part.file),
            bytes: part.bytes,
            digest: part.blake3,
        })
        .collect()
}

fn is_there(file: &Travelling) -> Result<bool> {
    let there = file.path.metadata().is_ok_and(|metadata| metadata.len() == file.bytes);
    Ok(there && kit::digest_file(&file.path)? == file.digest)
}

/// A name in a manifest that would lead out of the folder of its entry, or be taken for something else.
fn strange_name(manifest: &Manifest) -> Option<&str> {
    let plain = |name: &str| {
        let named =
            |part: Component<'_>| matches!(part, Component::Normal(part) if !part.to_string_lossy().starts_with('.'));
        !name.is_empty() && Path::new(name).components().all(named)
    };
    let ports = manifest.ports.keys().map(String::as_str);
    let files = manifest.ports.values().flat_map(|port| &port.parts).map(|part| part.file.as_str());
    ports.chain(files).find(|name| !plain(name))
}

fn manifest_key(entry: &str) -> String {
    format!("entries/{entry}.json")
}

fn data_key(digest: &Digest) -> String {
    format!("data/{digest}")
}

/// The id in a store's name.
fn id_of(name: &[u8], address: &str) -> Result<String> {
    let value: Value = serde_json::from_slice(name).unwrap_or_default();
    let id = value["id"].as_str().filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match (value["halftone_store"].as_u64(), id) {
        (Some(FORMAT), Some(id)) => Ok(id.to_owned()),
        (Some(other), _) if other != FORMAT => Err(Error::Pipeline(format!(
            "{address} is a shared store of format {other}, and this halftone knows format {FORMAT}: take one version of \
             halftone for all who share it"
        ))),
        _ => Err(Error::data(format!("{address}/{NAME} is no name of a shared store: take another prefix"))),
    }
}

/// A name that no other store has.
fn new_id() -> Result<String> {
    let mut bytes = [0; 16];
    let source = "/dev/urandom";
    File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).map_err(Error::io(source))?;
    Ok(Digest::of(&bytes).short(32))
}

fn digest_of(file: &mut File, path: &Path) -> Result<Digest> {
    use std::io::Seek;
    file.rewind().map_err(Error::io(path))?;
    kit::digest_reader(file).map_err(Error::io(path))
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

/// Does something with each file, a few at once; the first error ends it.
fn side_by_side(files: &[Travelling], work: &(dyn Fn(&Travelling) -> Result<()> + Sync)) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let hands = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if kept(&failed).is_some() {
                return;
            }
            if let Err(error) = work(file) {
                kept(&failed).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        for _ in 1..AT_ONCE.min(files.len()) {
            let builder = std::thread::Builder::new().name("shared store".to_owned());
            builder.spawn_scoped(scope, hands).map_err(Error::io("a thread"))?;
        }
        hands();
        Ok(())
    })?;
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// The value of a lock, whatever became of the thread that held it.
fn kept<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
