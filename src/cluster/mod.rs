//! Pipelines on clusters: the stages of a plan become tasks, which a scheduler starts wherever it likes. No process of
//! ours stays behind: what is committed in the work folder is the truth, the scheduler's word a hint.
//!
//! Read [`tasks`] for what is started, [`command`] for how, then [`reconcile`] for what is started again.

pub mod command;
pub mod config;
pub mod environment;
pub mod kubernetes;
pub mod ledger;
pub mod ray;
pub mod reading;
pub mod reconcile;
pub mod render;
pub mod rendered;
pub mod scheduler;
pub mod script;
pub mod slurm;
pub mod submit;
pub mod tasks;
pub mod view;
