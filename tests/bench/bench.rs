//! Speed and memory of halftone, next to other tools on the same machine in one run:
//!
//!     cargo bench                                         # all workloads, on a model and texts made for it
//!     cargo bench -- training judge --peer PYTHON         # two of them, next to a Python with torch, trl, ...
//!     cargo bench -- --model FOLDER --data PAIRS.jsonl    # on one's own model and preference data
//!     cargo bench -- training-bf16 --shape 0.5b --device cuda:0    # on a GPU, in a build with the feature `cuda`
//!     cargo bench -- --keep                               # adds a line to tests/bench/results.jsonl
//!
//! Every figure is that of a whole stage of the built binary: reading, tokenising, loading the model and committing the
//! result are in it. Peers are timed without their imports and without loading the model.

mod machine;
mod material;
mod peer;
mod stage;
mod workloads;

use std::path::PathBuf;

use clap::Parser;
use serde_json::json;

use material::Material;
use workloads::{WORKLOADS, Workload};

/// Measures halftone, and other tools beside it.
#[derive(Debug, Parser)]
struct Args {
    /// Workloads; all of them where none is named
    names: Vec<String>,
    /// A model folder in the Hugging Face format, in place of a random Llama of 15.7 million parameters
    #[arg(long, requires = "data")]
    model: Option<PathBuf>,
    /// Preference pairs as JSON Lines of plain texts, in any layout that `ingest` finds, in place of made ones
    #[arg(long, requires = "model")]
    data: Option<PathBuf>,
    /// A sentence encoder for `embed`, in place of the model's mean states
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// A Python with torch, transformers, trl and sentence-transformers, to measure the same work in
    #[arg(long)]
    peer: Option<PathBuf>,
    /// The form of the model that is made: small (Llama, 15.7 million parameters), 0.5b or 1.5b (those of Qwen2)
    #[arg(long, default_value = "small", value_parser = ["small", "0.5b", "1.5b"], conflicts_with = "model")]
    shape: String,
    /// Where models compute: cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Add the figures to tests/bench/results.jsonl
    #[arg(long)]
    keep: bool,
    /// Flag that cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let known = || WORKLOADS.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
    let chosen: Vec<&Workload> = match args.names.as_slice() {
        [] => WORKLOADS.iter().collect(),
        names => names
            .iter()
            .map(|name| {
                let found = WORKLOADS.iter().find(|workload| workload.name == name);
                found.unwrap_or_else(|| panic!("no workload `{name}`; there are {}", known()))
            })
            .collect(),
    };
    stage::compute_on(args.device.clone());
    let material = Material::new(args.model.as_deref(), args.data.as_deref(), args.encoder.as_deref(), &args.shape);
    let machine = machine::describe();
    let peak = machine::matmul_gflops();
    println!("{machine}; f32 matmul of 1024 x 1024: {peak:.0} GFLOP/s\n");
    println!("{:<20} {:>12} {:<14} {:>8} {:>7}  peers", "workload", "rate", "", "MiB", "matmul");
    let mut lines = Vec::new();
    for workload in chosen {
        let figures = (workload.measure)(&material);
        let share = figures.gflop.map(|gflop| gflop / figures.seconds / peak);
        let peers: Vec<_> = match &args.peer {
            Some(python) => workload.peers.iter().map(|peer| peer.measure(python, &material)).collect(),
            None => Vec::new(),
        };
        let said: Vec<String> = peers
            .iter()
            .map(|peer| {
                format!("{} {:.2} ({:.2} x), {:.0} MiB", peer.name, peer.rate, figures.rate / peer.rate, peer.mib)
            })
            .collect();
        let percent = share.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0));
        println!(
            "{:<20} {:>12.2} {:<14} {:>8.0} {percent:>7}  {}",
            workload.name,
            figures.rate,
            workload.unit,
            figures.mib,
            said.join("; ")
        );
        lines.push(json!({
            "workload": workload.name, "rate": figures.rate, "unit": workload.unit, "mib": figures.mib,
            "share_of_matmul": share,
            "peers": peers.iter().map(|peer| json!({"name": peer.name, "rate": peer.rate, "mib": peer.mib})).collect::<Vec<_>>(),
        }));
    }
    if args.keep {
        machine::keep(&json!({
            "date": machine::date(), "version": env!("CARGO_PKG_VERSION"), "machine": machine, "matmul_gflops": peak,
            "own_material": args.model.is_some(), "shape": args.shape, "device": args.device, "figures": lines,
        }));
    }
}
