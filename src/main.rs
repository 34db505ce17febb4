//! halftone: soft preference labels in, a better language model out.
//!
//! This is the command line and the workflow engine. It knows pipeline files, graphs, plans, the store, events and
//! reports; it knows no tensors and no stage from the inside: stages are [`kit::Kind`]s in [`kinds::KINDS`].
//! Read [`pipeline::check`], [`engine::plan`] and [`engine::run`] in this order.

mod cli;
mod clock;
mod cluster;
mod engine;
mod error;
mod exit;
mod export;
mod hub;
mod init;
mod kinds;
mod look;
mod pipeline;
mod progress;
mod remote;
mod store;
mod streams;
#[cfg(test)]
mod tests;
mod units;

fn main() {
    std::process::exit(cli::main());
}
