//! Ranks as processes over NCCL, with libraries of ours in the place of NVIDIA's: see `libraries.cpp`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use harness::{Project, Requirement, missing, stderr};

use super::processes::{compare, done, ends, rank};
use super::{begin, files, same_bytes};

/// The folder of the libraries, built once. `None`, and the reason on the terminal, where there is no compiler.
fn libraries() -> Option<&'static Path> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nccl-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let source = harness::root().join("tests/ranks/libraries.cpp");
        let output = Command::new("c++")
            .args(["-std=c++17", "-O1", "-fPIC", "-shared", "-pthread", "-o"])
            .arg(folder.join("libnccl.so.2"))
            .arg(source)
            .output()
            .map_err(|error| format!("no C++ compiler `c++` ({error})"))?;
        assert!(output.status.success(), "c++: {}", stderr(&output));
        std::fs::hard_link(folder.join("libnccl.so.2"), folder.join("libcuda.so.1")).unwrap();
        Ok(folder)
    });
    built.as_ref().inspect_err(|reason| missing(Requirement::Emulator, reason)).ok().map(PathBuf::as_path)
}

/// A rank over NCCL; its temporary files are the project's.
fn over_nccl(libraries: &Path, project: &Project, of: usize, size: usize, args: &[&str]) -> Command {
    let mut command = rank(project, of, size, &["nccl"], args);
    command.env("LD_LIBRARY_PATH", libraries).env("TMPDIR", project.folder());
    command
}

#[test]
fn processes_over_nccl_give_the_bytes_of_one() {
    let Some(libraries) = libraries() else { return };
    let project = compare("nccl", |project, of, size, args| over_nccl(libraries, project, of, size, args));
    // The gradients of models went this way, 1.4 MB a step; those of adapters are few.
    let folders = std::fs::read_dir(project.folder()).unwrap().map(|entry| entry.unwrap().path());
    let starts = folders.filter(|path| path.join("bytes-0").exists());
    let sent = |path: &Path, rank: usize| -> usize {
        let counts = std::fs::read_to_string(path.join(format!("bytes-{rank}"))).unwrap();
        counts.lines().map(|count| count.parse::<usize>().unwrap()).sum()
    };
    let many = starts.filter(|path| (0..2).all(|rank| sent(path, rank) > 4 << 20)).count();
    assert_eq!(many, 2 * 4, "two numbers of ranks, four trainings of whole models");
}

#[test]
fn faults_of_nccl_end_all_ranks() {
    let Some(libraries) = libraries() else { return };
    let project = files();
    project.done(&["run", "pipeline.yaml", "--quiet"]);
    begin(&project, "faults");
    let ranks = |size: usize, more: &[&str], change: &dyn Fn(usize, &mut Command)| {
        let args = [&["--stage", "dpo", "--work", "faults", "--quiet"][..], more].concat();
        let one = |of| {
            let mut command = over_nccl(libraries, &project, of, size, &args);
            change(of, &mut command);
            command.spawn().unwrap()
        };
        ends((0..size).map(one).collect())
    };
    let all = |ended: &[(Option<i32>, String)], code: i32, wanted: &str| {
        assert!(ended.iter().all(|(got, _)| *got == Some(code)), "{ended:?}");
        assert!(ended.iter().any(|(_, text)| text.contains(wanted)), "wanted `{wanted}`: {ended:?}");
    };
    let fault = |of: &'static str| move |_: usize, command: &mut Command| _ = command.env("EMULATED_NCCL_FAULT", of);
    // A network that fails, at the start and later.
    let again = "ncclCommInitRankConfig: unhandled system error; no socket; run the same";
    all(&ranks(2, &[], &fault("1 0 2")), 75, again);
    let again = "ncclSend and ncclRecv: remote process exited or there was a network error; the other side has gone";
    all(&ranks(4, &[], &fault("2 9 6")), 75, again);
    // A call that hangs: all others wait, too.
    for hung in ["0 0 7", "1 5 7"] {
        all(&ranks(2, &["--patience", "4"], &fault(hung)), 75, "for 4 s, while the others wait");
    }
    // A call of ours that NCCL refuses.
    all(&ranks(2, &[], &fault("0 3 4")), 70, "invalid argument");
    // Two ranks on one GPU; a GPU that is not there.
    let same = |_: usize, command: &mut Command| _ = command.env("LOCAL_RANK", "0");
    all(&ranks(2, &[], &same), 78, "Duplicate GPU detected : rank 0 and rank 1");
    let few = |_: usize, command: &mut Command| _ = command.env("EMULATED_GPUS", "1");
    all(&ranks(2, &[], &few), 78, "GPU 1: cuDeviceGet: invalid device ordinal");
    // The libraries are missing.
    let none = |_: usize, command: &mut Command| _ = command.env_remove("LD_LIBRARY_PATH");
    all(&ranks(2, &[], &none), 64, "--transport nccl: the driver's library cannot be opened");
    let one = tempfile::tempdir().unwrap();
    std::fs::copy(libraries.join("libcuda.so.1"), one.path().join("libcuda.so.1")).unwrap();
    let driver = |_: usize, command: &mut Command| _ = command.env("LD_LIBRARY_PATH", one.path());
    all(&ranks(2, &[], &driver), 64, "install NCCL 2.17 or later");
    // The same command goes on.
    for (stage, size) in [("dpo", 4), ("sft", 2), ("rpo", 2), ("jpo", 1), ("lora", 4)] {
        let args = ["--stage", stage, "--work", "faults", "--quiet"];
        done((0..size).map(|of| over_nccl(libraries, &project, of, size, &args)).collect());
    }
    same_bytes(&project, "faults");
}
