//! The stage on a small world: what it promises about its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kit::rows::{Comparison, Item, Pair, Prompt, Reject, Response, TruthRow, Utility, Verdict};
use kit::{
    Context, Digest, Event, Interrupt, Message, Outcome, Seed, Source, Table, digest_folder, read_rows, write_part,
};
use sandbox::words::Request;
use serde_json::json;

fn silent(_: Event) {}

fn run(config: serde_json::Value, seed: u64, folder: &Path, inputs: BTreeMap<&'static str, Vec<Source>>) -> Outcome {
    let (stage, _) = (sandbox::KIND.configure)(config).unwrap();
    assert_eq!(stage.check(), []);
    let context =
        Context { seed: Seed(seed), device: "cpu", folder, inputs, events: &silent, interrupt: Interrupt::default() };
    stage.run(&context).unwrap()
}

fn world(seed: u64, folder: &Path) -> Outcome {
    let config = json!({
        "mode": "world", "prompts": 700, "holdout_prompts": 400, "demonstrations": 500, "judge_rows": 1000, "joint": 0.3,
        "model": {"width": 16, "layers": 1, "heads": 2}
    });
    run(config, seed, folder, BTreeMap::new())
}

fn text(messages: &[Message]) -> &str {
    let [message] = messages else { panic!("one message, got {messages:?}") };
    assert_eq!(message.role, "text");
    &message.content
}

#[test]
fn prompts_are_distinct_and_those_held_out_are_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    world(5, folder.path());
    let prompts: Vec<Prompt> = read_rows(&folder.path().join("prompts")).unwrap();
    let holdout: Vec<Prompt> = read_rows(&folder.path().join("holdout_prompts")).unwrap();
    let ids = |rows: &[Prompt]| rows.iter().map(|row| row.prompt_id.clone()).collect::<BTreeSet<_>>();
    assert_eq!((ids(&prompts).len(), ids(&holdout).len()), (700, 400));
    assert!(ids(&prompts).is_disjoint(&ids(&holdout)));
    assert!(prompts.iter().chain(&holdout).all(|row| Request::parse(text(&row.messages)).is_some()));

    let demonstrations: Vec<Item> = read_rows(&folder.path().join("demonstrations")).unwrap();
    let judge_data: Vec<Item> = read_rows(&folder.path().join("judge_data")).unwrap();
    assert_eq!((demonstrations.len(), judge_data.len()), (500, 1000));
    assert!(demonstrations.iter().all(|item| !ids(&holdout).contains(&item.prompt_id)));
    let held_out: Vec<&str> = holdout.iter().map(|row| text(&row.messages)).collect();
    for item in &judge_data {
        assert!(!text(&item.prompt).lines().any(|line| held_out.contains(&line)), "{item:?}");
    }
    assert!(demonstrations.iter().chain(&judge_data).all(|item| item.label == 1.0 && item.weight == 1.0));
    assert_eq!(read_rows::<Reject>(&folder.path().join("rejects")).unwrap(), []);
}

#[test]
fn judge_data_has_checks_verdicts_and_joint_verdicts_in_their_shares() {
    let folder = tempfile::tempdir().unwrap();
    world(6, folder.path());
    let rows: Vec<Item> = read_rows(&folder.path().join("judge_data")).unwrap();
    let share = |test: &dyn Fn(&str, &str) -> bool| {
        rows.iter().filter(|row| test(text(&row.prompt), text(&row.response))).count() as f64 / rows.len() as f64
    };
    let checks = share(&|prompt, _| prompt.ends_with("\ncheck:"));
    let joint = share(&|prompt, _| prompt.ends_with("\nbetter:") && prompt.lines().count() == 5);
    let first = share(&|prompt, response| prompt.ends_with("\nbetter:") && response == " A");
    let second = share(&|prompt, response| prompt.ends_with("\nbetter:") && response == " B");
    // Five standard deviations of a share of 1000 are below 0.08.
    assert!((checks - 0.3).abs() < 0.08, "{checks}");
    assert!((joint - 0.7 * 0.3).abs() < 0.08, "{joint}");
    assert!((first - 0.35).abs() < 0.08 && (first + second + checks - 1.0).abs() < 1e-12, "{first} {second}");
}

#[test]
fn the_seed_alone_decides() {
    let digest = |seed| {
        let folder = tempfile::tempdir().unwrap();
        world(seed, folder.path());
        digest_folder(folder.path()).unwrap()
    };
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
}

