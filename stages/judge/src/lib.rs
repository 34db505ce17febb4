//! The stage kind `judge`: a language model's soft labels for comparisons, with the evidence they rest on.
//!
//! It knows how a question to the judge is worded ([`Template`]), which answers count ([`Labels`]) and how two orders
//! become one probability ([`verdict`]); how a scale ([`Rating`]), sampled answers ([`Reasoning`]) and a rationale
//! ([`Rationale`]) stand in place of a label at once. It does not know how a model computes (that is `lm`), how an
//! endpoint is asked (that is `endpoint`), nor what becomes of the labels (that is `calibrate` and `pairs`). Read
//! [`Judge`] first.

mod answering;
mod answers;
mod batches;
mod completion;
mod config;
mod counting;
mod forecast;
mod idle;
mod judging;
mod labels;
mod level_tokens;
mod local;
mod mass;
mod mode_findings;
mod modes;
mod pattern;
mod protocol;
mod rated;
mod rating;
mod rationale;
mod remote;
mod remote_rated;
mod remote_texts;
mod rendering;
mod reply;
mod reward;
mod stage;
mod summary;
mod template;
mod thoughts;
pub mod verdict;
mod work;
mod writing;

pub use config::{Judge, Orders};
pub use labels::Labels;
pub use modes::{Criterion, Rating, Rationale, Reasoning, Take};
pub use template::{AsksFor, Form, Template};

/// The kind for the engine's list.
pub const KIND: kit::Kind = kit::Kind::of::<Judge>("judge", "soft labels for comparisons from a language model");
