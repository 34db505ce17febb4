//! The built binary on pipelines without models: exit codes, kills, two runs at once, a full disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use harness::{Project, stderr};
use serde_json::Value;

const PIPELINE: &str = "
name: test
seed: 17
stages:
  data: {kind: ingest, files: ./data.jsonl, holdout: 0.1}
  pairs: {kind: pairs, from: data.pairs, ties: keep}
  held: {kind: pairs, from: data.holdout_pairs, ties: keep}
  twice: {kind: pairs, from: [pairs, held], ties: drop}
";

/// A folder with the pipeline and so many rows of data.
fn project(rows: usize) -> Project {
    let row = |row: usize| {
        let (question, padding, p_hat) = (row / 3, "and so on ".repeat(row % 37), 0.5 + (row % 50) as f64 / 100.0);
        format!(
            "{{\"prompt\": \"question {question}\", \"chosen\": \"answer {row} {padding}\", \
             \"rejected\": \"silence {row}\", \"p_hat\": {p_hat}}}\n"
        )
    };
    Project::new(&[("pipeline.yaml", PIPELINE), ("data.jsonl", &(0..rows).map(row).collect::<String>())])
}

fn latest(project: &Project, work: &str) -> Value {
    serde_json::from_str(project.done(&["status", "test", "--json", "--work", work]).trim()).unwrap()
}

/// Checks the message and the exit code of a command that fails.
fn fails(output: &Output, code: i32, wanted: &str) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(wanted), "{text}");
}

#[test]
fn mistakes_have_exit_codes_and_places() {
    let project = project(3);
    fails(&project.halftone(&["run"]), 64, "Usage");
    fails(
        &project.halftone(&["run", "pipeline.yaml", "--only", "pars"]),
        64,
        "there is no stage `pars`; did you mean `pairs`?",
    );
    fails(&project.halftone(&["run", "pipeline.yaml", "--device", "gpu"]), 64, "--device gpu");
    fails(&project.halftone(&["check", "nowhere.yaml"]), 78, "nowhere.yaml: cannot be read");
    project.write("bad.yaml", "name: x\nstages:\n  a: {kind: ingest, files: [./data.jsonl\n  b: 3\n");
    fails(&project.halftone(&["run", "bad.yaml"]), 78, "bad.yaml:4:");
    let mut bomb = "name: x\nstages:\n  x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..30 {
        bomb.push_str(&format!("  x{level}: &x{level} [{}]\n", vec![format!("*x{}", level - 1); 9].join(", ")));
    }
    project.write("bomb.yaml", &bomb);
    let began = Instant::now();
    fails(&project.halftone(&["check", "bomb.yaml"]), 78, "values with every alias written out");
    assert!(began.elapsed() < Duration::from_secs(2));
    project
        .write("wrong.yaml", &PIPELINE.replace("ties: drop", "tise: drop").replace("[pairs, held]", "[pears, held]"));
    let output = project.halftone(&["run", "wrong.yaml"]);
    fails(&output, 78, "wrong.yaml:8:31: twice: there is no stage `pears`; did you mean `pairs`?");
    fails(&output, 78, "wrong.yaml:8:45: twice: unknown key `tise`; did you mean `ties`?");
    fails(
        &project.halftone(&["run", "pipeline.yaml", "--set", "pairs.tise=keep"]),
        78,
        "--set pairs.tise=keep: pairs: unknown key `tise`",
    );
}

#[test]
fn broken_data_is_named() {
    let project = project(3);
    project.write(
        "data.jsonl",
        "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n{\"prompt\": \"a\", \"cho\n",
    );
    let output = project.halftone(&["run", "pipeline.yaml"]);
    fails(&output, 65, "data.jsonl:2");
    assert_eq!(latest(&project, ".halftone")["stages"]["data"]["state"], "failed");
    // A torn table from elsewhere is found before anything runs.
    std::fs::create_dir(project.path("torn")).unwrap();
    project.write("torn/part-00000.parquet", "PAR1 and then nothing");
    project.write("torn.yaml", "name: test\nstages:\n  pairs: {kind: pairs, from: ./torn, ties: keep}\n");
    fails(
        &project.halftone(&["run", "torn.yaml"]),
        65,
        "torn.yaml:3:30: pairs: ./torn/part-00000.parquet: not readable as Parquet",
    );
}

