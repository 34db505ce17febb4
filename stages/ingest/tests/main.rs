//! The stage on files of every format, and on broken ones.

mod bad_rows;
mod common;
mod duplicates;
mod formats;
mod golden;
mod known_sets;
mod laws;
mod parquet_files;
mod shapes;
mod votes;
