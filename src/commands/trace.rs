//! `trace`: a pair, an item or a comparison back to its source and forth to the steps that used it.

use std::path::Path;

use serde_json::json;

use super::record_of;
use crate::cli::{self, print};
use crate::error::{Error, Result};
use crate::inspect::what_became;
use crate::kinds::KINDS;
use crate::store::{Records, Store};
use crate::trace::{self, Lineage};

/// Follows an id through a run.
pub fn trace(work: &Path, args: cli::Trace) -> Result<()> {
    let (store, records) = (Store::open(work), Records::new(work));
    let record = record_of(&records, args.pipeline, args.run)?;
    let lineage = Lineage::of(&store, &records, &record, KINDS)?;
    let followed = trace::follow(&lineage, &record.pipeline, record.run, &args.id).map_err(|error| match error {
        Error::Usage(text) => Error::Usage(format!("{text}{}", what_became(&records, &record))),
        other => other,
    })?;
    print(&match args.json {
        true => format!("{}\n", json!(followed)),
        false => trace::text(&followed),
    })?;
    match followed.disagreements.is_empty() {
        true => Ok(()),
        false => Err(Error::Damaged(format!(
            "what is stored is not what it was computed from:\n{}",
            followed.disagreements.join("\n")
        ))),
    }
}
