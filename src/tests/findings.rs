//! What the check finds, and where.

use std::path::Path;

use super::kinds::KINDS;
use crate::check::check;
use crate::pipeline::Pipeline;

pub fn findings(text: &str) -> Vec<String> {
    findings_with(text, &[])
}

fn findings_with(text: &str, sets: &[&str]) -> Vec<String> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let file = Path::new("pipeline.yaml");
    let problems = match Pipeline::read(file, text, &sets, &|_| None) {
        Err(problem) => vec![problem],
        Ok((pipeline, problems)) => check(&pipeline, problems, KINDS).err().unwrap_or_default(),
    };
    problems.into_iter().map(|problem| problem.line(file)).collect()
}

#[test]
fn six_mistakes_are_six_findings_at_their_places() {
    let text = "\
name: broken
sead: 17
vars: {marks: 3}
stages:
  one:
    kind: cuont
    rows: 10
  two: {kind: count, rows: 0}
  three:
    kind: shout
    from: two.prompt
    how: {name: loud, marks: many}
  four:
    kind: shout
    from: thre
    how:
      name: loud
      marks: '${vars.marks}'
      makrs: 2
";
    insta::assert_snapshot!(findings(text).join("\n"), @r"
    pipeline.yaml:2:1: unknown key `sead`; did you mean `seed`?
    pipeline.yaml:6:11: one: unknown kind `cuont`; did you mean `count`?
    pipeline.yaml:8:28: two: `rows` has to be above 0
    pipeline.yaml:12:30: three: got the text `many`, wanted a number
    pipeline.yaml:15:11: four: there is no stage `thre`; did you mean `three`?
    pipeline.yaml:19:7: four: unknown key `makrs`; did you mean `marks`?
    ");
}

#[test]
fn a_right_pipeline_has_no_findings() {
    let text = "
name: right
stages:
  base: &base {kind: count, rows: 10}
  more: {<<: *base, rows: 20}
  loud: {kind: shout, from: [base, more.prompts], how: {name: loud, marks: 1}}
";
    assert_eq!(findings(text), Vec::<String>::new());
}

#[test]
fn what_yaml_offers_can_be_used() {
    assert_eq!(findings(RICH), Vec::<String>::new());
}

#[test]
fn references_are_explained() {
    let stages = |from: &str| {
        format!(
            "name: x\nstages:\n  a: {{kind: count, rows: 1}}\n  t: {{kind: twins}}\n  s: {{kind: shout, from: {from}, how: {{name: loud, marks: 1}}}}\n"
        )
    };
    for (from, wanted) in [
        ("t", "pipeline.yaml:5:26: s: `t` can mean `t.left` or `t.right`; name one"),
        ("t.pairs", "pipeline.yaml:5:26: s: `t.pairs` holds pairs, `from` wants prompts"),
        ("s", "pipeline.yaml:5:26: s: a stage cannot read from itself"),
        ("aa", "pipeline.yaml:5:26: s: there is no stage `aa`; did you mean `a`?"),
        ("a.promts", "pipeline.yaml:5:26: s: `a` has no output `promts`; did you mean `prompts`?"),
        ("./nowhere", "pipeline.yaml:5:26: s: there is no file or folder `./nowhere`"),
        ("./src", "pipeline.yaml:5:26: s: ./src: no .parquet file in this folder"),
        ("[a, b]", "pipeline.yaml:5:30: s: there is no stage `b`; did you mean `a`?"),
        ("[]", "pipeline.yaml:5:20: s: an empty list names no input"),
    ] {
        assert_eq!(findings(&stages(from)), [wanted]);
    }
}

#[test]
fn a_column_that_upstream_leaves_out_is_named() {
    let text = "name: x\nstages:\n  a: {kind: count, rows: 1}\n  s: {kind: shout, from: a, sources: true, how: {name: loud, marks: 1}}\n";
    assert_eq!(
        findings(text),
        ["pipeline.yaml:4:26: s: column `source_file` missing in input `from`; `a` does not write it"]
    );
}

#[test]
fn circles_are_shown_in_the_direction_of_the_data() {
    let text = "
name: x
stages:
  a: {kind: shout, from: c, how: {name: loud, marks: 1}}
  b: {kind: shout, from: a, how: {name: loud, marks: 1}}
  c: {kind: shout, from: b, how: {name: loud, marks: 1}}
";
    assert_eq!(findings(text), ["pipeline.yaml:4:26: a: stages wait for each other: a -> b -> c -> a"]);
}

#[test]
fn the_command_line_is_a_place_too() {
    let text = "name: x\nstages:\n  a: {kind: count, rows: 1}\n";
    assert_eq!(findings_with(text, &["a.rows=3"]), Vec::<String>::new());
    assert_eq!(findings_with(text, &["a.rows=0"]), ["--set a.rows=0: a: `rows` has to be above 0"]);
    assert_eq!(findings_with(text, &["a.row=3"]), ["--set a.row=3: a: unknown key `row`; did you mean `rows`?"]);
}

#[test]
fn a_stage_that_draws_asks_for_a_seed() {
    let text = "name: x\nstages:\n  a: {kind: count, rows: 1, draws: true}\n";
    assert_eq!(
        findings(text),
        ["pipeline.yaml:3:13: a: `count` draws at random and the pipeline has no `seed`; add `seed: 17` at the top"]
    );
}

#[test]
fn files_that_a_configuration_names_have_to_be_there() {
    let text = "name: x\nstages:\n  a:\n    kind: count\n    rows: 1\n    note: ./nowhere.txt\n";
    assert_eq!(findings(text), ["pipeline.yaml:6:11: a: there is no file or folder `./nowhere.txt`"]);
}

#[test]
fn the_top_of_the_file_is_checked_too() {
    assert_eq!(
        findings("name: ../x\nseed: -1\nstages: {1: {kind: count, rows: 1}, b: 3, c: {rows: 1}}\n"),
        [
            "pipeline.yaml:1:7: a pipeline's name is made of letters, digits, `-`, `_` and `.`",
            "pipeline.yaml:2:7: `seed` is a whole number from 0 up, got -1",
            "pipeline.yaml:3:10: 1: `1` cannot be a stage's name: letters, digits, `-` and `_`, not digits alone",
            "pipeline.yaml:3:37: b: a stage is a mapping that begins with `kind`",
            "pipeline.yaml:3:43: c: `kind` is missing",
        ]
    );
    assert_eq!(
        findings("[1, 2]"),
        ["pipeline.yaml:1:1: a pipeline file is a mapping with `name`, `seed`, `vars` and `stages`"]
    );
}

/// A pipeline file with most of what YAML offers.
const RICH: &str = "
name: rich
seed: 17
vars: {marks: 2, base: &base {kind: count, rows: 10}, list: [a, b]}
stages:
  a: {<<: *base, rows: 20, note: null}
  b:
    <<: [*base]
    threads: 3
  c:
    kind: shout
    from: '${vars.list}'
    how: {name: loud, marks: \"${vars.marks}\"}
  d: {kind: shout, from: c.prompts, extra: a, how: {name: extra, factor: 16}}
";

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(2000))]

    /// Whatever is done to a pipeline file, it is read or refused; nothing panics and every finding has a place.
    #[test]
    fn any_text_is_read_or_refused(cuts in proptest::collection::vec((0..600_usize, 0..12_usize, ".{0,6}"), 0..4)) {
        let mut text: Vec<char> = RICH.chars().collect();
        for (at, length, insert) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, insert.chars());
        }
        for line in findings(&text.into_iter().collect::<String>()) {
            proptest::prop_assert!(line.starts_with("pipeline.yaml:") && line.len() > 20, "{line}");
        }
    }
}
