//! Digests of files, cached under their `stat`, so that an unchanged file is read once.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kit::commit::{Sealed, read_sealed, sealed};
use kit::{Digest, Error, Result, digest_file};
use serde::{Deserialize, Serialize};

use super::lock::{Attempt, Lock};

/// The name of the lock for writing it.
pub(super) const LOCK: &str = "statcache";
/// A file changed less than this before it was read may change again within one tick of the file system's clock.
const SETTLED_NANOS: i128 = 20_000_000;

/// A file's `stat`. The time of modification can be set back; that of the last change of the inode cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stat {
    size: u64,
    mtime: i64,
    mtime_nanos: i64,
    ctime: i64,
    ctime_nanos: i64,
    inode: u64,
    device: u64,
}

impl Stat {
    fn of(path: &Path) -> Result<Stat> {
        let metadata = path.metadata().map_err(Error::io(path))?;
        Ok(Stat {
            size: metadata.size(),
            mtime: metadata.mtime(),
            mtime_nanos: metadata.mtime_nsec(),
            ctime: metadata.ctime(),
            ctime_nanos: metadata.ctime_nsec(),
            inode: metadata.ino(),
            device: metadata.dev(),
        })
    }

    fn settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i128);
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        now - nanos(self.mtime, self.mtime_nanos).max(nanos(self.ctime, self.ctime_nanos)) > SETTLED_NANOS
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    stat: Stat,
    digest: Digest,
}

/// The cache; lost, torn or of an older version, it costs time and nothing else.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    files: Mutex<Files>,
}

#[derive(Debug)]
struct Files {
    known: BTreeMap<PathBuf, Known>,
    /// The files that this process digested.
    learned: BTreeMap<PathBuf, Known>,
}

impl StatCache {
    /// Reads the cache at `path`.
    pub fn open(path: PathBuf) -> StatCache {
        let known = match read_sealed(&path) {
            Ok(Sealed::Whole(known)) => known,
            _ => BTreeMap::new(),
        };
        StatCache { path, files: Mutex::new(Files { known, learned: BTreeMap::new() }) }
    }

