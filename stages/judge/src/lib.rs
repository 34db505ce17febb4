//! The stage kind `judge`: a language model's soft labels for comparisons, with the evidence they rest on.
//!
//! It knows how a question to the judge is worded ([`Template`]), which answers count ([`Labels`]) and how two orders
//! become one probability ([`verdict`]). It does not know how a model computes (that is `lm`), how an endpoint is asked
//! (that is `endpoint`), nor what becomes of the labels (that is `calibrate` and `pairs`). Read [`Judge`] first.

mod ahead;
mod config;
mod judging;
mod labels;
mod local;
mod mass;
mod protocol;
mod remote;
mod rendering;
mod reply;
mod stage;
mod summary;
mod template;
pub mod verdict;
mod work;

pub use config::{Judge, Orders};
pub use labels::Labels;
pub use template::{AsksFor, Form, Template};

/// The kind for the engine's list.
pub const KIND: kit::Kind = kit::Kind::of::<Judge>("judge", "soft labels for comparisons from a language model");
