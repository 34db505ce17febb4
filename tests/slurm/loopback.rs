//! A real Slurm of two nodes on the loopback of this machine, and what is done to it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness::{Requirement, missing};

/// The programs that it takes.
const PROGRAMS: [&str; 8] = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo"];

/// Held by the one cluster that is up.
static ONE: Mutex<()> = Mutex::new(());

/// A cluster that is up until it is dropped.
pub struct Loopback {
    folder: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Loopback {
    /// Brings one up; none where this machine lacks what it takes.
    pub fn up() -> Option<Loopback> {
        let there = |program: &&&str| !in_path(program);
        if let Some(program) = PROGRAMS.iter().find(there) {
            missing(Requirement::Slurm, &format!("Slurm: `{program}` is not in PATH (packages slurm-wlm, munge)"));
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            missing(Requirement::Slurm, "Slurm: its daemons change users, which takes root");
            return None;
        }
        // A test that failed leaves nothing behind.
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::Builder::new().prefix("slurm-").tempdir().unwrap();
        let cluster = Loopback { folder, _one: one };
        // Ports of this process, so that other processes may have clusters, too.
        let port = 20_000 + std::process::id() % 20_000;
        let up = Command::new(script("up.sh")).arg(cluster.folder.path()).arg(port.to_string()).output().unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        Some(cluster)
    }

    /// Its folder, with the state of the controller and of the nodes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration for Slurm's commands, `SLURM_CONF`.
    pub fn conf(&self) -> PathBuf {
        self.folder().join("slurm.conf")
    }

    /// The output of one of Slurm's commands.
    pub fn ask(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(program).args(args).env("SLURM_CONF", self.conf()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the queue is empty. Panics with the queue where that takes too long.
    pub fn wait(&self, patience: Duration) {
        self.until(patience, str::is_empty);
    }

    /// As [`Loopback::wait`], or until a start has failed for good: a controller that was killed forgets starts of the
    /// last seconds, starts the tasks again, and takes their nodes out of service. They are taken back.
    pub fn settle(&self, patience: Duration) {
        let failed = |queue: &str| queue.contains("launch failed");
        self.until(patience, |queue| queue.is_empty() || failed(queue));
        for node in ["n1", "n2"] {
            self.ask("scontrol", &["update", &format!("nodename={node}"), "state=resume"]);
        }
    }

    fn until(&self, patience: Duration, is: impl Fn(&str) -> bool) {
        let end = Instant::now() + patience;
        loop {
            // The controller may be away.
            let output = Command::new("squeue").arg("-h").env("SLURM_CONF", self.conf()).output().unwrap();
            let queue = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && is(&queue) {
                return;
            }
            assert!(Instant::now() < end, "the queue is not empty after {patience:?}:\n{queue}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn pid(&self, daemon: &str) -> u32 {
        let path = self.folder().join("pid").join(format!("{daemon}.pid"));
        std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }

    /// Kills the controller and starts another one after a while.
    pub fn lose_controller(&self, pause: Duration) {
        kill(self.pid("slurmctld"));
        std::thread::sleep(pause);
        assert!(Command::new("slurmctld").env("SLURM_CONF", self.conf()).status().unwrap().success());
        let end = Instant::now() + Duration::from_secs(30);
        while !self.ask("scontrol", &["ping"]).contains("is UP") {
            assert!(Instant::now() < end, "the controller is not up again");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Kills a node: its daemon, and every process of its jobs at once.
    pub fn lose_node(&self, node: &str) {
        let spool = self.folder().join("spool").join(node);
        kill(self.pid(&format!("slurmd.{node}")));
        // The script of a job lies in the spool; its parent is the job's own daemon, its children do the work.
        for script in processes(|line| line.contains(&*spool.to_string_lossy())) {
            kill(parent_of(script));
            children_of(script).into_iter().chain([script]).for_each(kill);
        }
    }

    /// Brings the node back.
    pub fn restore_node(&self, node: &str) {
        _ = std::fs::remove_file(self.folder().join("pid").join(format!("slurmd.{node}.pid")));
        let slurmd = Command::new("slurmd").args(["-c", "-N", node]).env("SLURM_CONF", self.conf()).status();
        assert!(slurmd.unwrap().success());
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        _ = Command::new(script("down.sh")).arg(self.folder.path()).status();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slurm").join(name)
}

pub fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The processes whose command line a test takes, but for this one.
pub fn processes(mut takes: impl FnMut(&str) -> bool) -> Vec<u32> {
    let numbers =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let line = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let own = std::process::id();
    numbers.filter(|pid| *pid != own && takes(&String::from_utf8_lossy(&line(pid)).replace('\0', " "))).collect()
}

fn parent_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).unwrap_or_default()
}

fn children_of(pid: u32) -> Vec<u32> {
    processes(|_| true).into_iter().filter(|child| parent_of(*child) == pid).collect()
}

/// Kills a process; one that has ended is passed over.
pub fn kill(pid: u32) {
    send(pid, rustix::process::Signal::KILL);
}

/// Sends a process a signal; one that has ended is passed over.
pub fn send(pid: u32, signal: rustix::process::Signal) {
    if pid > 1
        && let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
    {
        _ = rustix::process::kill_process(pid, signal);
    }
}
