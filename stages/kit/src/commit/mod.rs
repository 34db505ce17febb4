//! Files that appear whole or not at all, and work in shards and batches.

pub mod batches;
mod files;
pub mod shard;

pub use files::*;
