//! The decoder: its folder, its configuration, its blocks, its adapter, and forests of sequences.

pub mod adapter_folder;
pub mod block;
pub mod cache;
pub mod config;
pub mod config_files;
#[cfg(test)]
mod config_tests;
pub mod decoder;
pub mod export;
pub mod facts;
pub mod families;
pub mod family;
pub mod few_bits;
pub mod folder;
pub mod forest;
pub mod ggml;
pub mod gguf;
pub mod keys;
pub mod linear;
pub mod loading;
pub mod lora;
pub mod nf4;
pub mod parameter;
pub mod passes;
pub mod reward;
pub mod rope;
pub mod row_keys;
pub mod saving;
pub mod scoring;
pub mod shapes;
pub mod tensor_file;
pub mod usable;
pub mod weights;
pub mod written;
