//! Messages where something requested is missing: the names that exist, and the next step.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::pipeline::problem::nearest;
use crate::store::{Records, RunRecord, RunState, StageState};

/// So many names are listed.
const LISTED: usize = 3;
/// A file is looked at to here for whether it is a pipeline.
const LOOK: usize = 64 << 10;

/// The error where no pipeline has run.
pub fn nothing_here(records: &Records) -> Error {
    let work = records.work();
    let mut text = match work.exists() {
        true => format!("nothing has run here: there is no run in `{}`", work.display()),
        false => format!("nothing has run here: there is no folder `{}`", work.display()),
    };
    let pipelines = pipelines_here();
    text.push_str(&match pipelines.first() {
        Some(first) => format!("; run a pipeline first: `halftone run {}`", first.display()),
        None => "; `halftone init my.yaml --data FILE` writes a first pipeline for your data".to_owned(),
    });
    if let Some(other) = runs_above(work) {
        text.push_str(&format!("; there are runs in `{0}`: say `--work {0}`", other.display()));
    }
    Error::Usage(text)
}

/// The error where a pipeline has no run, or none of that number.
pub fn no_run(records: &Records, name: &str, run: Option<u64>) -> Error {
    let all = records.pipelines().unwrap_or_default();
    if all.is_empty() {
        return nothing_here(records);
    }
    let there: Vec<String> = records.runs(name).unwrap_or_default().iter().rev().map(u64::to_string).collect();
    let near = nearest(name, all.iter().filter(|other| *other != name).map(String::as_str));
    let hint = match (there.is_empty(), near) {
        (false, _) => format!("; there are {}", there.join(", ")),
        (true, Some(near)) => format!("; did you mean `{near}`?"),
        (true, None) => format!("; there are runs of {}", all.join(", ")),
    };
    let number = run.map(|run| format!(" {run}")).unwrap_or_default();
    Error::Usage(format!("no run{number} of `{name}` in {}{hint}", records.work().display()))
}

/// The outcome of a run that is not done, and the last finished run before it: a fragment that continues a sentence.
/// Empty where the run is done.
pub fn unfinished_note(records: &Records, record: &RunRecord) -> String {
    let number = record.run;
    let mut text = match record.state {
        RunState::Done => return String::new(),
        RunState::Running if records.alive(&record.pipeline, number) => format!("; run {number} is still at work"),
        RunState::Running => format!("; run {number} was killed"),
        RunState::Interrupted => format!("; run {number} was interrupted"),
        RunState::Failed => {
            let failed = |name: &&String| {
                record.stages.get(*name).is_some_and(|stage| matches!(stage.state, StageState::Failed))
            };
            match record.order.iter().find(failed) {
                Some(stage) => format!("; run {number} failed at `{stage}`"),
                None => format!("; run {number} failed"),
            }
        }
    };
    text.push_str(&match last_good(records, record) {
        Some(run) => format!("; the last good run is {run}: `--run {run}`"),
        None => "; no run before it was done".to_owned(),
    });
    text.push_str(&format!("; `halftone status {}` shows more", record.pipeline));
    text
}

/// The last run of the same pipeline before this one that ended well.
fn last_good(records: &Records, record: &RunRecord) -> Option<u64> {
    let runs = records.runs(&record.pipeline).ok()?;
    let done =
        |run: &u64| records.read(&record.pipeline, *run).ok().flatten().is_some_and(|it| it.state == RunState::Done);
    runs.into_iter().filter(|run| *run < record.run).find(done)
}

/// `; did you mean ...?` for a name of a stage or a table that a run does not have.
pub fn near_tables(record: &RunRecord, name: &str) -> String {
    let stages = || record.order.iter().filter_map(|stage| Some((stage, record.stages.get(stage)?)));
    let tables: Vec<String> =
        stages().flat_map(|(stage, it)| it.ports.iter().map(move |port| format!("{stage}.{port}"))).collect();
    // A matrix has its stages' names with `@` in them.
    let members: Vec<&String> =
        record.order.iter().filter(|stage| stage.split_once('@').is_some_and(|(group, _)| group == name)).collect();
    if let Some(first) = members.first() {
        return format!(": it is a matrix of {} stages; name one of them, such as `{first}`", members.len());
    }
    let of_port = |port: &str| -> Vec<&String> {
        tables.iter().filter(|table| table.rsplit_once('.').is_some_and(|(_, own)| own == port)).collect()
    };
    let ports: Vec<&str> = tables.iter().filter_map(|table| Some(table.rsplit_once('.')?.1)).collect();
    let all = tables.iter().map(String::as_str).chain(record.order.iter().map(String::as_str));
    if let Some(near) = nearest(name, all) {
        return format!("; did you mean `{near}`?");
    }
    // The name of a table alone, of any stage.
    match nearest(name, ports).map(of_port).unwrap_or_default()[..] {
        [] => format!("; it has {}", record.order.join(", ")),
        [one] => format!("; did you mean `{one}`?"),
        ref several => {
            let names: Vec<String> = several.iter().take(LISTED).map(|table| format!("`{table}`")).collect();
            let more = if several.len() > LISTED { ", ..." } else { "" };
            format!("; there are {}{more}", names.join(", "))
        }
    }
}

/// `; did you mean ...?` for a path that is not there, from what lies beside it.
pub fn near_path(path: &Path) -> String {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return String::new() };
    if !parent.is_dir() {
        return format!("; there is no folder `{}` either", parent.display());
    }
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match nearest(&name, names.iter().filter(|name| !name.starts_with('.')).map(String::as_str)) {
        Some(near) => format!("; did you mean `{}`?", parent.join(near).display()),
        None => String::new(),
    }
}

/// Pipeline files here and in the folder `pipelines`.
fn pipelines_here() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [".", "pipelines"] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = entries.filter(|path| is_pipeline(path)).collect();
        // The one to begin with first.
        files.sort_by_key(|path| (path.file_stem().is_none_or(|stem| stem != "quickstart"), path.clone()));
        found.extend(files.into_iter().map(|path| path.strip_prefix(".").map(Path::to_owned).unwrap_or(path)));
    }
    found
}

fn is_pipeline(path: &Path) -> bool {
    use std::io::Read;
    let yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml") && path.is_file();
    let mut head = Vec::new();
    let read = |file: std::fs::File| file.take(LOOK as u64).read_to_end(&mut head);
    yaml && std::fs::File::open(path).and_then(read).is_ok()
        && String::from_utf8_lossy(&head).lines().any(|line| line.starts_with("stages:") || line.starts_with("base:"))
}

/// A work folder with runs, of the same name, in a folder above.
fn runs_above(work: &Path) -> Option<PathBuf> {
    if work.is_absolute() {
        return None;
    }
    let mut up = PathBuf::new();
    for _ in 0..4 {
        up.push("..");
        let other = up.join(work);
        if Records::new(&other).pipelines().is_ok_and(|names| !names.is_empty()) {
            return Some(other);
        }
    }
    None
}
