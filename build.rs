//! Facts of the build that `halftone --version` and `halftone doctor` show: the commit, and the versions of the
//! libraries that decide numbers.

use std::path::Path;
use std::process::Command;

/// The libraries that read tables and compute.
const LIBRARIES: [&str; 8] =
    ["candle-core", "candle-transformers", "gemm", "tokenizers", "minijinja", "arrow-array", "parquet", "polars"];

fn main() {
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = git(&["rev-parse", "--short=9", "HEAD"]);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    let version = commit.map_or(version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=HALFTONE_VERSION={version}");
    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    let libraries: Vec<String> =
        LIBRARIES.iter().filter_map(|name| Some(format!("{name} {}", locked(&lock, name)?))).collect();
    println!("cargo::rustc-env=HALFTONE_LIBRARIES={}", libraries.join(", "));
    println!("cargo::rustc-env=HALFTONE_PROFILE={}", std::env::var("PROFILE").unwrap_or_default());
}

/// The output of git for this folder; none where these are not its sources' own commits, as in a package.
fn git(args: &[&str]) -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The version of a package in a lock file.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}
