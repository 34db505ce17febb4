//! `report`: a run as one HTML file.

use std::path::Path;

use super::record_of;
use crate::cli::{self, print};
use crate::error::Result;
use crate::page;
use crate::store::{Records, Store};

/// Writes the report of a run.
pub fn report(work: &Path, args: cli::Report) -> Result<()> {
    let (store, records) = (Store::open(work), Records::new(work));
    let record = record_of(work, &records, args.pipeline, args.run)?;
    let out = args.out.unwrap_or_else(|| page::path(&records, &record));
    page::write(&store, &records, &record, &out)?;
    print(&format!("{}\n", out.display()))
}
