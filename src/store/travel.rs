//! Results that travel between a work folder and the store that it shares with others.

use kit::{Error, Result};

use super::entry::{Store, remove};
use super::manifest::Manifest;
use super::shared::{Check, Fetched, Pushed, Shared};

impl Store {
    /// Brings a result here. It appears when every file of it has the digest that its manifest says.
    ///
    /// # Errors
    /// When the shared store cannot be reached, when a file cannot be written, and when `check` says so; what came stays
    /// for the next attempt.
    pub fn fetch(&self, shared: &Shared, manifest: &Manifest, check: Check<'_>) -> Result<Fetched> {
        let entry = manifest.recipe.entry();
        let folder = self.folder().join(format!("{entry}.fetched.partial"));
        let fetched = shared.fetch(manifest, &folder, check)?;
        match fetched {
            Fetched::Damaged(_) => remove(&folder)?,
            Fetched::Whole { .. } => {
                self.commit(&folder, manifest)?;
                shared.mark(&entry)?;
            }
        }
        Ok(fetched)
    }

    /// Brings a result there: its files first, its manifest last. Where another result of the same recipe is there,
    /// nothing changes.
    ///
    /// # Errors
    /// When the shared store cannot be reached, when the result here is damaged, and when `check` says so.
    pub fn push(&self, shared: &Shared, manifest: &Manifest, check: Check<'_>) -> Result<Pushed> {
        if let Some(pushed) = shared.compared(manifest)? {
            return Ok(pushed);
        }
        let entry = manifest.recipe.entry();
        if let Some(damage) = self.verify(manifest, None)? {
            return Err(Error::data(format!("entry {entry} is damaged and was not pushed: {damage}; run again")));
        }
        shared.push(manifest, &self.entry(&entry), check)
    }
}
