//! A shared store in a folder that all machines see.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use kit::commit::{commit_file, create_bytes};
use kit::{Error, Interrupt, Result};

use super::address::Address;
use crate::store::{Created, Objects};

/// Bytes that are copied between two looks at the interrupt.
const PIECE: usize = 8 << 20;

/// The folder.
pub struct Folder {
    address: String,
    path: PathBuf,
    interrupt: Interrupt,
}

impl Folder {
    /// The folder at an address.
    pub fn new(address: &Address, interrupt: Interrupt) -> Folder {
        Folder { address: address.to_string(), path: Path::new("/").join(&address.prefix), interrupt }
    }

    /// An object's file. A folder that is gone is a share that is not mounted: nothing is made in its place.
    fn file(&self, key: &str) -> Result<PathBuf> {
        if self.path.is_dir() {
            return Ok(self.path.join(key));
        }
        let text = format!("{} cannot be reached: there is no such folder; make it, or mount it", self.address);
        Err(Error::Unreachable(text))
    }

    fn copy(&self, from: &mut File, to: &mut File, path: &Path) -> Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            self.interrupt.check()?;
            match from.read(&mut piece).map_err(Error::io(path))? {
                0 => return Ok(()),
                read => to.write_all(&piece[..read]).map_err(Error::io(path))?,
            }
        }
    }
}

/// Nothing where there is no such file.
fn there<T>(path: &Path, read: std::io::Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

impl Objects for Folder {
    fn address(&self) -> &str {
        &self.address
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let path = self.file(key)?;
        there(&path, std::fs::read(&path))
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        let path = self.file(key)?;
        Ok(there(&path, path.metadata())?.map(|metadata| metadata.len()))
    }

    fn fetch(&self, key: &str, _bytes: u64, file: &mut File) -> Result<()> {
        let path = self.file(key)?;
        let mut from = File::open(&path).map_err(Error::io(&path))?;
        self.copy(&mut from, file, &path)
    }

    fn put(&self, key: &str, from: &Path) -> Result<()> {
        let path = self.file(key)?;
        let mut source = File::open(from).map_err(Error::io(from))?;
        commit_file(&path, |file| self.copy(&mut source, file, &path))
    }

    fn create(&self, key: &str, bytes: &[u8]) -> Result<Created> {
        let path = self.file(key)?;
        Ok(if create_bytes(&path, bytes)? { Created::New } else { Created::Taken })
    }
}
