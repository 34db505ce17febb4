//! A shared store in a folder.

use harness::{Project, ran, states, stderr};

use crate::{RUN, TABLES, all, machine};

/// A folder for shared stores, and the address of one.
pub fn place() -> (Project, String) {
    let place = Project::new(&[]);
    std::fs::create_dir(place.path("shared")).unwrap();
    let address = format!("file://{}", place.path("shared").display());
    (place, address)
}

#[test]
fn a_new_machine_computes_nothing_again() {
    let (place, address) = place();
    let first = machine(TABLES, &address, 300);
    let output = first.halftone(&RUN);
    assert_eq!(ran(&output).len(), 4, "{}", stderr(&output));

    let second = machine(TABLES, &address, 300);
    let plan = second.done(&["plan", "pipeline.yaml"]);
    assert_eq!(plan.matches("reuse (remote)").count(), 4, "{plan}");
    let plan: serde_json::Value = serde_json::from_str(&second.done(&["plan", "pipeline.yaml", "--json"])).unwrap();
    assert_eq!((&plan["stages"][0]["decision"], &plan["remote"]), (&"fetch".into(), &address.as_str().into()));
    assert!(second.done(&["dag", "pipeline.yaml"]).contains("reuse (remote), "));
    let output = second.halftone(&RUN);
    assert!(states(&output).values().all(|state| *state == "reused"), "{}", all(&output));
    assert_eq!(second.store(".halftone"), first.store(".halftone"));
    let status = second.done(&["status"]);
    assert!(status.contains(&format!("{address}: 4 fetched")), "{status}");
    assert!(second.done(&["run", "pipeline.yaml"]).contains(&format!("{address}: 4 there before")));

    // The record of a run asks for the same store again.
    let resolved = std::fs::read_to_string(second.path(".halftone/runs/shared/1/resolved.yaml")).unwrap();
    assert!(resolved.contains(&address), "{resolved}");
    let verified = second.done(&["verify", "--remote"]);
    assert!(verified.contains(&format!("{address}: 4 entries are there as here")), "{verified}");
    let before = place.store(".").len();
    let gone = second.done(&["gc", "--keep", "0"]);
    assert!(gone.contains(&format!("{address} is left as it is")) && place.store(".").len() == before, "{gone}");

    // Without the shared store the keys are the same; another value of it is no change of a stage.
    let output = second.halftone(&[&RUN[..], &["--set", "store=null"]].concat());
    assert!(states(&output).values().all(|state| *state == "reused"), "{}", all(&output));
}

#[test]
fn what_is_damaged_there_is_computed_here_and_mended() {
    let (place, address) = place();
    machine(TABLES, &address, 300).halftone(&RUN);
    let objects = place.files("shared/data", "");
    assert!(objects.len() >= 6, "{objects:?}");
    for name in objects {
        let good = std::fs::read(place.path(&name)).unwrap();
        let mut bytes = good.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        place.write(&name, "");
        std::fs::write(place.path(&name), &bytes).unwrap();
        let machine = machine(TABLES, &address, 300);
        let output = machine.halftone(&["run", "pipeline.yaml"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let said = stderr(&output);
        assert!(
            said.contains("has other bytes than were pushed); computed again") && said.contains(&name[7..]),
            "{said}"
        );
        assert_eq!(std::fs::read(place.path(&name)).unwrap(), good, "{name} was not mended");
    }
}

#[test]
fn two_that_begin_at_once_agree() {
    let (place, address) = place();
    let machines = [(); 3].map(|()| machine(TABLES, &address, 300));
    let started: Vec<_> = machines.iter().map(|machine| machine.command(&RUN).spawn().unwrap()).collect();
    for child in started {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", all(&output));
    }
    assert_eq!(place.files("shared/entries", ".json").len(), 4);
    assert!(machines.iter().all(|machine| machine.store(".halftone") == machines[0].store(".halftone")));
}

#[test]
fn a_share_that_is_not_mounted_ends_a_run_before_it_begins() {
    let machine = machine(TABLES, "file:///no/such/share", 30);
    for command in ["run", "plan", "dag"] {
        let said = machine.fails(&[command, "pipeline.yaml"], 69);
        assert!(said.contains("file:///no/such/share cannot be reached: there is no such folder"), "{said}");
    }
    assert!(!machine.path(".halftone/store").exists());
}

#[test]
fn wrong_addresses_are_findings() {
    for (store, wanted) in [
        ("{remote: ftp://x}", "no address of a shared store: wanted `s3://bucket/prefix`"),
        ("{remote: \"s3://key:sesame@b\"}", "keys come from the environment alone"),
        ("{remot: s3://b}", "unknown key `remot`; did you mean `remote`?"),
        ("{}", "`remote` is missing"),
        ("s3://b", "`store` is a mapping"),
        ("{remote: 3}", "`remote` is an address, got 3"),
    ] {
        let machine = machine(TABLES, "x", 3);
        machine.write("pipeline.yaml", &format!("store: {store}\n{TABLES}"));
        let said = machine.fails(&["check", "pipeline.yaml"], 78);
        assert!(said.contains(wanted) && said.contains("pipeline.yaml:1:") && !said.contains("sesame"), "{said}");
    }
}

/// Shards of a stage on a machine that has nothing yet: their inputs are fetched.
#[test]
fn shards_fetch_what_they_read() {
    let pipeline = "\
name: shared
seed: 17
stages:
  world: {kind: sandbox, mode: world, prompts: 16, holdout_prompts: 4, demonstrations: 32, judge_rows: 32, model: {width: 16, layers: 1, heads: 2}}
  samples: {kind: sample, from: world.prompts, model: world.model, k: 2, temperature: 1.0, max_tokens: 4, shard_rows: 4}
";
    let (_place, address) = place();
    let first = machine(pipeline, &address, 0);
    first.done(&["run", "pipeline.yaml", "--until", "world"]);
    let second = machine(pipeline, &address, 0);
    let shard = ["shard", "pipeline.yaml", "--stage", "samples", "--shards", "0/2"];
    let said = second.done(&shard);
    assert!(said.contains("2 of 4 shards are there, 2 of them computed now"), "{said}");
    let output = second.halftone(&[&RUN[..], &["--jobs", "2"]].concat());
    assert_eq!(ran(&output).into_iter().collect::<Vec<_>>(), ["samples"], "{}", all(&output));
    let third = machine(pipeline, &address, 0);
    assert!(third.done(&shard).contains("the shared store has its whole result"));
    assert!(states(&third.halftone(&RUN)).values().all(|state| *state == "reused"));
    assert_eq!(third.store(".halftone"), second.store(".halftone"));
}
