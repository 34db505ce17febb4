//! `verify`: every file of the store against its manifest.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use kit::Interrupt;

use crate::error::{Error, Result};
use crate::remote;
use crate::store::{Access, Manifest, Records, Shared, Store, Wrong, leftovers};
use crate::streams::print;
use crate::units::size;

#[derive(Debug, Args)]
pub struct Verify {
    /// Only the latest run of this pipeline
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Also look whether the shared stores that this work folder has used hold its entries as they are here
    #[arg(long)]
    pub remote: bool,
}

/// Reads all entries, or those of one pipeline's latest run.
pub fn verify(work: &Path, args: Verify) -> Result<()> {
    let (store, records) = (Store::open(work), Records::new(work));
    let mut names = BTreeSet::new();
    match &args.pipeline {
        Some(text) => {
            let name = crate::look::runs::pipeline_name(text)?;
            let record = records
                .latest(&name)?
                .ok_or_else(|| Error::Usage(format!("no run of `{name}` in {}", work.display())))?;
            names.extend(record.stages.into_values().filter_map(|stage| stage.entry));
        }
        None if store.folder().is_dir() => {
            for entry in std::fs::read_dir(store.folder()).map_err(kit::Error::io(store.folder()))? {
                let name = entry.map_err(kit::Error::io(store.folder()))?.file_name().to_string_lossy().into_owned();
                if !name.contains('.') {
                    names.insert(name);
                }
            }
        }
        None => {}
    }
    let mut damaged = Vec::new();
    let mut whole = Vec::new();
    let (mut files, mut bytes) = (0, 0);
    for name in &names {
        let path = store.entry(name);
        let Some(manifest) = store.manifest(name)? else {
            damaged.push(format!("{}: manifest.json is missing or torn", path.display()));
            continue;
        };
        let parts = || manifest.ports.values().flat_map(|port| &port.parts);
        files += parts().count();
        bytes += parts().map(|part| part.bytes).sum::<u64>();
        if manifest.recipe.entry() != *name || manifest.recipe.key() != manifest.key {
            damaged.push(format!("{}: manifest.json belongs to another entry", path.display()));
        } else if let Some(damage) = store.verify(&manifest, None)? {
            damaged.push(format!("{}: {damage}", path.display()));
        } else {
            whole.push(manifest);
        }
    }
    let remembered = store.stats().save();
    if !damaged.is_empty() {
        damaged.push(match remembered {
            Ok(()) => "the next run that needs a damaged entry computes it again".to_owned(),
            Err(error) => format!("this cannot be remembered for the next run, so remove what is damaged: {error}"),
        });
        return Err(Error::Damaged(damaged.join("\n")));
    }
    let entries = format!("{} entries, {files} files, {}: all as written\n", names.len(), size(bytes));
    let there = if args.remote { shared(work, &whole)? } else { String::new() };
    print(&format!("{entries}{}{there}", beside(&store, &records)?))
}

/// The entries in the shared stores that the work folder has used: sizes are compared, bytes when they are fetched.
fn shared(work: &Path, entries: &[Manifest]) -> Result<String> {
    let mut text = String::new();
    let mut wrong = Vec::new();
    for address in Shared::known(work)? {
        let parsed = address.parse().map_err(|text| kit::Error::data(format!("{address}: {text}")))?;
        let shared = Shared::open(remote::open(&parsed, Interrupt::default())?, work, Access::Look)?;
        let mut lacks = 0;
        for manifest in entries {
            match shared.verify(manifest)? {
                None => {}
                Some(Wrong::Missing) => lacks += 1,
                Some(Wrong::Damaged(damage)) => wrong.push(format!("{address}: {}: {damage}", manifest.recipe.entry())),
            }
        }
        let lack = if lacks == 0 { String::new() } else { format!(", {lacks} not; the next run pushes what it needs") };
        text.push_str(&format!("{address}: {} entries are there as here{lack}\n", entries.len() - lacks));
    }
    match wrong.is_empty() {
        true if text.is_empty() => Ok("no shared store was used from here\n".to_owned()),
        true => Ok(text),
        false => Err(Error::Damaged(wrong.join("\n"))),
    }
}

/// The content of the store beside its entries.
fn beside(store: &Store, records: &Records) -> Result<String> {
    let (mut unfinished, mut damaged) = (0, 0);
    if store.folder().is_dir() {
        for entry in std::fs::read_dir(store.folder()).map_err(kit::Error::io(store.folder()))? {
            let name = entry.map_err(kit::Error::io(store.folder()))?.file_name().to_string_lossy().into_owned();
            unfinished += usize::from(name.ends_with("partial"));
            damaged += usize::from(name.contains(".damaged-"));
        }
    }
    let counts = [
        (unfinished, "unfinished, which a run goes on with"),
        (damaged, "damaged and set aside"),
        (leftovers(store, records)?.len(), "left by killed processes"),
    ];
    let counts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if counts.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("beside them: {}; `halftone gc` removes what no run needs\n", counts.join(", ")))
}
