//! The report of a run of the built binary: whole, alone, and inert whatever the data says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{Requirement, missing};

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
    let message = done(folder, &["run", "pipeline.yaml"]);
    assert!(message.ends_with("report: .halftone/runs/test/report.html\n"), "{message}");
    let page = std::fs::read_to_string(folder.join(".halftone/runs/test/report.html")).unwrap();
    for section in ["id=\"examples\"", "id=\"tables\"", "<svg class=\"graph\"", "prefers-color-scheme: dark"] {
        assert!(page.contains(section), "{section}");
    }
    // Data is shown as text, and the page needs no other file.
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
    let message = done(folder, &["report", "--run", "2"]);
    assert_eq!(message, ".halftone/runs/test/2/report.html\n");
    assert!(folder.join(message.trim()).is_file());
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
    let message = done(folder, &["run", "pipeline.yaml"]);
    let said = message.lines().last().unwrap();
    assert!(said.starts_with("no report: .halftone/runs/test/report.html: "), "{message}");
}

#[test]
fn a_browser_shows_it_and_runs_nothing() {
    let Some(browser) = browser() else { return };
    let project = project();
    let folder = project.path();
    done(folder, &["run", "pipeline.yaml"]);
    let page = folder.join(".halftone/runs/test/report.html").canonicalize().unwrap();
    let Some(dom) = dom(&browser, folder, &page, &[]) else { return };
    assert!(dom.contains("<title>test run 1</title>") && !dom.contains("<title>owned"), "{dom}");
    // The text has arrived in the page as it is in the data.
    assert!(dom.contains("&lt;script&gt;document.title='owned'&lt;/script&gt;"), "{dom}");
    assert!(!dom.contains("<script") && !dom.contains("<img"), "{dom}");
}