#[test]
fn a_second_run_uses_everything_again() {
    let project = project(300);
    let text = project.done(&["run", "pipeline.yaml"]);
    assert!(text.contains("twice") && text.contains("results: .halftone/runs/test/<stage>/<table>"), "{text}");
    let before = project.store(".halftone");
    let text = project.done(&["run", "pipeline.yaml"]);
    assert!(text.starts_with("all 4 stages reused\n"), "{text}");
    assert_eq!(project.store(".halftone"), before);
    // Moved as a whole, the work folder still serves: its links are relative.
    std::fs::rename(project.path(".halftone"), project.path("moved")).unwrap();
    assert!(project.done(&["run", "pipeline.yaml", "--work", "moved"]).starts_with("all 4 stages reused\n"));
    assert!(project.path("moved/runs/test/pairs/pairs/part-00000.parquet").is_file());
    assert!(project.done(&["verify", "--work", "moved"]).contains("4 entries"));
    // A resolved pipeline asks for the same results.
    let resolved = project.path("moved/runs/test/1/resolved.yaml");
    let again = project.done(&["run", resolved.to_str().unwrap(), "--work", "moved"]);
    assert!(again.starts_with("all 4 stages reused\n"), "{again}");
}

#[test]
fn a_cached_run_of_ten_stages_is_quick() {
    let project = project(60);
    let mut text = PIPELINE.to_owned();
    for stage in 0..6 {
        text.push_str(&format!("  more{stage}: {{kind: pairs, from: pairs, ties: keep, min_p_hat: 0.5{stage}}}\n"));
    }
    project.write("pipeline.yaml", &text);
    project.done(&["run", "pipeline.yaml"]);
    let quickest = (0..10)
        .map(|_| {
            let began = Instant::now();
            let told = project.done(&["run", "pipeline.yaml"]);
            assert!(told.starts_with("all 10 stages reused\n"), "{told}");
            began.elapsed()
        })
        .min()
        .unwrap();
    assert!(quickest < Duration::from_millis(200), "{quickest:?}");
}

#[test]
fn killed_at_any_moment_and_run_again_the_bytes_are_the_same() {
    let project = project(2000);
    let began = Instant::now();
    project.done(&["run", "pipeline.yaml", "--work", "whole"]);
    let whole = began.elapsed();
    let wanted = project.store("whole");
    let mut killed = 0;
    for round in 0..20_u32 {
        // Spread over the run, by the golden ratio.
        let share = f64::from(round) * 0.618_034 % 1.0;
        let work = format!("killed-{}", round / 4);
        let mut child = project.start(&["run", "pipeline.yaml", "--work", &work]);
        std::thread::sleep(whole.mul_f64(share));
        child.kill().unwrap();
        let died = !child.wait().unwrap().success();
        killed += u32::from(died);
        assert!(!project.done(&["status", "--work", &work]).contains("is running"), "round {round}");
        if round % 4 == 3 {
            project.done(&["run", "pipeline.yaml", "--work", &work]);
            assert_eq!(project.store(&work), wanted, "round {round}");
            assert!(project.done(&["verify", "--work", &work]).contains("all as written"));
        }
    }
    assert!(killed >= 5, "{killed} of 20 were killed before they were done");
}

#[test]
fn several_runs_at_once_share_the_work() {
    let project = project(1000);
    project.done(&["run", "pipeline.yaml", "--work", "alone"]);
    let children: Vec<Child> = (0..4).map(|_| project.start(&["run", "pipeline.yaml"])).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(project.store(".halftone"), project.store("alone"));
    let mut ran: BTreeMap<String, u32> = BTreeMap::new();
    for run in 1..=4 {
        let text = std::fs::read_to_string(project.path(&format!(".halftone/runs/test/{run}/stages.json"))).unwrap();
        let record: Value = serde_json::from_str(&text).unwrap();
        for (stage, record) in record["stages"].as_object().unwrap() {
            *ran.entry(stage.clone()).or_default() += u32::from(record["state"] == "ran");
        }
    }
    assert!(ran.values().all(|times| *times == 1), "{ran:?}");
}

