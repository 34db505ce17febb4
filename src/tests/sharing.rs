//! Work folders that share a store: what one computed no other computes again, whatever breaks on the way.

use std::collections::BTreeMap;

use kit::Digest;
use serde_json::Value;

use super::memory::Memory;
use super::world::{RunResult, World};
use crate::engine::plan::Selection;
use crate::exit;
use crate::progress::RunEvent;
use crate::store::{Manifest, Travel, Wrong};

const PIPELINE: &str = "
name: test
stages:
  a: {kind: count, rows: 10}
  b: {kind: shout, from: a, how: {name: loud, marks: 2}, drop: '3'}
  c: {kind: shout, from: b, how: {name: loud, marks: 1}}
";

/// A shared store that one work folder has filled.
fn filled() -> (Memory, World) {
    let remote = Memory::default();
    let world = World::sharing(&remote);
    let ran = world.run(PIPELINE);
    ran.result.as_ref().unwrap();
    assert_eq!(ran.states(), "a ran, b ran, c ran");
    (remote, world)
}

/// The files of a store, with their bytes.
fn results(world: &World) -> BTreeMap<String, Vec<u8>> {
    let folder = world.store().folder();
    let mut files = BTreeMap::new();
    let mut open = vec![folder.clone()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let name = path.strip_prefix(&folder).unwrap().display().to_string();
                    files.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
    }
    files
}

/// All objects but the store's name, which is drawn.
fn content(remote: &Memory) -> BTreeMap<String, Vec<u8>> {
    [remote.objects("data/"), remote.objects("entries/")].into_iter().flatten().collect()
}

/// Every file that a manifest there names is there with its digest.
fn is_whole(remote: &Memory) -> bool {
    let data = remote.objects("data/");
    remote.objects("entries/").values().all(|bytes| {
        let value: Value = serde_json::from_slice(bytes).unwrap();
        let manifest = Manifest::of_value(value, "a manifest").unwrap();
        let mut parts = manifest.ports.values().flat_map(|port| &port.parts);
        parts.all(|part| {
            data.get(&format!("data/{}", part.blake3)).is_some_and(|bytes| Digest::of(bytes) == part.blake3)
        })
    })
}

fn travels(ran: &RunResult) -> Vec<Option<Travel>> {
    ran.record.order.iter().map(|name| ran.record.stages[name].shared.as_ref().map(|shared| shared.1)).collect()
}

#[test]
fn what_one_computed_no_other_computes_again() {
    let alone = World::new();
    alone.run(PIPELINE).result.unwrap();
    let (remote, first) = filled();
    // A shared store is no part of a key, and of no result.
    assert_eq!(results(&first), results(&alone));
    assert!(is_whole(&remote) && remote.objects("entries/").len() == 3);

    let second = World::sharing(&remote);
    let plan = second.plan(PIPELINE, &Selection::default()).unwrap();
    assert_eq!(plan, ["a: reuse (remote)", "b: reuse (remote)", "c: reuse (remote)"]);
    assert_eq!(std::fs::read_dir(second.path("work")).into_iter().count(), 0, "a plan leaves nothing");
    let ran = second.run(PIPELINE);
    ran.result.as_ref().unwrap();
    assert_eq!(
        (ran.states().as_str(), travels(&ran)),
        ("a reused, b reused, c reused", vec![Some(Travel::Fetched); 3])
    );
    assert_eq!(results(&second), results(&alone));
    assert_eq!(second.texts("b", "prompts"), first.texts("b", "prompts"));

    // What is known to be in both places is not asked for: the store's name alone.
    for world in [&first, &second] {
        remote.break_at(None);
        let ran = world.run(PIPELINE);
        assert_eq!((ran.states().as_str(), remote.calls()), ("a reused, b reused, c reused", 1));
        assert_eq!(travels(&ran), vec![Some(Travel::There); 3]);
    }
    // A change is computed on top of what others have.
    let third = World::sharing(&remote);
    let ran = third.run(&PIPELINE.replace("marks: 2", "marks: 3"));
    assert_eq!(ran.states(), "a reused, b ran, c ran");
    assert_eq!(travels(&ran), [Some(Travel::Fetched), Some(Travel::Pushed), Some(Travel::Pushed)]);
}

