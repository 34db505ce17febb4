//! The commit protocol: a file appears under its name whole and durable, or not at all.
//!
//! Temporary file in the same folder, write, fsync, rename, fsync of the folder. A set of files becomes visible through
//! a manifest that is committed last. A reader trusts nothing that no manifest names.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Writes a file through `write` and commits it under `path`.
///
/// # Errors
/// When `write` fails or the file system does; nothing is visible under `path` then.
pub fn commit_file<T>(path: &Path, write: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let mut temporary = begin_file(path)?;
    let value = write(temporary.as_file_mut())?;
    finish_file(temporary, path)?;
    Ok(value)
}

/// A temporary file in the folder of `path`; dropped, it is gone.
pub(crate) fn begin_file(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().expect("a committed file lies in a folder");
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder).map_err(Error::io(folder))
}

/// Commits the temporary file of [`begin_file`] under `path`.
pub(crate) fn finish_file(temporary: NamedTempFile, path: &Path) -> Result<()> {
    make_readable(&temporary, path)?;
    temporary.persist(path).map_err(|error| Error::Io { path: path.to_owned(), source: error.error })?;
    sync_folder(path.parent().expect("a committed file lies in a folder"))
}

/// Makes the content of a temporary file durable, and the file as readable as any file of the user's: tempfile makes
/// files private.
fn make_readable(temporary: &NamedTempFile, path: &Path) -> Result<()> {
    temporary.as_file().sync_all().map_err(Error::io(path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o644);
        temporary.as_file().set_permissions(mode).map_err(Error::io(path))?;
    }
    Ok(())
}

/// Commits some bytes under `path`.
///
/// # Errors
/// As [`commit_file`].
pub fn commit_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    commit_file(path, |file| file.write_all(bytes).map_err(Error::io(path)))
}

/// Commits some bytes under `path` where nothing is; true where they are now there. Of several that do so at once, one
/// succeeds.
///
/// # Errors
/// As [`commit_file`].
pub fn create_bytes(path: &Path, bytes: &[u8]) -> Result<bool> {
    let mut temporary = begin_file(path)?;
    temporary.as_file_mut().write_all(bytes).map_err(Error::io(path))?;
    make_readable(&temporary, path)?;
    match temporary.persist_noclobber(path) {
        Ok(_) => sync_folder(path.parent().expect("a committed file lies in a folder")).map(|()| true),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::Io { path: path.to_owned(), source: error.error }),
    }
}

/// Commits a value as readable JSON under `path`.
///
/// # Errors
/// As [`commit_file`].
pub fn commit_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|error| Error::internal(format!("{}: {error}", path.display())))?;
    text.push(b'\n');
    commit_bytes(path, &text)
}

/// Reads a JSON file, or nothing where there is none.
///
/// # Errors
/// When the file is there and cannot be read as `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| Error::data(format!("{}: {error}", path.display())))
}

/// A record with the digest of its content, so that a changed byte shows.
#[derive(Serialize, Deserialize)]
struct SealedValue {
    seal: Digest,
    value: Value,
}

/// A record of unfinished work as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealed<T> {
    /// It is not there.
    Missing,
    /// It is what was written.
    Whole(T),
    /// It is something else: what is wrong.
    Damaged(String),
}

/// A value as JSON with the digest of its content.
///
/// # Panics
/// When it cannot be written as JSON.
pub fn sealed(value: &impl Serialize) -> Vec<u8> {
    let value = serde_json::to_value(value).expect("a record can be written as JSON");
    let seal = Digest::of_value(&value);
    serde_json::to_vec(&SealedValue { seal, value }).expect("a value can be written as JSON")
}

/// Commits a value as JSON with the digest of its content.
///
/// # Errors
/// As [`commit_file`].
pub fn commit_sealed(path: &Path, value: &impl Serialize) -> Result<()> {
    commit_bytes(path, &sealed(value))
}

/// Reads what [`sealed`] made.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read_sealed<T: DeserializeOwned>(path: &Path) -> Result<Sealed<T>> {
    let damaged = |what: &str| Ok(Sealed::Damaged(what.to_owned()));
    let SealedValue { seal, value } = match read_json::<SealedValue>(path) {
        Ok(None) => return Ok(Sealed::Missing),
        Ok(Some(sealed)) => sealed,
        Err(Error::Data(_)) => return damaged("is torn, or of an older version"),
        Err(error) => return Err(error),
    };
    if Digest::of_value(&value) != seal {
        return damaged("has other values than were written");
    }
    match serde_json::from_value(value) {
        Ok(value) => Ok(Sealed::Whole(value)),
        Err(_) => damaged("is of another version"),
    }
}

/// Makes renames inside a folder durable.
///
/// # Errors
/// When the file system refuses.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io(folder))
}

/// Opens a file for appending, made where it is not there, with the bytes that it has.
///
/// # Errors
/// When it cannot be made or read.
pub fn open_appending(path: &Path) -> Result<(File, Vec<u8>)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/part.bin");
        let failed: Result<()> = commit_file(&path, |file| {
            file.write_all(b"half").unwrap();
            Err(Error::internal("stop"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        commit_bytes(&path, b"whole").unwrap();
        commit_bytes(&path, b"other").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
    }

    #[test]
    fn one_of_many_makes_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/entry.json");
        let made: usize = std::thread::scope(|scope| {
            let make = |n: u8| {
                let path = &path;
                scope.spawn(move || usize::from(create_bytes(path, &[n; 100]).unwrap()))
            };
            let makers: Vec<_> = (0..8).map(make).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).sum()
        });
        assert_eq!(made, 1);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() == 100 && bytes.iter().all(|byte| *byte == bytes[0]), "{bytes:?}");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_sealed_record_is_whole_or_damaged_whatever_bit_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        assert_eq!(read_sealed::<Vec<u64>>(&path).unwrap(), Sealed::Missing);
        let record = vec![7_u64, 300, 18_446_744_073_709_551_615];
        commit_sealed(&path, &record).unwrap();
        assert_eq!(read_sealed(&path).unwrap(), Sealed::Whole(record.clone()));
        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            match read_sealed::<Vec<u64>>(&path).unwrap() {
                Sealed::Whole(read) => assert_eq!(read, record, "bit {bit}"),
                Sealed::Damaged(_) => {}
                Sealed::Missing => panic!("bit {bit}"),
            }
        }
        std::fs::write(&path, "[7, 300]").unwrap();
        assert!(matches!(read_sealed::<Vec<u64>>(&path).unwrap(), Sealed::Damaged(_)), "without a seal");
    }
}
