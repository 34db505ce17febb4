//! Ways to a verdict against the numbers of transformers, and endpoints that fail.

mod endpoint;
mod gguf;
mod idle_keys;
mod material;
mod oracles;
mod rating;
mod reasoning;
mod reward;
mod stage;