#[test]
fn results_of_before_are_pushed_and_a_store_that_is_made_anew_is_filled_anew() {
    let world = World::new();
    world.run(PIPELINE).result.unwrap();
    let (remote, again) = (Memory::default(), Memory::default());
    let mut world = World { remote: Some(remote.clone()), ..world };
    for place in [remote, again] {
        world.remote = Some(place.clone());
        let ran = world.run(PIPELINE);
        assert_eq!(
            (ran.states().as_str(), travels(&ran)),
            ("a reused, b reused, c reused", vec![Some(Travel::Pushed); 3])
        );
        assert_eq!(place.objects("entries/").len(), 3);
    }
}

#[test]
fn bytes_that_are_not_those_that_were_pushed_are_never_a_result() {
    let (remote, first) = filled();
    let whole = content(&remote);
    for key in remote.objects("data/").keys() {
        let damages: [&dyn Fn(); 3] = [
            &|| {
                let mut bytes = whole[key].clone();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                remote.set(key, &bytes);
            },
            &|| remote.set(key, &whole[key][1..]),
            &|| remote.remove(key),
        ];
        for damage in damages {
            damage();
            let world = World::sharing(&remote);
            let ran = world.run(PIPELINE);
            ran.result.as_ref().unwrap();
            let named = |event: &RunEvent| matches!(event, RunEvent::SharedResultDamaged { damage, .. } if damage.contains(key));
            assert!(ran.said(named) && ran.states().contains("ran"), "{}", ran.states());
            assert_eq!(results(&world), results(&first));
            // The right bytes went there.
            assert_eq!(content(&remote), whole);
        }
    }
}

#[test]
fn a_manifest_that_is_torn_or_leads_elsewhere_is_no_result() {
    let (remote, first) = filled();
    let entries = remote.objects("entries/");
    let (key, bytes) = entries.iter().find(|(key, _)| key.contains("count")).unwrap();
    let changed = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = Manifest::of_value(serde_json::from_slice(bytes).unwrap(), key).unwrap();
        change(&mut manifest);
        manifest.sealed().to_string().into_bytes()
    };
    let outside = changed(&|manifest| manifest.ports.get_mut("prompts").unwrap().parts[0].file = "../../x".to_owned());
    let other = changed(&|manifest| manifest.recipe.version = "2".to_owned());
    for (wrong, why) in [(&bytes[..bytes.len() - 9], ""), (&outside, "outside its folder"), (&other, "another recipe")]
    {
        remote.set(key, wrong);
        let world = World::sharing(&remote);
        let plan = world.plan(PIPELINE, &Selection::default()).unwrap();
        let said = format!("a: run: never run; the shared store's is damaged: memory://test/{key}");
        assert!(plan[0].starts_with(&said) && plan[0].contains(why), "{plan:?}");
        let ran = world.run(PIPELINE);
        assert!(ran.code() == exit::DATA && ran.states().starts_with("a ran"), "{}", ran.states());
        let error = ran.result.unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("remove that object, and run again"), "{error}");
        remote.remove(key);
        let ran = world.run(PIPELINE);
        assert_eq!(results(&world), results(&first));
        assert_eq!(travels(&ran)[0], Some(Travel::Pushed));
        assert_eq!(remote.objects("entries/")[key], *bytes);
    }
}

#[test]
fn wherever_the_connection_breaks_nothing_half_is_there_and_the_next_run_ends_it() {
    let (whole, first) = filled();
    for after in [false, true] {
        for at in 1.. {
            let remote = Memory::default();
            let world = World::sharing(&remote);
            remote.break_at(Some((at, after)));
            let broken = world.run_with(PIPELINE, Selection::default(), &kit::Interrupt::default());
            let reached = remote.calls() >= at;
            remote.break_at(None);
            assert!(is_whole(&remote), "{at}");
            match broken {
                Err(error) => assert_eq!(exit::code(&error), exit::UNREACHABLE),
                Ok(ran) => assert!([0, exit::UNREACHABLE].contains(&ran.code()), "{at}: {:?}", ran.result),
            }
            world.run(PIPELINE).result.unwrap();
            assert_eq!(content(&remote), content(&whole), "{at}");
            if !reached {
                assert!(at > 10, "{at}");
                break;
            }
        }
    }
    // The same of fetching.
    for at in 1.. {
        let world = World::sharing(&whole);
        whole.break_at(Some((at, false)));
        let broken = world.run_with(PIPELINE, Selection::default(), &kit::Interrupt::default());
        let reached = whole.calls() >= at;
        whole.break_at(None);
        let code = broken.map_or_else(|error| exit::code(&error), |ran| ran.code());
        assert_eq!(code, if reached { exit::UNREACHABLE } else { exit::DONE }, "{at}");
        let ran = world.run(PIPELINE);
        ran.result.as_ref().unwrap();
        assert_eq!((ran.states().as_str(), results(&world)), ("a reused, b reused, c reused", results(&first)));
        if !reached {
            assert!(at > 10, "{at}");
            break;
        }
    }
}