    /// The digest of a file, read only where it changed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn digest(&self, path: &Path) -> Result<Digest> {
        if let Some(digest) = self.remembered(path)? {
            return Ok(digest);
        }
        let before = Stat::of(path)?;
        let digest = digest_file(path)?;
        if Stat::of(path)? == before && before.settled() {
            self.learn(path, before, digest);
        }
        Ok(digest)
    }

    /// The digest of a file that did not change since it was last read, if it ever was.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn remembered(&self, path: &Path) -> Result<Option<Digest>> {
        let stat = Stat::of(path)?;
        let absolute = absolute(path);
        let files = self.files.lock().expect("no thread panics while it holds the cache");
        Ok(files.known.get(&absolute).filter(|known| known.stat == stat).map(|known| known.digest))
    }

    /// True where a file that was read before is not the same any more.
    ///
    /// # Errors
    /// When `stat` fails; a missing file counts as unchanged.
    pub fn changed(&self, path: &Path) -> Result<bool> {
        if !path.exists() {
            return Ok(false);
        }
        let stat = Stat::of(path)?;
        let files = self.files.lock().expect("no thread panics while it holds the cache");
        Ok(files.known.get(&absolute(path)).is_some_and(|known| known.stat != stat))
    }

    /// The digest of a file of the store, which never changes: read although it is cached, and cached even if it was
    /// just written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_again(&self, path: &Path) -> Result<Digest> {
        let digest = digest_file(path)?;
        self.remember(path, digest)?;
        Ok(digest)
    }

    /// Caches the digest of a file that does not change any more.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn remember(&self, path: &Path, digest: Digest) -> Result<()> {
        self.learn(path, Stat::of(path)?, digest);
        Ok(())
    }

    fn learn(&self, path: &Path, stat: Stat, digest: Digest) {
        // JSON has no words for other names; such a file is read each time.
        if absolute(path).to_str().is_none() {
            return;
        }
        let known = Known { stat, digest };
        let mut files = self.files.lock().expect("no thread panics while it holds the cache");
        files.known.insert(absolute(path), known.clone());
        files.learned.insert(absolute(path), known);
    }

    /// Writes what was learned.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self) -> Result<()> {
        let mut files = self.files.lock().expect("no thread panics while it holds the cache");
        if files.learned.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let mut all = StatCache::open(self.path.clone()).files.into_inner().expect("it is not shared").known;
        all.append(&mut files.learned);
        all.retain(|path, _| path.exists());
        let text = sealed(&all);
        // Not synced: a cache that a power cut takes away costs time and nothing else.
        let temporary = self.path.with_file_name(".statcache.json");
        std::fs::write(&temporary, text).map_err(Error::io(&temporary))?;
        std::fs::rename(&temporary, &self.path).map_err(Error::io(&self.path))
    }

    /// Keeps other processes from saving for the moment that it takes.
    fn lock(&self) -> Result<Lock> {
        let path = self.path.with_file_name("locks").join(LOCK);
        loop {
            match Lock::attempt(&path)? {
                Attempt::Held(lock) => return Ok(lock),
                Attempt::Busy(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, cache) = (folder.path().join("a"), folder.path().join("cache.json"));
        std::fs::write(&file, "one").unwrap();
        std::thread::sleep(Duration::from_millis(25));
        let first = StatCache::open(cache.clone());
        let digest = first.digest(&file).unwrap();
        first.save().unwrap();
        let second = StatCache::open(cache.clone());
        assert_eq!(second.remembered(&file).unwrap(), Some(digest));
        std::fs::write(&file, "two").unwrap();
        assert_eq!(second.remembered(&file).unwrap(), None);
        assert_eq!(second.digest(&file).unwrap(), Digest::of(b"two"));
        std::fs::write(&cache, "torn {").unwrap();
        assert_eq!(StatCache::open(cache).digest(&file).unwrap(), Digest::of(b"two"));
    }

    #[test]
    fn a_file_whose_name_is_no_text_is_read_each_time() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(std::ffi::OsStr::from_bytes(b"a\xff"));
        let cache = StatCache::open(folder.path().join("cache.json"));
        std::fs::write(&file, "one").unwrap();
        cache.remember(&file, Digest::of(b"one")).unwrap();
        assert_eq!(cache.remembered(&file).unwrap(), None);
        cache.save().unwrap();
    }

    #[test]
    fn a_file_replaced_by_one_of_the_same_size_and_time_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, cache) = (folder.path().join("a"), folder.path().join("cache.json"));
        let write = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
            std::thread::sleep(Duration::from_millis(25));
        };
        write("one");
        let first = StatCache::open(cache.clone());
        first.digest(&file).unwrap();
        assert_eq!(first.remembered(&file).unwrap(), Some(Digest::of(b"one")));
        first.save().unwrap();
        write("two");
        let second = StatCache::open(cache);
        assert!(second.changed(&file).unwrap());
        assert_eq!(second.remembered(&file).unwrap(), None);
        assert_eq!(second.digest(&file).unwrap(), Digest::of(b"two"));
    }

    #[test]
    fn a_cache_with_a_changed_byte_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (file, cache) = (folder.path().join("a"), folder.path().join("cache.json"));
        std::fs::write(&file, "one").unwrap();
        let first = StatCache::open(cache.clone());
        first.remember(&file, Digest::of(b"one")).unwrap();
        first.save().unwrap();
        let good = std::fs::read(&cache).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&cache, bytes).unwrap();
            let known = StatCache::open(cache.clone()).remembered(&file).unwrap();
            assert!(known.is_none_or(|digest| digest == Digest::of(b"one")), "bit {bit}");
        }
    }

    #[test]
    fn caches_saved_at_once_keep_what_each_learned_and_leave_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("statcache.json");
        let files: Vec<PathBuf> = (0..8).map(|number| folder.path().join(number.to_string())).collect();
        std::thread::scope(|scope| {
            for file in &files {
                let path = &path;
                scope.spawn(move || {
                    std::fs::write(file, "x").unwrap();
                    let cache = StatCache::open(path.clone());
                    cache.remember(file, Digest::of(b"x")).unwrap();
                    cache.save().unwrap();
                });
            }
        });
        let all = StatCache::open(path);
        assert!(files.iter().all(|file| all.remembered(file).unwrap() == Some(Digest::of(b"x"))));
        let hidden =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().as_encoded_bytes()[0] == b'.';
        assert!(!std::fs::read_dir(folder.path()).unwrap().any(hidden));
    }

    #[test]
    fn a_file_just_written_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        let cache = StatCache::open(folder.path().join("cache.json"));
        std::fs::write(&file, "one").unwrap();
        cache.digest(&file).unwrap();
        assert_eq!(cache.remembered(&file).unwrap(), None);
    }
}
