//! Pipeline files with a `base`.

use std::path::Path;

use super::kinds::KINDS;
use super::world::World;
use crate::engine::plan::Selection;
use crate::engine::resolved;
use crate::pipeline::Pipeline;
use crate::pipeline::check::check;
use crate::pipeline::graph::Graph;

const BASE: &str = "\
name: test
seed: 17
vars: {few: 3, how: {name: loud}}
stages:
  data: {kind: count, rows: '${vars.few}', draws: true}
  more:
    kind: count
    rows: 4
    start: 2
  loud:
    kind: shout
    from: [data, more]
    how: {<<: '${vars.how}', marks: '${matrix.marks}'}
    matrix: {marks: [1, 2]}
  end: {kind: shout, from: loud, how: {name: loud, marks: 1}}
";

/// A folder with some files.
fn world(files: &[(&str, &str)]) -> World {
    let world = World::new();
    files
        .iter()
        .for_each(|(name, text)| std::fs::write(world.path(name), text.replace("HERE", &here(&world))).unwrap());
    world
}

fn here(world: &World) -> String {
    world.folder.path().display().to_string()
}

/// Findings about a text over the files of a world.
fn findings(world: &World, text: &str, sets: &[&str]) -> Vec<String> {
    let (file, text) = (world.path("p.yaml"), text.replace("HERE", &here(world)));
    std::fs::write(&file, &text).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let problems = match Pipeline::load(&file, &sets) {
        Err(problems) => problems,
        Ok((pipeline, problems)) => check(&pipeline, problems, KINDS).err().unwrap_or_default(),
    };
    problems.iter().map(|problem| problem.line(&file).replace(&format!("{}/", here(world)), "")).collect()
}

fn graph(world: &World, text: &str, sets: &[&str]) -> Graph {
    let found = findings(world, text, sets);
    assert_eq!(found, Vec::<String>::new());
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    crate::pipeline::check::check_file(&world.path("p.yaml"), &sets, KINDS).ok().unwrap()
}

#[test]
fn an_experiment_asks_for_what_one_file_would() {
    let world = world(&[("base.yaml", BASE)]);
    let text = "
name: test
base: HERE/base.yaml
vars: {few: 5}
stages:
  more: {start: null, rows: 6}
  loud:
    matrix: {marks: [2, 3], seed: [1]}
    from: more
  end: null
  late: {kind: shout, from: loud, how: {name: loud, marks: 2}}
";
    let graph = graph(&world, text, &["more.rows=7"]);
    let one_file = BASE
        .replace("few: 3", "few: 5")
        .replace("rows: 4\n    start: 2", "rows: 7")
        .replace("[data, more]", "more")
        .replace("{marks: [1, 2]}", "{marks: [2, 3], seed: [1]}")
        .replace(
            "  end: {kind: shout, from: loud, how: {name: loud, marks: 1}}",
            "  late: {kind: shout, from: loud, how: {name: loud, marks: 2}}",
        );
    assert_eq!(resolved::yaml(&graph), resolved::yaml(&world.graph(&one_file)));
    // A run of either leaves nothing to do for the other, and what a run leaves is whole.
    world.run(&one_file).result.unwrap();
    for text in [&text.replace("HERE", &here(&world)).replace("rows: 6", "rows: 7"), &resolved::yaml(&graph)] {
        let plan = world.plan(text, &Selection::default()).unwrap();
        assert!(plan.len() == 5 && plan.iter().all(|line| line.ends_with(": reuse")), "{plan:?}");
    }
    assert!(!resolved::yaml(&graph).contains("base"));
}

