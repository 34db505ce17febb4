//! `init`: pipelines that pass `check` and `plan` for whatever the data hold.

use harness::Project;

const DATA: [(&str, &str); 11] = [
    ("pairs.jsonl", r#"{"prompt": "name a fruit", "chosen": "an apple", "rejected": "a stone", "p_hat": 0.9}"#),
    ("joint.jsonl", r#"{"i_chosen": "a fruit", "r_chosen": "an apple", "i_reject": "a fish", "r_reject": "a horse"}"#),
    ("alike.jsonl", r#"{"i_chosen": "a fruit", "r_chosen": "an apple", "i_reject": "a fruit", "r_reject": "a stone"}"#),
    ("comparisons.jsonl", r#"{"instruction": "a fruit", "response_0": "an apple", "response_1": "a stone"}"#),
    ("judged.jsonl", r#"{"instruction": "a fruit", "response_0": "an apple", "response_1": "a stone", "feedback": 0}"#),
    ("items.jsonl", r#"{"prompt": "name a fruit", "completion": "an apple", "label": true}"#),
    ("demonstrations.jsonl", r#"{"prompt": "name a fruit", "completion": "an apple"}"#),
    ("prompts.jsonl", r#"{"prompt": "name a fruit"}"#),
    (
        "votes.jsonl",
        r#"{"prompt": "a fruit", "response_0": "an apple", "response_1": "a stone", "votes": ["A", "tie"]}"#,
    ),
    (
        "answers.jsonl",
        concat!(
            r#"{"prompt": "name a fruit", "completion": "an apple"}"#,
            "\n",
            r#"{"prompt": "name a fruit", "completion": "a stone"}"#
        ),
    ),
    (
        "scores.jsonl",
        concat!(
            r#"{"prompt": "name a fruit", "completion": "an apple", "score": 3.5}"#,
            "\n",
            r#"{"prompt": "name a fruit", "completion": "a stone", "score": 1}"#
        ),
    ),
];

/// A tiny language model of the oracles.
fn model() -> String {
    harness::oracle("llama").display().to_string()
}

fn project() -> Project {
    let files: Vec<(&str, String)> = DATA.iter().map(|(name, line)| (*name, format!("{line}\n").repeat(2))).collect();
    Project::new(&files.iter().map(|(name, text)| (*name, text.as_str())).collect::<Vec<_>>())
}

#[test]
fn every_pipeline_passes_check_and_plan() {
    let (project, model) = (project(), model());
    let models = ["--policy", &model, "--encoder", &model];
    for (data, _) in DATA {
        let refusal = ["init", "y.yaml", "--data", data, "--objective", "gdppo"];
        let told = project.fails(&refusal, 64);
        assert!(told.contains("there is no such objective; did you mean `gdpo`"), "{told}");
        // A wrong objective for the data is answered with the right ones.
        let other = match data {
            "demonstrations.jsonl" | "items.jsonl" | "joint.jsonl" => "dpo",
            _ => "zzz",
        };
        let told = project.fails(&["init", "y.yaml", "--data", data, "--objective", other], 64);
        let possible = told.rsplit_once("possible: ").unwrap_or_else(|| panic!("{data}: {told}")).1;
        let objectives: Vec<String> = possible.trim().split(", ").map(str::to_owned).collect();
        assert!(!project.path("y.yaml").exists());
        for objective in &objectives {
            for judged in [false, true] {
                let mut args = vec!["init", "x.yaml", "--force", "--data", data, "--objective", objective];
                args.extend(models);
                // Where the data need a judge, one has its place in any case.
                if judged || ["comparisons.jsonl", "prompts.jsonl", "answers.jsonl"].contains(&data) {
                    args.extend(["--judge", &model]);
                }
                let told = project.done(&args);
                assert!(told.contains("next: halftone plan x.yaml"), "{args:?}: {told}");
                assert!(project.done(&["check", "x.yaml"]).contains("nothing wrong"));
                let plan = project.done(&["plan", "x.yaml"]);
                assert!(plan.contains("policy") && plan.contains("data"), "{plan}");
            }
        }
    }
}

#[test]
fn two_prompts_that_are_one_are_pairs_of_one_prompt_and_the_pipeline_runs() {
    let (project, model) = (project(), model());
    let rows: String = (0..40)
        .map(|n| {
            let (better, worse) = (n * 3 % 7, n % 5 + 7);
            format!(
                "{{\"i_chosen\": \"say {n}\", \"r_chosen\": \" {better}\", \"i_reject\": \"say {n}\", \"r_reject\": \" {worse}\"}}\n"
            )
        })
        .collect();
    project.write("alike.jsonl", &rows);
    let told = project.done(&["init", "x.yaml", "--data", "alike.jsonl", "--policy", &model]);
    assert!(told.contains("x.yaml: pairs, objective gdpo\n"), "{told}");
    project.done(&["run", "x.yaml", "--device", "cpu", "--set", "policy.batch.pairs=4"]);
    let told = project.done(&["init", "y.yaml", "--data", "joint.jsonl", "--policy", &model]);
    assert!(told.contains("y.yaml: pairs of two prompts, objective gjpo\n"), "{told}");
}

#[test]
fn it_says_what_it_found_and_what_is_to_be_done() {
    let project = project();
    let told = project.done(&["init", "--data", "pairs.jsonl"]);
    assert!(told.contains("pairs.jsonl: 2 rows, preference: prompt, chosen, rejected, p_hat"), "{told}");
    assert!(told.contains("pipeline.yaml: pairs, objective gdpo\nstill to be done:\n  pipeline.yaml:"), "{told}");
    assert!(told.contains("./models/policy"), "{told}");
    let text = std::fs::read_to_string(project.path("pipeline.yaml")).unwrap();
    assert!(text.contains("# pairs.jsonl: 2 rows, preference"), "{text}");
    let told = project.fails(&["init"], 64);
    assert!(told.contains("`pipeline.yaml` is there already") && told.contains("--force"), "{told}");
    assert_eq!(std::fs::read_to_string(project.path("pipeline.yaml")).unwrap(), text);
    let told = project.fails(&["init", "y.yaml", "--data", "nowhere.jsonl"], 64);
    assert!(told.contains("there is no such file"), "{told}");
}

#[test]
fn prompts_alone_are_read_of_any_data_and_an_encoder_means_rpo() {
    let (project, model) = (project(), model());
    let models = ["--policy", &model, "--judge", &model, "--encoder", &model];
    let told = project.done(&[&["init", "x.yaml", "--data", "pairs.jsonl", "--prompts-only"], &models[..]].concat());
    assert!(told.contains("x.yaml: prompts and a judge, objective rpo\n"), "{told}");
    assert!(project.done(&["plan", "x.yaml"]).contains("contest_verdicts"));
}

#[test]
fn a_model_without_a_template_reads_raw_text_and_the_pipeline_runs() {
    let project = project();
    let rows: String = (0..40)
        .map(|n| {
            let (better, worse) = (n * 3 % 7, n % 5);
            format!("{{\"prompt\": \"say {n}\", \"chosen\": \" {better} and\", \"rejected\": \" {worse}\"}}\n")
        })
        .collect();
    project.write("many.jsonl", &rows);
    std::fs::create_dir(project.path("plain")).unwrap();
    for file in std::fs::read_dir(model()).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read(&file).unwrap();
        match name.as_str() {
            "chat_template.jinja" => {}
            _ => std::fs::write(project.path("plain").join(&name), text).unwrap(),
        }
    }
    let told = project.done(&["init", "my.yaml", "--data", "many.jsonl", "--policy", "plain"]);
    assert!(told.contains("./plain has no chat template: strings are raw text"), "{told}");
    project.done(&["run", "my.yaml", "--device", "cpu", "--set", "policy.batch.pairs=4"]);
    assert!(project.done(&["inspect", "evaluation.summary"]).contains("accuracy"));
}

/// What `init` says of some data, and the file.
fn written(project: &Project, args: &[&str]) -> (String, String) {
    let told = project.done(&[&["init", "x.yaml", "--force", "--policy", &model()], args].concat());
    (told, std::fs::read_to_string(project.path("x.yaml")).unwrap())
}

#[test]
fn peoples_votes_are_labels_and_correct_a_judge() {
    let project = project();
    let row = |n: usize| {
        let (a, b, vote) = (n * 3 % 7, n % 5 + 7, ["A", "B", "tie"][n % 3]);
        serde_json::json!({"prompt": format!("say {n}"), "response_0": format!("{a}"), "response_1": format!("{b}"),
            "votes": {"anna": "A", "ben": vote}})
    };
    let rows: String = (0..60).map(|n| format!("{}\n", row(n))).collect();
    project.write("many.jsonl", &rows);
    let (told, text) = written(&project, &["--data", "many.jsonl"]);
    assert!(told.contains("x.yaml: pairs with people's votes, objective gdpo\nnext:"), "{told}");
    assert!(!text.contains("kind: judge") && text.contains("    kind: jury\n    votes: data.votes\n"), "{text}");
    project.done(&["run", "x.yaml", "--device", "cpu", "--set", "policy.batch.pairs=8"]);
    assert!(project.done(&["inspect", "people.summary", "-n", "20"]).contains("krippendorff_alpha"));
    assert!(project.done(&["inspect", "evaluation.summary"]).contains("accuracy"));
    // A judge's labels are corrected by the votes, where there are enough of them.
    let judged = ["--judge", &model(), "--data"];
    let (told, text) = written(&project, &[&judged[..], &["many.jsonl"]].concat());
    assert!(told.contains("x.yaml: pairs with people's votes and a judge, objective gdpo"), "{told}");
    assert!(text.contains("    kind: calibrate\n    verdicts: verdicts\n    gold: people\n"), "{text}");
    assert!(text.contains("    from: calibrated\n"), "{text}");
    let (_, text) = written(&project, &[&judged[..], &["votes.jsonl"]].concat());
    assert!(text.contains("    from: verdicts\n") && !text.contains("calibrate"), "{text}");
}

#[test]
fn several_responses_to_a_prompt_are_judged_or_have_scores() {
    let project = project();
    let (told, text) = written(&project, &["--data", "answers.jsonl", "--judge", &model()]);
    assert!(
        told.contains("x.yaml: several responses to a prompt, without a label and a judge, objective gdpo"),
        "{told}"
    );
    assert!(told.contains("to imitate the responses, without a label: --objective sft"), "{told}");
    assert!(text.contains("comparisons: {kind: compare, from: data.responses, within: all}"), "{text}");
    let (told, text) = written(&project, &["--data", "scores.jsonl"]);
    assert!(told.contains("x.yaml: responses with scores, objective gdpo"), "{told}");
    assert!(text.contains("    format: scored") && text.contains("    scores: {scale: 1}"), "{text}");
    for data in ["answers.jsonl", "scores.jsonl"] {
        let (told, text) = written(&project, &["--data", data, "--objective", "sft"]);
        assert!(told.contains("x.yaml: demonstrations, objective sft"), "{told}");
        assert!(!text.contains("scored"), "{text}");
    }
}

#[test]
fn an_objective_that_the_data_cannot_serve_says_how_prompts_can() {
    let project = project();
    let told = project.fails(&["init", "x.yaml", "--data", "demonstrations.jsonl", "--objective", "rpo"], 64);
    assert!(told.contains("with --prompts-only the model answers the prompts of the data"), "{told}");
    let args = ["init", "x.yaml", "--data", "demonstrations.jsonl", "--objective", "rpo", "--prompts-only"];
    assert!(project.done(&args).contains("objective rpo"));
    // Without data nothing is known of them.
    assert!(project.done(&["init", "y.yaml", "--objective", "rpo", "--prompts-only"]).contains("objective rpo"));
}

#[test]
fn names_of_the_data_and_of_files_are_no_yaml() {
    let evil = "x\nstages: {evil: {kind: ingest}}\nname: evil\n#\u{1b}[2J\u{85}\u{2028}y";
    let row =
        serde_json::json!({"prompt": "q", "chosen": "an apple", "rejected": "a stone", evil: 1}).to_string() + "\n";
    let model = model();
    for name in [
        "plain.jsonl",
        "a${x}b.jsonl",
        "a$${vars.data}.jsonl",
        "a\nname: evil.jsonl",
        "a'\"#: [.jsonl",
        "ä\u{85}\u{1b}.jsonl",
    ] {
        let project = Project::new(&[(name, row.as_str())]);
        for file in ["x.yaml", "x\nname: evil.yaml", "${x}.yaml", "true.yaml", "1e3.yaml"] {
            let told = project.done(&["init", file, "--data", name, "--policy", &model]);
            assert!(told.contains("next: halftone plan"), "{name} {file}: {told}");
            assert!(!told.contains("\nname: evil") && !told.contains('\u{1b}'), "{told}");
            let text = std::fs::read_to_string(project.path(file)).unwrap();
            assert!(
                text.contains("\nstages:\n") && !text.contains("\nname: evil") && !text.contains(&evil[..10]),
                "{text}"
            );
            assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
            assert!(project.done(&["check", file]).contains("nothing wrong"), "{name} {file}");
        }
    }
}
