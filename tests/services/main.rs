//! The built binary with services on the loopback interface: a judge's endpoint, and a hub.

mod hub;
mod secrets;

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::server::{Server, Treatment};
use harness::{Project, ran, states, stderr};
use hub::{Asked, Hub};
use kit::rows::Verdict;

const KEY: &str = "sk-canary-0ddba11";

/// A place with a pipeline that judges 30 pairs.
fn judging(judge: &str) -> Project {
    let place = Project::with_pipelines();
    let rows: Vec<String> = (0..30)
        .map(|row| format!("{{\"prompt\": \"p{row}\", \"chosen\": \"good {row}\", \"rejected\": \"bad {row}\"}}\n"))
        .collect();
    std::fs::write(place.path("pairs.jsonl"), rows.concat()).unwrap();
    let text = format!(
        "name: judging\nstages:\n  data: {{kind: ingest, files: ./pairs.jsonl, form: chat}}\n  verdicts: {{kind: judge, \
         comparisons: data.comparisons, {judge}, template: helpful, debias: logit, least_mass: 0, shard_rows: 10}}\n"
    );
    std::fs::write(place.path("judging.yaml"), text).unwrap();
    place
}

fn contains(place: &Project, text: &str) -> Vec<String> {
    let holds = |name: &String| {
        let bytes = std::fs::read(place.path(name)).unwrap();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    place.files(".halftone", "").into_iter().filter(holds).collect()
}

#[test]
fn a_run_killed_while_it_judges_pays_for_no_answer_twice() {
    let open = Arc::new(AtomicBool::new(false));
    let opened = open.clone();
    let server = Server::start(move |_, _, asked| {
        if !opened.load(Ordering::SeqCst) && asked.iter().filter(|asked| asked.billed).count() >= 33 {
            return Treatment::Hang;
        }
        Treatment::Answer(vec![("A".to_owned(), -0.3), ("B".to_owned(), -1.6), ("C".to_owned(), -4.0)])
    });
    let judge =
        format!("endpoint: {{url: \"{}\", model: stub, api_key_env: HALFTONE_TEST_KEY, concurrency: 3}}", server.url);
    let place = judging(&judge);
    let args = ["run", "judging.yaml", "--json"];
    let start = || {
        let mut command = place.command(&args);
        command.env("HALFTONE_TEST_KEY", KEY);
        command
    };
    // Without the key nothing is asked; the plan does without it.
    let unset = place.command(&args).env_remove("HALFTONE_TEST_KEY").output().unwrap();
    assert_eq!(unset.status.code(), Some(78), "{}", stderr(&unset));
    let plan = place.command(&["plan", "judging.yaml"]).output().unwrap();
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("at most 60 requests") && plan.contains("requests go to http://127.0.0.1"), "{plan}");
    assert!(server.asked().is_empty());

    let mut child = start().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while server.asked().iter().filter(|asked| asked.treatment == Treatment::Hang).count() < 3 {
        std::thread::sleep(Duration::from_millis(5));
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
    }
    std::thread::sleep(Duration::from_millis(200));
    child.kill().unwrap();
    child.wait().unwrap();
    open.store(true, Ordering::SeqCst);
    let output = start().output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("33 answered requests"), "{said}");
    let mut billed = server.billed();
    assert_eq!(billed.len(), 60, "an answer was paid for twice");
    billed.sort();
    billed.dedup();
    assert_eq!(billed.len(), 60);
    let verdicts: Vec<Verdict> = kit::read_rows(&place.path(".halftone/runs/judging/verdicts/verdicts")).unwrap();
    assert_eq!(verdicts.len(), 30);
    // The judge always says A: the orders cancel out.
    assert!(verdicts.iter().all(|row| row.p_hat == 0.5));
    assert_eq!(contains(&place, KEY), Vec::<String>::new());
    assert!(!said.contains(KEY) && !stderr(&output).contains(KEY));

    // How the endpoint is asked is no part of what it says.
    let other = ["--set", "verdicts.endpoint.concurrency=9", "--set", "verdicts.endpoint.api_key_env=ANOTHER"];
    let again = place.command(&args).args(other).output().unwrap();
    assert_eq!(states(&again)["verdicts"], "reused", "{}", stderr(&again));
}

