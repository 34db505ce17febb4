//! Models by name: the Hugging Face cache, and the hub where the cache lacks one.
//!
//! [`ModelName`] says what counts as a name, [`Cache`] what is on disk, [`fetch`] brings what is not. Checking and
//! planning look at the disk only; the network is for `run`.

mod cache;
mod content;
mod fetch;
mod name;
mod origin;
mod token;

pub use cache::Cache;
pub use fetch::fetch;
pub use name::ModelName;
use token::token;

/// Address that models are fetched from.
pub fn endpoint() -> String {
    let given = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
    given.unwrap_or_else(|| "https://huggingface.co".to_owned()).trim_end_matches('/').to_owned()
}

/// True where the hub must not be asked (`HF_HUB_OFFLINE`).
pub fn offline() -> bool {
    let given = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
    ["1", "true", "yes", "on"].contains(&given.as_str())
}
