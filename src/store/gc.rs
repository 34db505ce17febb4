//! What in the store no recent run needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kit::{Error, Result};

use super::entry::Store;
use super::lock::Lock;
use super::records::Records;
use super::statcache;

/// Something that can go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Garbage {
    /// The folder or link.
    pub path: PathBuf,
    /// What it is: `entry`, `unfinished work`, `damaged entry`, `run record`, `dangling link`, `lock`.
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
                let record = records.read(&pipeline, *run);
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
        let over = what == "damaged entry" || (what == "unfinished work" && store.manifest(entry).is_some());
        if (over || !kept.contains(entry)) && !Lock::is_held(&store.lock_path(entry)) {
            add(&mut garbage, path, what)?;
        }
    }
    for path in links {
        garbage.push(Garbage { path, what: "dangling link", bytes: 0 });
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

impl Garbage {
    /// Removes it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self) -> Result<()> {
        let removed = match self.what {
            "dangling link" | "lock" => std::fs::remove_file(&self.path),
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
