//! `export dataset` of conversations with tool calls.

use serde_json::{Value, json};

use harness::Project;

/// Tool calls in each place that a conversation has for them; keys stand in an order of their own.
const CALLS: &str = r#"{"pair_id": "one", "prompt": [{"role": "user", "content": "how warm is it?"}], "tools": [{"type": "function", "function": {"name": "look", "parameters": {"z": 1, "a": {}}}}], "chosen": [{"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"where": "here", "at": [1]}}}]}, {"role": "tool", "tool_call_id": "c1", "name": "look", "content": "21"}, {"role": "assistant", "content": "21 degrees"}], "rejected": [{"role": "assistant", "content": "warm"}], "p_hat": 0.75, "weight": 2.0}
{"pair_id": "two", "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "and you?"}], "chosen": [{"role": "assistant", "content": "fine", "reasoning_content": "say \"fine\""}], "rejected": [{"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "ask", "arguments": {}}}]}], "p_hat": 1.0, "weight": 1.0}
{"pair_id": "three", "prompt": [{"role": "user", "content": "plain"}], "chosen": [{"role": "assistant", "content": "yes"}], "rejected": [{"role": "assistant", "content": "no"}], "p_hat": 0.5, "weight": 1.0}
"#;

#[test]
fn tool_calls_and_tools_are_written_as_trl_reads_them_and_come_back() {
    let text = "name: calls\nstages:\n  data: {kind: ingest, files: ./data.jsonl, form: chat}\n  \
                items: {kind: pairs, from: data.pairs, ties: keep, write: items}\n";
    let project = Project::new(&[("pipeline.yaml", text), ("data.jsonl", CALLS)]);
    project.done(&["run", "pipeline.yaml"]);
    let table = |name: &str| {
        let rows = project.done(&["inspect", name, "--json", "-n", "99"]);
        let mut rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for row in &mut rows {
            for key in ["source_file", "source_line"] {
                row.as_object_mut().unwrap().remove(key);
            }
        }
        rows.sort_by_key(ToString::to_string);
        rows
    };
    let whole = table("data.pairs");
    assert_eq!(whole.len(), 3);
    for (format, file) in [("jsonl", "train.jsonl"), ("parquet", "train")] {
        let told = project.done(&[
            "export",
            "dataset",
            "data.pairs",
            "--to",
            format,
            "--format",
            format,
            "--pipeline",
            "calls",
        ]);
        assert!(told.contains("TRL's preference, conversational, with tool calls"), "{told}");
        assert!(told.contains("columns: prompt, chosen, rejected, p_hat, weight, pair_id, tools"), "{told}");
        let again = format!("name: again\nstages:\n  back: {{kind: ingest, files: ./{format}/{file}, form: chat}}\n");
        project.write("again.yaml", &again);
        project.done(&["run", "again.yaml"]);
        assert_eq!(table("back.pairs"), whole, "{format}");
    }
    let lines = std::fs::read_to_string(project.path("jsonl/train.jsonl")).unwrap();
    let line = lines.lines().find(|line| line.contains("\"one\"")).unwrap();
    // As it was written, in its order; the tools beside it are JSON text.
    let call = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"look","arguments":{"where":"here","at":[1]}}}]}"#;
    assert!(line.contains(call), "{line}");
    let row: Value = serde_json::from_str(line).unwrap();
    assert_eq!(row["prompt"], json!([{"role": "user", "content": "how warm is it?"}]));
    assert_eq!(row["tools"], r#"[{"type":"function","function":{"name":"look","parameters":{"z":1,"a":{}}}}]"#);
    let schema = project.done(&["inspect", "parquet/train", "schema"]);
    assert!(schema.contains("tools"), "{schema}");
    // The other forms have them, too.
    let implicit = [
        "export",
        "dataset",
        "data.pairs",
        "--prompt",
        "implicit",
        "--format",
        "jsonl",
        "--to",
        "implicit",
        "--pipeline",
        "calls",
    ];
    project.done(&implicit);
    let rows = project.lines("implicit/train.jsonl");
    let row = rows.iter().find(|row| row["pair_id"] == "one").unwrap();
    assert_eq!(row["chosen"][1]["tool_calls"][0]["function"]["name"], "look");
    assert!(row["tools"].is_string() && row["chosen"][0].get("tools").is_none(), "{row}");
    project.done(&["export", "dataset", "items", "--format", "jsonl", "--to", "items", "--pipeline", "calls"]);
    let rows = project.lines("items/train.jsonl");
    assert!(rows.iter().any(|row| row["completion"][0].get("tool_calls").is_some() && row["tools"].is_string()));
}
