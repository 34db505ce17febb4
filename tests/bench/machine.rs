//! The machine: its name, its own speed at matrix products, and the file where figures are kept.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

/// Processor and number of threads.
pub fn describe() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} threads", model.trim_start_matches([' ', '\t', ':']))
}

/// The best of ten products of two 1024 x 1024 matrices in f32, with the library that the models use, in GFLOP/s.
pub fn matmul_gflops() -> f64 {
    const N: usize = 1024;
    let (a, b, mut c) = (vec![0.5_f32; N * N], vec![0.25_f32; N * N], vec![0_f32; N * N]);
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        let began = Instant::now();
        // SAFETY: the three are N x N matrices in row order, and c is not shared.
        unsafe {
            gemm::gemm(
                N,
                N,
                N,
                c.as_mut_ptr(),
                1,
                N as isize,
                false,
                a.as_ptr(),
                1,
                N as isize,
                b.as_ptr(),
                1,
                N as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(0),
            );
        }
        best = best.min(began.elapsed().as_secs_f64());
    }
    assert!(c.iter().all(|&x| (x - 128.0).abs() < 1e-3), "a wrong product");
    2.0 * (N as f64).powi(3) / best / 1e9
}

/// The day, as `date` prints it.
pub fn date() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%F"]).output().expect("`date` runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Adds a line to the kept results.
pub fn keep(line: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/results.jsonl");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
    writeln!(file, "{line}").unwrap();
    println!("\nkept in {}", path.display());
}
