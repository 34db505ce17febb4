//! halftone: soft preference labels in, a better language model out.
//!
//! This is the command line and the workflow engine. It knows pipeline files, graphs, plans, the store, events and
//! reports; it knows no tensors and no stage from the inside: stages are [`kit::Kind`]s in [`kinds::KINDS`].
//! Read [`check`], [`plan`] and [`run`] in this order.

mod check;
mod cli;
mod clock;
mod commands;
mod device;
mod diff;
mod draw;
mod error;
mod exit;
mod forecast;
mod graph;
mod groups;
mod hub;
mod init;
mod inspect;
mod kinds;
mod machine;
mod models;
mod page;
mod paths;
mod pipeline;
mod plan;
mod problem;
mod repair;
mod report;
mod resolved;
mod run;
mod schema;
mod signals;
mod store;
mod streams;
mod tables;
#[cfg(test)]
mod tests;
mod trace;
mod trl;
mod work;

fn main() {
    std::process::exit(cli::main());
}
