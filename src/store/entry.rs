//! Entries of the store: immutable folders that appear whole, under the name of what they were made from.

use std::fs::File;
use std::path::{Path, PathBuf};

use kit::commit::{Sealed, commit_sealed, read_sealed, sync_folder};
use kit::{Error, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::lock::{Attempt, Lock};
use super::manifest::{Manifest, Recipe};
use super::shared::Shared;
use super::statcache::StatCache;
use super::unless_torn;

/// The file that makes a folder an entry.
const MANIFEST: &str = "manifest.json";
/// The record of the device in a folder of unfinished work.
const BOUND: &str = ".work/bound.json";

/// The work folder `.halftone`.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    stats: StatCache,
    shared: Option<Shared>,
}

/// The state of the folder under an entry's name.
#[derive(Debug)]
pub enum Condition {
    /// Nothing.
    Missing,
    /// A whole entry, as far as sizes and known digests show.
    Whole(Box<Manifest>),
    /// Something that is not what its manifest says.
    Damaged(String),
}

/// A place to make an entry in.
#[derive(Debug)]
pub struct Begun {
    /// The place.
    pub folder: PathBuf,
    /// True where unfinished work was found.
    pub resumed: bool,
    /// The fault of unfinished work that was found, and the folder it was moved to.
    pub damaged: Option<(String, PathBuf)>,
}

/// The device and the processor that work in progress is bound to; a stage never mixes devices.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bound {
    device: String,
    cpu: String,
}

impl Bound {
    /// GPUs of one machine are one device: its number is no part of the result.
    fn new(device: &str, cpu: &str) -> Bound {
        Bound { device: device.split(':').next().unwrap_or_default().to_owned(), cpu: cpu.to_owned() }
    }
}

impl Store {
    /// The work folder at `root`; it need not exist.
    pub fn open(root: &Path) -> Store {
        Store { root: root.to_owned(), stats: StatCache::open(root.join("statcache.json")), shared: None }
    }

    /// The same with a store that others share.
    pub fn sharing(self, shared: Shared) -> Store {
        Store { shared: Some(shared), ..self }
    }

