//! Stages with a `matrix`.

use super::findings::findings;
use super::world::World;
use crate::engine::plan::Selection;
use crate::pipeline::graph::{Graph, Origin};

const GRID: &str = "
name: test
seed: 17
vars: {few: 3}
stages:
  data: {kind: count, rows: '${vars.few}', draws: true, seed: '${matrix.seed}', matrix: {seed: [1, 2]}}
  policy:
    kind: shout
    from: data
    how: {<<: '${matrix.how}', marks: '${matrix.marks}'}
    matrix:
      marks: [0.5, 2]
      how: {soft: {name: loud}}
      seed: [1, 2]
  all: {kind: shout, from: policy.prompts, how: {name: loud, marks: 1}}
  mixed: {kind: shout, from: [data, policy@0.5-soft-2, policy@2-soft-1.prompts], how: {name: loud, marks: 1}}
";

/// `stage <- its sources` of every stage.
fn wiring(graph: &Graph) -> Vec<String> {
    let name = |origin: &Origin| match origin {
        Origin::Port { stage, port, .. } => format!("{}.{port}", graph.nodes[*stage].name),
        Origin::Path { path, .. } => path.display().to_string(),
        Origin::Hub { name } => name.to_string(),
    };
    let line = |node: &crate::pipeline::graph::Node| {
        let sources: Vec<String> = node.inputs.iter().flat_map(|edge| edge.sources.iter().map(name)).collect();
        format!("{} <- {}", node.name, sources.join(" "))
    };
    graph.nodes.iter().map(line).collect()
}