#[test]
fn an_endpoint_that_is_away_ends_the_run_with_69() {
    let server = Server::start(|_, _, _| Treatment::Status(503, "loading".to_owned(), None));
    let place =
        judging(&format!("endpoint: {{url: \"{}\", model: stub, retries: 1, backoff_seconds: 0.01}}", server.url));
    let output = place.command(&["run", "judging.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(stderr(&output).contains("status 503: loading"), "{}", stderr(&output));
}

#[test]
fn a_batch_ends_the_run_with_75_and_the_next_run_takes_its_answers() {
    let price = "price: {input: 1.0, output: 2.0, currency: EUR}";
    let place = judging(&format!("endpoint: {{url: \"http://127.0.0.1:9/v1\", model: stub, batch: ./batch, {price}}}"));
    let run = |args: &[&str]| place.command(args).output().unwrap();
    let plan = run(&["plan", "judging.yaml"]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("requests are written to ./batch") && plan.contains("EUR for"), "{plan}");
    let output = run(&["run", "judging.yaml"]);
    assert_eq!(output.status.code(), Some(75), "{}", stderr(&output));
    assert!(stderr(&output).contains("60 requests wait for answers"), "{}", stderr(&output));
    let mut answers = String::new();
    for name in place.files("batch", "jsonl") {
        for line in std::fs::read_to_string(place.path(&name)).unwrap().lines() {
            let request: serde_json::Value = serde_json::from_str(line).unwrap();
            let top = [("A".to_owned(), -0.3), ("B".to_owned(), -1.6)];
            let body: serde_json::Value = serde_json::from_str(&harness::server::completion(&top)).unwrap();
            let response = serde_json::json!({"status_code": 200, "body": body});
            answers += &format!("{}\n", serde_json::json!({"custom_id": request["custom_id"], "response": response}));
        }
    }
    std::fs::write(place.path("batch/answers.jsonl"), answers).unwrap();
    let output = run(&["run", "judging.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let verdicts: Vec<Verdict> = kit::read_rows(&place.path(".halftone/runs/judging/verdicts/verdicts")).unwrap();
    assert_eq!(verdicts.len(), 30);
    // 60 answers with a token sent and a token answered each.
    let status = run(&["status", "judging", "-v"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("cost") && status.contains("0.0002 EUR"), "{status}");
    assert_eq!(run(&["report", "--out", "page.html"]).status.code(), Some(0));
    let page = std::fs::read_to_string(place.path("page.html")).unwrap();
    assert!(page.contains("0.0002 EUR paid to endpoints"));
}

#[test]
fn a_model_is_named_fetched_once_resumed_and_found_in_the_cache() {
    let hub = Hub::start("test-org/tiny", "llama");
    let place = judging("model: test-org/tiny");
    let command = |args: &[&str]| {
        let mut command = place.command(args);
        command.env("HF_HOME", place.path("hf")).env("HF_ENDPOINT", &hub.url).env("HF_TOKEN", KEY);
        command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE");
        command
    };
    let offline = command(&["check", "judging.yaml"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(offline.status.code(), Some(78));
    let said = stderr(&offline);
    assert!(said.contains("`test-org/tiny` is no folder here") && said.contains("HF_HUB_OFFLINE"), "{said}");
    for args in [["check", "judging.yaml"], ["plan", "judging.yaml"]] {
        let output = command(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(args[0] == "check" || text.contains("`test-org/tiny` will be fetched"), "{text}");
    }
    assert!(hub.asked().is_empty(), "nothing is asked before the run");

    let output = command(&["run", "judging.yaml", "--json", "--device", "cpu"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let of_weights = |asked: &Asked| asked.method == "GET" && asked.path.ends_with("model.safetensors");
    let weights: Vec<_> = hub.asked().into_iter().filter(of_weights).collect();
    // The first answer broke off; the second went on where it did.
    assert_eq!(weights.len(), 2);
    assert_eq!(weights[0].range, None);
    assert_eq!(weights[1].range.as_deref(), Some(format!("bytes={}-", hub.half()).as_str()));
    assert!(hub.asked().iter().all(|asked| asked.authorization == Some(format!("Bearer {KEY}"))));
    assert!(!hub.asked().iter().any(|asked| asked.path.ends_with(".bin")), "only what a model is made of");
    let cache = place.path("hf/hub/models--test-org--tiny");
    let commit = std::fs::read_to_string(cache.join("refs/main")).unwrap();
    let snapshot = cache.join("snapshots").join(&commit);
    let fetched = std::fs::read(snapshot.join("model.safetensors")).unwrap();
    assert_eq!(fetched, std::fs::read(hub.folder.join("model.safetensors")).unwrap());
    assert!(snapshot.join("tokenizer.json").is_symlink());
    assert_eq!(contains(&place, KEY), Vec::<String>::new());

    // From now on without the hub, by name or by path: the fingerprint is over the files.
    let asked = hub.asked().len();
    for judge in ["test-org/tiny".to_owned(), "hf:test-org/tiny".to_owned(), hub.folder.display().to_string()] {
        let set = format!("verdicts.model=\"{judge}\"");
        let again = command(&["run", "judging.yaml", "--json", "--device", "cpu", "--set", &set]);
        let mut again = again;
        let again = again.env("HF_HUB_OFFLINE", "1").output().unwrap();
        assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
        assert!(ran(&again).is_empty(), "{judge}");
    }
    assert_eq!(hub.asked().len(), asked);
}

#[test]
fn what_is_missing_in_the_cache_is_fetched_and_what_arrives_is_what_its_tag_says() {
    let hub = Hub::start("test-org/tiny", "llama");
    let place = judging("model: test-org/tiny");
    let run = || {
        let mut command = place.command(&["run", "judging.yaml", "--device", "cpu"]);
        command.env("HF_HOME", place.path("hf")).env("HF_ENDPOINT", &hub.url);
        command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE").env_remove("HF_TOKEN").output().unwrap()
    };
    // Without a tokenizer nothing can be read, and nothing is half there.
    hub.lacks("tokenizer.json");
    let output = run();
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("it has no tokenizer.json"), "{}", stderr(&output));
    hub.lacks("nothing");
    let asked = hub.asked().len();
    let output = run();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let fetched: Vec<String> = hub.asked().split_off(asked).into_iter().map(|asked| asked.path).collect();
    assert!(fetched.iter().any(|path| path.ends_with("/tokenizer.json")), "{fetched:?}");
    assert!(!fetched.iter().any(|path| path.ends_with("model.safetensors")), "{fetched:?}");

    // A snapshot that another tool left without its tokenizer is made whole.
    let cache = place.path("hf/hub/models--test-org--tiny");
    let commit = std::fs::read_to_string(cache.join("refs/main")).unwrap();
    let tokenizer = cache.join("snapshots").join(&commit).join("tokenizer.json");
    std::fs::remove_file(&tokenizer).unwrap();
    assert_eq!(run().status.code(), Some(0));
    assert!(tokenizer.is_file());

    // A wrong byte of the right size: fetched anew once, then told.
    let again = |times: usize| {
        std::fs::remove_dir_all(place.path("hf")).unwrap();
        hub.damages(times);
        run()
    };
    let output = again(1);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = again(9);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("`test-org/tiny` model.safetensors does not arrive whole"), "{said}");
}

#[test]
fn the_token_goes_to_the_hub_and_to_no_other_port() {
    let (hub, elsewhere) = (Hub::start("test-org/tiny", "llama"), Hub::start("test-org/tiny", "llama"));
    hub.leads_to(&elsewhere.url);
    let place = judging("model: test-org/tiny");
    let mut command = place.command(&["run", "judging.yaml", "--device", "cpu"]);
    command.env("HF_HOME", place.path("hf")).env("HF_ENDPOINT", &hub.url).env("HF_TOKEN", KEY);
    let output = command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(hub.asked().iter().all(|asked| asked.authorization == Some(format!("Bearer {KEY}"))));
    assert!(!elsewhere.asked().is_empty() && elsewhere.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[test]
fn what_the_hub_sends_without_end_is_given_up() {
    for (what, words, requests) in [
        ("description", "sent a description of more than", 1),
        ("config.json", "of config.json than the", 1),
        ("weights", "model.safetensors does not arrive", 5),
    ] {
        let hub = Hub::start("test-org/tiny", "llama");
        hub.never_ends(what);
        let place = judging("model: test-org/tiny");
        let mut command = place.command(&["run", "judging.yaml", "--device", "cpu"]);
        command.env("HF_HOME", place.path("hf")).env("HF_ENDPOINT", &hub.url).env_remove("HF_TOKEN");
        let output = command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE").output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{what}: {}", stderr(&output));
        let file = if what == "weights" { "model.safetensors" } else { what };
        let asked = |asked: &&Asked| {
            asked.method == "GET" && (asked.path.ends_with(&format!("/{file}")) || what == "description")
        };
        assert_eq!(hub.asked().iter().filter(asked).count(), requests, "{what}");
    }
    // A token is read from a plain file or not at all.
    let hub = Hub::start("test-org/tiny", "llama");
    let place = judging("model: test-org/tiny");
    std::fs::create_dir(place.path("hf")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", place.path("hf/token")).unwrap();
    let mut command = place.command(&["run", "judging.yaml", "--device", "cpu"]);
    command.env("HF_HOME", place.path("hf")).env("HF_ENDPOINT", &hub.url).env_remove("HF_TOKEN");
    let output = command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE").output().unwrap();
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    assert!(stderr(&output).contains("token is a device, wanted a file"), "{}", stderr(&output));
}

#[test]
fn a_model_that_the_hub_does_not_have_is_told() {
    let hub = Hub::start("test-org/tiny", "llama");
    for (model, code, words) in [
        ("test-org/other", 78, "has no model `test-org/other`"),
        ("hf:a/b/c", 78, "names no model"),
        ("./test-org/tiny", 78, "there is no file or folder"),
    ] {
        let place = judging(&format!("model: \"{model}\""));
        let mut command = place.command(&["run", "judging.yaml"]);
        let command = command.env("HF_HOME", place.path("hf")).env("HF_ENDPOINT", &hub.url);
        let output = command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE").output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}
