//! `trace`: the rows that every stage stored about a pair, an item, a comparison or a response.

use std::path::Path;

use clap::Args;
use serde_json::json;

use crate::error::{Error, Result};
use crate::kinds::KINDS;
use crate::look::inspect::unfinished_note;
use crate::look::lineage::{self, Lineage};
use crate::look::runs::record_of;
use crate::store::{Records, Store};
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Trace {
    /// The id of a pair, an item, a comparison or a response, or the beginning of one (from 6 characters on)
    pub id: String,
    /// The pipeline that is meant, if it is not the one that ran last: its name or file
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// The run's number [default: the latest]
    #[arg(long, value_name = "N")]
    pub run: Option<u64>,
    /// All of it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Follows an id through a run.
pub fn trace(work: &Path, args: Trace) -> Result<()> {
    let (store, records) = (Store::open(work), Records::new(work));
    let record = record_of(&records, args.pipeline, args.run)?;
    let lineage = Lineage::of(&store, &records, &record, KINDS)?;
    let followed = lineage::follow(&lineage, &record.pipeline, record.run, &args.id).map_err(|error| match error {
        Error::Usage(text) => Error::Usage(format!("{text}{}", unfinished_note(&records, &record))),
        other => other,
    })?;
    print(&match args.json {
        true => format!("{}\n", json!(followed)),
        false => lineage::text(&followed),
    })?;
    match followed.changed.is_empty() {
        true => Ok(()),
        false => Err(Error::Damaged(format!("the store is not what this run left:\n{}", followed.changed.join("\n")))),
    }
}