#[test]
fn the_model_folder_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = world(9, folder.path());
    let model = folder.path().join("model");
    let decoder = lm::Decoder::load(&model, &lm::Device::Cpu).unwrap();
    let vocabulary = sandbox::tokenizer::vocabulary().len();
    // Embedding (tied), one block of four square matrices, three of the feed-forward part and two norms, a last norm.
    assert_eq!(outcome.figures["model parameters"], vocabulary * 16 + 4 * 16 * 16 + 3 * 16 * 48 + 2 * 16 + 16);
    let text = lm::Text::load(&model).unwrap();
    assert_eq!(text.eos_ids(), [sandbox::tokenizer::EOS_ID]);
    assert!(decoder.max_positions() >= 64);
}

fn raw(text: &str) -> Vec<Message> {
    vec![Message::new("text", text)]
}

fn source(path: &Path, table: Table) -> Vec<Source> {
    vec![Source { path: path.to_owned(), table, digest: Digest::of(b""), name: table.name().to_owned() }]
}

fn response(id: &str, prompt: &str, text: &str, count: u32) -> Response {
    Response {
        response_id: id.to_owned(),
        prompt_id: prompt.to_owned(),
        prompt: raw(prompt),
        messages: raw(text),
        text: text.to_owned(),
        k: 0,
        count,
        logp: None,
        tokens: None,
        finish: None,
        score: None,
        model: None,
        source_file: None,
        source_line: None,
    }
}

fn verdict(id: &str, a: (&str, &str), b: (&str, &str), p_hat: f64) -> Verdict {
    let row = Comparison {
        comparison_id: id.to_owned(),
        form: if a.0 == b.0 { "same" } else { "joint" }.to_owned(),
        a_prompt_id: a.0.to_owned(),
        a_response_id: a.1.to_owned(),
        a_prompt: raw(a.0),
        a_response: raw(a.1),
        b_prompt_id: b.0.to_owned(),
        b_response_id: b.1.to_owned(),
        b_prompt: raw(b.0),
        b_response: raw(b.1),
        source_file: None,
        source_line: None,
    };
    Verdict::of(row, p_hat, None)
}

#[test]
fn the_truth_is_told_of_responses_and_verdicts_and_of_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (responses, verdicts) = (folder.path().join("in/responses"), folder.path().join("in/verdicts"));
    let rows = [
        response("r0", "name two fruits:", " apple pear", 3),
        response("r1", "name two fruits:", " apple saw", 1),
        response("r2", "What is a fruit?", " apple", 1),
    ];
    write_part(&responses.join("part-00000.parquet"), &rows).unwrap();
    let two = ("name two fruits:", " apple saw");
    let one = ("list one tool:", " saw");
    let rows = [
        verdict("c0", ("name two fruits:", " apple pear"), two, 0.75),
        verdict("c1", two, one, 0.25),
        verdict("c2", two, ("What is a fruit?", " apple"), 0.25),
    ];
    write_part(&verdicts.join("part-00000.parquet"), &rows).unwrap();
    let inputs = BTreeMap::from([
        ("responses", source(&responses, Table::Responses)),
        ("verdicts", source(&verdicts, Table::Verdicts)),
    ]);
    let config = json!({"mode": "truth", "responses": "x/", "verdicts": "y/"});
    let outcome = run(config, 0, &folder.path().join("out"), inputs);

    let utilities: Vec<Utility> = read_rows(&folder.path().join("out/utilities")).unwrap();
    let found: Vec<_> = utilities.iter().map(|row| (row.response_id.as_str(), row.utility, row.count)).collect();
    assert_eq!(found, [("r0", 1.0, 3), ("r1", 0.5, 1)]);
    assert_eq!(outcome.figures["mean utility"], 0.875);
    let truth: Vec<TruthRow> = read_rows(&folder.path().join("out/truth")).unwrap();
    let sigma = 1.0 / (1.0 + (-2f64).exp());
    assert_eq!(truth.len(), 2);
    for (row, (id, form, p_hat, p_star)) in
        truth.iter().zip([("c0", "same", 0.75, sigma), ("c1", "joint", 0.25, 1.0 - sigma)])
    {
        assert_eq!((row.comparison_id.as_str(), row.form.as_str(), row.p_hat), (id, form, p_hat));
        assert!((row.p_star - p_star).abs() < 1e-15);
    }
    let rejects: Vec<Reject> = read_rows(&folder.path().join("out/rejects")).unwrap();
    let ids: Vec<_> = rejects.iter().map(|row| (row.input.as_str(), row.row_id.as_str())).collect();
    assert_eq!(ids, [("responses", "r2"), ("verdicts", "c2")]);
    assert!(outcome.balance.iter().all(|balance| (balance.read, balance.kept, balance.rejected) == (3, 2, 1)));
}

