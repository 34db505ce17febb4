//! What the CUDA compiler makes of the GPU kernels, without a GPU: registers, spilled bytes, shared memory, and the
//! instructions of the hottest loop of each, as `tests/kernels/budgets.txt` records them. A change of a kernel shows
//! there; `INSTA_UPDATE=always` records it. Needs `nvcc` and `ptxas` of the recorded release, and `nvdisasm`; that the
//! record is of the present sources is tested without them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Requirement, missing};

/// The release that the numbers are of; others give other ones. Where they come as Python packages, `tests/gpu-build.sh`
/// says which; `nvidia-cuda-nvdisasm` of any release serves.
const RELEASE: &str = "V13.0.88";

/// The oldest GPUs that are supported, and the H100.
const ARCHITECTURES: [&str; 2] = ["80", "90"];

/// Spilled bytes of a bf16 kernel, stores and loads together: more would be in its inner loop.
const MOST_SPILLED: usize = 64;

/// Seconds of the compiler for one kernel: a GPU without machine code of its own compiles when it first runs one.
const MOST_SECONDS: f64 = 10.0;

/// Instructions that are counted, by the beginnings of their names.
const COUNTED: [(&str, &[&str]); 9] = [
    ("HMMA", &["HMMA"]),
    ("LDSM", &["LDSM"]),
    ("LDGSTS", &["LDGSTS"]),
    ("LDG128", &["LDG.E.128"]),
    ("LDG", &["LDG.E"]),
    ("STG", &["STG.E"]),
    ("LDS/STS", &["LDS", "STS"]),
    ("MUFU", &["MUFU"]),
    ("LDL/STL", &["LDL", "STL"]),
];

/// A program of the CUDA toolkit.
fn tool(name: &str) -> Option<PathBuf> {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
    let folders = homes.map(|home| Path::new(&home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = folders.chain(std::env::split_paths(&path)).chain([PathBuf::from("/usr/local/cuda/bin")]);
    all.map(|folder| folder.join(name)).find(|program| program.is_file())
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// The numbers of a kernel that `ptxas` prints.
#[derive(Default)]
struct Budget {
    registers: usize,
    spilled: usize,
    shared: usize,
}

fn number_before(line: &str, word: &str) -> usize {
    let (before, _) = line.split_once(word).unwrap_or_default();
    before.rsplit(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty()).map_or(0, |n| n.parse().unwrap())
}

fn budgets(text: &str) -> BTreeMap<String, Budget> {
    let mut all: BTreeMap<String, Budget> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            name = rest.split('\'').next().unwrap().to_owned();
        } else if line.contains("bytes spill stores") {
            // Those of functions that are called stand behind those of the kernel.
            let budget = all.entry(name.clone()).or_default();
            budget.spilled += number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
        } else if line.contains(" registers") && line.contains("Used ") {
            let budget = all.get_mut(&name).expect("properties come first");
            (budget.registers, budget.shared) = (number_before(line, " registers"), number_before(line, " bytes smem"));
        } else if let Some((_, time)) = line.split_once("Compile time = ") {
            let seconds: f64 = time.trim_end_matches(" ms").trim().parse::<f64>().unwrap() / 1e3;
            assert!(seconds < MOST_SECONDS, "{name} takes {seconds} s to compile");
        }
    }
    all
}

/// The instructions of kernels, and of each the range of its hottest loop: the shortest one with most products, or
/// where there are none with most wide loads.
fn loops(listing: &str) -> BTreeMap<String, (Vec<&str>, std::ops::Range<usize>)> {
    let mut kernels: BTreeMap<String, (Vec<&str>, BTreeMap<&str, usize>)> = BTreeMap::new();
    let mut name = None;
    for line in listing.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix(".section").filter(|rest| rest.starts_with(char::is_whitespace)) {
            name = section.trim().strip_prefix(".text.").map(|rest| rest.split(',').next().unwrap().to_owned());
            continue;
        }
        let Some(name) = &name else { continue };
        let (instructions, labels) = kernels.entry(name.clone()).or_default();
        if let Some(label) = line.strip_suffix(':').filter(|label| label.starts_with(".L_")) {
            labels.insert(label, instructions.len());
        } else if let Some((_, instruction)) = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) {
            let instruction = instruction.trim();
            // A predicate comes before the name.
            let bare = instruction.strip_prefix('@').and_then(|rest| rest.split_once(' ')).map(|(_, rest)| rest);
            instructions.push(bare.unwrap_or(instruction).trim());
        }
    }
    kernels.into_iter().map(|(name, (instructions, labels))| (name, with_hottest(instructions, &labels))).collect()
}

fn with_hottest<'a>(
    instructions: Vec<&'a str>,
    labels: &BTreeMap<&str, usize>,
) -> (Vec<&'a str>, std::ops::Range<usize>) {
    let branches = instructions.iter().enumerate().filter(|(_, text)| text.starts_with("BRA"));
    let back = branches.filter_map(|(at, text)| {
        let start = *labels.get(text.split("`(").nth(1)?.split(')').next()?)?;
        (start < at).then_some(start..at + 1)
    });
    let hottest = back.max_by_key(|range| {
        let of = |names: &[&str]| count(&instructions[range.clone()], names);
        (of(&["HMMA"]), of(&["LDGSTS", "LDG.E.128"]), of(&["LDG.E"]), usize::MAX - range.len())
    });
    let hottest = hottest.unwrap_or(0..0);
    (instructions, hottest)
}

