//! Looking into tables: rows as JSON values, filters, statistics, and a view that reads conversations.

mod cells;
mod compact;
mod filter;
mod missing;
mod rows;
mod show;
mod stats;
mod target;

pub use cells::is_text;
pub use compact::compact;
pub use filter::{Filter, all};
pub use missing::{no_run, unfinished_note};
pub use rows::{Row, Rows};
pub use show::{pretty, schema_table, table};
pub use stats::stats_table;
pub use target::{Target, latest_pipeline, resolve, resolve_noting};