    /// The store that others share, where the pipeline names one.
    pub fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }

    /// The work folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Digests of files by size, time and inode.
    pub fn stats(&self) -> &StatCache {
        &self.stats
    }

    /// The folder that holds the entries.
    pub fn folder(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The folder of an entry.
    pub fn entry(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Folder of an unfinished entry; a forced attempt has its own folder beside the entry that it may replace.
    pub fn partial(&self, name: &str, forced: bool) -> PathBuf {
        self.folder().join(format!("{name}.{}", if forced { "forced.partial" } else { "partial" }))
    }

    /// Asks for the right to make an entry.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn lock(&self, name: &str) -> Result<Attempt> {
        Lock::attempt(&self.lock_path(name))
    }

    /// Asks for a share of that right, which many may have: each computes shards.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn lock_beside(&self, name: &str) -> Result<Attempt> {
        Lock::attempt_shared(&self.lock_path(name))
    }

    /// Asks for the right to compute one shard of an entry.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn lock_shard(&self, name: &str, shard: usize) -> Result<Attempt> {
        Lock::attempt(&self.lock_path(&format!("{name}.shard-{shard:05}")))
    }

    pub(super) fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }

    /// Asks for a share of the store, which keeps `gc` away.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn share(&self) -> Result<Attempt> {
        Lock::attempt_shared(&self.root.join("locks/gc"))
    }

    /// Asks for the store alone.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn alone(&self) -> Result<Attempt> {
        Lock::attempt(&self.root.join("locks/gc"))
    }

    /// The manifest of an entry, if it is there and as it was written.
    ///
    /// # Errors
    /// When it is there and the system cannot read it.
    pub fn manifest(&self, name: &str) -> Result<Option<Manifest>> {
        unless_torn(Manifest::open(&self.entry(name).join(MANIFEST)))
    }

    /// The state of the folder under a recipe's name: manifest, sizes, and digests of the files that changed since they
    /// were last read.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn condition(&self, recipe: &Recipe) -> Result<Condition> {
        let folder = self.entry(&recipe.entry());
        let check = |path: &Path| {
            if self.stats.changed(path)? { self.stats.digest(path).map(Some) } else { self.stats.remembered(path) }
        };
        match self.condition_of(&folder, recipe, &check)? {
            Condition::Missing if folder.exists() => Ok(Condition::Damaged(format!("{MANIFEST} is missing"))),
            condition => Ok(condition),
        }
    }

    /// As [`Store::condition`], of a folder without its name: work that was complete when its process died. Every file
    /// of it is read; without a manifest it is missing.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn unnamed(&self, partial: &Path, recipe: &Recipe) -> Result<Condition> {
        self.condition_of(partial, recipe, &|path| kit::digest_file(path).map(Some))
    }

    fn condition_of(&self, folder: &Path, recipe: &Recipe, digest: Digester<'_>) -> Result<Condition> {
        let manifest = match Manifest::open(&folder.join(MANIFEST)) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(Condition::Missing),
            Err(Error::Data(text)) => return Ok(Condition::Damaged(text)),
            Err(error) => return Err(error),
        };
        if manifest.key != recipe.key() || manifest.recipe.key() != manifest.key {
            return Ok(Condition::Damaged(format!("{MANIFEST} belongs to another recipe")));
        }
        Ok(match damage(folder, &manifest, None, digest)? {
            Some(damage) => Condition::Damaged(damage),
            None => Condition::Whole(Box::new(manifest)),
        })
    }

    /// The fault in the bytes of an entry; none where it is whole. Every file is read. `ports` are those of interest,
    /// or all. A fault is recorded, so that a damaged entry is not used again although its files look untouched.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn verify(&self, manifest: &Manifest, ports: Option<&[&str]>) -> Result<Option<String>> {
        let folder = self.entry(&manifest.recipe.entry());
        let found = damage(&folder, manifest, ports, &|path| self.stats.read_again(path).map(Some))?;
        if found.is_some() { Ok(found) } else { stranger(&folder, manifest) }
    }

    /// Moves a damaged entry, or the place where one is made, out of the way and says where to.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn set_aside(&self, from: &Path) -> Result<PathBuf> {
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.split('.').next().unwrap_or_default();
        let free = (1..).map(|number| self.folder().join(format!("{name}.damaged-{number}"))).find(|to| !to.exists());
        let to = free.expect("there are more numbers than folders");
        std::fs::rename(from, &to).map_err(Error::io(from))?;
        sync_folder(&self.folder())?;
        Ok(to)
    }

    /// A place to make an entry in, with what an interrupted attempt on the same device left there.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn begin(&self, name: &str, forced: bool, device: &str, cpu: &str) -> Result<Begun> {
        let folder = self.partial(name, forced);
        let bound = Bound::new(device, cpu);
        let record = folder.join(BOUND);
        let mut damaged = None;
        if folder.exists() {
            match read_sealed::<Bound>(&record)? {
                Sealed::Whole(before) if before == bound => {
                    sweep(&folder)?;
                    return Ok(Begun { folder, resumed: true, damaged });
                }
                Sealed::Whole(_) | Sealed::Missing => remove(&folder)?,
                Sealed::Damaged(damage) => {
                    damaged = Some((format!("{BOUND} {damage}"), self.set_aside(&folder)?));
                }
            }
        }
        commit_sealed(&record, &bound)?;
        Ok(Begun { folder, resumed: false, damaged })
    }

    /// The place where an entry is made, begun or joined: what others are writing there stays.
    ///
    /// # Errors
    /// When the work there is of another device; when the file system refuses.
    pub fn join(&self, name: &str, device: &str, cpu: &str) -> Result<PathBuf> {
        let folder = self.partial(name, false);
        let bound = Bound::new(device, cpu);
        let record = folder.join(BOUND);
        match read_sealed::<Bound>(&record)? {
            Sealed::Whole(before) if before == bound => {}
            Sealed::Whole(Bound { device: other, cpu: level }) => {
                return Err(Error::Pipeline(format!(
                    "unfinished work is there, computed on {other} ({level}), and this is {device} ({cpu}): shards of two \
                     devices may differ; go on with that one, or remove {}",
                    folder.display()
                )));
            }
            Sealed::Missing | Sealed::Damaged(_) => commit_sealed(&record, &bound)?,
        }
        Ok(folder)
    }

    /// Makes the finished work an entry: manifest last, then the folder's name. An entry that is there already (forced
    /// attempts) is exchanged in one step; its manifest comes back.
    ///
    /// # Errors
    /// When the file system refuses; the work stays where it is then.
    pub fn commit(&self, partial: &Path, manifest: &Manifest) -> Result<Option<Manifest>> {
        for (port, files) in &manifest.ports {
            let folder = partial.join(port);
            for part in &files.parts {
                let path = folder.join(&part.file);
                File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))?;
            }
            sync_folder(&folder)?;
        }
        manifest.commit(&partial.join(MANIFEST))?;
        self.publish(partial, manifest)
    }

    /// The second half of [`Store::commit`], for work whose manifest is committed.
    ///
    /// # Errors
    /// When the file system refuses; the work stays where it is then.
    pub fn publish(&self, partial: &Path, manifest: &Manifest) -> Result<Option<Manifest>> {
        remove(&partial.join(".work"))?;
        sweep(partial)?;
        sync_folder(partial)?;
        let name = manifest.recipe.entry();
        let entry = self.entry(&name);
        let before = self.manifest(&name)?;
        if entry.exists() {
            match renameat_with(CWD, partial, CWD, &entry, RenameFlags::EXCHANGE) {
                Ok(()) => {}
                // File systems without the exchange get two renames; a kill between them costs a run, never a wrong
                // entry.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    let old = self.set_aside(&entry)?;
                    std::fs::rename(partial, &entry).map_err(Error::io(&entry))?;
                    remove(&old)?;
                }
                Err(errno) => return Err(Error::Io { path: entry, source: errno.into() }),
            }
        } else {
            std::fs::rename(partial, &entry).map_err(Error::io(&entry))?;
        }
        sync_folder(&self.folder())?;
        remove(partial)?;
        for (port, files) in &manifest.ports {
            for part in &files.parts {
                self.stats.remember(&entry.join(port).join(&part.file), part.blake3)?;
            }
        }
        Ok(before)
    }
}

