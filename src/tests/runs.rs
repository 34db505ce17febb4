//! Files and records that a run leaves, also when it fails.

use std::sync::atomic::Ordering;

use kit::Interrupt;

use super::kinds::{KINDS, UNSTABLE};
use super::world::World;
use crate::engine::plan::Selection;
use crate::look::lineage::Lineage;
use crate::progress::RunEvent;
use crate::store::{Attempt, Condition, garbage};

const PIPELINE: &str = "
name: test
stages:
  a: {kind: count, rows: 10}
  b: {kind: shout, from: a, how: {name: loud, marks: 2}, drop: '3'}
";

fn entry_of(world: &World, stage: &str) -> String {
    world.records().latest("test").unwrap().unwrap().stages[stage].entry.clone().unwrap()
}

#[test]
fn a_run_leaves_tables_links_and_a_record() {
    let world = World::new();
    let ran = world.run(PIPELINE);
    ran.result.as_ref().unwrap();
    assert_eq!(ran.states(), "a ran, b ran");
    let texts = world.texts("b", "prompts");
    assert_eq!((texts.len(), texts[0].as_str()), (9, "say 0!!"));
    let link = std::fs::read_link(world.path("work/runs/test/b/prompts")).unwrap();
    assert!(link.starts_with("../../../store"), "{link:?}");
    let record = world.records().read("test", 1).unwrap().unwrap();
    let of_b = &record.stages["b"];
    assert_eq!((of_b.read, of_b.rows, of_b.rejected), (Some(10), Some(9), Some(1)));
    assert_eq!((record.stages["a"].read, record.stages["a"].rows), (None, Some(10)));
    let entry = world.store().entry(&entry_of(&world, "b"));
    assert!(entry.join("manifest.json").is_file() && !entry.join(".work").exists());
    // The manifest holds no times: two work folders have the same bytes.
    let other = World::new();
    other.run(PIPELINE).result.unwrap();
    let manifest =
        |world: &World| std::fs::read(world.store().entry(&entry_of(world, "b")).join("manifest.json")).unwrap();
    assert_eq!(manifest(&world), manifest(&other));
}

#[test]
fn a_file_that_changes_while_it_is_read_makes_no_result() {
    let world = World::new();
    let note = world.path("note.txt");
    let text =
        |how: &str| format!("name: test\nstages:\n  a: {{kind: count, rows: 30, note: \"{}\"{how}}}\n", note.display());
    for (how, code, state) in [("", 74, "a failed"), (", stop_after: 3", 75, "a interrupted")] {
        std::fs::write(&note, "one").unwrap();
        let ran = world.run(&text(&format!(", rewrites_note: true{how}")));
        let text = ran.result.as_ref().unwrap_err().to_string();
        assert_eq!((ran.code(), ran.states().as_str()), (code, state), "{text}");
        let changed = text.contains("note.txt: changed while it was read, nothing was stored; run again");
        assert_eq!(changed, code == 74, "{text}");
        let left = std::fs::read_dir(world.store().folder()).unwrap().count();
        assert_eq!(left, 0, "neither a result nor unfinished work");
    }
    std::fs::write(&note, "one").unwrap();
    let ran = world.run(&text(""));
    assert_eq!(ran.states(), "a ran");
    assert!(ran.said(|event| matches!(event, RunEvent::StageStarted { resumed: false, .. })));
}

#[test]
fn an_interrupted_stage_goes_on_where_it_was() {
    let world = World::new();
    let text = |stop: &str| format!("name: test\nstages:\n  a: {{kind: count, rows: 30{stop}}}\n");
    let ran = world.run(&text(", stop_after: 3"));
    assert_eq!((ran.code(), ran.states()), (75, "a interrupted".to_owned()));
    assert_eq!(
        world.plan(&text(""), &Selection::default()).unwrap(),
        ["a: run: interrupted before; goes on with unfinished work"]
    );
    let resumed = world.run(&text(""));
    assert!(resumed.said(|event| matches!(event, RunEvent::StageStarted { resumed: true, .. })));
    assert!(resumed.heard.iter().any(|(_, event)| format!("{event:?}").contains("3 of 8 shards")));
    let whole = World::new();
    whole.run(&text("")).result.unwrap();
    let manifest = |world: &World| world.store().manifest(&entry_of(world, "a")).unwrap().unwrap();
    assert_eq!(manifest(&world), manifest(&whole));
}

