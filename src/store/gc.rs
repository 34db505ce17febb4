//! Content of the store that no recent run needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kit::{Error, Result};

use super::entry::{Store, is_temporary};
use super::lock::Lock;
use super::records::Records;
use super::statcache;

/// Something that can go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Garbage {
    /// The folder or link.
    pub path: PathBuf,
    /// The kind of content: `entry`, `unfinished work`, `damaged entry`, `run record`, `leftover`, `dangling link`,
    /// `lock`.
    pub what: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Everything that the last `keep` runs of each pipeline do not name and that no link leads to: a stage's latest result
/// stays however many runs did without it. What a live process holds is not garbage.
///
/// # Errors
/// When a folder cannot be read.
pub fn garbage(store: &Store, records: &Records, keep: usize) -> Result<Vec<Garbage>> {
    let mut garbage = Vec::new();
    let mut kept: BTreeSet<String> = BTreeSet::new();
    for pipeline in records.pipelines()? {
        let runs = records.runs(&pipeline)?;
        for (index, run) in runs.iter().enumerate() {
            if index < keep || records.alive(&pipeline, *run) {
                let record = records.read(&pipeline, *run)?;
                kept.extend(record.into_iter().flat_map(|record| record.stages).filter_map(|(_, stage)| stage.entry));
            } else {
                add(&mut garbage, records.run(&pipeline, *run), "run record")?;
            }
        }
    }
    let mut links = Vec::new();
    for pipeline in records.pipelines()? {
        for stage in children(&records.pipeline(&pipeline))? {
            let folder = records.pipeline(&pipeline).join(stage);
            for port in children(&folder)? {
                let path = folder.join(port);
                if !path.is_symlink() {
                    continue;
                }
                // ../../../store/<entry>/<port>
                let target = std::fs::read_link(&path).map_err(Error::io(&path))?;
                match target.components().nth(4) {
                    Some(entry) if path.exists() => _ = kept.insert(entry.as_os_str().to_string_lossy().into_owned()),
                    _ => links.push(path),
                }
            }
        }
    }
    for name in children(&store.folder())? {
        let path = store.folder().join(&name);
        let (entry, what) = match name.split_once('.') {
            None => (name.as_str(), "entry"),
            Some((entry, rest)) if rest.ends_with("partial") => (entry, "unfinished work"),
            Some((entry, rest)) if rest.starts_with("damaged-") => (entry, "damaged entry"),
            Some(_) => continue,
        };
        // Beside a whole entry nobody goes on with unfinished work: a killed `--force` left it.
        let over = what == "damaged entry" || (what == "unfinished work" && store.manifest(entry)?.is_some());
        if (over || !kept.contains(entry)) && !Lock::is_held(&store.lock_path(entry)) {
            add(&mut garbage, path, what)?;
        }
    }
    for path in links {
        garbage.push(Garbage { path, what: "dangling link", bytes: 0 });
    }
    for path in leftovers(store, records)? {
        if !garbage.iter().any(|other| path.starts_with(&other.path)) {
            add(&mut garbage, path, "leftover")?;
        }
    }
    for name in children(&store.root().join("locks"))? {
        let gone = !store.entry(&name).exists() || garbage.iter().any(|garbage| garbage.path == store.entry(&name));
        let working = [true, false].into_iter().any(|forced| {
            let partial = store.partial(&name, forced);
            partial.exists() && !garbage.iter().any(|garbage| garbage.path == partial)
        });
        if !["gc", statcache::LOCK].contains(&name.as_str())
            && gone
            && !working
            && !Lock::is_held(&store.lock_path(&name))
        {
            garbage.push(Garbage { path: store.lock_path(&name), what: "lock", bytes: 0 });
        }
    }
    Ok(garbage)
}

