//! Secrets stand in no record and no message; control characters of data move no cursor.

use std::process::Output;

use harness::server::{Server, Treatment};
use harness::{Project, ran, states, stderr};

use crate::{contains, judging};

const SECRET: &str = "canary/7f3a+secret";

fn all(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(output))
}

fn run(place: &Project, file: &str, secret: &str) -> Output {
    let mut command = place.command(&["run", file, "--json"]);
    command.env("HALFTONE_TEST_SECRET", secret).output().unwrap()
}

#[test]
fn values_of_the_environment_are_named_and_not_written_down() {
    let server = Server::start(|_, _, _| Treatment::Answer(vec![("A".to_owned(), -0.3), ("B".to_owned(), -1.6)]));
    let place = judging(&format!(
        "endpoint: {{url: \"{}?code=${{env:HALFTONE_TEST_SECRET}}\", model: \"m-${{env:HALFTONE_TEST_SECRET}}\", \
         body: {{user: \"${{env:HALFTONE_TEST_SECRET}}\"}}, headers: {{X-Pass: \"${{env:HALFTONE_TEST_SECRET}}\"}}}}",
        server.url
    ));
    let first = run(&place, "judging.yaml", SECRET);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let asked = server.asked();
    assert_eq!(asked.len(), 60);
    assert!(asked.iter().all(|asked| asked.body["user"] == SECRET && asked.headers["x-pass"] == SECRET));
    assert!(asked[0].path.ends_with(&format!("?code={SECRET}")) && asked[0].body["model"] == format!("m-{SECRET}"));
    assert_eq!(contains(&place, SECRET), Vec::<String>::new());
    assert!(!all(&first).contains(SECRET));
    let resolved = std::fs::read_to_string(place.path(".halftone/runs/judging/1/resolved.yaml")).unwrap();
    assert!(resolved.contains("m-${env:HALFTONE_TEST_SECRET}"), "{resolved}");

    // The file that was recorded asks for the same, and another value for something else.
    std::fs::copy(place.path(".halftone/runs/judging/1/resolved.yaml"), place.path("again.yaml")).unwrap();
    for file in ["judging.yaml", "again.yaml"] {
        let again = run(&place, file, SECRET);
        assert_eq!(states(&again)["verdicts"], "reused", "{}", stderr(&again));
    }
    let other = run(&place, "judging.yaml", "another-value");
    assert!(ran(&other).contains("verdicts"), "{}", all(&other));
    assert!(!all(&other).contains("another-value") && contains(&place, "another-value").is_empty());
    for args in [
        &["plan", "judging.yaml"][..],
        &["status"],
        &["report", "judging"],
        &["trace", "1"],
        &["check", "judging.yaml"],
    ] {
        let output = place.command(args).env("HALFTONE_TEST_SECRET", SECRET).output().unwrap();
        assert!(!all(&output).contains(SECRET), "{args:?}: {}", all(&output));
    }
    assert_eq!(contains(&place, SECRET), Vec::<String>::new());
}

