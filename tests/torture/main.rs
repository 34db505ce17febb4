//! Faults on purpose: the built binary is killed, its disk fails, its files are flipped, its inputs mutated and its
//! services broken. What has to hold stands in each row of the table that this prints.
//!
//! `TORTURE=long` tries every point, else some of each. `TORTURE_BINARY=PATH` takes another binary than the one just
//! built. Words on the command line choose rows by name.

mod exits;
mod flips;
mod inputs;
mod place;
mod points;
mod servers;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use table::{Form, Table};

fn main() -> ExitCode {
    // Test runners ask what there is before they run it.
    if std::env::args().any(|word| word == "--list") {
        println!("torture: test");
        return ExitCode::SUCCESS;
    }
    let began = Instant::now();
    let names = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut table = Table::new(Form::of_environment(), names);
    points::fill(&mut table);
    flips::fill(&mut table);
    inputs::fill(&mut table);
    exits::fill(&mut table);
    servers::fill(&mut table);
    println!("{table}\nin {} s", began.elapsed().as_secs());
    if table.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
