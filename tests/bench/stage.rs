//! One stage of the built binary, timed in a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

static DEVICE: OnceLock<String> = OnceLock::new();

/// Where models compute; `cpu` unless [`compute_on`] said otherwise.
pub fn device() -> &'static str {
    DEVICE.get().map_or("cpu", String::as_str)
}

/// Says where, once.
pub fn compute_on(device: String) {
    DEVICE.set(device).expect("said once");
}

/// Measurements of a stage.
pub struct Timed {
    /// Seconds of the stage's work.
    pub seconds: f64,
    /// Rows that it wrote.
    pub rows: f64,
    /// The process's largest resident memory.
    pub mib: f64,
    /// The figures of the stage's outcome.
    pub figures: BTreeMap<String, Value>,
}

/// Runs what `stage` needs, up to `before`, then the stage alone.
pub fn timed(folder: &Path, yaml: &str, before: Option<&str>, stage: &str) -> Timed {
    let file = folder.join("pipeline.yaml");
    std::fs::write(&file, yaml).unwrap();
    if let Some(before) = before {
        let prepared =
            halftone(folder, &["run", "pipeline.yaml", "--until", before, "--device", device()]).output().unwrap();
        assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    }
    let mut command =
        halftone(folder, &["run", "pipeline.yaml", "--only", stage, "--force", stage, "--json", "--device", device()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let watch = Watch::of(&child);
    let mut finished = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["event"] == "stage_finished" {
            finished = Some(event);
        }
    }
    assert!(child.wait().unwrap().success());
    let event = finished.expect("the stage finished");
    Timed {
        seconds: event["seconds"].as_f64().unwrap(),
        rows: event["rows"].as_f64().unwrap(),
        mib: watch.mib(),
        figures: serde_json::from_value(event["figures"].clone()).unwrap(),
    }
}

/// The binary, working in a folder.
pub fn halftone(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halftone"));
    command.args(args).current_dir(folder);
    command
}

/// Seconds of a whole command, the best of five.
pub fn whole(folder: &Path, args: &[&str]) -> (f64, f64) {
    let mut best = (f64::INFINITY, 0.0);
    for _ in 0..5 {
        let began = Instant::now();
        let mut child = halftone(folder, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let watch = Watch::of(&child);
        assert!(child.wait().unwrap().success(), "halftone {args:?}");
        let seconds = began.elapsed().as_secs_f64();
        if seconds < best.0 {
            best = (seconds, watch.mib());
        }
    }
    best
}

/// Watches a process's resident memory.
struct Watch {
    over: Arc<AtomicBool>,
    mib: Arc<Mutex<f64>>,
}

impl Watch {
    fn of(child: &Child) -> Watch {
        let path = format!("/proc/{}/status", child.id());
        let (over, mib) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0.0)));
        let (stop, most) = (over.clone(), mib.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok(status) = std::fs::read_to_string(&path) else { break };
                let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                if let Some(kib) = kib.and_then(|text| text.trim().trim_end_matches(" kB").parse::<f64>().ok()) {
                    *most.lock().unwrap() = kib / 1024.0;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Watch { over, mib }
    }

    fn mib(&self) -> f64 {
        self.over.store(true, Ordering::Relaxed);
        *self.mib.lock().unwrap()
    }
}