/// A run with a judge, a matrix of trainings, and one that weighs by embeddings.
fn judged_and_trained() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = harness::oracle("llama");
    let train = "optimizer: {lr: 1.0e-3, schedule: cosine, warmup_steps: 0, weight_decay: 0.0, clip_norm: 1.0}, \
                 batch: {pairs: 4, shuffle: true}, epochs: 2";
    let pipeline = format!(
        "name: test
seed: 17
stages:
  data: {{kind: ingest, files: ./data.jsonl, form: text}}
  verdicts: {{kind: judge, comparisons: data.comparisons, model: &model \"{model}\", template: ./question.jinja, form: text, labels: {{first: [\" A\"], second: [\" B\"]}}, debias: probability, least_mass: 0}}
  a_stage_with_quite_a_long_name_of_its_own: {{kind: pairs, from: verdicts, ties: drop}}
  reference: {{kind: reference, from: a_stage_with_quite_a_long_name_of_its_own, model: *model}}
  embeddings: {{kind: embed, from: a_stage_with_quite_a_long_name_of_its_own, model: *model}}
  policy: {{kind: train, matrix: &grid {{objective: [dpo, gdpo], seed: [1, 2]}}, from: a_stage_with_quite_a_long_name_of_its_own, reference: reference, model: *model, objective: {{name: \"${{matrix.objective}}\", beta: 0.1}}, seed: \"${{matrix.seed}}\", {train}}}
  relative: {{kind: train, from: a_stage_with_quite_a_long_name_of_its_own, reference: reference, embeddings: embeddings, model: *model, objective: {{name: rpo, beta: 0.1, tau: 0.5}}, {train}}}
  held_out: {{kind: evaluate, matrix: *grid, model: policy, pairs: a_stage_with_quite_a_long_name_of_its_own, reference: *model}}
",
        model = model.display()
    );
    let row = |n: usize| {
        let (chosen, rejected) = (format!(" {} and so on", n * 3 % 7), format!(" {}", "no ".repeat(n % 5 + 1)));
        format!("{}\n", serde_json::json!({"prompt": format!("say {n}"), "chosen": chosen, "rejected": rejected}))
    };
    for (name, text) in [
        ("pipeline.yaml", pipeline),
        ("question.jinja", "{{ prompt }} {{ a }} or {{ b }}? Answer:".to_owned()),
        ("data.jsonl", (0..30).map(row).collect()),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// Looks at every part of every drawing, and at the colours of text. It is put into a copy of the page, without the
/// policy that forbids scripts.
const MEASURE: &str = r#"<script>
document.querySelectorAll('details').forEach(part => part.open = true);
const outside = [], faint = [], rgb = text => text.match(/[\d.]+/g).map(Number);
const light = text => {
  const [r, g, b] = rgb(text).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
const paper = light(getComputedStyle(document.body).backgroundColor);
let texts = 0, shapes = 0;
for (const svg of document.querySelectorAll('svg')) {
  const frame = svg.getBoundingClientRect();
  for (const part of svg.querySelectorAll('text, path, rect, polyline, polygon, circle, line')) {
    const box = part.getBoundingClientRect();
    part.tagName === 'text' ? texts++ : shapes++;
    const beyond = Math.max(frame.left - box.left, frame.top - box.top, box.right - frame.right, box.bottom - frame.bottom);
    if (beyond > 1) outside.push(`${part.tagName} ${part.textContent} by ${beyond.toFixed(1)}`);
    if (part.tagName === 'text' && contrast(light(getComputedStyle(part).fill), paper) < 3) faint.push(part.textContent);
  }
}
for (const part of document.querySelectorAll('p, td, th, li, code, summary, h1, h2, h3, figcaption'))
  if (part.textContent.trim() && contrast(light(getComputedStyle(part).color), paper) < 4.5) faint.push(part.textContent);
const rows = [...document.querySelectorAll('#heldout tr, #summary tr')].map(row => row.getBoundingClientRect().height);
const result = {tallest: Math.max(0, ...rows), outside, faint, texts, shapes, wide: document.documentElement.scrollWidth - innerWidth,
  dark: matchMedia('(prefers-color-scheme: dark)').matches, paper};
document.body.innerHTML = '<pre id="measured"></pre>';
document.getElementById('measured').textContent = 'BEGIN' + JSON.stringify(result) + 'END';
</script></body>"#;

#[test]
fn in_a_browser_nothing_is_cut_off_and_all_is_readable_in_light_and_dark() {
    let Some(browser) = browser() else { return };
    let project = judged_and_trained();
    let folder = project.path();
    done(folder, &["run", "pipeline.yaml", "--device", "cpu"]);
    let text = std::fs::read_to_string(folder.join(".halftone/runs/test/report.html")).unwrap();
    for question in ["Did it learn?", "Can the labels be trusted?", "What next?"] {
        assert!(text.contains(question), "{question}");
    }
    for section in ["labels", "training", "heldout", "alike", "contrasts", "examples"] {
        assert!(text.contains(&format!("id=\"{section}\"")), "{section}");
    }
    let (before, policy) = text.split_once("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
    let rest = policy.split_once('>').unwrap().1;
    let page = folder.join("measured.html");
    std::fs::write(&page, format!("{before}{}", rest.replace("</body>", MEASURE))).unwrap();
    let mut papers = Vec::new();
    // A desk and a phone, dark and light.
    let looks = [("0", true), ("1", false)].into_iter().flat_map(|look| [1400, 400].map(|width| (look, width)));
    for ((scheme, dark), width) in looks {
        let wanted = format!("--blink-settings=preferredColorScheme={scheme}");
        let Some(dom) = dom(&browser, folder, &page, &[&wanted, &format!("--window-size={width},900")]) else { return };
        let measured = dom.rsplit_once("BEGIN").unwrap().1.split_once("END").unwrap().0;
        let measured: serde_json::Value =
            serde_json::from_str(&measured.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")).unwrap();
        assert_eq!(measured["dark"], dark, "the browser shows the scheme that was asked for");
        assert!(measured["texts"].as_u64().unwrap() > 100 && measured["shapes"].as_u64().unwrap() > 300, "{measured}");
        assert_eq!(measured["outside"], serde_json::json!([]), "cut off");
        assert_eq!(measured["faint"], serde_json::json!([]), "too faint on its paper, dark: {dark}");
        assert!(measured["wide"].as_f64().unwrap() <= 0.0, "wider than a window of {width}: {measured}");
        let tallest = measured["tallest"].as_f64().unwrap();
        assert!(width == 1400 || tallest < 150.0, "a row of a table of figures is {tallest} px tall on a phone");
        papers.push(measured["paper"].as_f64().unwrap());
    }
    assert!(papers[0] < 0.05 && papers[3] > 0.9, "{papers:?}");
}

#[test]
fn the_graph_of_a_failed_run_has_the_edges_of_what_never_ran() {
    let project = project();
    let folder = project.path();
    let broken = PIPELINE.replace("ties: keep", "ties: keep}\n  again: {kind: pairs, from: pairs, ties: drop");
    std::fs::write(folder.join("pipeline.yaml"), broken).unwrap();
    // The data are read in a form that the file does not have.
    std::fs::write(folder.join("data.jsonl"), "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": 7}\n").unwrap();
    let output = halftone(folder, &["run", "pipeline.yaml"]);
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    done(folder, &["report", "--out", "page.html"]);
    let page = std::fs::read_to_string(folder.join("page.html")).unwrap();
    let graph = page.split_once("<svg class=\"graph\"").unwrap().1.split_once("</svg>").unwrap().0;
    assert_eq!((graph.matches("class=\"node").count(), graph.matches("class=\"edge\"").count()), (3, 2), "{graph}");
}

/// The page as a browser has it after its scripts; nothing, and why, where the browser does not work here.
fn dom(browser: &Path, folder: &Path, page: &Path, more: &[&str]) -> Option<String> {
    let shown = folder.join("dom.html");
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"])
        .args(more)
        .arg(format!("--user-data-dir={}", profile.path().display()))
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
        missing(Requirement::Browser, "the browser shows nothing here, whatever the page");
        return None;
    }
    Some(dom)
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut candidates = std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    let found = candidates.find(|candidate| candidate.is_file());
    if found.is_none() {
        missing(Requirement::Browser, "there is no chromium or google-chrome in PATH");
    }
    found
}
