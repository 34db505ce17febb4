//! Files that appear whole or not at all, and work in shards.

mod files;
pub mod shard;

pub use files::*;
