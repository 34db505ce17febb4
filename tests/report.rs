//! The report of a run of the built binary: whole, alone, and inert whatever the data says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PIPELINE: &str = "
name: test
stages:
  data: {kind: ingest, files: ./data.jsonl}
  pairs: {kind: pairs, from: data.pairs, ties: keep}
";

/// Text that would do something if it were not escaped.
const HOSTILE: &str =
    "</pre><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">{{ 7 * 7 }}";

fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), PIPELINE).unwrap();
    let row = |number: usize| {
        let (chosen, p_hat) = (format!("{HOSTILE} {number}"), 0.5 + number as f64 / 20.0);
        serde_json::json!({"prompt": HOSTILE, "chosen": chosen, "rejected": "https://example.org/", "p_hat": p_hat})
    };
    let lines: String = (0..10).map(|number| format!("{}\n", row(number))).collect();
    std::fs::write(folder.path().join("data.jsonl"), lines).unwrap();
    folder
}

fn halftone(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_halftone")).args(args).current_dir(folder).output().unwrap()
}

fn done(folder: &Path, args: &[&str]) -> String {
    let output = halftone(folder, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_run_ends_in_a_report_that_stands_alone() {
    let project = project();
    let folder = project.path();
    let told = done(folder, &["run", "pipeline.yaml"]);
    assert!(told.ends_with("report: .halftone/runs/test/report.html\n"), "{told}");
    let page = std::fs::read_to_string(folder.join(".halftone/runs/test/report.html")).unwrap();
    for section in ["id=\"examples\"", "id=\"tables\"", "<svg class=\"graph\"", "prefers-color-scheme: dark"] {
        assert!(page.contains(section), "{section}");
    }
    // What it shows of the data is text, and what it needs is in it.
    assert!(page.contains("&lt;script&gt;document.title") && page.contains("{{ 7 * 7 }}"), "{page}");
    for active in ["<script", "<img", "onerror=\"", "href=\"http", "src=\"http", "url(", "@import", "<link", "<iframe"]
    {
        assert!(!page.contains(active), "{active}");
    }
}

#[test]
fn a_cached_run_leaves_the_report_alone() {
    let project = project();
    let folder = project.path();
    done(folder, &["run", "pipeline.yaml"]);
    let file = folder.join(".halftone/runs/test/report.html");
    let before = std::fs::metadata(&file).unwrap().modified().unwrap();
    let began = Instant::now();
    done(folder, &["run", "pipeline.yaml"]);
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), before);
    assert!(!folder.join(".halftone/runs/test/2/report.html").exists());
    // Asked for by name, it is written for that run.
    let told = done(folder, &["report", "--run", "2"]);
    assert_eq!(told, ".halftone/runs/test/2/report.html\n");
    assert!(folder.join(told.trim()).is_file());
    assert_eq!(done(folder, &["report", "pipeline.yaml", "--out", "page.html"]), "page.html\n");
    assert!(folder.join("page.html").is_file());
    let none = halftone(folder, &["report", "--run", "7"]);
    assert_eq!(none.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no run 7 of `test` in .halftone; there are 1, 2"));
}

#[test]
fn a_report_that_cannot_be_written_does_not_fail_the_run() {
    let project = project();
    let folder = project.path();
    // The link cannot take the place of a folder.
    std::fs::create_dir_all(folder.join(".halftone/runs/test/report.html/full")).unwrap();
    let told = done(folder, &["run", "pipeline.yaml"]);
    let said = told.lines().last().unwrap();
    assert!(said.starts_with("no report: .halftone/runs/test/report.html: "), "{told}");
}

#[test]
fn a_browser_shows_it_and_runs_nothing() {
    let Some(browser) = browser() else {
        eprintln!("skipped: there is no chromium or google-chrome in PATH");
        return;
    };
    let project = project();
    let folder = project.path();
    done(folder, &["run", "pipeline.yaml"]);
    let page = folder.join(".halftone/runs/test/report.html").canonicalize().unwrap();
    let shown = folder.join("dom.html");
    let mut browser = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", page.display()))
        .stdout(std::fs::File::create(&shown).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while browser.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = browser.kill();
    browser.wait().unwrap();
    let dom = std::fs::read_to_string(shown).unwrap();
    if dom.trim().is_empty() {
        eprintln!("skipped: the browser shows nothing here, whatever the page");
        return;
    }
    assert!(dom.contains("<title>test 1</title>") && !dom.contains("<title>owned"), "{dom}");
    // The text has arrived in the page as it is in the data.
    assert!(dom.contains("&lt;script&gt;document.title='owned'&lt;/script&gt;"), "{dom}");
    assert!(!dom.contains("<script") && !dom.contains("<img"), "{dom}");
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut candidates = std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    candidates.find(|candidate| candidate.is_file())
}