#[test]
fn a_killed_stage_is_distinguished_from_one_at_work() {
    let world = World::new();
    let text = |stop: &str| format!("name: test\nstages:\n  a: {{kind: count, rows: 30{stop}}}\n");
    world.run(&text(", stop_after: 3"));
    // As a killed process leaves its record.
    let (records, plan) = (world.records(), || world.plan(&text(""), &Selection::default()).unwrap());
    let mut record = records.read("test", 1).unwrap().unwrap();
    record.stages.get_mut("a").unwrap().state = crate::store::StageState::Running;
    records.write(&record).unwrap();
    assert_eq!(plan(), ["a: run: was killed before; goes on with unfinished work"]);
    let Attempt::Held(_lock) = crate::store::Lock::attempt(&records.run("test", 1).join(".alive")).unwrap() else {
        panic!("nobody holds it")
    };
    assert_eq!(plan(), ["a: run: another run is at it; goes on with unfinished work"]);
}

#[test]
fn a_signal_stops_between_stages() {
    let world = World::new();
    let interrupt = Interrupt::default();
    interrupt.raise();
    let ran = world.run_with(PIPELINE, Selection::default(), &interrupt).unwrap();
    assert_eq!((ran.code(), ran.states()), (75, "a pending, b pending".to_owned()));
}

#[test]
fn failures_have_their_exit_codes_and_nothing_is_committed() {
    for (misdeed, code, wanted) in [
        ("panicking", 70, "stage `m` panicked: on purpose"),
        ("losing_rows", 70, "the rows of input `from` do not add up: 3 read, 2 kept, 0 rejected"),
        ("forgetting_an_output", 70, "the output `rejects` was not written"),
        ("littering", 70, "`litter` was written and is no output"),
        ("bad_data", 65, "stage `m`: data.jsonl:3: column `x`: broken"),
        ("full_disk", 74, "prompts: no storage space"),
        ("unreachable", 69, "stage `m`: no answer"),
    ] {
        let world = World::new();
        let text =
            format!("name: test\nstages:\n  m: {{kind: misbehave, by: {misdeed}}}\n  a: {{kind: count, rows: 3}}\n");
        let ran = world.run(&text);
        let error = ran.result.as_ref().unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        assert_eq!(ran.code(), code, "{error}");
        // The other branch was running already and is committed.
        assert_eq!(ran.states(), "m failed, a ran");
        let entries = std::fs::read_dir(world.store().folder()).unwrap();
        let entries = entries.filter(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().contains('.'));
        assert_eq!(entries.count(), 1);
        assert!(world.plan(&text, &Selection::default()).unwrap()[0].starts_with("m: run: failed before"));
    }
}

/// Flips a bit as a failing disk does: size and times stay.
fn rot(path: &std::path::Path) {
    let written = path.metadata().unwrap().modified().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
}

