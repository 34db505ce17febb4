//! The machine's memory, processor and GPUs, as the system states them; nothing is measured.

use std::path::Path;
use std::process::{Command, Stdio};

/// The memory that a process here may use, in bytes: that of the machine, or of the control group that this process is
/// in, whichever is less. Nothing where the system does not say.
pub fn memory() -> Option<u64> {
    let limit = control_group().map(|(limit, _)| limit);
    match (meminfo("MemTotal:"), limit) {
        (Some(total), Some(limit)) => Some(total.min(limit)),
        (one, other) => one.or(other),
    }
}

/// The memory that is free for a process, in bytes.
pub fn free_memory() -> Option<u64> {
    let within = control_group().map(|(limit, used)| limit.saturating_sub(used));
    match (meminfo("MemAvailable:"), within) {
        (Some(free), Some(within)) => Some(free.min(within)),
        (one, other) => one.or(other),
    }
}

/// The memory of the device that models compute on: a GPU's own, or that of the machine.
pub fn memory_of(device: &str) -> Option<u64> {
    let Some(number) = device.strip_prefix("cuda:") else { return memory() };
    let number: usize = number.parse().ok()?;
    gpus().get(number).map(|gpu| gpu.memory)
}

/// A GPU as its driver describes it.
#[derive(Debug, PartialEq)]
pub struct Gpu {
    pub name: String,
    /// Its memory, bytes.
    pub memory: u64,
    /// The version of the driver.
    pub driver: String,
}

/// The NVIDIA GPUs that `nvidia-smi` lists, in the order in which CUDA numbers those that this process may use.
pub fn gpus() -> Vec<Gpu> {
    let query = ["--query-gpu=index,uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits"];
    let listed = Command::new("nvidia-smi").args(query).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let Some(output) = listed.ok().filter(|output| output.status.success()) else { return Vec::new() };
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    read_gpus(&String::from_utf8_lossy(&output.stdout), visible.as_deref())
}

fn read_gpus(listed: &str, visible: Option<&str>) -> Vec<Gpu> {
    let read = |line: &str| {
        let cells: Vec<&str> = line.split(", ").map(str::trim).collect();
        let [index, uuid, name, mib, driver] = cells[..] else { return None };
        let memory = mib.parse::<u64>().ok()? << 20;
        Some((index.to_owned(), uuid.to_owned(), Gpu { name: name.to_owned(), memory, driver: driver.to_owned() }))
    };
    let mut all: Vec<(String, String, Gpu)> = listed.lines().filter_map(read).collect();
    let Some(visible) = visible else { return all.into_iter().map(|(_, _, gpu)| gpu).collect() };
    let mut chosen = Vec::new();
    for wanted in visible.split(',').map(str::trim) {
        // A device that CUDA does not know ends its list.
        let found =
            all.iter().position(|(index, uuid, _)| index == wanted || (wanted.len() > 4 && uuid.starts_with(wanted)));
        let Some(place) = found else { break };
        chosen.push(all.remove(place).2);
    }
    chosen
}

/// The processor's name.
pub fn processor() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(std::env::consts::ARCH);
    name.trim_start_matches([' ', '\t', ':']).trim_end().to_owned()
}

/// The processor's bf16 units: vectors, matrices; empty where it has none.
pub fn bf16_units() -> Vec<&'static str> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpus.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |flag: &&str| flags.split_whitespace().any(|known| known == *flag);
    ["avx512_bf16", "amx_bf16"].into_iter().filter(has).collect()
}

/// The operating system and its kernel.
pub fn system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let words = [name.unwrap_or(std::env::consts::OS), kernel.trim(), std::env::consts::ARCH];
    words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(", ")
}

/// Bytes that are free where a folder is, or would be.
pub fn free_disk(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let disk = rustix::fs::statvfs(there).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn meminfo(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The memory that the control group of this process may use and what it uses, where it has a limit.
fn control_group() -> Option<(u64, u64)> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let second = (number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory.current"));
    let first =
        (number("/sys/fs/cgroup/memory/memory.limit_in_bytes"), number("/sys/fs/cgroup/memory/memory.usage_in_bytes"));
    // Without a limit the first version says a number beyond all memory.
    let (limit, used) = if second.0.is_some() { second } else { first };
    limit.filter(|limit| *limit < 1 << 60).map(|limit| (limit, used.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_those_that_the_process_may_use() {
        let listed = "0, GPU-aaaa-1, NVIDIA H200, 143771, 570.86\n1, GPU-bbbb-2, NVIDIA L4, 23034, 570.86\n";
        let names = |visible| read_gpus(listed, visible).into_iter().map(|gpu| gpu.name).collect::<Vec<_>>();
        assert_eq!(names(None), ["NVIDIA H200", "NVIDIA L4"]);
        assert_eq!(names(Some("1,0")), ["NVIDIA L4", "NVIDIA H200"]);
        assert_eq!(names(Some("GPU-bbbb-2")), ["NVIDIA L4"]);
        assert_eq!((names(Some("")).len(), names(Some("7,0")).len()), (0, 0));
        assert_eq!(read_gpus(listed, None)[0].memory, 143_771 << 20);
        assert!(read_gpus("No devices were found\n", None).is_empty());
    }

    #[test]
    fn a_machine_has_memory_and_a_disk() {
        if cfg!(target_os = "linux") {
            assert!(memory().unwrap() >= free_memory().unwrap());
        }
        assert!(free_disk(Path::new("not/there/yet")).unwrap() > 0);
    }
}
