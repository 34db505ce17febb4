//! The built binary on the pipelines of this repository, the quickstart made small: seconds instead of minutes.

mod damage;
mod feedback;
mod quickstart;
mod real;
mod traces;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::{Project, ran, states, stderr};
use quickstart::quickstart;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn every_pipeline_file_is_right() {
    let place = Project::with_pipelines();
    let mut files: Vec<_> = place.files("pipelines", "yaml");
    files.sort();
    assert!(files.len() >= 7, "{files:?}");
    // Some are run on data of their own.
    let own = ["/own-", "/feedback/", "/real/"];
    for file in files.iter().filter(|file| !own.iter().any(|part| file.contains(part))) {
        let output = place.command(&["check", file]).output().unwrap();
        assert!(output.status.success(), "{file}: {}", stderr(&output));
    }
}

#[test]
fn a_second_run_computes_nothing_and_another_objective_only_what_it_must() {
    let place = Project::with_pipelines();
    let first = quickstart(&place, &[]).output().unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert_eq!(states(&first)["embeddings"], "skipped", "GDPO reads no embeddings");
    assert!(ran(&first).contains("policy"));
    let ports = place.ports("quickstart");
    assert!(!ports.contains_key("embeddings/embeddings"));
    let trained = place.path(".halftone/runs/quickstart/policy");
    let events: Vec<_> = std::fs::read_dir(trained.join("tensorboard")).unwrap().collect();
    assert!(events[0].as_ref().unwrap().file_name().to_string_lossy().starts_with("events.out.tfevents."));
    let weights = std::fs::metadata(trained.join("policy/model.safetensors")).unwrap();
    assert_eq!(weights.permissions().mode() & 0o777, 0o644, "others may read the weights as any file");

    let again = quickstart(&place, &[]).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert_eq!(ran(&again), BTreeSet::new());
    assert_eq!(place.ports("quickstart"), ports);

    let rpo = ["--set", "policy.objective={name: rpo, beta: 0.5, tau: 0.5}"];
    let other = quickstart(&place, &rpo).output().unwrap();
    assert_eq!(other.status.code(), Some(0), "{}", stderr(&other));
    let expected = ["after", "embeddings", "evaluation", "policy", "truth_after"];
    assert_eq!(ran(&other), BTreeSet::from(expected.map(str::to_owned)));

    let back = quickstart(&place, &[]).output().unwrap();
    assert_eq!(back.status.code(), Some(0), "{}", stderr(&back));
    assert_eq!(ran(&back), BTreeSet::new());
    let mut now = place.ports("quickstart");
    // The links of a stage that is skipped stay where its latest result is.
    now.retain(|port, _| !port.starts_with("embeddings/"));
    assert_eq!(now, ports);
}

#[test]
fn a_run_killed_at_twenty_moments_gives_the_same_bytes_as_one_that_was_not() {
    let whole = Project::with_pipelines();
    let began = Instant::now();
    let output = quickstart(&whole, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (expected, duration) = (whole.ports("quickstart"), began.elapsed());

    let mut rng = rand::rngs::StdRng::seed_from_u64(20);
    let mut kills = 0;
    while kills < 20 {
        // Killed again and again, each time a little further on, until it comes to its end between two kills.
        let place = Project::with_pipelines();
        loop {
            let mut child = quickstart(&place, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let moment = duration.mul_f64(rng.random_range(0.0..0.5));
            std::thread::sleep(moment);
            let early = child.try_wait().unwrap();
            if let Some(status) = early {
                assert!(status.success(), "{status}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            if kills >= 20 {
                break;
            }
        }
        let output = quickstart(&place, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "after {kills} kills: {}", stderr(&output));
        assert_eq!(place.ports("quickstart"), expected, "after {kills} kills");
    }
}

#[test]
fn an_adapter_has_the_same_weights_in_any_folder_and_works_where_the_folder_is_moved_to() {
    let adapter = ["--set", "policy.adapter={rank: 2, alpha: 4, targets: [all-linear]}"];
    let places = [Project::with_pipelines(), Project::with_pipelines()];
    for place in &places {
        let output = quickstart(place, &adapter).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let [one, other] = &places;
    let adapter_weights = ".halftone/runs/quickstart/policy/policy/adapter_model.safetensors";
    let weights = |place: &Project| std::fs::read(place.path(adapter_weights)).unwrap();
    assert_eq!(weights(one), weights(other));
    // Its configuration names the base by its whole path, and what it answers names the adapter by its digest.
    let others = |place: &Project| {
        let mut ports = place.ports("quickstart");
        for port in ["policy/policy", "after/responses", "truth_after/utilities"] {
            assert!(ports.remove(port).is_some(), "{port}");
        }
        ports
    };
    assert_eq!(others(one), others(other));

    let moved = Project::with_pipelines();
    std::fs::rename(one.path(".halftone"), moved.path(".halftone")).unwrap();
    let again = quickstart(&moved, &adapter).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert_eq!(ran(&again), BTreeSet::new());
    let more =
        quickstart(&moved, &[&adapter[..], &["--set", "after.k=3", "--until", "after"]].concat()).output().unwrap();
    assert_eq!(more.status.code(), Some(0), "{}", stderr(&more));
    assert_eq!(ran(&more), BTreeSet::from(["after".to_owned()]));
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let mut ports = [1, 2, 4].map(|threads| {
        let place = Project::with_pipelines();
        let output = quickstart(&place, &[]).env("RAYON_NUM_THREADS", threads.to_string()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        place.ports("quickstart")
    });
    let first = std::mem::take(&mut ports[0]);
    assert!(ports[1..].iter().all(|other| *other == first));
}

#[test]
fn a_signal_stops_a_training_with_75_and_the_next_run_goes_on_to_the_same_bytes() {
    let long = ["--set", "imitation.steps=600", "--set", "imitation.checkpoint_every=50", "--until", "imitation"];
    let unbroken = Project::with_pipelines();
    let output = quickstart(&unbroken, &long).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let place = Project::with_pipelines();
    let mut child = quickstart(&place, &long).stderr(Stdio::null()).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(events.any(|line| line.unwrap().contains("checkpoint_written")), "it ended before it could be stopped");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let asked = Instant::now();
    assert!(events.any(|line| line.unwrap().contains("stage_interrupted")));
    events.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());

    let output = quickstart(&place, &long).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(ran(&output), BTreeSet::from(["imitation".to_owned()]));
    assert!(String::from_utf8_lossy(&output.stdout).contains(r#""event":"resumed""#));
    assert_eq!(place.ports("quickstart"), unbroken.ports("quickstart"));
}