#[test]
fn a_locked_stage_is_left_alone_with_no_wait() {
    let project = project(30);
    let plan: Value = serde_json::from_str(&project.done(&["plan", "pipeline.yaml", "--json"])).unwrap();
    let entry = plan["stages"][0]["entry"].as_str().unwrap().to_owned();
    std::fs::create_dir_all(project.path(".halftone/locks")).unwrap();
    let path = project.path(&format!(".halftone/locks/{entry}"));
    let lock = std::fs::File::create(&path).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    std::fs::write(&path, "{\"pid\": 4711, \"since\": \"2026-01-02T03:04:05Z\"}").unwrap();
    let output = project.halftone(&["run", "pipeline.yaml", "--no-wait"]);
    fails(&output, 75, "stage `data` is being worked on by process 4711 since 2026-01-02T03:04:05Z");
    drop(lock);
    project.done(&["run", "pipeline.yaml", "--no-wait"]);
}

#[test]
fn a_full_disk_stops_the_run_and_space_lets_it_go_on() {
    let project = project(3000);
    project.done(&["run", "pipeline.yaml", "--work", "whole"]);
    // Files may not grow beyond 8 KiB; the signal that comes with that is no death.
    let script = format!("ulimit -f 8; exec {} run pipeline.yaml", env!("CARGO_BIN_EXE_halftone"));
    let output = Command::new("bash").args(["-c", &script]).current_dir(project.folder()).output().unwrap();
    fails(&output, 74, "stage `data`");
    let entries = std::fs::read_dir(project.path(".halftone/store")).unwrap();
    assert!(entries.map(|entry| entry.unwrap().path()).all(|path| path.to_string_lossy().ends_with(".partial")));
    project.done(&["run", "pipeline.yaml"]);
    assert_eq!(project.store(".halftone"), project.store("whole"));
}

#[test]
fn a_signal_ends_the_run_soon_and_the_work_goes_on() {
    let project = project(4000);
    project.done(&["run", "pipeline.yaml", "--work", "whole"]);
    let mut child = project.start(&["run", "pipeline.yaml"]);
    let store = project.path(".halftone/store");
    while !store.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let began = Instant::now();
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(75));
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    let plan = project.done(&["plan", "pipeline.yaml"]);
    assert!(plan.contains("run:"), "{plan}");
    project.done(&["run", "pipeline.yaml"]);
    assert_eq!(project.store(".halftone"), project.store("whole"));
}

#[test]
fn a_run_that_ends_without_waiting_for_its_stages_is_recorded_as_interrupted() {
    let project = project(20_000);
    let mut child = project.start(&["run", "pipeline.yaml"]);
    let record = project.path(".halftone/runs/test/1/stages.json");
    let signal = |child: &Child| {
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    };
    while !std::fs::read_to_string(&record).is_ok_and(|text| text.contains("\"running\"")) {
        assert!(child.try_wait().unwrap().is_none(), "it was over before it was seen at work");
        std::thread::sleep(Duration::from_millis(1));
    }
    // A second signal stops at once.
    signal(&child);
    signal(&child);
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let record: Value = serde_json::from_str(&std::fs::read_to_string(&record).unwrap()).unwrap();
    assert_eq!(record["state"], "interrupted", "{record}");
    assert!(record["finished"].is_string());
    let states: Vec<&str> =
        record["stages"].as_object().unwrap().values().map(|stage| stage["state"].as_str().unwrap()).collect();
    assert!(!states.contains(&"running"), "{states:?}");
    // One that was killed had nobody to say so.
    let mut child = project.start(&["run", "pipeline.yaml"]);
    while !project.path(".halftone/runs/test/2/stages.json").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let state = latest(&project, ".halftone")["state"].clone();
    assert!(state == "killed" || state == "done", "{state}");
}

