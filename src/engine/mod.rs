//! Runs of a pipeline: the plan, the forecast, the work on each stage.
//!
//! Read [`plan`], then [`scheduler`], then [`work`].

pub mod address;
pub mod device;
pub mod executor;
pub mod forecast;
pub mod growth;
pub mod inputs;
pub mod launch;
pub mod machine;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod nccl;
pub mod plan;
pub mod pool;
pub mod pulse;
pub mod ranks;
pub mod rendezvous;
pub mod resolved;
pub mod run;
pub mod scheduler;
pub mod shards;
pub mod share;
pub mod signals;
pub mod tcp;
pub mod work;
