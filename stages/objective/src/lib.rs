//! Preference objectives: plain f64 arithmetic on log-probs of sequences, value and derivative side by side.
//!
//! This crate knows sequences by their log-probs under policy and reference (or by their reward), edges between them with soft labels, items
//! with labels of their own, and the loss and its gradient. It knows no tensors, no text and no tables. Read
//! [`Objective`] first, then [`Batch`] and [`Evaluation`]; each family has a file with its equations and [`Facts`], and
//! a line in `list.rs`.

mod aot;
mod apo;
mod batch;
mod bco;
mod cpo;
mod data_check;
mod discopop;
mod dpo;
mod error;
mod evaluate;
mod evaluation;
mod exo;
mod formula;
mod hinge;
mod ipo;
mod jpo;
mod kto;
mod list;
mod measures;
mod mixture;
mod nca;
mod norm;
mod orpo;
mod reward;
mod robust;
mod ropo;
mod rpo;
mod sft;
mod side;
mod simpo;
mod sppo;
mod stable;

pub use aot::Aot;
pub use apo::{ApoDown, ApoZero};
pub use batch::{Batch, Edge, Item, SequenceLogps, Similarities};
pub use bco::Bco;
pub use cpo::Cpo;
pub use data_check::Forms;
pub use discopop::Discopop;
pub use dpo::{Cdpo, Dpo, Gdpo};
pub use error::{Error, Result};
pub use evaluation::{Contrasts, Evaluation, NoStep};
pub use exo::Exo;
pub use formula::{Facts, Finding, Reads, Score};
pub use hinge::Hinge;
pub use ipo::{Cipo, Gipo, Ipo, IpoNorm};
pub use jpo::{Cjpo, Gjpo, Jpo};
pub use kto::Kto;
pub use list::Objective;
pub use measures::Measures;
pub use mixture::{Mixture, Part};
pub use nca::Nca;
pub use norm::{CdpoNorm, DpoNorm, GdpoNorm};
pub use orpo::Orpo;
pub use reward::Reward;
pub use robust::Robust;
pub use ropo::{Gropo, Ropo};
pub use rpo::{Rpo, RpoForm, RpoWeighting};
pub use sft::Sft;
pub use simpo::Simpo;
pub use sppo::Sppo;

/// Raised when the same batch gives other numbers than before; part of the version of stages that compute with it.
pub const VERSION: &str = "1";