#[test]
fn a_bit_that_flips_without_a_trace_is_found_before_a_stage_reads_it() {
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    let a = entry_of(&world, "a");
    let part = world.store().entry(&a).join("prompts/part-00000.parquet");
    let good = std::fs::read(&part).unwrap();
    rot(&part);
    // A bad disk leaves no trace in what `stat` says; that is played by a process that remembers nothing of it.
    std::fs::remove_file(world.path("work/statcache.json")).unwrap();
    // Nothing is read, so nothing is noticed.
    assert_eq!(world.run(PIPELINE).states(), "a reused, b reused");
    let ran = world.run(&PIPELINE.replace("marks: 2", "marks: 3"));
    ran.result.as_ref().unwrap();
    assert!(ran.said(|event| matches!(event, RunEvent::EntryDamaged { entry, .. } if *entry == a)));
    assert_eq!(ran.states(), "a ran, b ran");
    // Each for its own reason, also after `b` had to wait for `a`.
    let why = |stage: &str| ran.record.stages[stage].why.clone().unwrap();
    assert_eq!(why("a"), "its result is damaged");
    assert!(why("b").contains("marks"), "{}", why("b"));
    assert_eq!(std::fs::read(&part).unwrap(), good);
}

#[test]
fn what_verify_finds_damaged_the_next_run_computes_again() {
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    let verify = || {
        crate::cli::verify::verify(&world.path("work"), crate::cli::verify::Verify { pipeline: None, remote: false })
    };
    verify().unwrap();
    let part = world.store().entry(&entry_of(&world, "b")).join("prompts/part-00000.parquet");
    let good = std::fs::read(&part).unwrap();
    rot(&part);
    let error = verify().unwrap_err();
    assert_eq!(crate::exit::code(&error), crate::exit::DATA);
    assert!(error.to_string().contains("prompts/part-00000.parquet has other bytes than were written"), "{error}");
    assert_eq!(world.run(PIPELINE).states(), "a reused, b ran");
    assert_eq!(std::fs::read(&part).unwrap(), good);
    verify().unwrap();
}

#[test]
fn all_that_failed_is_said_and_the_first_decides_the_exit_code() {
    let world = World::new();
    let text = "name: test\nstages:\n  m: {kind: misbehave, by: bad_data}\n  n: {kind: misbehave, by: full_disk}\n";
    let ran = world.run(text);
    let error = ran.result.as_ref().unwrap_err().to_string();
    assert!(error.contains("stage `m`: data.jsonl:3") && error.contains("stage `n`: "), "{error}");
    assert!([65, 74].contains(&ran.code()), "{}", ran.code());
}

#[test]
fn damaged_entries_are_named_set_aside_and_computed_again() {
    let flip = |path: &std::path::Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    let (a, b) = (entry_of(&world, "a"), entry_of(&world, "b"));
    let part = world.store().entry(&a).join("prompts/part-00000.parquet");
    // A flipped bit: size unchanged.
    flip(&part);
    let plan = world.plan(PIPELINE, &Selection::default()).unwrap();
    assert_eq!(
        plan[0],
        format!("a: run: entry {a} is damaged: prompts/part-00000.parquet has other bytes than were written")
    );
    let ran = world.run(PIPELINE);
    assert_eq!(ran.states(), "a ran, b reused");
    assert!(ran.said(|event| matches!(event, RunEvent::EntryDamaged { entry, .. } if *entry == a)));
    assert!(world.store().folder().join(format!("{a}.damaged-1")).is_dir());
    // Without a stat cache the bit is found when the table is about to be read.
    flip(&part);
    std::fs::remove_file(world.path("work/statcache.json")).unwrap();
    std::fs::remove_dir_all(world.store().entry(&b)).unwrap();
    assert_eq!(world.plan(PIPELINE, &Selection::default()).unwrap()[0], "a: reuse");
    let ran = world.run(PIPELINE);
    ran.result.as_ref().unwrap();
    assert_eq!(ran.states(), "a ran, b ran");
    // Torn files, lost files, torn manifests.
    let manifest = world.store().entry(&a).join("manifest.json");
    for damage in [
        &|| std::fs::write(&part, "PAR1").unwrap(),
        &|| std::fs::remove_file(&part).unwrap(),
        &|| std::fs::write(&manifest, "{\"key\":").unwrap(),
        &|| std::fs::remove_file(&manifest).unwrap() as (),
    ] as [&dyn Fn(); 4]
    {
        damage();
        let ran = world.run(PIPELINE);
        ran.result.as_ref().unwrap();
        assert_eq!(ran.states(), "a ran, b reused");
    }
}

