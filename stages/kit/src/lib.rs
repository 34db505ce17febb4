//! The contract between the stages and the engine, and the tables that stages meet in.
//!
//! `kit` knows what a stage is ([`Stage`]), what flows between stages ([`Table`], the row types in [`rows`]) and how
//! files are committed so that a kill at any moment loses nothing ([`commit`]). It knows no tensors, no YAML and no
//! pipeline. Read [`Stage`] first.

pub mod commit;
mod context;
mod digest;
mod ending;
mod error;
mod event;
mod expected;
mod file;
mod forecast;
mod held;
pub mod ids;
mod message;
mod model_folder;
mod port;
mod prompts;
mod read;
mod rendering;
mod row;
pub mod rows;
mod secret;
mod seed;
mod shard;
mod stage;
mod trace;
mod watched;
mod write;

pub use context::{Context, Interrupt, Source};
pub use digest::{Digest, canonical, digest_file, digest_folder, id_bits, id_of};
pub use ending::{end_mean, is_mean_at_end, last_steps};
pub use error::{Error, Result};
pub use event::{Event, Events};
pub use expected::{Ahead, CHARACTERS_PER_TOKEN, Expected, Lengths, tokens_of};
pub use file::{open_file, read_small};
pub use forecast::{Amount, Certainty, Forecast, Outlook, Work};
pub use held::{Held, write_gathered};
pub use message::{JsonText, Message};
pub use model_folder::{base_of, is_model};
pub use port::{Input, InputPort, OutputPort, Table};
pub use prompts::{DistinctPrompts, PromptedRow};
pub use read::{
    BatchReader, RowReader, TableBatch, columns_of, count_rows, parts_of, read_batches, read_rows, rows_of,
};
pub use rendering::{Piece, Rendering, Tokenised};
pub use row::{Cell, Missing, Row};
pub use secret::{keep_secret, redact, redacted};
pub use seed::Seed;
pub use shard::{ShardOutput, complete_port, run_shards, shard_ranges};
pub use stage::{Balance, Configured, Finding, Headline, Kind, Outcome, Stage};
pub use trace::{Fact, OneSided, Side, Traced, Trail, TwoSided, find};
pub use write::{
    Part, PortFiles, ROWS_PER_GROUP, ROWS_PER_PART, TableWriter, part_record, read_port, schema_of, write_columns,
    write_part,
};