#[test]
fn impossible_worlds_are_refused() {
    let findings = |config| {
        let (stage, _) = (sandbox::KIND.configure)(config).unwrap();
        stage.check().into_iter().map(|finding| finding.path.join(".")).collect::<Vec<_>>()
    };
    let config = json!({
        "mode": "world", "prompts": 900, "holdout_prompts": 400, "demonstrations": 1, "judge_rows": 1, "checks": 1.5,
        "model": {"width": 30, "layers": 0, "heads": 2}
    });
    assert_eq!(findings(config), ["prompts", "checks", "model.layers", "model.heads"]);
    // Sizes that no memory holds.
    for (width, layers, heads) in [(u32::MAX - 1, 2, 1), (96, u32::MAX, 4), (8192, 100, 8), (1 << 30, 1, 1 << 28)] {
        let world = json!({
            "mode": "world", "prompts": 1, "holdout_prompts": 1, "demonstrations": 1, "judge_rows": 1,
            "model": {"width": width, "layers": layers, "heads": heads}
        });
        assert!(findings(world).contains(&"model".to_owned()), "{width} {layers} {heads}");
    }
    assert_eq!(findings(json!({"mode": "truth"})), [""]);
    let typo = json!({"mode": "world", "prompts": 1, "holdout_prompt": 1});
    assert!((sandbox::KIND.configure)(typo).err().unwrap().text.contains("holdout_prompt"));
}

/// Raise the stage's version when this changes: results in people's stores were made by the version before.
#[test]
fn the_version_stands_for_these_rows() {
    let folder = tempfile::tempdir().unwrap();
    world(17, folder.path());
    let table = |name: &str| folder.path().join(name);
    let prompts: Vec<Prompt> = read_rows(&table("prompts")).unwrap();
    let items = ["demonstrations", "judge_data"].map(|name| read_rows::<Item>(&table(name)).unwrap());
    let tokenizer = std::fs::read_to_string(table("model").join("tokenizer.json")).unwrap();
    let digest = Digest::of(format!("{prompts:?}{items:?}{tokenizer}").as_bytes()).short(16);
    let (stage, _) = (sandbox::KIND.configure)(json!({
        "mode": "world", "prompts": 1, "holdout_prompts": 1, "demonstrations": 1, "judge_rows": 1
    }))
    .unwrap();
    assert_eq!((stage.version().as_str(), digest.as_str()), ("2+lm4", "67be6759bd0d6def"));
}

#[test]
fn preferences_are_drawn_with_the_true_probability_and_change_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let config = |preferences: u32| {
        json!({
            "mode": "world", "prompts": 300, "holdout_prompts": 400, "demonstrations": 20, "judge_rows": 20,
            "preferences": preferences, "model": {"width": 16, "layers": 1, "heads": 2}
        })
    };
    let (with, without) = (folder.path().join("with"), folder.path().join("without"));
    for (to, preferences) in [(&with, 4000), (&without, 0)] {
        std::fs::create_dir(to).unwrap();
        run(config(preferences), 5, to, BTreeMap::new());
    }
    assert!(!without.join("preferences").exists());
    for port in ["prompts", "demonstrations", "judge_data", "model"] {
        assert_eq!(digest_folder(&with.join(port)).unwrap(), digest_folder(&without.join(port)).unwrap(), "{port}");
    }
    let holdout: BTreeSet<String> =
        read_rows::<Prompt>(&with.join("holdout_prompts")).unwrap().into_iter().map(|row| row.prompt_id).collect();
    let pairs: Vec<Pair> = read_rows(&with.join("preferences")).unwrap();
    assert_eq!(pairs.iter().map(|pair| &pair.pair_id).collect::<BTreeSet<_>>().len(), 4000);
    // The share of pairs whose better answer was chosen is the mean of max(p*, 1 - p*), up to chance.
    let (mut won, mut expected) = (0.0, 0.0);
    for pair in &pairs {
        assert!(!holdout.contains(&pair.chosen_prompt_id) && pair.chosen_response_id != pair.rejected_response_id);
        let request = Request::parse(text(&pair.chosen_prompt)).unwrap();
        let utility = |answer| sandbox::utility::utility(&request, text(answer));
        let p_star = sandbox::utility::preference(utility(&pair.chosen), utility(&pair.rejected));
        expected += p_star.max(1.0 - p_star);
        won += if p_star == 0.5 { 0.5 } else { f64::from(u8::from(p_star > 0.5)) };
    }
    assert!((won - expected).abs() < 150.0, "{won} of 4000, {expected} expected");
    assert!((2400.0..3800.0).contains(&expected));
}