#[test]
fn another_result_of_one_recipe_is_said_loudly_and_changes_nothing() {
    let (remote, _) = filled();
    let entries = remote.objects("entries/");
    let (key, bytes) = entries.iter().find(|(key, _)| key.contains("count")).unwrap();
    for device in ["cpu", "cuda:0"] {
        let mut manifest = Manifest::of_value(serde_json::from_slice(bytes).unwrap(), key).unwrap();
        manifest.device = device.to_owned();
        manifest.ports.get_mut("prompts").unwrap().parts[0].blake3 = Digest::of(b"other");
        remote.set(key, manifest.sealed().to_string().as_bytes());
        let before = content(&remote);
        let world = World::new();
        world.run(PIPELINE).result.unwrap();
        let world = World { remote: Some(remote.clone()), ..world };
        let ran = world.run(PIPELINE);
        let differs =
            ran.said(|event| matches!(event, RunEvent::SharedResultDiffers { ports, .. } if ports == &["prompts"]));
        if device == "cpu" {
            let error = ran.result.as_ref().unwrap_err().to_string();
            assert_eq!(ran.code(), exit::DATA);
            assert!(error.contains("nondeterministic stage") && error.contains("other bytes in prompts"), "{error}");
        } else {
            // Devices agree within a tolerance alone.
            ran.result.as_ref().unwrap();
            assert!(differs);
        }
        assert_eq!(content(&remote), before);
    }
}

#[test]
fn many_that_begin_at_once_agree() {
    let (whole, first) = filled();
    let remote = Memory::default();
    let worlds: Vec<World> = (0..8).map(|_| World::sharing(&remote)).collect();
    std::thread::scope(|scope| {
        for world in &worlds {
            scope.spawn(|| world.run(PIPELINE).result.unwrap());
        }
    });
    assert_eq!(content(&remote), content(&whole));
    assert!(worlds.iter().all(|world| results(world) == results(&first)));
}

#[test]
fn what_is_missing_there_is_found_and_pushed_again() {
    let (remote, world) = filled();
    let whole = content(&remote);
    let store = world.shared_store(crate::store::Access::Look).unwrap();
    let record = world.records().latest("test").unwrap().unwrap();
    let verified = |stage: &str| {
        let manifest = store.manifest(record.stages[stage].entry.as_ref().unwrap()).unwrap().unwrap();
        store.shared().unwrap().verify(&manifest).unwrap()
    };
    assert_eq!(verified("a"), None);
    let entries = remote.objects("entries/");
    let of_a = entries.keys().find(|key| key.contains("count")).unwrap();
    remote.remove(of_a);
    assert_eq!(verified("a"), Some(Wrong::Missing));
    let ran = world.run(PIPELINE);
    assert_eq!(travels(&ran)[0], Some(Travel::Pushed));
    assert_eq!(content(&remote), whole);
}

#[test]
fn a_place_that_holds_something_else_is_no_shared_store() {
    for (name, code) in
        [("{}", exit::DATA), ("x", exit::DATA), ("{\"halftone_store\": 9, \"id\": \"\"}", exit::PIPELINE)]
    {
        let remote = Memory::default();
        remote.set("store.json", name.as_bytes());
        let world = World::sharing(&remote);
        let error = world.run_with(PIPELINE, Selection::default(), &kit::Interrupt::default()).err().unwrap();
        assert_eq!(exit::code(&error), code, "{error}");
        assert!(!world.path("work/store").exists());
    }
}
