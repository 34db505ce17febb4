//! Locks that the operating system drops when their process dies.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kit::{Error, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::clock;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Holder of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its process.
    pub pid: u32,
    /// Since when, in UTC.
    pub since: String,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} since {}", self.pid, self.since)
    }
}

/// The result of trying to take a lock.
#[derive(Debug)]
pub enum Attempt {
    /// We hold it.
    Held(Lock),
    /// Somebody else does.
    Busy(Option<Owner>),
}

impl Lock {
    /// Asks for the lock at `path` without waiting.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn attempt(path: &Path) -> Result<Attempt> {
        Lock::ask(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Tries to take a share of the lock at `path`: many may hold shares, as long as nobody holds it alone.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn attempt_shared(path: &Path) -> Result<Attempt> {
        Lock::ask(path, FlockOperation::NonBlockingLockShared)
    }

    /// True where another process holds the lock at `path` exclusively. Asking takes a shared lock for a moment, so
    /// that many may ask at once, and makes no file.
    pub fn is_held(path: &Path) -> bool {
        let Ok(file) = File::open(path) else { return false };
        matches!(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
    }

    fn ask(path: &Path, operation: FlockOperation) -> Result<Attempt> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(Error::io(path))?;
            match rustix::fs::flock(&file, operation) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let mut text = String::new();
                    let owner = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
                    return Ok(Attempt::Busy(owner));
                }
                Err(Errno::INTR) => continue,
                // A file system without locks: what they spare is work done twice, with the same bytes.
                Err(Errno::NOTSUP | Errno::NOLCK) => {}
                Err(errno) => return Err(Error::Io { path: path.to_owned(), source: errno.into() }),
            }
            // `gc` may have removed the file between opening and locking; then the lock is worth nothing.
            let ours = file.metadata().map_err(Error::io(path))?.ino();
            if path.metadata().map(|metadata| metadata.ino()).ok() != Some(ours) {
                continue;
            }
            if operation == FlockOperation::NonBlockingLockExclusive {
                let owner = Owner { pid: std::process::id(), since: clock::now().to_string() };
                let text = serde_json::to_string(&owner).expect("an owner can be written as JSON");
                let written =
                    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
                // Who we are is a courtesy to those who wait; on a full disk the lock holds all the same.
                drop(written);
            }
            return Ok(Attempt::Held(Lock { _file: file }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_other_learns_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks/x");
        let Attempt::Held(lock) = Lock::attempt(&path).unwrap() else { panic!("nobody holds it") };
        let Attempt::Busy(Some(owner)) = Lock::attempt(&path).unwrap() else { panic!("it is held") };
        assert_eq!(owner.pid, std::process::id());
        assert!(Lock::is_held(&path));
        drop(lock);
        assert!(!Lock::is_held(&path) && !Lock::is_held(&folder.path().join("y")));
        let Attempt::Held(lock) = Lock::attempt(&path).unwrap() else { panic!("it was dropped") };
        drop(lock);
        let Attempt::Held(_first) = Lock::attempt_shared(&path).unwrap() else { panic!("it was dropped") };
        let Attempt::Held(_second) = Lock::attempt_shared(&path).unwrap() else { panic!("shares go together") };
        assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Busy(_)));
    }
}
