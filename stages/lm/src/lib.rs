//! Language models on candle: tokens to log-probabilities, their gradient, and steps on it.
//!
//! `lm` knows Hugging Face model folders, tokens, tensors and gradients. It knows no rows of a table, no YAML and no
//! stage. Read [`Decoder`] first: one decoder judges, samples, scores the reference and trains.

/// Raised whenever outputs may change; stages put it into their version.
pub const VERSION: &str = "4";

/// The words by which ports say which of two kinds a model is: one that gives tokens, and one that gives a number.
pub const LANGUAGE_MODEL: &str = "language";
/// See [`LANGUAGE_MODEL`].
pub const REWARD_MODEL: &str = "reward";

/// Tokens that are scored or embedded at once, unless one says otherwise. Activations of more are
/// larger than what the allocator of the C library keeps, and a tenth of the time goes into mapping them anew.
pub const TOKENS_AT_ONCE: usize = 4096;

mod cost;
mod device;
mod dtype;
mod encode;
mod error;
mod model;
mod ops;
mod panics;
mod random;
mod sample;
mod text;
mod train;

pub use candle_core::{DType, Device};
pub use cost::estimate::{EFFICIENCY, Estimate, Load, Purpose};
pub use cost::speed::Speed;
pub use device::{device_warnings, gpu_memory, gpus, open_device, resolve_device};
pub use dtype::{Bits, Dtype, Precision, SavedDtype};
pub use encode::encoder::SentenceEncoder;
pub use error::{Error, Result};
pub use model::cache::{KvCache, Slot};
pub use model::config::DecoderConfig;
pub use model::config_files::is_reward_model;
pub use model::decoder::Decoder;
pub use model::export::export;
pub use model::facts::{ModelFacts, ModelForm, TemplateFacts, Use};
pub use model::family::{Activation, Bias, CapKeys, Defaults, Family, Gguf, HeadNorms, Norm, Norms};
pub use model::family::{Multiplier, MultiplierKey, MultiplierKeys, Multipliers, Rotation, Window, WindowedRope};
pub use model::folder::{base_of, is_gguf};
pub use model::lora::{Lora, TARGETS};
pub use model::rope::{QueryScale, Rope, RopeKind};
pub use model::saving::Kept;
pub use model::scoring::{LogProbs, Packed};
pub use model::usable::{Usable, check_bits, check_decoder, check_reward_model, check_sentence_encoder, in_few_bits};
pub use models::BASE_INSIDE;
#[cfg(feature = "cuda")]
#[doc(hidden)]
pub use ops::cuda::bench as gpu_bench;
pub use sample::generate::{Finish, GenerateRequest, Generation};
pub use sample::sampling::SamplingRules;
pub use text::bounded;
pub use text::rules::{Displaced, PrefixMismatch, PromptMismatch, Refusal, SpecialText, TextRules, TooLong};
pub use text::sequence::Sequence;
pub use text::template::TEMPLATE_DATE;
pub use text::tokenizer_files::copy_tokenizer;
pub use text::tokens::{Text, Turn};
pub use train::buckets::{Addresses, Bucket};
pub use train::shares::Share;
pub use train::state::SavedState;
pub use train::training::{AdamW, Memory, Training};