/// Short ones would be found in ordinary words: where a value goes to a server, its place tells that it is a secret.
#[test]
fn short_values_of_the_environment_are_named_where_they_go_to_a_server() {
    let server = Server::start(|_, _, _| Treatment::Answer(vec![("A".to_owned(), -0.3), ("B".to_owned(), -1.6)]));
    let place = judging(&format!(
        "matrix: {{user: {{one: [\"${{env:HALFTONE_TEST_SHORT}}\"]}}}}, least_mass: \"${{env:HALFTONE_TEST_MASS}}\", \
         endpoint: {{url: \"{}?code=${{env:HALFTONE_TEST_SHORT}}\", model: \"$${{m}}-${{env:HALFTONE_TEST_SHORT}}\", \
         body: {{user: \"${{matrix.user}}\", pin: \"${{env:HALFTONE_TEST_PIN}}\"}}, \
         headers: {{X-Pass: \"x ${{env:HALFTONE_TEST_SHORT}}\"}}, concurrency: \"${{env:HALFTONE_TEST_MANY}}\"}}",
        server.url
    ));
    let text = std::fs::read_to_string(place.path("judging.yaml")).unwrap().replace("least_mass: 0, ", "");
    std::fs::write(place.path("judging.yaml"), text).unwrap();
    let run = |file: &str, short: &str| {
        let mut command = place.command(&["run", file, "--json"]);
        command.env("HALFTONE_TEST_SHORT", short).env("HALFTONE_TEST_PIN", "74109");
        command.env("HALFTONE_TEST_MASS", "0.0000001").env("HALFTONE_TEST_MANY", "2").output().unwrap()
    };
    let output = run("judging.yaml", "q7Zx");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let asked = server.asked();
    assert!(asked[0].path.ends_with("?code=q7Zx") && asked[0].headers["x-pass"] == "x q7Zx");
    let body = &asked[0].body;
    assert!(body["model"] == "${m}-q7Zx" && body["user"][0] == "q7Zx" && body["pin"] == 74109, "{body}");
    for secret in ["q7Zx", "74109"] {
        assert_eq!(contains(&place, secret), Vec::<String>::new());
        assert!(!all(&output).contains(secret), "{}", all(&output));
    }
    let resolved = place.path(".halftone/runs/judging/1/resolved.yaml");
    let text = std::fs::read_to_string(&resolved).unwrap();
    assert!(text.contains("$${m}-${env:HALFTONE_TEST_SHORT}") && text.contains("${env:HALFTONE_TEST_PIN}"), "{text}");
    // Other settings stay what they are.
    assert!(text.contains("least_mass: 1e-7") && text.contains("concurrency: 2"), "{text}");

    std::fs::copy(resolved, place.path("again.yaml")).unwrap();
    for file in ["judging.yaml", "again.yaml"] {
        assert_eq!(states(&run(file, "q7Zx"))["verdicts@one"], "reused");
    }
    let other = run("judging.yaml", "q7Zy");
    assert!(ran(&other).contains("verdicts@one"), "{}", all(&other));
}

#[test]
fn what_an_endpoint_repeats_is_redacted_in_errors_and_records() {
    let said = format!("{{\"error\": {{\"message\": \"no {}\"}}}}", SECRET.replace('/', "\\/"));
    let server = Server::start_reading(move |_, _| Treatment::Status(400, said.clone(), None));
    let place = judging(&format!(
        "endpoint: {{url: \"{}\", model: m, body: {{user: \"${{env:HALFTONE_TEST_SECRET}}\"}}}}",
        server.url
    ));
    let output = run(&place, "judging.yaml", SECRET);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("no ${env:HALFTONE_TEST_SECRET}"), "{}", stderr(&output));
    assert!(!all(&output).contains(SECRET) && !all(&output).contains("canary\\/"));
    assert_eq!(contains(&place, SECRET), Vec::<String>::new());
}

#[test]
fn terminal_escapes_in_data_reach_no_terminal() {
    let place = Project::with_pipelines();
    let evil = "\\u001b]52;c;eA==\\u0007\\u001b[2J\\u009b1A\\u007f\\r\\u202e";
    let row =
        |n: usize| format!("{{\"prompt\": \"p{n}{evil}\", \"chosen\": \"good{evil}\", \"rejected\": \"bad {n}\"}}\n");
    std::fs::write(place.path("pairs.jsonl"), row(0) + &row(1)).unwrap();
    let text = "name: evil\nstages:\n  data: {kind: ingest, files: ./pairs.jsonl, form: chat}\n";
    std::fs::write(place.path("evil.yaml"), text).unwrap();
    let wrong = "name: evil\nstages:\n  \"d\\e[31m\": {kind: \"in\\e[2Jgest\"}\n";
    std::fs::write(place.path("wrong.yaml"), wrong).unwrap();
    let commands: [&[&str]; 7] = [
        &["run", "evil.yaml"],
        &["inspect", "data.pairs"],
        &["inspect", "data.pairs", "--json"],
        &["inspect", "data.comparisons", "sample"],
        &["inspect", "data.pairs", "stats"],
        &["check", "wrong.yaml"],
        &["status"],
    ];
    for args in commands {
        let output = place.command(args).output().unwrap();
        let bytes = [output.stdout.clone(), output.stderr.clone()].concat();
        let said = String::from_utf8_lossy(&bytes);
        let moves = |letter: char| (letter.is_control() && !"\n\t".contains(letter)) || letter == '\u{202e}';
        assert!(!said.contains(moves), "{args:?}: {said:?}");
        if args[0] == "inspect" && !args.contains(&"stats") {
            assert!(said.contains("\\u001b]52;c;eA==\\u0007"), "{args:?}: {said}");
        }
    }
}