#[test]
fn a_forced_attempt_replaces_the_entry_and_tells_what_differs() {
    let world = World::new();
    let text = "name: test\nstages:\n  a: {kind: count, rows: 10, unstable: true}\n  b: {kind: shout, from: a, how: {name: loud, marks: 2}}\n";
    world.run(text).result.unwrap();
    let force = || Selection { force: vec!["a".to_owned()], ..Selection::default() };
    let ran = world.run_with(text, force(), &Interrupt::default()).unwrap();
    assert_eq!(ran.states(), "a ran, b reused");
    assert!(!ran.said(|event| matches!(event, RunEvent::BytesDiffered { .. })));
    UNSTABLE.store(true, Ordering::SeqCst);
    let ran = world.run_with(text, force(), &Interrupt::default()).unwrap();
    UNSTABLE.store(false, Ordering::SeqCst);
    assert!(ran.said(|event| matches!(event, RunEvent::BytesDiffered { ports } if ports == &["prompts"])));
    assert_eq!(ran.states(), "a ran, b ran");
    assert_eq!(world.texts("b", "prompts")[0], "say 1!!");
    // The rows of the first run no longer follow from what the store holds, and that is said.
    let changed = |run: u64| -> Vec<String> {
        let resolved = world.records().run("test", run).join("resolved.yaml");
        std::fs::write(resolved, crate::engine::resolved::yaml(&world.graph(text))).unwrap();
        let record = world.records().read("test", run).unwrap().unwrap();
        let lineage = Lineage::of(&world.store(), &world.records(), &record, KINDS).unwrap();
        lineage.links.into_iter().flat_map(|link| link.changed).collect()
    };
    assert_eq!((changed(1), changed(3)), (vec!["a.prompts".to_owned()], Vec::new()));
    let entry = entry_of(&world, "a");
    assert!(!world.store().partial(&entry, true).exists());
}

#[test]
fn work_that_was_finished_but_not_named_is_kept() {
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    // As after a kill between the manifest and the rename.
    let entry = entry_of(&world, "a");
    std::fs::rename(world.store().entry(&entry), world.store().partial(&entry, false)).unwrap();
    assert_eq!(world.run(PIPELINE).states(), "a reused, b reused");
    // As after a kill while a file of the finished work was written once more.
    std::fs::rename(world.store().entry(&entry), world.store().partial(&entry, false)).unwrap();
    std::fs::write(world.store().partial(&entry, false).join("prompts/.tmp-x"), "half").unwrap();
    assert_eq!(world.run(PIPELINE).states(), "a reused, b reused");
    assert!(!world.store().entry(&entry).join("prompts/.tmp-x").exists());
    // As after a kill while the folder of unfinished work was made.
    std::fs::remove_dir_all(world.store().entry(&entry)).unwrap();
    std::fs::create_dir_all(world.store().partial(&entry, false).join(".work")).unwrap();
    assert_eq!(world.run(PIPELINE).states(), "a ran, b reused");
}

#[test]
fn a_held_lock_is_waited_for_and_its_result_used() {
    let world = World::new();
    let graph = world.graph(PIPELINE);
    let (store, records) = (world.store(), world.records());
    let planner = crate::engine::plan::Planner::new(&graph, &store, &records, None).unwrap();
    let recipe = planner.inputs.recipe(0, &|_| None).unwrap();
    let Attempt::Held(lock) = store.lock(&recipe.entry()).unwrap() else { panic!("nobody holds it") };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.run(PIPELINE));
        std::thread::sleep(std::time::Duration::from_millis(400));
        assert!(matches!(store.condition(&recipe).unwrap(), Condition::Missing));
        assert_eq!(records.latest("test").unwrap().unwrap().stages["a"].state.word(), "running");
        drop(lock);
        let ran = waiting.join().unwrap();
        assert!(ran.said(|event| matches!(event, RunEvent::StageWaited { owner: Some(_) })));
        assert_eq!(ran.states(), "a ran, b ran");
    });
}

