//! Stages that run again, and the reasons.

use kit::Interrupt;

use super::world::World;
use crate::engine::plan::Selection;

const PIPELINE: &str = "
name: test
seed: 17
stages:
  a: {kind: count, rows: 10}
  b: {kind: shout, from: a, how: {name: loud, marks: 2}}
  c: {kind: shout, from: b, how: {name: loud, marks: 1}}
";

fn plan(world: &World, text: &str) -> Vec<String> {
    world.plan(text, &Selection::default()).unwrap()
}

#[test]
fn what_did_not_change_is_used_again() {
    let world = World::new();
    assert_eq!(plan(&world, PIPELINE), ["a: run: never run", "b: depends on a", "c: depends on b"]);
    world.run(PIPELINE).result.unwrap();
    assert_eq!(plan(&world, PIPELINE), ["a: reuse", "b: reuse", "c: reuse"]);
    // Comments, order of keys, names of stages and of the pipeline, and execution-only keys decide nothing.
    let renamed = "
# a comment
stages:
  first: {rows: 10, threads: 7, kind: count}
  second: {how: {marks: 2.0, name: loud}, from: first.prompts, kind: shout}
seed: 17
name: other
";
    assert_eq!(plan(&world, renamed), ["first: reuse", "second: reuse"]);
    // Nothing draws, so the seed decides nothing.
    assert_eq!(plan(&world, &PIPELINE.replace("17", "18")), ["a: reuse", "b: reuse", "c: reuse"]);
}

#[test]
fn reasons_name_what_changed() {
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    assert_eq!(
        plan(&world, &PIPELINE.replace("marks: 2", "marks: 3")),
        ["a: reuse", "b: run: config `how.marks` changed 2.0 -> 3.0", "c: depends on b"]
    );
    let draws = PIPELINE.replace("rows: 10", "rows: 10, draws: true");
    assert_eq!(plan(&world, &draws)[0], "a: run: config `draws` changed false -> true; seed changed none -> 17");
    let other = PIPELINE.replace("from: a", "from: d").replace("stages:", "stages:\n  d: {kind: count, rows: 11}");
    world.run(&other.replace("marks: 2", "marks: 9")).result.unwrap();
    std::fs::remove_dir_all(world.path("work/runs")).unwrap();
    world.run(PIPELINE).result.unwrap();
    assert_eq!(plan(&world, &other)[2], "b: run: input `from` changed");
}

#[test]
fn files_count_by_content() {
    let world = World::new();
    let note = world.path("note.txt");
    std::fs::write(&note, "one").unwrap();
    let text = format!("name: test\nstages:\n  a: {{kind: count, rows: 3, note: {}}}\n", note.display());
    world.run(&text).result.unwrap();
    std::fs::write(&note, "one").unwrap();
    assert_eq!(plan(&world, &text), ["a: reuse"]);
    std::fs::write(&note, "two").unwrap();
    assert_eq!(plan(&world, &text), [format!("a: run: file `{}` changed", note.display())]);
}

#[test]
fn equal_bytes_upstream_leave_downstream_alone() {
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    // `drop` matches no row: b runs again and gives the same bytes.
    let dropping = PIPELINE.replace("marks: 2}}", "marks: 2}, drop: zzz}");
    assert_eq!(plan(&world, &dropping), ["a: reuse", "b: run: config `drop` changed none -> zzz", "c: depends on b"]);
    assert_eq!(world.run(&dropping).states(), "a reused, b ran, c reused");
}

#[test]
fn a_table_given_by_path_counts_by_content() {
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    let copy = world.path("copy");
    std::fs::create_dir(&copy).unwrap();
    let from = world.records().link_path("test", "a", "prompts");
    for part in kit::parts_of(&from).unwrap() {
        std::fs::copy(&part, copy.join(part.file_name().unwrap())).unwrap();
    }
    let text = PIPELINE.replace("from: a,", &format!("from: {},", copy.display()));
    assert_eq!(plan(&world, &text), ["a: reuse", "b: reuse", "c: reuse"]);
}

#[test]
fn idle_inputs_decide_nothing_and_what_feeds_only_them_is_skipped() {
    let world = World::new();
    let text = |how: &str| {
        format!(
            "name: test\nstages:\n  a: {{kind: count, rows: 3}}\n  x: {{kind: count, rows: 5}}\n  y: {{kind: shout, from: x, how: {{name: loud, marks: 1}}}}\n  b: {{kind: shout, from: a, extra: y, how: {how}}}\n"
        )
    };
    let (loud, extra) = (text("{name: loud, marks: 1}"), text("{name: extra, factor: 2}"));
    assert_eq!(
        plan(&world, &loud),
        [
            "a: run: never run",
            "x: skip: it feeds only `y`, which is skipped",
            "y: skip: `b` does not read `extra`: `loud` does not look at it",
            "b: depends on a"
        ]
    );
    assert_eq!(world.run(&loud).states(), "a ran, x skipped, y skipped, b ran");
    assert_eq!(world.run(&extra).states(), "a reused, x ran, y ran, b ran");
    assert_eq!(world.texts("b", "prompts")[0], "say 010");
    // And back again nothing runs.
    assert_eq!(world.run(&loud).states(), "a reused, x skipped, y skipped, b reused");
    // By name, a skipped stage can be had all the same.
    let until = Selection { until: Some("y".to_owned()), ..Selection::default() };
    assert_eq!(world.plan(&loud, &until).unwrap()[1..3], ["x: reuse", "y: reuse"]);
}

