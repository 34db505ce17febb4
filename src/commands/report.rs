//! `report`: a run, or several side by side, as one HTML file.

use std::path::Path;

use super::{note_unfinished, pipeline_name, record_of, run_of};
use crate::cli::{self, print};
use crate::error::Result;
use crate::inspect::latest_pipeline;
use crate::page;
use crate::store::{Records, RunRecord, Store};

/// Writes the report of a run, or of several.
pub fn report(work: &Path, args: cli::Report) -> Result<()> {
    let (store, records) = (Store::open(work), Records::new(work));
    if !args.compare.is_empty() {
        let default = || args.pipeline.as_deref().map_or_else(|| latest_pipeline(&records), pipeline_name);
        let runs = args.compare.iter().map(|text| run_of(&records, text, default));
        let runs: Vec<RunRecord> = runs.collect::<Result<_>>()?;
        runs.iter().for_each(|record| note_unfinished(&records, record));
        let out = args.out.unwrap_or_else(|| page::path_of_comparison(&records, &runs));
        page::compare(&store, &records, &runs, &out)?;
        return print(&format!("{}\n", out.display()));
    }
    let record = record_of(&records, args.pipeline, args.run)?;
    note_unfinished(&records, &record);
    let out = args.out.unwrap_or_else(|| page::path(&records, &record));
    page::write(&store, &records, &record, &out)?;
    print(&format!("{}\n", out.display()))
}
