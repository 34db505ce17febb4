//! Findings of the check, with their places.

use std::path::Path;

use super::kinds::KINDS;
use crate::pipeline::Pipeline;
use crate::pipeline::check::check;

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
    from: three
    how:
      name: loud
      marks: '${vars.marks}'
      makrs: 2
";
    insta::assert_snapshot!(findings(text).join("\n"), @r"
    pipeline.yaml:2:1: unknown key `sead`; did you mean `seed`?
    pipeline.yaml:6:11: one: unknown kind `cuont`; did you mean `count`?
    pipeline.yaml:8:28: two: `rows` has to be above 0
    pipeline.yaml:11:11: three: `two` has no output `prompt`; did you mean `prompts`?
    pipeline.yaml:12:30: three: got the text `many`, wanted a number
    pipeline.yaml:19:7: four: unknown key `makrs`; did you mean `marks`?
    ");
}

#[test]
fn a_value_of_the_wrong_type_hides_nothing_and_invents_nothing() {
    let text = "\
name: broken
stages:
  a: {kind: count, rows: many, note: ./nowhere.txt}
  b: {kind: count, rows: many, draws: true}
  c: {kind: shout, from: z, how: {name: lout, marks: -1}, extra: ./nowhere}
  d: {kind: shout, from: [a, z], how: {name: loud, marks: -1}, device: 3}
  e: {kind: shout, from: 3, how: {name: loud, marks: -1}, sources: maybe}
  f: {kind: shout, from: a.prompt, how: {name: loud}}
  g: {kind: shout, from: h, how: {name: loud, marks: 1}, drop: 3}
  h: {kind: count, start: 3}
  i: {kind: count, rows: 0, threads: [], note: {}, starts: 4}
";
    insta::assert_snapshot!(findings(text).join("\n"), @r"
    pipeline.yaml:3:26: a: got the text `many`, wanted a whole number
    pipeline.yaml:4:26: b: got the text `many`, wanted a whole number
    pipeline.yaml:5:26: c: there is no stage `z`; did you mean `a`?
    pipeline.yaml:5:41: c: unknown value `lout`; did you mean `loud`?
    pipeline.yaml:5:66: c: there is no file or folder `./nowhere`
    pipeline.yaml:6:30: d: there is no stage `z`; did you mean `a`?
    pipeline.yaml:6:72: d: got the number 3, wanted true or false
    pipeline.yaml:7:26: e: got the number 3, wanted text or a list
    pipeline.yaml:7:68: e: got the text `maybe`, wanted true or false
    pipeline.yaml:8:36: f: `marks` is missing (Number of marks)
    pipeline.yaml:9:64: g: got the number 3, wanted text
    pipeline.yaml:10:3: h: `rows` is missing (Number of rows)
    pipeline.yaml:11:29: i: got a list, wanted a whole number
    pipeline.yaml:11:42: i: got a mapping, wanted text
    pipeline.yaml:11:52: i: unknown key `starts`; did you mean `start`?
    ");
}

/// Replaces the value with a number, counting from 0; false where there are not so many.
fn spoil(value: &mut serde_json::Value, by: &serde_json::Value, left: &mut usize, path: &mut Vec<String>) -> bool {
    let below: Vec<(String, &mut serde_json::Value)> = match value {
        serde_json::Value::Object(map) => map.iter_mut().map(|(key, item)| (key.clone(), item)).collect(),
        serde_json::Value::Array(items) => {
            items.iter_mut().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
        }
        _ if *left == 0 => {
            *value = by.clone();
            return true;
        }
        _ => {
            *left -= 1;
            return false;
        }
    };
    for (key, item) in below {
        path.push(key);
        if spoil(item, by, left, path) {
            return true;
        }
        path.pop();
    }
    false
}

#[test]
fn one_wrong_value_in_a_right_pipeline_is_one_finding() {
    let text = std::fs::read_to_string("pipelines/quickstart.yaml").unwrap();
    let (right, _) = Pipeline::read(Path::new("p"), &text, &[], &|_| None).unwrap();
    let mut document = serde_json::json!({"name": right.name, "seed": right.seed, "stages": {}});
    for stage in right.stages {
        document["stages"][&stage.name] = stage.config;
        document["stages"][&stage.name]["kind"] = stage.kind.into();
    }
    // No key takes the mapping; the text is a right value of some.
    for (by, least) in [(serde_json::json!({"nonsense": [1]}), 1), (serde_json::json!("nonsense"), 0)] {
        let mut number = 0;
        loop {
            let (mut spoilt, mut path) = (document.clone(), Vec::new());
            if !spoil(&mut spoilt["stages"], &by, &mut number.clone(), &mut path) {
                break;
            }
            number += 1;
            // JSON is YAML.
            let (pipeline, problems) = Pipeline::read(Path::new("p"), &spoilt.to_string(), &[], &|_| None).unwrap();
            let found = check(&pipeline, problems, crate::kinds::KINDS).err().unwrap_or_default();
            assert!((least..=1).contains(&found.len()), "{path:?}: {found:#?}");
        }
        assert!(number > 50, "{number}");
    }
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
fn every_circle_is_shown_and_what_hangs_on_one_is_none() {
    let text = "
name: x
stages:
  a: {kind: shout, from: b, how: {name: loud, marks: 1}}
  b: {kind: shout, from: a, how: {name: loud, marks: 1}}
  tail: {kind: shout, from: [b, e], how: {name: loud, marks: 1}}
  end: {kind: shout, from: tail, how: {name: loud, marks: 1}}
  c: {kind: shout, from: [a, e], how: {name: loud, marks: 1}}
  d: {kind: shout, from: c, how: {name: loud, marks: 1}}
  e: {kind: shout, from: d, how: {name: loud, marks: 1}}
";
    assert_eq!(
        findings(text),
        [
            "pipeline.yaml:4:26: a: stages wait for each other: a -> b -> a",
            "pipeline.yaml:8:20: c: stages wait for each other: c -> d -> e -> c",
        ]
    );
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
    // A wrong seed is one mistake.
    let text = "name: x\nseed: -1\nstages:\n  a: {kind: count, rows: 1, draws: true}\n";
    assert_eq!(findings(text), ["pipeline.yaml:2:7: `seed` is a whole number from 0 up, got -1"]);
}

#[test]
fn files_that_a_configuration_names_have_to_be_there() {
    let text = "name: x\nstages:\n  a:\n    kind: count\n    rows: 1\n    note: ./nowhere.txt\n";
    assert_eq!(findings(text), ["pipeline.yaml:6:11: a: there is no file or folder `./nowhere.txt`"]);
}

#[test]
fn a_key_that_stands_twice_hides_nothing() {
    let text =
        "name: x\nstages:\n  a: {kind: count, rows: 1, rows: 2}\n  b: {kind: count, rows: 0}\n  a: {kind: count}\n";
    assert_eq!(
        findings(text),
        [
            "pipeline.yaml:3:29: key `rows` stands twice; first in line 3",
            "pipeline.yaml:4:26: b: `rows` has to be above 0",
            "pipeline.yaml:5:3: key `a` stands twice; first in line 3",
        ]
    );
    let text = "name: x\nstages:\n  a: {kind: count, rows: 1}\n";
    assert_eq!(
        findings_with(text, &["a.note={x: 1, x: 2}"]),
        ["--set a.note={x: 1, x: 2}: key `x` stands twice; first in line 1"]
    );
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
