//! `report`: a run, or several side by side, as one HTML file.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;

use crate::error::Result;
use crate::look::inspect::latest_pipeline;
use crate::look::report;
use crate::look::runs::{note_unfinished, pipeline_name, record_of, run_of};
use crate::store::{Records, RunRecord, Store};
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Report {
    /// A pipeline's name or file; the pipeline that ran last if left out
    pub pipeline: Option<String>,
    /// The run's number [default: the latest]
    #[arg(long, value_name = "N")]
    pub run: Option<u64>,
    /// Runs side by side in one page: numbers of runs of the pipeline, `PIPELINE:N`, or names for the latest of each
    #[arg(long, value_name = "RUN", num_args = 2.., conflicts_with = "run")]
    pub compare: Vec<String>,
    /// The HTML file [default: report.html in the folder of the run; of several runs, in the folder of the first's
    /// pipeline]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Writes the report of a run, or of several.
pub fn report(work: &Path, args: Report) -> Result<()> {
    let (store, records) = (Store::open(work), Records::new(work));
    if !args.compare.is_empty() {
        let default = || args.pipeline.as_deref().map_or_else(|| latest_pipeline(&records), pipeline_name);
        let runs = args.compare.iter().map(|text| run_of(&records, text, default));
        let runs: Vec<RunRecord> = runs.collect::<Result<_>>()?;
        runs.iter().for_each(|record| note_unfinished(&records, record));
        let out = args.out.unwrap_or_else(|| report::path_of_comparison(&records, &runs));
        report::compare(&store, &records, &runs, &out)?;
        return print(&format!("{}\n", out.display()));
    }
    let record = record_of(&records, args.pipeline, args.run)?;
    note_unfinished(&records, &record);
    let out = args.out.unwrap_or_else(|| report::path(&records, &record));
    report::write(&store, &records, &record, &out)?;
    print(&format!("{}\n", out.display()))
}
