//! Results fetched from the shared store and pushed to it, while a run goes on.

use std::path::Path;
use std::time::Instant;

use kit::Error as KitError;

use crate::engine::run::Run;
use crate::engine::work::lock;
use crate::error::{Error, Result};
use crate::pipeline::graph::Node;
use crate::progress::RunEvent;
use crate::store::{Condition, Fetched, Manifest, Pushed, Shared};
use crate::units::size;

/// Of more bytes than this the beginning of a transfer is reported, and not its end alone.
const LARGE: u64 = 64 << 20;

/// What came of fetching a result.
pub enum FetchOutcome {
    /// It is here.
    Here(Box<Manifest>),
    /// It is damaged there: the stage has to compute it.
    Damaged,
}

impl Run<'_> {
    /// Brings a stage's result from the shared store to the work folder.
    ///
    /// # Errors
    /// When the shared store cannot be reached, or a file cannot be written.
    pub fn fetch(&self, node: &Node, shared: &Shared, manifest: &Manifest) -> Result<FetchOutcome> {
        let failed = |source| failed(node, source);
        let entry = manifest.recipe.entry();
        let _lock = lock(self, &node.name, &entry)?;
        match self.store.condition(&manifest.recipe).map_err(failed)? {
            // Another process fetched or made it meanwhile.
            Condition::Whole(manifest) => return Ok(FetchOutcome::Here(manifest)),
            Condition::Damaged(damage) => {
                let moved = self.store.set_aside(&self.store.entry(&entry)).map_err(failed)?;
                let moved = moved.display().to_string();
                self.emit(Some(&node.name), RunEvent::EntryDamaged { entry: entry.clone(), damage, moved });
            }
            Condition::Missing => {}
        }
        let (began, from) = (Instant::now(), shared.address().to_owned());
        let all = bytes_of(manifest);
        if all > LARGE {
            self.emit(Some(&node.name), RunEvent::TransferStarted { what: format!("{} from {from}", size(all)) });
        }
        match self.store.fetch(shared, manifest, &|| self.interrupt.check()).map_err(failed)? {
            Fetched::Whole { bytes } => {
                let seconds = began.elapsed().as_secs_f64();
                self.emit(Some(&node.name), RunEvent::ResultFetched { entry, from, bytes, seconds });
                Ok(FetchOutcome::Here(Box::new(manifest.clone())))
            }
            Fetched::Damaged(damage) => {
                self.emit(Some(&node.name), RunEvent::SharedResultDamaged { entry, damage });
                Ok(FetchOutcome::Damaged)
            }
        }
    }

    /// Brings a stage's result from the work folder to the shared store. True where it was not there before.
    ///
    /// # Errors
    /// When the shared store cannot be reached; when it has another result of the same recipe, made in the same way.
    pub fn push(&self, node: &Node, shared: &Shared, manifest: &Manifest) -> Result<bool> {
        let (entry, to, began) = (manifest.recipe.entry(), shared.address().to_owned(), Instant::now());
        let all = bytes_of(manifest);
        if all > LARGE {
            self.emit(Some(&node.name), RunEvent::TransferStarted { what: format!("{} to {to}", size(all)) });
        }
        let pushed = self.store.push(shared, manifest, &|| self.interrupt.check());
        match pushed.map_err(|source| failed(node, source))? {
            Pushed::There => Ok(false),
            Pushed::New { files, bytes } => {
                let seconds = began.elapsed().as_secs_f64();
                self.emit(Some(&node.name), RunEvent::ResultPushed { entry, to, files, bytes, seconds });
                Ok(true)
            }
            Pushed::Other { theirs, ports } => {
                let made = |by: &Manifest| (by.device.clone(), by.cpu.clone(), by.halftone.clone());
                if made(manifest) == made(&theirs) {
                    let text = nondeterministic(&to, manifest, &ports, &self.store.entry(&entry));
                    return Err(Error::Stage { stage: node.name.clone(), source: KitError::Data(text) });
                }
                let there = format!("{} ({}, halftone {})", theirs.device, theirs.cpu, theirs.halftone);
                self.emit(Some(&node.name), RunEvent::SharedResultDiffers { entry, to, ports, there });
                Ok(false)
            }
        }
    }
}

fn nondeterministic(to: &str, manifest: &Manifest, ports: &[String], here: &Path) -> String {
    format!(
        "nondeterministic stage: {to} has another result of the same recipe, {}, with other bytes in {}, made on the same \
         kind of device ({}, {}) by the same halftone; results of one recipe have to be equal. Nothing was changed there. \
         To take that result remove {} and run again; to keep this one remove entries/{}.json from {to}",
        manifest.recipe.entry(),
        ports.join(", "),
        manifest.device,
        manifest.cpu,
        here.display(),
        manifest.recipe.entry(),
    )
}

fn bytes_of(manifest: &Manifest) -> u64 {
    manifest.ports.values().flat_map(|port| &port.parts).map(|part| part.bytes).sum()
}

fn failed(node: &Node, source: KitError) -> Error {
    match source {
        KitError::Interrupted => Error::Kit(KitError::Interrupted),
        source => Error::Stage { stage: node.name.clone(), source },
    }
}
