//! Programs and files that some tests need and not every machine has.
//!
//! A test that lacks one says so and ends. Where the environment variable `HALFTONE_REQUIRE` names it, as CI's does,
//! the test fails instead: `HALFTONE_REQUIRE=emulator,browser cargo test --workspace`. Read [`Requirement`] first.

use std::io::Write;

/// Something outside this repository that a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// A C++ compiler named `c++`, which builds the emulators of the GPU kernels and of NCCL.
    Emulator,
    /// Chromium or Google Chrome in `PATH`.
    Browser,
    /// The folder of all-MiniLM-L6-v2 in `HALFTONE_MINILM`.
    Encoder,
    /// A device in `HALFTONE_TEST_DEVICE`, such as `cuda:0`.
    Device,
    /// `strace` in `PATH`, with the permission to trace.
    Strace,
    /// A Python with TRL 1.16 in `HALFTONE_PYTHON`.
    Trl,
    /// `slurmctld`, `slurmd` and `munged` in `PATH`, and root: a cluster on the loopback.
    Slurm,
    /// `nvcc` 13.0.88 and `nvdisasm`, in `CUDA_HOME` or `PATH`: Python packages of NVIDIA have them.
    Nvcc,
    /// A Python with `moto[server]` in `HALFTONE_PYTHON`, or `python3` in `PATH`: a local S3.
    Moto,
    /// `mpirun` in `PATH`, and the program built with the feature `mpi`.
    Mpi,
    /// `azurite-blob` in `PATH`: a local Azure Blob Storage.
    Azurite,
    /// `ip`, `unshare` and `nsenter` in `PATH`, and root: networks of machines on this one.
    Networks,
}

/// Every requirement with its name in `HALFTONE_REQUIRE`.
const NAMES: [(&str, Requirement); 12] = [
    ("emulator", Requirement::Emulator),
    ("browser", Requirement::Browser),
    ("encoder", Requirement::Encoder),
    ("device", Requirement::Device),
    ("strace", Requirement::Strace),
    ("trl", Requirement::Trl),
    ("slurm", Requirement::Slurm),
    ("nvcc", Requirement::Nvcc),
    ("moto", Requirement::Moto),
    ("mpi", Requirement::Mpi),
    ("azurite", Requirement::Azurite),
    ("networks", Requirement::Networks),
];

/// Says on the terminal that a test is skipped because a requirement is missing.
///
/// # Panics
///
/// Where `HALFTONE_REQUIRE` names the requirement, or names one that does not exist.
#[track_caller]
pub fn missing(requirement: Requirement, reason: &str) {
    let text = std::env::var("HALFTONE_REQUIRE").unwrap_or_default();
    let required = required(&text).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(!required.contains(&requirement), "required by HALFTONE_REQUIRE={text}: {reason}");
    // Not by `eprintln!`, whose text is kept back where the test passes.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// The requirements that a value of `HALFTONE_REQUIRE` names: none, or names separated by commas.
fn required(text: &str) -> Result<Vec<Requirement>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| match NAMES.iter().find(|known| known.0 == name) {
            Some(known) => Ok(known.1),
            None => {
                let known = NAMES.map(|known| known.0).join(", ");
                Err(format!("HALFTONE_REQUIRE names `{name}`, which no test needs; there are {known}"))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_by_commas() {
        assert_eq!(required(""), Ok(vec![]));
        assert_eq!(required("browser, emulator,"), Ok(vec![Requirement::Browser, Requirement::Emulator]));
        let problem = required("browser,emulater").unwrap_err();
        assert!(problem.contains("`emulater`") && problem.contains("emulator, browser, encoder"), "{problem}");
    }

    #[test]
    fn the_environment_of_this_run_names_known_ones() {
        let text = std::env::var("HALFTONE_REQUIRE").unwrap_or_default();
        assert!(required(&text).is_ok(), "{:?}", required(&text));
    }

    /// The test that follows runs again as a process of its own, with the variable and without.
    #[test]
    fn a_skip_passes_unless_it_is_required() {
        let run = |required: &str| {
            let mut test = std::process::Command::new(std::env::current_exe().unwrap());
            test.args(["--exact", "requirement::tests::skips", "--ignored"]).env("HALFTONE_REQUIRE", required);
            let output = test.output().unwrap();
            (output.status.success(), [output.stdout, output.stderr].concat())
        };
        let (passed, text) = run("emulator");
        assert!(passed && String::from_utf8_lossy(&text).contains("skipped: there is no browser"));
        let (passed, text) = run("emulator,browser");
        assert!(!passed, "a required browser is missing, and the test passed");
        assert!(String::from_utf8_lossy(&text).contains("required by HALFTONE_REQUIRE=emulator,browser"));
        assert!(!run("brauser").0, "a name that does not exist");
    }

    #[test]
    #[ignore = "run by the test above"]
    fn skips() {
        missing(Requirement::Browser, "there is no browser");
    }
}