#[test]
fn selections_mean_what_they_say() {
    let world = World::new();
    let select = |only: &str, from: &str, until: &str| {
        let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Selection { only: some(only), from: some(from), until: some(until), ..Selection::default() }
    };
    assert_eq!(
        world.plan(PIPELINE, &select("", "", "b")).unwrap(),
        ["a: run: never run", "b: depends on a", "c: skip: not selected"]
    );
    let refused = world.plan(PIPELINE, &select("b", "", "")).unwrap_err();
    assert_eq!(crate::exit::code(&refused), crate::exit::PIPELINE);
    assert_eq!(refused.to_string(), "stage `a` has no result (run: never run); run it first");
    world.run(PIPELINE).result.unwrap();
    let changed = PIPELINE.replace("rows: 10", "rows: 11").replace("marks: 1", "marks: 5");
    let refused = world.plan(&changed, &select("", "b", "")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "stage `a` would not be reused (run: config `rows` changed 10 -> 11); run it first, or take its latest result with --stale"
    );
    assert_eq!(
        world.plan(&changed, &select("c", "", "")).unwrap_err().to_string(),
        "stage `b` would not be reused (a: run: config `rows` changed 10 -> 11); run it first, or take its latest result with --stale"
    );
    let stale = Selection { stale: true, ..select("", "b", "") };
    let ran = world.run_with(&changed, stale, &Interrupt::default()).unwrap();
    assert_eq!(ran.states(), "a stale, b reused, c ran");
    assert_eq!(ran.record.stages["a"].why.as_deref(), Some("run: config `rows` changed 10 -> 11"));
    assert_eq!(world.texts("c", "prompts").len(), 10);
    assert_eq!(world.plan(PIPELINE, &select("b", "", "")).unwrap(), ["a: reuse", "b: reuse", "c: skip: not selected"]);
    let force = Selection { force: vec!["c".to_owned()], ..select("b", "", "") };
    assert_eq!(world.plan(PIPELINE, &force).unwrap_err().to_string(), "--force c: the selection leaves it out");
    let unknown = world.plan(PIPELINE, &select("bb", "", "")).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no stage `bb`; did you mean `b`?");
    assert_eq!(crate::exit::code(&unknown), crate::exit::USAGE);
}

#[test]
fn a_selection_that_chooses_nothing_is_refused() {
    let world = World::new();
    let select = |from: &str, until: &str| Selection {
        from: Some(from.to_owned()),
        until: Some(until.to_owned()),
        ..Selection::default()
    };
    let refused = world.plan(PIPELINE, &select("c", "a")).unwrap_err();
    assert_eq!(refused.to_string(), "--from c --until a chooses no stage: `a` needs nothing of `c`");
    assert_eq!(crate::exit::code(&refused), crate::exit::USAGE);
    assert_eq!(
        world.plan(PIPELINE, &select("a", "b")).unwrap(),
        ["a: run: never run", "b: depends on a", "c: skip: not selected"]
    );
}

#[test]
fn a_result_from_before_an_attempt_that_came_to_nothing_can_be_taken() {
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    let stopped = PIPELINE.replace("rows: 10", "rows: 30, stop_after: 2");
    assert_eq!(world.run(&stopped).code(), crate::exit::AGAIN);
    let only = |stale: bool| Selection { only: Some("b".to_owned()), stale, ..Selection::default() };
    let refused = world.plan(&stopped, &only(false)).unwrap_err().to_string();
    assert_eq!(
        refused,
        "stage `a` would not be reused (run: interrupted before; goes on with unfinished work); run it first, or take its latest result with --stale"
    );
    let ran = world.run_with(&stopped, only(true), &Interrupt::default()).unwrap();
    ran.result.as_ref().unwrap();
    assert_eq!(ran.states(), "a stale, b reused, c skipped");
}

#[test]
fn a_damaged_result_is_not_offered() {
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    let part = kit::parts_of(&world.records().link_path("test", "a", "prompts")).unwrap().remove(0);
    std::fs::write(part, "PAR1").unwrap();
    for stale in [false, true] {
        let only = Selection { only: Some("b".to_owned()), stale, ..Selection::default() };
        let refused = world.plan(PIPELINE, &only).unwrap_err().to_string();
        assert!(refused.starts_with("stage `a` has no result (run: entry count-"), "{refused}");
        assert!(refused.contains("is damaged: prompts/part-00000.parquet has 4 bytes"), "{refused}");
        assert!(refused.ends_with("; run it first"), "{refused}");
    }
}