/// Files that killed processes left and that nobody reads: written and not yet renamed. Unfinished work is swept when
/// it is taken up. What a live process may be writing is none.
///
/// # Errors
/// When a folder cannot be read.
pub fn leftovers(store: &Store, records: &Records) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for name in children(&store.folder())? {
        if !name.contains('.') && !Lock::is_held(&store.lock_path(&name)) {
            temporary_below(&store.folder().join(name), &mut found)?;
        }
    }
    for pipeline in records.pipelines()? {
        let folder = records.pipeline(&pipeline);
        let runs = records.runs(&pipeline)?;
        let alive = runs.iter().any(|run| records.alive(&pipeline, *run));
        for name in children(&folder)?.into_iter().filter(|_| !alive) {
            temporary_below(&folder.join(name), &mut found)?;
        }
    }
    for name in children(store.root())? {
        let path = store.root().join(&name);
        if path.is_file()
            && (is_temporary(&name) || is_exchanged(&name))
            && !Lock::is_held(&store.lock_path(statcache::LOCK))
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// True for the temporary name of a file that replaces another once it is written.
fn is_exchanged(name: &str) -> bool {
    [".stages.json", ".statcache.json"].contains(&name) || (name.starts_with('.') && name.ends_with(".next"))
}

fn temporary_below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for name in children(folder)? {
        let path = folder.join(&name);
        if path.is_dir() && !path.is_symlink() {
            temporary_below(&path, found)?;
        } else if is_temporary(&name) || is_exchanged(&name) {
            found.push(path);
        }
    }
    Ok(())
}

impl Garbage {
    /// Removes it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self) -> Result<()> {
        let removed = match self.what {
            "dangling link" | "lock" | "leftover" => std::fs::remove_file(&self.path),
            _ => std::fs::remove_dir_all(&self.path),
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Io { path: self.path.clone(), source: error })
            }
            _ => Ok(()),
        }
    }
}

fn add(garbage: &mut Vec<Garbage>, path: PathBuf, what: &'static str) -> Result<()> {
    let bytes = size_of(&path)?;
    garbage.push(Garbage { path, what, bytes });
    Ok(())
}

fn size_of(path: &Path) -> Result<u64> {
    let metadata = path.symlink_metadata().map_err(Error::io(path))?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        bytes += size_of(&entry.map_err(Error::io(path))?.path())?;
    }
    Ok(bytes)
}

fn children(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() || folder.is_symlink() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        names.push(entry.map_err(Error::io(folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_kill_leaves_is_known() {
        let root = tempfile::tempdir().unwrap();
        let (store, records) = (Store::open(root.path()), Records::new(root.path()));
        let (number, alive) = records.begin("p").unwrap();
        let run = format!("runs/p/{number}");
        // Files in `locks`, `events.jsonl` and files under a final name are no leftovers.
        let files = [
            ("store/train-1/policy/.tmpAb3dEf", true),
            ("store/train-1/policy/.tmp-4711", true),
            ("store/train-1/.tensorboard/events.out.tfevents.1", false),
            ("store/train-1/policy/model.safetensors", false),
            ("store/train-2.partial/policy/.tmpAb3dEf", false),
            ("runs/p/policy/.policy.next", true),
            (&format!("{run}/.stages.json"), true),
            (&format!("{run}/.tmp-report"), true),
            (&format!("{run}/events.jsonl"), false),
            (".statcache.json", true),
        ];
        for (name, _) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let found = |wanted: &str| -> Vec<String> {
            let garbage = garbage(&store, &records, 10).unwrap().into_iter();
            let garbage = garbage.filter(|item| item.what == wanted);
            garbage.map(|item| item.path.strip_prefix(root.path()).unwrap().display().to_string()).collect()
        };
        assert!(found("leftover").iter().all(|name| !name.starts_with("runs/p")), "the run is alive");
        drop(alive);
        let mut wanted: Vec<String> =
            files.iter().filter(|(_, left)| *left).map(|(name, _)| (*name).to_owned()).collect();
        // The entry is named by no run, so that all of it goes.
        wanted.retain(|name| !name.starts_with("store/train-1"));
        let mut left = found("leftover");
        wanted.sort();
        left.sort();
        assert_eq!(left, wanted);
        assert_eq!(found("entry"), ["store/train-1"]);
        assert_eq!(found("unfinished work"), ["store/train-2.partial"]);
        assert_eq!(leftovers(&store, &records).unwrap().len(), 6);
        garbage(&store, &records, 10).unwrap().iter().for_each(|item| item.remove().unwrap());
        assert_eq!(leftovers(&store, &records).unwrap(), Vec::<PathBuf>::new());
    }
}
