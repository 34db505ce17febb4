//! Objects in memory, with a connection that breaks off where a test says so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kit::{Error, Result};

use crate::store::{Created, Objects};

/// The objects; clones share them.
#[derive(Clone, Default)]
pub struct Memory(pub Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Calls so far.
    pub calls: usize,
    /// The call at which the connection breaks off, and whether what it asked for was done. Later calls fail too.
    pub breaks: Option<(usize, bool)>,
}

impl Memory {
    /// The objects under keys that begin so.
    pub fn objects(&self, begin: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock().unwrap();
        state.objects.iter().filter(|(key, _)| key.starts_with(begin)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    pub fn set(&self, key: &str, bytes: &[u8]) {
        self.0.lock().unwrap().objects.insert(key.to_owned(), bytes.to_vec());
    }

    pub fn remove(&self, key: &str) {
        self.0.lock().unwrap().objects.remove(key).unwrap();
    }

    /// Counts calls from 0, and lets one of them break off.
    pub fn break_at(&self, breaks: Option<(usize, bool)>) {
        let mut state = self.0.lock().unwrap();
        (state.calls, state.breaks) = (0, breaks);
    }

    pub fn calls(&self) -> usize {
        self.0.lock().unwrap().calls
    }

    /// Does something; an error where the connection broke off before or after it.
    fn call<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> Result<T> {
        let mut state = self.0.lock().unwrap();
        state.calls += 1;
        let down = || Err(Error::Unreachable("memory://test cannot be reached: broken off".to_owned()));
        match state.breaks {
            Some((at, _)) if state.calls > at => down(),
            Some((at, false)) if state.calls == at => down(),
            Some((at, true)) if state.calls == at => {
                work(&mut state.objects);
                down()
            }
            _ => Ok(work(&mut state.objects)),
        }
    }
}

impl Objects for Memory {
    fn address(&self) -> &str {
        "memory://test"
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.call(|objects| objects.get(key).cloned())
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        self.call(|objects| objects.get(key).map(|bytes| bytes.len() as u64))
    }

    fn fetch(&self, key: &str, _bytes: u64, file: &mut File) -> Result<()> {
        let bytes = self.call(|objects| objects.get(key).cloned())?.expect("its size was asked for");
        file.write_all(&bytes).map_err(Error::io("a fetched file"))
    }

    fn put(&self, key: &str, from: &Path) -> Result<()> {
        let bytes = std::fs::read(from).map_err(Error::io(from))?;
        self.call(|objects| _ = objects.insert(key.to_owned(), bytes))
    }

    fn create(&self, key: &str, bytes: &[u8]) -> Result<Created> {
        let created = self.call(|objects| match objects.contains_key(key) {
            true => Created::Taken,
            false => {
                objects.insert(key.to_owned(), bytes.to_vec());
                Created::New
            }
        });
        // One break of a conditional put is no word on how it ended; the connection is there again.
        let mut state = self.0.lock().unwrap();
        match (created, state.breaks) {
            (Err(Error::Unreachable(why)), Some((at, _))) if state.calls == at => {
                state.breaks = None;
                Ok(Created::Unsure(why))
            }
            (created, _) => created,
        }
    }
}