#[test]
fn equal_stages_of_one_pipeline_are_made_once() {
    let world = World::new();
    let text = "name: test\nstages:\n  a: {kind: count, rows: 10}\n  same: {kind: count, rows: 10, threads: 3}\n";
    assert_eq!(world.run(text).states(), "a ran, same reused");
}

#[test]
fn gc_keeps_what_the_last_runs_name() {
    let world = World::new();
    let text = |rows: u32| format!("name: test\nstages:\n  a: {{kind: count, rows: {rows}}}\n");
    for rows in 1..=12 {
        world.run(&text(rows)).result.unwrap();
    }
    world.run(&text(1).replace("test", "other")).result.unwrap();
    let (store, records) = (world.store(), world.records());
    std::fs::create_dir_all(store.folder().join("count-0123456789abcdef.partial/.work")).unwrap();
    let whats = |keep: usize| -> Vec<&str> {
        garbage(&store, &records, keep)
            .unwrap()
            .into_iter()
            .map(|garbage| garbage.what)
            .filter(|what| *what != "lock")
            .collect()
    };
    // Entry 1 is named by the other pipeline; entry 2 by nobody that counts.
    let mut found = whats(10);
    found.sort_unstable();
    assert_eq!(found, ["entry", "run record", "run record", "unfinished work"]);
    for item in garbage(&store, &records, 10).unwrap() {
        item.remove().unwrap();
    }
    assert!(whats(10).is_empty());
    for rows in [1, 3, 12] {
        assert_eq!(world.plan(&text(rows), &Selection::default()).unwrap(), ["a: reuse"]);
    }
    assert!(world.plan(&text(2), &Selection::default()).unwrap()[0].starts_with("a: run"));
}

#[test]
fn gc_keeps_what_links_lead_to_and_takes_what_a_killed_force_left() {
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    let b = entry_of(&world, "b");
    let until = || Selection { until: Some("a".to_owned()), ..Selection::default() };
    for _ in 0..11 {
        world.run_with(PIPELINE, until(), &Interrupt::default()).unwrap().result.unwrap();
    }
    let (store, records) = (world.store(), world.records());
    assert!(records.latest("test").unwrap().unwrap().stages["b"].entry.is_none());
    std::fs::create_dir_all(store.partial(&b, true).join(".work")).unwrap();
    let found = || {
        let garbage = garbage(&store, &records, 10).unwrap();
        garbage.into_iter().map(|garbage| garbage.what).filter(|what| *what != "lock").collect::<Vec<_>>()
    };
    let Attempt::Held(lock) = store.lock(&b).unwrap() else { panic!("nobody holds it") };
    assert_eq!(found(), ["run record", "run record"], "somebody is at work on it");
    drop(lock);
    assert_eq!(found(), ["run record", "run record", "unfinished work"]);
    garbage(&store, &records, 10).unwrap().iter().for_each(|garbage| garbage.remove().unwrap());
    assert_eq!(world.plan(PIPELINE, &Selection::default()).unwrap(), ["a: reuse", "b: reuse"]);
}

#[test]
fn a_resolved_pipeline_asks_for_the_same_results() {
    let world = World::new();
    let text = "name: test\nseed: 3\nvars: {n: 4}\nstages:\n  a: {kind: count, rows: '${vars.n}', draws: true}\n  b: {kind: shout, from: a, how: {name: loud, marks: 2}, drop: '$${x}'}\n";
    world.run(text).result.unwrap();
    let resolved = crate::engine::resolved::yaml(&world.graph(text));
    assert_eq!(world.run(&resolved).states(), "a reused, b reused");
}
