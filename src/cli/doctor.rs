//! `doctor`: the build, the machine and the work folder, as a bug report needs them.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::engine::work::cpu_level;
use crate::engine::{device, machine};
use crate::error::Result;
use crate::hub::{self, Cache};
use crate::progress::aligned;
use crate::store::{Records, Store};
use crate::streams::print;
use crate::units::size;

#[derive(Debug, Args)]
pub struct Doctor {
    /// All of it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Variables of the environment that change what halftone does. Of the last ones only their presence is shown.
const VARIABLES: [&str; 13] = [
    "HALFTONE_WORK",
    "HALFTONE_DEVICE",
    "HALFTONE_VERBOSE",
    "HALFTONE_QUIET",
    "RAYON_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "NO_COLOR",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
];
/// Number of the variables at the end of the list that hold secrets.
const SECRETS: usize = 2;

/// Prints what a report of a bug should have in it.
pub fn doctor(work: &Path, args: Doctor) -> Result<()> {
    let facts = facts(work)?;
    if args.json {
        let object: serde_json::Map<String, Value> =
            facts.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        return print(&format!("{}\n", Value::Object(object)));
    }
    let mut rows = Vec::new();
    for (name, lines) in facts {
        for (index, line) in lines.into_iter().enumerate() {
            rows.push(vec![if index == 0 { name.to_owned() } else { String::new() }, line]);
        }
    }
    let paste = "for a bug report: paste the lines above, the command, what it printed, and the pipeline file; a run's own\n\
                 record lies in the work folder under runs/<pipeline>/<run> (resolved.yaml, stages.json, events.jsonl)\n";
    print(&format!("{}\n{paste}", aligned(&rows, &[])))
}

fn facts(work: &Path) -> Result<Vec<(&'static str, Vec<String>)>> {
    let said = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), size);
    let units = machine::bf16_units();
    let units = if units.is_empty() { "no bf16 unit".to_owned() } else { units.join(", ") };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (total, free) = (machine::memory(), machine::free_memory());
    Ok(vec![
        ("halftone", vec![format!("{}, {} build", super::VERSION, env!("HALFTONE_PROFILE"))]),
        ("libraries", vec![env!("HALFTONE_LIBRARIES").to_owned()]),
        ("system", vec![machine::system()]),
        ("processor", vec![format!("{}, {threads} threads, {}, {units}", machine::processor(), cpu_level())]),
        ("memory", vec![format!("{}, {} free", said(total), said(free))]),
        ("gpu", gpu()),
        ("work folder", store(work)?),
        ("model cache", vec![cache()]),
        ("environment", environment()),
    ])
}

/// The device that models would compute on, and the GPUs that are there.
fn gpu() -> Vec<String> {
    let gpus = machine::gpus();
    let names = gpus
        .iter()
        .enumerate()
        .map(|(number, gpu)| format!("cuda:{number}: {}, {}, driver {}", gpu.name, size(gpu.memory), gpu.driver));
    let mut lines: Vec<String> = names.collect();
    lines.push(match device::resolve("cuda:0") {
        Ok(device) => format!("models compute on {device}"),
        Err(error) => {
            let text = error.to_string();
            let why = text.rsplit_once("`: ").map_or(text.as_str(), |(_, why)| why);
            format!("models compute on the CPU: {why}")
        }
    });
    lines
}

fn store(work: &Path) -> Result<Vec<String>> {
    let free = machine::free_disk(work).map_or("unknown".to_owned(), size);
    if !work.is_dir() {
        return Ok(vec![format!("{}, not there yet; {free} of disk free", work.display())]);
    }
    let (store, records) = (Store::open(work), Records::new(work));
    let (mut whole, mut other) = (0_u64, 0_u64);
    if let Ok(entries) = std::fs::read_dir(store.folder()) {
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().contains('.') { other += 1 } else { whole += 1 }
        }
    }
    let mut lines = vec![format!(
        "{}: {whole} results, {other} unfinished or set aside, {free} of disk free",
        work.canonicalize().unwrap_or_else(|_| work.to_owned()).display()
    )];
    for name in records.pipelines()? {
        if let Some(record) = records.latest(&name)? {
            let state = crate::look::runs::state_of(&records, &record);
            lines.push(format!("{name}: run {}, {state}, began {}", record.run, record.started));
        }
    }
    Ok(lines)
}

fn cache() -> String {
    let offline = if hub::offline() { ", offline" } else { "" };
    format!("{}, from {}{offline}", Cache::of_user().folder().display(), hub::endpoint())
}

fn environment() -> Vec<String> {
    let secret = |name: &&str| VARIABLES[VARIABLES.len() - SECRETS..].contains(name);
    let set: Vec<String> = VARIABLES
        .iter()
        .filter_map(|name| {
            let value = std::env::var_os(name)?;
            Some(if secret(name) { format!("{name} is set") } else { format!("{name}={}", value.to_string_lossy()) })
        })
        .collect();
    if set.is_empty() { vec!["none of the variables that halftone reads is set".to_owned()] } else { set }
}
