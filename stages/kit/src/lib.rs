//! The contract between the stages and the engine, and the tables that stages meet in.
//!
//! `kit` knows what a stage is ([`Stage`]), what flows between stages ([`Table`], the row types in [`rows`]) and how
//! files are committed so that a kill at any moment loses nothing ([`commit`]). It knows no tensors, no YAML and no
//! pipeline. Read [`Stage`] first.

pub mod commit;
mod contract;
mod digest;
mod error;
mod file;
mod labels;
mod pattern;
mod ranks;
mod secret;
mod seed;
mod table;

pub use commit::batches::Batches;
pub use commit::shard::{
    Job, ShardOutput, Sharded, committed_shards, complete_port, compute_shards, finish_shards, kept, shard_ranges,
};
pub use contract::context::{Context, Interrupt, Source};
pub use contract::ending::{end_mean, is_mean_at_end, last_steps};
pub use contract::event::{Event, Events};
pub use contract::expected::{CHARACTERS_PER_TOKEN, Expected, Lengths, tokens_of};
pub use contract::forecast::{Amount, Certainty, Forecast, Work};
pub use contract::inputs::{ForecastInputs, Outlook};
pub use contract::outcome::{Balance, Headline, Outcome};
pub use contract::port::{Input, InputPort, OutputPort, Table};
pub use contract::rendering::{Piece, Rendering};
pub use contract::stage::{Configured, Finding, Kind, Stage};
pub use digest::{Digest, canonical, digest_file, digest_folder, digest_reader, id_bits, id_of, id_text};
pub use error::{Error, Result};
pub use file::{open_file, read_small};
pub use labels::gold::GoldLabel;
pub use labels::interval::{Z, wilson};
pub use labels::probability;
pub use labels::sides::{Sides, SidesIndex};
pub use pattern::fits;
pub use ranks::collective::{Alone, BetweenGpus, Collective, GpuSwap, Ranked, ranks};
pub use ranks::threads::{in_pools, in_threads, lost};
pub use ranks::turns::Turn;
pub use secret::{keep_secret, redact, redacted};
pub use seed::Seed;
pub use table::cached_rows::{CachedRows, Place};
pub use table::columns::ColumnWriter;
pub use table::gathered::{held_bytes, write_gathered};
pub use table::message::{JsonText, Message};
pub use table::parts::{columns_of, count_rows, parts_of, read_batches, rows_of};
pub use table::prompts::{DistinctPrompts, PromptedRow};
pub use table::read::{BatchReader, RowReader, TableBatch, read_rows};
pub use table::row::{Cell, Missing, Row};
pub use table::texts::Texts;
pub use table::write::{
    Part, PortFiles, ROWS_PER_GROUP, ROWS_PER_PART, TableWriter, part_record, read_port, schema_of, write_columns,
    write_part,
};
pub use table::{ids, rows};