#[test]
fn mappings_merge_and_all_else_replaces() {
    let base = "
name: low
seed: 3
vars: {list: [1, 2], deep: {a: {x: 1, y: 2}, b: 3}, gone: {z: 1}, text: low}
stages:
  a: {kind: count, rows: 1, start: 5}
  b: {kind: shout, from: a, how: {name: loud, marks: 1}}
";
    let middle = "base: HERE/low.yaml\nname: middle\nseed: 4\nvars: {list: [3], deep: {a: {y: 4, w: 5}}, gone: null}\n";
    let world = world(&[("low.yaml", base), ("middle.yaml", middle)]);
    let text = "
name: top
base: HERE/middle.yaml
vars: {deep: {b: {c: 1}}, text: null, new: null}
stages:
  # Another kind is another stage: nothing of the base's is left.
  a: {kind: twins}
  b: {from: a.left, how: {marks: 2}}
  c: {kind: count, rows: 1}
";
    std::fs::write(world.path("p.yaml"), text.replace("HERE", &here(&world))).unwrap();
    let (pipeline, problems) = Pipeline::load(&world.path("p.yaml"), &[]).unwrap();
    assert_eq!(problems, []);
    assert_eq!((pipeline.name.as_str(), pipeline.seed), ("top", Some(4)));
    let vars = pipeline.document.get("vars").unwrap().json();
    let wanted = serde_json::json!({"list": [3], "deep": {"a": {"x": 1, "y": 4, "w": 5}, "b": {"c": 1}}, "new": null});
    assert_eq!(vars, wanted);
    let stages: Vec<(&str, String)> =
        pipeline.stages.iter().map(|stage| (stage.name.as_str(), stage.config.to_string())).collect();
    assert_eq!(
        stages,
        [
            ("a", "{}".to_owned()),
            ("b", r#"{"from":"a.left","how":{"marks":2,"name":"loud"}}"#.to_owned()),
            ("c", r#"{"rows":1}"#.to_owned()),
        ]
    );
}

#[test]
fn findings_stand_in_the_file_that_they_are_about() {
    let base = BASE.replace("rows: 4", "rows: 0\n    rows: 4").replace("start: 2", "strat: 2");
    let world = world(&[("base.yaml", &base)]);
    let text = "
base: HERE/base.yaml
sead: 3
vars: {fwe: 3}
stages:
  loud: {how: {mraks: 1}}
  end: {from: lout}
  late: {rows: 1}
  dat: null
";
    insta::assert_snapshot!(findings(&world, text, &["data.rows=0"]).join("\n"), @r#"
    p.yaml:2:1: `name` is missing; runs are filed under it, so it is not inherited
    p.yaml:3:1: unknown key `sead`; did you mean `seed`?
    p.yaml:6:16: loud: unknown key `mraks`; did you mean `marks`?
    p.yaml:7:15: end: there is no stage `lout`; a path contains a `/`
    p.yaml:8:3: late: `kind` is missing; no base has a stage `late`
    p.yaml:9:3: dat: a stage is a mapping that begins with `kind`; no base has a stage `dat`; did you mean `data`?
    base.yaml:8:11: more: `rows` has to be above 0
    base.yaml:9:5: key `rows` stands twice; first in line 8
    base.yaml:10:5: more: unknown key `strat`; did you mean `start`?
    --set data.rows=0: data: `rows` has to be above 0
    "#);
    let text = "name: x\nbase: HERE/base.yaml\nvars:\nstages:\n  more:\n    # rows: 3\n  loud: {from: }\n  new:\n";
    insta::assert_snapshot!(findings(&world, text, &[]).join("\n"), @r"
    p.yaml:3:1: `vars` is empty: say what is changed in the base's, or `null` to take it away
    p.yaml:5:3: `more` is empty: say what is changed in the base's, or `null` to take it away
    p.yaml:7:10: `from` is empty: say what is changed in the base's, or `null` to take it away
    p.yaml:8:3: new: a stage is a mapping that begins with `kind`; no base has a stage `new`
    base.yaml:8:11: more: `rows` has to be above 0
    base.yaml:9:5: key `rows` stands twice; first in line 8
    base.yaml:10:5: more: unknown key `strat`; did you mean `start`?
    ");
    // A name is each file's own, and the base's mistakes are its own.
    assert_eq!(
        findings(&world, "base: HERE/base.yaml\n", &[])[0],
        "p.yaml:1:1: `name` is missing; runs are filed under it, so it is not inherited"
    );
}

#[test]
fn variables_of_a_base_may_be_there_for_others() {
    let base = BASE.replace("vars: {", "vars: {spare: 1, ");
    let world = world(&[("base.yaml", &base)]);
    let warnings = |text: &str| -> Vec<String> {
        let graph = graph(&world, text, &[]);
        graph.warnings.iter().map(|warning| warning.line(Path::new("p.yaml"))).collect()
    };
    assert_eq!(warnings("name: x\nbase: HERE/base.yaml\nvars: {few: 2}\n"), Vec::<String>::new());
    let own = "name: x\nbase: HERE/base.yaml\nvars: {own: 2, spare: 3}\nstages: {more: {rows: '${vars.spare}'}}\n";
    assert_eq!(warnings(own), ["p.yaml:3:8: nothing uses the variable `own`"]);
}

#[test]
fn a_base_that_cannot_be_read_is_named_where_it_is_asked_for() {
    let files = [
        ("one.yaml", "name: x\nbase: HERE/two.yaml\n"),
        ("two.yaml", "base: HERE/./one.yaml\n"),
        ("self.yaml", "base: HERE/self.yaml\n"),
        ("list.yaml", "[1]"),
        ("broken.yaml", "a: 1\nb: [1\n"),
        ("lost.yaml", "seed: 1\nbase: HERE/nowhere.yaml"),
    ];
    let world = world(&files);
    std::fs::write(world.path("bytes.yaml"), b"a: 1\nb: \xff\n").unwrap();
    std::fs::write(world.path("large.yaml"), " ".repeat((1 << 20) + 1)).unwrap();
    (0..20).for_each(|n| {
        std::fs::write(world.path(&format!("c{n}.yaml")), format!("base: {}/c{}.yaml", here(&world), n + 1)).unwrap();
    });
    for (base, wanted) in [
        ("HERE/one.yaml", "two.yaml:1:7: bases lead back: one.yaml -> two.yaml -> ./one.yaml"),
        ("HERE/self.yaml", "self.yaml:1:7: bases lead back: self.yaml -> self.yaml"),
        ("HERE/p.yaml", "p.yaml:2:7: bases lead back: p.yaml -> p.yaml"),
        ("HERE/c0.yaml", "c15.yaml:1:7: more than 16 bases in a row"),
        ("HERE/list.yaml", "p.yaml:2:7: `list.yaml` is no pipeline file: it holds no mapping"),
        ("HERE/broken.yaml", "broken.yaml:3:1: not YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("HERE/bytes.yaml", "p.yaml:2:7: `bytes.yaml` cannot be read: not UTF-8 in line 2"),
        ("HERE/large.yaml", "p.yaml:2:7: `large.yaml` cannot be read: a pipeline file has at most 1048576 bytes"),
        ("HERE", "p.yaml:2:7: `HERE` cannot be read: HERE is a folder, wanted a file"),
        ("HERE/lost.yaml", "lost.yaml:2:7: there is no file or folder `nowhere.yaml`"),
        ("[HERE/one.yaml]", "p.yaml:2:7: `base` is the path of a pipeline file, got [\"one.yaml\"]"),
        ("", "p.yaml:2:5: `base` is the path of a pipeline file, got null"),
        ("'${env:BASE}'", "p.yaml:2:7: `base` is the path of a pipeline file, got \"${env:BASE}\""),
        // As all paths: from the working folder.
        (
            "one.yaml",
            "p.yaml:2:7: there is no file or folder `one.yaml` in the working folder; there is one beside the pipeline file: run from `HERE`, or write `one.yaml`",
        ),
    ] {
        let found = findings(&world, &format!("name: x\nbase: {base}\n"), &[]);
        let found: Vec<String> = found.iter().map(|line| line.replace(&here(&world), "HERE")).collect();
        assert_eq!(found, [wanted]);
    }
}

#[test]
fn the_pipelines_over_the_quickstart_are_the_quickstart_with_another_objective() {
    let resolved = |name: &str, sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let file = Path::new("pipelines").join(name).with_extension("yaml");
        let graph = crate::pipeline::check::check_file(&file, &sets, crate::kinds::KINDS).ok().unwrap();
        assert_eq!(graph.name, name);
        resolved::yaml(&graph).replace(&format!("name: {name}\nseed"), "seed")
    };
    for name in ["dpo", "cdpo", "gdpo", "rpo"] {
        let (tau, lr) = if name == "rpo" { (", tau: 0.5", "3.0e-4") } else { ("", "4.0e-4") };
        let objective = format!("policy.objective={{name: {name}, beta: 0.5{tau}}}");
        let rate = format!("policy.optimizer.lr={lr}");
        assert_eq!(resolved(name, &[]), resolved("quickstart", &[&objective, &rate]));
    }
    assert!(resolved("rpo-unpaired", &[]).contains("form: unpaired") && resolved("jpo", &[]).contains("joint: 0.4"));
}