#[test]
fn how_much_a_run_prints() {
    let project = project(30);
    project.done(&["run", "pipeline.yaml"]);
    let said = |args: &[&str], variables: &[(&str, &str)]| {
        let output = project.command(&[&["run", "pipeline.yaml"], args].concat()).envs(variables.to_vec()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(said(&["-q"], &[]), (String::new(), String::new()));
    assert_eq!(said(&[], &[("HALFTONE_QUIET", "1")]), (String::new(), String::new()));
    let (short, progress) = said(&[], &[("HALFTONE_QUIET", "0")]);
    assert!(short.lines().count() <= 5 && progress.lines().count() <= 2, "{short}{progress}");
    let (full, progress) = said(&["-v"], &[]);
    assert!(full.contains("p_hat histogram") && full.matches("reused").count() == 4, "{full}");
    assert_eq!(progress.matches("reused").count(), 4, "{progress}");
    // The command line takes precedence over the environment.
    assert_eq!(said(&["-v"], &[("HALFTONE_QUIET", "1")]).0, full);
    assert_eq!(said(&["-q"], &[("HALFTONE_VERBOSE", "1")]).0, "");
    // Errors are always printed.
    project.write("data.jsonl", "{\n");
    fails(&project.halftone(&["run", "pipeline.yaml", "-q"]), 65, "no row can be read");
    let wrong = project.command(&["status"]).env("HALFTONE_WORK", "elsewhere").output().unwrap();
    assert_eq!(String::from_utf8(wrong.stdout).unwrap(), "no runs in elsewhere\n");
}

#[test]
fn a_dry_run_is_the_plan() {
    let project = project(30);
    for json in [&[][..], &["--json"]] {
        let plan = project.done(&[&["plan", "pipeline.yaml"], json].concat());
        assert_eq!(project.done(&[&["run", "pipeline.yaml", "--dry-run"], json].concat()), plan);
    }
    assert!(!project.path(".halftone").exists());
}

#[test]
fn events_are_json_lines() {
    let project = project(30);
    let text = project.done(&["run", "pipeline.yaml", "--json"]);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((names[0], *names.last().unwrap()), ("run_started", "run_finished"));
    let finished = events.iter().find(|event| event["event"] == "stage_finished" && event["stage"] == "data").unwrap();
    assert!(finished["rows"].as_u64().unwrap() > 0 && finished["entry"].is_string());
}

#[test]
fn tables_can_be_looked_into() {
    let project = project(60);
    project.done(&["run", "pipeline.yaml"]);
    let schema = project.done(&["inspect", "pairs", "schema"]);
    assert!(schema.contains("57 rows in 1 files") && schema.contains("chosen_prompt         messages"), "{schema}");
    let rows = project.done(&["inspect", "pairs.pairs", "--where", "p_hat>=0.9", "--json", "-n", "1000"]);
    assert!(rows.lines().count() > 3);
    for row in rows.lines() {
        assert!(serde_json::from_str::<Value>(row).unwrap()["p_hat"].as_f64().unwrap() >= 0.9);
    }
    let head = project.done(&["inspect", "pairs", "-n", "1"]);
    assert!(head.contains("answer") && head.contains("1 rows, of 57 in the table; --wide shows"), "{head}");
    assert_eq!(head.lines().count(), 3, "{head}");
    let wide = project.done(&["inspect", "pairs", "-n", "1", "--wide"]);
    assert!(wide.contains("chosen_response_id") && wide.contains("source_line"), "{wide}");
    // Narrow rows are a line each, under the names of their columns.
    let rejects = project.done(&["inspect", "pairs.rejects"]);
    assert_eq!(rejects, "input  row_id  reason  detail  source_file  source_line\n0 rows, of 0 in the table\n");
    for (args, wanted) in [
        (["pairs", "--where", "p_hat>abc"].as_slice(), "--where p_hat>abc: `p_hat` holds numbers, and `abc` is none"),
        (&["pairs", "schema", "--where", "p_hat>0.5"], "--where chooses rows, and `schema` shows columns"),
    ] {
        fails(&project.halftone(&[&["inspect"], args].concat()), 64, wanted);
    }
    let stats = project.done(&["inspect", "pairs", "stats"]);
    assert!(stats.contains("p_hat") && stats.contains("mean"), "{stats}");
    let sample = project.done(&["inspect", ".halftone/runs/test/pairs/pairs", "sample", "-n", "3", "--wide"]);
    assert_eq!(sample.matches("row ").count(), 3, "{sample}");
    fails(
        &project.halftone(&["inspect", "pairs.pair"]),
        64,
        "stage `pairs` has no output `pair`; did you mean `pairs`?",
    );
    fails(
        &project.halftone(&["inspect", "pairs", "--where", "phat=1"]),
        64,
        "there is no column `phat`; did you mean `p_hat`?",
    );
    fails(&project.halftone(&["inspect", "data"]), 64, "`data` has several outputs");
    // The reader's wanted table decides where a stage writes several.
    assert!(project.done(&["export", "dataset", "data", "--to", "out"]).contains("rows of data\n"));
}

#[test]
fn the_schema_describes_pipeline_files() {
    let project = project(1);
    let schema: Value = serde_json::from_str(&project.done(&["schema"])).unwrap();
    for line in project.done(&["kinds"]).lines() {
        let kind = line.split_whitespace().next().unwrap();
        assert!(schema["$defs"][kind].is_object(), "{kind}");
    }
    // Every reference leads somewhere.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&schema, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        assert!(schema.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(project.done(&["completions", shell]).contains("halftone"));
    }
}

#[test]
fn a_pipeline_is_drawn() {
    let project = project(3);
    let text = project.done(&["dag", "pipeline.yaml"]);
    assert!(text.contains("│ data (ingest)") && text.contains("▼"), "{text}");
    let text = project.done(&["dag", "pipeline.yaml", "--format", "mermaid"]);
    assert!(text.starts_with("flowchart TD\n") && text.contains("-->|holdout_pairs|"), "{text}");
    let text = project.done(&["dag", "pipeline.yaml", "--format", "dot"]);
    assert!(text.starts_with("digraph") && text.contains("s0 -> s1"), "{text}");
}

#[test]
fn data_at_fault_are_told_from_a_wrong_pipeline_and_said_once() {
    let project = project(30);
    let lines = |output: &Output, wanted: &str| stderr(output).matches(wanted).count();
    project.write("data.jsonl", "");
    for command in ["check", "run"] {
        fails(&project.halftone(&[command, "pipeline.yaml"]), 65, "data: ./data.jsonl: it holds no rows");
    }
    project.write("data.jsonl", "{\n{\n");
    fails(&project.halftone(&["run", "pipeline.yaml"]), 65, "no row can be read");
    std::fs::remove_file(project.path("data.jsonl")).unwrap();
    let missing = project.halftone(&["run", "pipeline.yaml"]);
    fails(&missing, 78, "pipeline.yaml:5:31: data: there is no file or folder `./data.jsonl`");
    assert_eq!(lines(&missing, "error"), 1, "{}", stderr(&missing));
    let good = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n";
    project.write("data.jsonl", &format!("{good}{{\n{good}[]\n"));
    let broken = project.halftone(&["run", "pipeline.yaml"]);
    fails(&broken, 65, "data: failed: 2 of 4 rows cannot be taken\n");
    for line in ["data.jsonl:2:", "data.jsonl:4:", "mend them, or go on without them with"] {
        assert_eq!(lines(&broken, line), 1, "{}", stderr(&broken));
    }
}

#[test]
fn what_nothing_uses_is_a_warning() {
    let project = project(30);
    project.write("vars.yaml", &PIPELINE.replace("stages:", "vars: {old: 3}\nstages:"));
    let output = project.halftone(&["check", "vars.yaml"]);
    assert!(output.status.success());
    assert_eq!(stderr(&output), "warning: vars.yaml:4:8: nothing uses the variable `old`\n");
}

#[test]
fn garbage_is_listed_and_then_removed() {
    let project = project(30);
    project.done(&["run", "pipeline.yaml"]);
    project.done(&["run", "pipeline.yaml", "--set", "pairs.ties=drop"]);
    let listed = project.done(&["gc", "--keep", "1", "--dry-run"]);
    assert!(listed.contains("entry") && listed.contains("would be removed"), "{listed}");
    let before = project.store(".halftone").len();
    project.done(&["gc", "--keep", "1"]);
    assert!(project.store(".halftone").len() < before);
    let text = project.done(&["run", "pipeline.yaml", "--set", "pairs.ties=drop"]);
    assert!(text.starts_with("all 4 stages reused\n"), "{text}");
    assert!(project.done(&["gc", "--keep", "1", "--dry-run"]).starts_with("run record"));
}

#[test]
fn paths_start_from_the_working_folder_wherever_the_pipeline_file_lies() {
    let project = project(30);
    let elsewhere = tempfile::tempdir().unwrap();
    let pipeline = project.path("pipeline.yaml").display().to_string();
    let folder = project.folder().display().to_string();
    let from = |place: &Path, command: &str| {
        Command::new(env!("CARGO_BIN_EXE_halftone")).args([command, &pipeline]).current_dir(place).output().unwrap()
    };
    for command in ["check", "plan", "run"] {
        let there_is = format!(
            "there is no file or folder `./data.jsonl` in the working folder; there is one beside the pipeline file: run \
             from `{folder}`, or write `{folder}/data.jsonl`"
        );
        fails(&from(elsewhere.path(), command), 78, &there_is);
        let output = from(project.folder(), command);
        assert!(output.status.success(), "{command}: {}", stderr(&output));
    }
    // Written files lie below the working folder too.
    assert!(project.path(".halftone/runs/test").is_dir() && !elsewhere.path().join(".halftone/store").exists());
    std::fs::create_dir(elsewhere.path().join("data")).unwrap();
    project.write("model.yaml", "name: m\nstages:\n  a: {kind: embed, from: ./data, model: models/encoder}\n");
    let absent = ["check", &project.path("model.yaml").display().to_string()].map(str::to_owned);
    let check = || Command::new(env!("CARGO_BIN_EXE_halftone")).args(&absent).current_dir(elsewhere.path()).output();
    assert!(!stderr(&check().unwrap()).contains("models/encoder"), "a name of the hub");
    std::fs::create_dir_all(project.path("models/encoder")).unwrap();
    fails(&check().unwrap(), 78, "`models/encoder` in the working folder; there is one beside the pipeline file");
}

#[test]
fn a_file_replaced_by_one_of_the_same_size_and_time_is_read_again() {
    let project = project(3);
    project.write("one.yaml", "name: test\nstages:\n  data: {kind: ingest, files: ./pairs.jsonl}\n");
    let write = |answer: &str| {
        let line = format!("{{\"prompt\": \"q\", \"chosen\": \"It is {answer}.\", \"rejected\": \"no\"}}\n");
        project.write("pairs.jsonl", &line);
        let file = std::fs::File::options().write(true).open(project.path("pairs.jsonl")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    };
    for answer in ["1", "7"] {
        write(answer);
        project.done(&["run", "one.yaml"]);
        let row = project.done(&["inspect", "data.pairs", "--json"]);
        assert!(row.contains(&format!("It is {answer}.")), "{row}");
    }
}

#[test]
fn ten_thousand_stages_are_checked_soon() {
    let project = project(3);
    let head = "name: test\nseed: 17\nstages:\n  data: {kind: ingest, files: ./data.jsonl}\n";
    let chain = |stage: usize| {
        let from = if stage == 0 { "data.pairs".to_owned() } else { format!("s{}", stage - 1) };
        format!("  s{stage}: {{kind: pairs, from: {from}}}\n")
    };
    project.write("chain.yaml", &format!("{head}{}", (0..9_999).map(chain).collect::<String>()));
    // Two matrices whose stages line up, and a stage that reads all of one.
    let grid = |stages: usize| {
        let seeds: Vec<String> = (0..stages).map(|seed| seed.to_string()).collect();
        let seeds = seeds.join(", ");
        format!(
            "{head}  a: {{kind: pairs, from: data.pairs, matrix: &grid {{seed: [{seeds}], ties: [keep, drop]}}, ties: \
             \"${{matrix.ties}}\"}}\n  b: {{kind: pairs, from: a, matrix: *grid, ties: \"${{matrix.ties}}\"}}\n  all: \
             {{kind: pairs, from: b}}\n"
        )
    };
    project.write("grid.yaml", &grid(2_499));
    for (file, stages) in [("chain.yaml", 10_000), ("grid.yaml", 9_998)] {
        let began = Instant::now();
        let text = project.done(&["check", file]);
        assert!(text.contains(&format!("{stages} stages, nothing wrong")), "{text}");
        // A second or less, on a machine that does nothing else; each pair of stages looked at would take minutes.
        assert!(began.elapsed() < Duration::from_secs(20), "{file}: {:?}", began.elapsed());
    }
    let wrong = |stage: usize| format!("  s{stage}: {{kind: pairs, from: s{stage}x, tise: keep}}\n");
    project.write("wrong.yaml", &format!("{head}{}", (0..9_999).map(wrong).collect::<String>()));
    let began = Instant::now();
    let output = project.halftone(&["check", "wrong.yaml"]);
    fails(&output, 78, "wrong.yaml:5:27: s0: there is no stage `s0x`; did you mean `s0`?");
    assert_eq!(stderr(&output).lines().count(), 2 * 9_999);
    // As soon as that; names that are wrong in another way each would be held against all others.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
