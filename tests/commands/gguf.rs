//! A quantised judge in a GGUF file, from its file to verdicts.

use serde_json::Value;

use harness::Project;

#[test]
fn a_judge_of_eight_bits_says_nearly_what_its_model_says() {
    let model = harness::oracle("llama");
    let rows: String = (0..12)
        .map(|n| format!("{{\"prompt\": \"say {n}\", \"chosen\": \" {n} it is\", \"rejected\": \" no {}\"}}\n", n * 7))
        .collect();
    let text = "name: test\nseed: 17\nstages:\n  data: {kind: ingest, files: ./data.jsonl, form: text}\n  \
                verdicts: {kind: judge, comparisons: data.comparisons, model: ./eight/judge.gguf, \
                template: ./question.jinja, form: text, labels: {first: [\" A\"], second: [\" B\"]}, debias: probability, least_mass: 0}\n";
    let project = Project::new(&[
        ("pipeline.yaml", text),
        ("question.jinja", "{{ prompt }} {{ a }} or {{ b }}? Answer:"),
        ("data.jsonl", &rows),
    ]);
    // The file stands beside the tokenizer.
    std::fs::create_dir(project.path("eight")).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::write(project.path("eight").join(name), std::fs::read(model.join(name)).unwrap()).unwrap();
    }
    harness::gguf::write_q8(&model, "llama", &project.path("eight/judge.gguf"));
    let verdicts = |args: &[&str]| -> Vec<Value> {
        project.done(&[&["run", "pipeline.yaml", "--device", "cpu"], args].concat());
        let text = project.done(&["inspect", "verdicts", "--json", "-n", "99"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let eight = verdicts(&[]);
    let whole = verdicts(&["--set", &format!("verdicts.model=\"{}\"", model.display())]);
    assert_eq!((eight.len(), whole.len()), (12, 12));
    let mut apart = 0.0_f64;
    for (eight, whole) in eight.iter().zip(&whole) {
        assert_eq!(eight["comparison_id"], whole["comparison_id"]);
        assert_ne!(eight["judge"], whole["judge"]);
        let logp = |row: &Value, of: &str| row[of].as_f64().unwrap();
        for column in ["ab_logp_a", "ab_logp_b", "ba_logp_a", "ba_logp_b"] {
            let difference = (logp(eight, column) - logp(whole, column)).abs();
            assert!(difference < 0.1, "{column}: {eight} {whole}");
            apart = apart.max(difference);
        }
        assert!((logp(eight, "p_hat") - logp(whole, "p_hat")).abs() < 0.02, "{eight} {whole}");
    }
    assert!(apart > 1e-6, "eight bits round: {apart}");

    // As a folder of numbers it says the same.
    let told = project.done(&["export", "model", "eight/judge.gguf", "--to", "folder"]);
    assert!(told.contains("folder holds eight/judge.gguf"), "{told}");
    let folder = verdicts(&["--set", "verdicts.model=./folder"]);
    for (eight, folder) in eight.iter().zip(&folder) {
        assert!((eight["ab_logp_a"].as_f64().unwrap() - folder["ab_logp_a"].as_f64().unwrap()).abs() < 1e-4);
    }

    // Without its tokenizer it is refused before anything runs, or told with the file that is missing.
    std::fs::remove_file(project.path("eight/tokenizer.json")).unwrap();
    let output = project.halftone(&["run", "pipeline.yaml", "--device", "cpu", "--force", "verdicts"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("tokenizer.json"), "{output:?}");
}
