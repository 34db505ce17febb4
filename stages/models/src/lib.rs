//! Where models lie on disk: folders that hold one, the bases that adapters name, and the cache of the hub.
//!
//! It reads configurations and no weights. Read [`base_of`] first.

mod adapter;
mod cache;

pub use adapter::{ADAPTER_CONFIG, BASE_INSIDE, Problem, base_of, is_gguf, is_model};
pub use cache::{hub_cache, hub_home, hub_name};
