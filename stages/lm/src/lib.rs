//! Language models on candle: tokens to log-probabilities, their gradient, and steps on it.
//!
//! `lm` knows Hugging Face model folders, tokens, tensors and gradients. It knows no rows of a table, no YAML and no
//! stage. Read [`Decoder`] first: one decoder judges, samples, scores the reference and trains.

/// Raised whenever outputs may change; stages put it into their version.
pub const VERSION: &str = "2";

/// Tokens that are scored or embedded at once, unless one says otherwise. Activations of more are
/// larger than what the allocator of the C library keeps, and a tenth of the time goes into mapping them anew.
pub const TOKENS_AT_ONCE: usize = 4096;

mod adapter_folder;
mod bert;
mod block;
pub mod bounded;
mod cache;
mod config;
mod decoder;
mod device;
mod dtype;
mod encoder;
mod error;
mod estimate;
mod export;
mod forest;
mod generate;
mod gguf;
#[cfg(test)]
mod gradient_tests;
mod lora;
mod messages;
mod ops;
mod parameter;
mod passes;
mod pooling;
mod random;
mod rules;
mod sampling;
mod saving;
mod scored;
mod sequence;
mod special;
mod speed;
mod state;
mod template;
mod text;
mod tokenizer_files;
mod training;
mod usable;
mod weights;

pub use adapter_folder::{BASE_INSIDE, base_of};
pub use cache::{KvCache, Slot};
pub use candle_core::{DType, Device};
pub use config::{DecoderConfig, Family, Rope, RopeKind};
pub use decoder::{Decoder, LogProbs};
pub use device::{gpu_memory, open_device, resolve_device};
pub use dtype::{Dtype, SavedDtype};
pub use encoder::SentenceEncoder;
pub use error::{Error, Result};
pub use estimate::{EFFICIENCY, Estimate, Load, Purpose};
pub use export::export;
pub use generate::{Finish, GenerateRequest, Generation};
pub use gguf::is_gguf;
pub use lora::{Lora, TARGETS};
#[cfg(feature = "cuda")]
#[doc(hidden)]
pub use ops::cuda::bench as gpu_bench;
pub use rules::{Displaced, PrefixMismatch, PromptMismatch, Refusal, SpecialText, TextRules, TooLong};
pub use sampling::SamplingRules;
pub use saving::Kept;
pub use sequence::Sequence;
pub use speed::Speed;
pub use template::TEMPLATE_DATE;
pub use text::{Text, Turn};
pub use tokenizer_files::copy_tokenizer;
pub use training::{AdamW, Memory, Training};
pub use usable::{Usable, check_decoder, check_sentence_encoder};