fn count(instructions: &[&str], names: &[&str]) -> usize {
    instructions.iter().filter(|text| names.iter().any(|name| text.starts_with(name))).count()
}

/// A line for each kernel of a file on a kind of GPU.
fn lines(nvcc: &Path, nvdisasm: &Path, source: &Path, architecture: &str, folder: &Path) -> Vec<String> {
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let cubin = folder.join(format!("{stem}.{architecture}.cubin"));
    let mut compile = Command::new(nvcc);
    compile.args(["-O3", "-std=c++17", "-lineinfo", "-cubin", "-Xptxas", "-v"]);
    let budgets = budgets(&output(compile.arg(format!("-arch=sm_{architecture}")).arg("-o").arg(&cubin).arg(source)));
    let listing = output(Command::new(nvdisasm).arg("-c").arg(&cubin));
    let loops = loops(&listing);
    let mut lines = Vec::new();
    for (name, Budget { registers, spilled, shared }) in budgets {
        assert!(
            !name.contains("bf16") || spilled <= MOST_SPILLED,
            "{name} on sm_{architecture} spills {spilled} bytes"
        );
        let (instructions, range) = &loops[&name];
        let hottest = &instructions[range.clone()];
        let mut line = format!("{name:<28} {architecture:>3} {registers:>4} {spilled:>5} {shared:>6}");
        write!(line, " {:>6} {:>5}", instructions.len(), hottest.len()).unwrap();
        for (title, names) in COUNTED {
            write!(line, " {:>1$}", count(hottest, names), title.len()).unwrap();
        }
        lines.push(line);
    }
    lines
}

/// The sources of the kernels, by name.
fn sources() -> Vec<PathBuf> {
    let folder = harness::root().join("stages/lm/kernels");
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    all.sort();
    all
}

/// A digest of the names and bytes of the sources: FNV-1a of 64 bits.
fn digest() -> String {
    let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let of = |sum: u64, path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().as_bytes();
        let sum = name.iter().chain(&[0]).fold(sum, add);
        std::fs::read(path).unwrap().iter().chain(&[0]).fold(sum, add)
    };
    format!("{:016x}", sources().iter().fold(0xcbf2_9ce4_8422_2325, of))
}

fn record() -> PathBuf {
    harness::root().join("stages/lm/tests/kernels/budgets.txt")
}

fn recording() -> bool {
    std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always")
}

/// A kernel that was changed without its budgets is found where there is no compiler, too.
#[test]
fn budgets_are_of_the_present_sources() {
    let recorded = std::fs::read_to_string(record()).unwrap();
    let known = recorded.contains(&format!("sources {}", digest()));
    assert!(known || recording(), "kernels changed: record their budgets with nvcc {RELEASE} and INSTA_UPDATE=always");
}

#[test]
fn budgets_are_those_recorded() {
    let Some((nvcc, nvdisasm)) = tool("nvcc").zip(tool("nvdisasm")) else {
        return missing(Requirement::Nvcc, "there are no nvcc and nvdisasm to compile the GPU kernels with");
    };
    // Machine code is what ptxas makes of what nvcc gives it; the two may be of different packages.
    for program in [&nvcc, &nvcc.with_file_name("ptxas")] {
        let version = output(Command::new(program).arg("--version"));
        if !version.contains(RELEASE) {
            let (program, last) = (program.display(), version.lines().last().unwrap_or_default());
            let what = format!("the budgets of GPU kernels are those of nvcc {RELEASE}; {program} is `{last}`");
            return missing(Requirement::Nvcc, &what);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for source in sources().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "cu")) {
        for architecture in ARCHITECTURES {
            all.extend(lines(&nvcc, &nvdisasm, &source, architecture, folder.path()));
        }
    }
    all.sort();
    let mut text = format!("GPU kernels by nvcc and ptxas {RELEASE}, sources {}.\n\n", digest());
    text += "Registers of a thread, spilled bytes, bytes of static shared memory, and instructions: all, those of the\n\
             hottest loop, and of these the products, loads and stores by kind (LDG128 are among LDG).\n\n";
    let titles = ("kernel", "sm", "regs", "spill", "shared", "all", "loop");
    let (kernel, sm, registers, spilled, shared, instructions, hottest) = titles;
    write!(text, "{kernel:<28} {sm:>3} {registers:>4} {spilled:>5} {shared:>6} {instructions:>6} {hottest:>5}")
        .unwrap();
    for (title, _) in COUNTED {
        write!(text, " {title}").unwrap();
    }
    text += &format!("\n{}\n", all.join("\n"));
    if recording() {
        std::fs::write(record(), &text).unwrap();
    }
    let recorded = std::fs::read_to_string(record()).unwrap();
    let (old, new): (Vec<&str>, Vec<&str>) = (recorded.lines().collect(), text.lines().collect());
    let gone: Vec<&&str> = old.iter().filter(|line| !new.contains(line)).collect();
    let come: Vec<&&str> = new.iter().filter(|line| !old.contains(line)).collect();
    assert!(gone.is_empty() && come.is_empty(), "INSTA_UPDATE=always records it\nrecorded: {gone:#?}\nnow: {come:#?}");
}
