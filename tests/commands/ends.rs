//! The text at the end of a run: the run's line and its tables.

use crate::judged::{judged, project};

/// Times are those of the machine.
fn redacted(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut words: Vec<&str> = line.split(' ').collect();
        for at in 1..words.len() {
            let is_time = |word: &str| word.trim_end_matches(',').parse::<f64>().is_ok();
            if words[at] == "s" && is_time(words[at - 1]) {
                words[at - 1] = "[time]";
            }
        }
        let line = words.join(" ");
        let line = match line.split_once("; began ") {
            Some((before, _)) => format!("{before}; began [time]"),
            None => line,
        };
        lines.push(line);
    }
    lines.join("\n")
}

#[test]
fn a_first_run_a_second_one_and_their_status() {
    let project = project();
    insta::assert_snapshot!("first_run", redacted(&project.done(&["run", "pipeline.yaml"])));
    insta::assert_snapshot!("second_run", redacted(&project.done(&["run", "pipeline.yaml"])));
    let other = ["run", "pipeline.yaml", "--set", "verdicts.method=temperature"];
    insta::assert_snapshot!("another_run", redacted(&project.done(&other)));
    insta::assert_snapshot!("status", redacted(&project.done(&["status"])));
    insta::assert_snapshot!("status_verbose", redacted(&project.done(&["status", "-v"])));
    insta::assert_snapshot!("plan", redacted(&project.done(&["plan", "pipeline.yaml"])));
}

#[test]
fn a_failure_is_told_in_full_once_and_last() {
    let project = project();
    project.write("data.jsonl", &(judged(3, |_| 0.5) + "{\"prompt\": \"q\", \"response_0\": \"a\", \"p_hat\": 1}\n"));
    for more in [&[][..], &["-v"], &["-q"]] {
        let output = project.halftone(&[&["run", "pipeline.yaml"], more].concat());
        assert_eq!(output.status.code(), Some(65));
        let (told, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(said.matches("./data.jsonl:4").count(), 1, "{said}");
        assert_eq!(said.lines().filter(|line| line.contains("error: stage `data`")).count(), 1, "{said}");
        assert!(said.lines().last().unwrap().starts_with("error: "), "{said}");
        assert!(!told.contains("./data.jsonl:4"), "{told}");
    }
}

#[test]
fn tables_of_texts_are_a_line_each_row() {
    let project = project();
    project.done(&["run", "pipeline.yaml"]);
    insta::assert_snapshot!("verdicts", project.done(&["inspect", "verdicts", "-n", "4"]));
    insta::assert_snapshot!("pairs", project.done(&["inspect", "pairs", "-n", "4"]));
    insta::assert_snapshot!("summary", project.done(&["inspect", "figures.summary", "-n", "4"]));
    let wide = project.done(&["inspect", "verdicts", "-n", "1", "--wide"]);
    assert!(wide.contains("uncalibrated_p_hat") && wide.contains("one 0 and some more words of it"), "{wide}");
}

#[test]
fn several_runs_stand_in_one_page() {
    let project = project();
    project.done(&["run", "pipeline.yaml"]);
    project.done(&["run", "pipeline.yaml", "--set", "verdicts.method=temperature"]);
    let told = project.done(&["report", "--compare", "1", "test:2"]);
    assert_eq!(told, ".halftone/runs/test/compare-1-2.html\n");
    let page = std::fs::read_to_string(project.path(told.trim())).unwrap();
    for wanted in ["<h1>test <span>run 1, run 2</span></h1>", "id=\"settings\"", "id=\"summary\"", "id=\"labels\""] {
        assert!(page.contains(wanted), "{wanted}");
    }
    assert!(page.contains("<td class=\"\" data-label=\"run 2\">temperature</td>"), "{page}");
    assert!(
        project
            .fails(&["report", "--compare", "1", "9"], 64)
            .contains("no run 9 of `test` in .halftone; there are 1, 2")
    );
    assert_eq!(project.done(&["report", "--compare", "1", "2", "--out", "both.html"]), "both.html\n");
}

/// A link to this fails when it is read, as a broken disk does.
const BROKEN: &str = "/proc/self/mem";

#[test]
#[cfg(target_os = "linux")]
fn records_that_the_system_cannot_read_are_its_failure() {
    let project = project();
    project.done(&["run", "pipeline.yaml"]);
    let stages = project.path(".halftone/runs/test/1/stages.json");
    let pairs = project.path(".halftone/runs/test/pairs/pairs").canonicalize().unwrap();
    let replaced = |path: &std::path::Path, target: &str| {
        let _ = std::fs::remove_file(path);
        std::os::unix::fs::symlink(target, path).unwrap();
    };
    let whole = std::fs::read(&stages).unwrap();
    for target in [BROKEN, "stages.json"] {
        replaced(&stages, target);
        for command in
            [&["inspect", "pairs"][..], &["report"], &["status"], &["gc"], &["diff"], &["verify", "--pipeline", "test"]]
        {
            let said = project.fails(command, 74);
            assert!(said.contains("stages.json"), "{command:?}: {said}");
        }
    }
    std::fs::remove_file(&stages).unwrap();
    std::fs::write(&stages, whole).unwrap();
    replaced(&pairs.parent().unwrap().join("manifest.json"), BROKEN);
    for command in [&["verify"][..], &["report"], &["diff", "1", "1"], &["run", "pipeline.yaml"]] {
        let said = project.fails(command, 74);
        assert!(said.contains("manifest.json"), "{command:?}: {said}");
    }
}
