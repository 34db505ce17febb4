//! Models against the numbers of PyTorch and transformers, and GPU kernels by their counts.

mod bf16;
mod cache;
mod common;
mod encoder;
mod families;
mod few_bits;
mod folders;
mod generate;
mod gguf;
mod k_quants;
mod kernels;
mod lora;
mod prompts;
mod rewards;
mod scores;
mod shares;
mod text;
mod training;