/// The digest of a file; none where it need not be read.
type Digester<'a> = &'a dyn Fn(&Path) -> Result<Option<kit::Digest>>;

/// The first fault in the files that a manifest names.
fn damage(folder: &Path, manifest: &Manifest, ports: Option<&[&str]>, digest: Digester<'_>) -> Result<Option<String>> {
    for (port, files) in &manifest.ports {
        if ports.is_some_and(|ports| !ports.contains(&port.as_str())) {
            continue;
        }
        for part in &files.parts {
            let path = folder.join(port).join(&part.file);
            let size = match path.metadata() {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(Some(format!("{port}/{} is missing", part.file)));
                }
                Err(source) => return Err(Error::Io { path, source }),
            };
            if size != part.bytes {
                return Ok(Some(format!("{port}/{} has {size} bytes, was written with {}", part.file, part.bytes)));
            }
            if digest(&path)?.is_some_and(|digest| digest != part.blake3) {
                return Ok(Some(format!("{port}/{} has other bytes than were written", part.file)));
            }
        }
    }
    Ok(None)
}

/// A file in a port's folder that readers of the port would take for a part of it, and that the manifest does not name.
fn stranger(folder: &Path, manifest: &Manifest) -> Result<Option<String>> {
    for (port, files) in &manifest.ports {
        let port_folder = folder.join(port);
        for entry in std::fs::read_dir(&port_folder).map_err(Error::io(&port_folder))? {
            let name = entry.map_err(Error::io(&port_folder))?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && !files.parts.iter().any(|part| part.file == name) {
                return Ok(Some(format!("{port}/{name} is there and was not written with the others")));
            }
        }
    }
    Ok(None)
}

/// True for the name of a temporary file, which is renamed once it is written: one of ours, or of the library that
/// writes weights.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(".tmp")
}

/// Removes temporary files that a killed process left between writing and renaming them.
fn sweep(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            sweep(&path)?;
        } else if is_temporary(&name) {
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Removes a folder with everything in it, if it is there.
pub(super) fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { path: folder.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_leaves_between_writing_and_renaming_is_swept() {
        let root = tempfile::tempdir().unwrap();
        // As weights are written, as everything else is, and what is no temporary file.
        for name in ["policy/.tmpAb3dEf", "policy/.tmp-4711", "policy/model.safetensors", ".tensorboard/events.1"] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        sweep(root.path()).unwrap();
        let names = |folder: &str| -> Vec<_> {
            std::fs::read_dir(root.path().join(folder)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names("policy"), ["model.safetensors"]);
        assert_eq!(names(".tensorboard"), ["events.1"]);
    }

    #[test]
    fn unfinished_work_of_which_nobody_knows_the_device_is_set_aside() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path());
        let begun = store.begin("train-1", false, "cpu", "x86-64-v3").unwrap();
        assert!(!begun.resumed && begun.damaged.is_none());
        std::fs::write(begun.folder.join("rows"), "x").unwrap();
        let again = store.begin("train-1", false, "cpu", "x86-64-v3").unwrap();
        assert!(again.resumed && again.folder.join("rows").is_file());
        // On another processor the bytes may be others: the work begins anew.
        let other = store.begin("train-1", false, "cpu", "x86-64").unwrap();
        assert!(!other.resumed && other.damaged.is_none() && !other.folder.join("rows").exists());
        let record = other.folder.join(".work/bound.json");
        let mut bytes = std::fs::read(&record).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&record, &bytes).unwrap();
        let damaged = store.begin("train-1", false, "cpu", "x86-64").unwrap();
        let (damage, moved) = damaged.damaged.unwrap();
        assert!(damage.contains("bound.json") && moved.ends_with("train-1.damaged-1") && !damaged.resumed, "{damage}");
        assert_eq!(std::fs::read(moved.join(".work/bound.json")).unwrap(), bytes);
    }
}