#[test]
fn combinations_have_readable_names_and_same_axes_line_up() {
    let graph = World::new().graph(GRID);
    insta::assert_snapshot!(wiring(&graph).join("\n"), @r"
    data@1 <- 
    data@2 <- 
    policy@0.5-soft-1 <- data@1.prompts
    policy@0.5-soft-2 <- data@2.prompts
    policy@2-soft-1 <- data@1.prompts
    policy@2-soft-2 <- data@2.prompts
    all <- policy@0.5-soft-1.prompts policy@0.5-soft-2.prompts policy@2-soft-1.prompts policy@2-soft-2.prompts
    mixed <- data@1.prompts data@2.prompts policy@0.5-soft-2.prompts policy@2-soft-1.prompts
    ");
    assert_eq!(graph.nodes[2].settings["how"], serde_json::json!({"name": "loud", "marks": 0.5}));
    let seeds: Vec<_> = graph.nodes.iter().map(|node| node.seed).collect();
    assert_eq!(seeds[..3], [Some(1), Some(2), Some(17)]);
}

#[test]
fn a_run_of_a_matrix_runs_each_stage_once_with_its_own_values_and_seed() {
    let world = World::new();
    let ran = world.run(GRID);
    assert_eq!(ran.code(), 0);
    assert_eq!(ran.record.order.len(), 8);
    assert_eq!(world.texts("data@2", "prompts"), ["say 2", "say 3", "say 4"]);
    assert_eq!(world.texts("policy@2-soft-1", "prompts")[0], "say 1!!");
    assert_eq!(world.texts("all", "prompts").len(), 12);
    // Nothing runs again; with one more value only what is new and what reads all of them.
    assert!(world.plan(GRID, &Selection::default()).unwrap().iter().all(|line| line.ends_with(": reuse")));
    let more = GRID.replace("marks: [0.5, 2]", "marks: [0.5, 2, 3]");
    let plan = world.plan(&more, &Selection::default()).unwrap();
    let running: Vec<&str> =
        plan.iter().filter(|line| !line.ends_with("reuse")).map(|line| &line[..line.find(':').unwrap()]).collect();
    assert_eq!(running, ["policy@3-soft-1", "policy@3-soft-2", "all"]);
    // The name of the matrix stands for all its stages.
    let until = Selection { until: Some("policy".to_owned()), ..Selection::default() };
    let skipped = world.plan(&more, &until).unwrap();
    assert_eq!(skipped.iter().filter(|line| line.contains("skip")).count(), 2, "{skipped:?}");
}

#[test]
fn the_name_of_a_matrix_chooses_all_its_stages() {
    let world = World::new();
    world.run(GRID).result.unwrap();
    let states = |selection: Selection| {
        let ran = world.run_with(GRID, selection, &kit::Interrupt::default()).unwrap();
        ran.result.as_ref().unwrap();
        let all =
            ran.record.order.iter().map(|name| (name.split('@').next().unwrap(), ran.record.stages[name].state.word()));
        let mut counted = std::collections::BTreeMap::new();
        all.for_each(|(name, state)| *counted.entry(format!("{name} {state}")).or_insert(0) += 1);
        counted.into_iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    };
    let some = |name: &str| Some(name.to_owned());
    let policy = || vec!["policy".to_owned()];
    for (selection, wanted) in [
        (
            Selection { force: policy(), ..Selection::default() },
            "1 all reused, 2 data reused, 1 mixed reused, 4 policy ran",
        ),
        (
            Selection { force: vec!["policy@2-soft-1".to_owned()], ..Selection::default() },
            "1 all reused, 2 data reused, 1 mixed reused, 1 policy ran, 3 policy reused",
        ),
        (
            Selection { only: some("policy"), force: policy(), ..Selection::default() },
            "1 all skipped, 2 data reused, 1 mixed skipped, 4 policy ran",
        ),
        (
            Selection { from: some("policy"), force: policy(), ..Selection::default() },
            "1 all reused, 2 data reused, 1 mixed reused, 4 policy ran",
        ),
        (
            Selection { until: some("policy"), force: vec!["data".to_owned()], ..Selection::default() },
            "1 all skipped, 2 data ran, 1 mixed skipped, 4 policy reused",
        ),
    ] {
        assert_eq!(states(selection), wanted);
    }
    let misspelt = Selection { force: vec!["polcy".to_owned()], ..Selection::default() };
    let error = world.plan(GRID, &misspelt).unwrap_err().to_string();
    assert_eq!(error, "there is no stage `polcy`; did you mean `policy`?");
}

#[test]
fn a_resolved_matrix_asks_for_the_same_results() {
    let world = World::new();
    world.run(GRID);
    let resolved = crate::engine::resolved::yaml(&world.graph(GRID));
    assert!(
        world.plan(&resolved, &Selection::default()).unwrap().iter().all(|line| line.ends_with(": reuse")),
        "{resolved}"
    );
}

#[test]
fn the_values_of_an_axis_may_name_other_axes() {
    let text = "
name: test
vars: {dots: '${matrix.marks}'}
stages:
  data: {kind: count, rows: 2}
  policy:
    kind: shout
    from: data
    drop: '${matrix.how.text}'
    how: '${matrix.how.how}'
    matrix:
      marks: [0.5, 2]
      how:
        soft: {how: {name: loud, marks: '${matrix.marks}'}, text: '$${matrix.x} $${x} ${matrix.marks}'}
        hard: {how: {name: loud, marks: '${vars.dots}'}, text: '${matrix.word}'}
      word: {one: 'w${matrix.marks}'}
";
    let graph = World::new().graph(&text.replace("vars: {dots: '${matrix.marks}'}", "vars: {dots: 7}"));
    let settings = |name: &str| graph.nodes[graph.find(name).unwrap()].settings.clone();
    let soft = settings("policy@2-soft-one");
    assert_eq!(soft["how"], serde_json::json!({"name": "loud", "marks": 2.0}));
    assert_eq!(soft["drop"], "${matrix.x} ${x} 2");
    let hard = settings("policy@0.5-hard-one");
    assert_eq!((&hard["how"]["marks"], &hard["drop"]), (&serde_json::json!(7.0), &serde_json::json!("w0.5")));

    let wrong = "
name: test
stages:
  data: {kind: count, rows: 2}
  one: {kind: shout, from: data, how: '${matrix.a}', matrix: {a: {x: {name: loud, marks: '${matrix.b}'}}, b: {y: '${matrix.a}'}}}
  two: {kind: shout, from: data, how: '${matrix.a}', matrix: {a: {x: {name: loud, marks: '${matrix.bb}'}}, b: [1]}}
  three: {kind: shout, from: data, how: {name: loud, marks: '${matrix.a}'}, matrix: {a: ['${matrix.b}'], b: [1]}}
";
    insta::assert_snapshot!(findings(wrong).join("\n"), @r"
    pipeline.yaml:5:39: one: axis `a` leads back to itself
    pipeline.yaml:6:39: two: unknown axis `bb`; did you mean `b`?
    pipeline.yaml:7:86: three: `${matrix.b}` names another axis, so it needs a label of its own: `{label: value}`
    ");
}

#[test]
fn what_is_wrong_with_a_matrix_has_a_place_and_is_said_once() {
    let text = "\
name: test
stages:
  data: {kind: count, rows: 3, matrix: {seed: [1, 2]}}
  one:
    kind: shout
    matrix: {marks: [1, -2, -3], seed: [2, 3]}
    from: data
    how: {name: loud, marks: '${matrix.mark}'}
  two:
    kind: shout
    matrix: {marks: [1, -2]}
    from: data@7
    how: {name: loud, marks: '${matrix.marks}'}
  three: {kind: count, matrix: {a: [], b: 3, c: [1, 1]}, rows: 1}
  four: {kind: shout, from: three, how: {name: loud, marks: '${matrix.marks}'}}
  five: {kind: count, rows: 1, seed: 3}
  six: {kind: count, matrix: [1], rows: 1}
  seven: {kind: count, matrix: [{a: [1], b: [2, 3]}, {b: [2], a: [1]}], rows: 1}
  eight: {kind: count, matrix: [{a: [1], b: [2]}, {a: [1]}], rows: 1}
  nine: {kind: count, matrix: {a: [1, 2]}, rows: 1, seed: '${matrix.a}'}
";
    insta::assert_snapshot!(findings(text).join("\n"), @r"
    pipeline.yaml:7:11: one: `data` has no `3` on its axis `seed`; it has `1`, `2`
    pipeline.yaml:8:30: one: unknown axis `mark`; did you mean `marks`?
    pipeline.yaml:12:11: two: there is no stage `data@7`; did you mean `data@1`?
    pipeline.yaml:13:30: two: `marks` is below 0
    pipeline.yaml:14:33: three: axis `a` has no values, so there is no stage
    pipeline.yaml:14:43: three: an axis is a list of values or a mapping of labels to values, got 3
    pipeline.yaml:14:46: three: axis `c` has the label `1` twice
    pipeline.yaml:15:61: four: `${matrix.marks}` stands in a stage without `matrix`
    pipeline.yaml:16:38: five: without effect: `count` draws nothing at random with these values
    pipeline.yaml:17:31: six: `matrix` is a mapping of axes to their values: `{objective: [dpo, gdpo]}`, or a list of such
    pipeline.yaml:18:24: seven: `seven@1-2` stands for two combinations; give the values other labels
    pipeline.yaml:19:51: eight: has the axes a, and the first a, b
    pipeline.yaml:20:59: nine: without effect: no stage of the matrix draws anything at random
    ");
}

#[test]
fn a_list_of_matrices_gives_the_combinations_of_each() {
    let text = "
name: test
seed: 17
stages:
  data: {kind: count, rows: 3, matrix: [{b: [x, y], a: [1, 2]}, {a: [3], b: [z]}], start: '${matrix.a}'}
  some: {kind: shout, from: data, how: {name: loud, marks: 1}, matrix: {a: [1, 3]}}
";
    insta::assert_snapshot!(wiring(&World::new().graph(text)).join("\n"), @r"
    data@x-1 <- 
    data@x-2 <- 
    data@y-1 <- 
    data@y-2 <- 
    data@z-3 <- 
    some@1 <- data@x-1.prompts data@y-1.prompts
    some@3 <- data@z-3.prompts
    ");
}

#[test]
fn labels_stand_in_the_order_of_a_list_of_all() {
    let text = "
name: test
stages:
  data: {kind: count, rows: 3, matrix: {b: [x, y], a: [1, 2]}, start: '${matrix.a}'}
  all: {kind: shout, from: data, how: {name: loud, marks: 1}, drop: '${labels.dat}'}
";
    let found = findings(text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("there is no stage `dat` with a `matrix`; did you mean `data`?"), "{found:?}");
    let (pipeline, problems) = crate::pipeline::Pipeline::read(
        "p".as_ref(),
        &text.replace("'${labels.dat}'", "['${labels.data[b=y]}', '${labels.data}']"),
        &[],
        &|_| None,
    )
    .unwrap();
    assert_eq!(problems, []);
    let (x, y) = (|a: &str| serde_json::json!({"b": "x", "a": a}), |a: &str| serde_json::json!({"b": "y", "a": a}));
    assert_eq!(pipeline.stages[4].config["drop"], serde_json::json!([y("1"), y("2"), x("1"), x("2"), y("1"), y("2")]));
}

#[test]
fn brackets_choose_some_stages_of_a_matrix() {
    let text = "
name: test
stages:
  data: {kind: count, rows: 3, matrix: {b: [x, y], a: [1, 2, 3]}, start: '${matrix.a}'}
  some: {kind: shout, from: 'data[b=y, a=1|3].prompts', how: {name: loud, marks: 1}}
  lined: {kind: shout, from: 'data[a=2|3]', how: {name: loud, marks: 1}, matrix: {b: [x]}}
";
    let graph = World::new().graph(text);
    assert_eq!(
        wiring(&graph)[6..],
        ["some <- data@y-1.prompts data@y-3.prompts", "lined@x <- data@x-2.prompts data@x-3.prompts"]
    );
    for (wrong, wanted) in [
        ("data[b=z]", "`data` has no `z` on its axis `b`"),
        ("data[c=z]", "`data` has no axis `c`"),
        ("data[b", "write `data[axis=label|label, axis=label]`"),
        ("data[b=y]prompts", "write `data["),
        ("dat[b=y]", "`dat` is no stage with a `matrix` to choose from"),
    ] {
        let found = findings(&text.replace("data[b=y, a=1|3].prompts", wrong));
        assert!(found.len() == 1 && found[0].contains("yaml:5:29: some: ") && found[0].contains(wanted), "{found:?}");
    }
}
