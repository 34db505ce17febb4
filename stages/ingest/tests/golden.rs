//! Golden output of the stage on a fixed file. When this fails, raise the version: stores hold the results of older
//! versions.

use crate::common;

use common::Data;
use kit::rows::{Comparison, Pair, Prompt, Reject, Response};
use serde_json::json;

#[test]
fn the_same_file_gives_the_same_rows_until_the_version_is_raised() {
    let text = concat!(
        r#"{"prompt":"The sky is","chosen":" blue.","rejected":" green.","p_hat":0.9,"weight":2,"score_chosen":4}"#,
        "\n",
        r#"{"prompt":"The sky is","chosen":" grey.","rejected":" blue.","p_hat":0.25,"weight":1}"#,
        "\n",
        r#"{"prompt":"The sky is","chosen":" green.","rejected":" blue.","p_hat":0.9,"weight":1}"#,
        "\n",
        r#"{"prompt":[{"role":"user","content":"q"}],"chosen":"a","rejected":"b","p_hat":0.5,"weight":1}"#,
        "\n",
        r#"{"prompt":"no"}"#,
        "\n",
        r#"{"prompt":[{"role":"user","content":"q"},{"role":"assistant","content":null,"tool_calls":[{"function":"#,
        r#"{"name":"f","arguments":{"b":1,"a":2}}}]},{"role":"tool","content":"3"}],"chosen":"c","rejected":"d","#,
        r#""p_hat":0.5,"weight":1}"#,
        "\n",
    );
    let data = Data::of("a.jsonl", text);
    let config = data.config(&["a.jsonl"], json!({"holdout": 0.5, "on_bad_row": "reject"}));
    let (stage, _) = (ingest::KIND.configure)(config).unwrap();
    let done = data.run(&["a.jsonl"], json!({"holdout": 0.5, "on_bad_row": "reject"})).unwrap();
    let mut rows = String::new();
    for side in ["", "holdout_"] {
        let port = |name: &str| format!("{side}{name}");
        rows += &format!("{:?}", done.rows::<Pair>(&port("pairs")));
        rows += &format!("{:?}", done.rows::<Comparison>(&port("comparisons")));
        rows += &format!("{:?}", done.rows::<Response>(&port("responses")));
        rows += &format!("{:?}", done.rows::<Prompt>(&port("prompts")));
    }
    rows += &format!("{:?}", done.rows::<Reject>("rejects"));
    let digest = kit::Digest::of(data.short(&rows).as_bytes()).short(16);
    assert_eq!((stage.version().as_str(), digest.as_str()), ("7", "a4cbc63a870ac245"));
}

#[test]
fn the_schema_knows_every_key() {
    let schema = serde_json::to_string((ingest::KIND.schema)().as_value()).unwrap();
    for key in ["files", "format", "columns", "form", "on_bad_row", "max_rejects", "holdout", "limit", "jpo_pairs"] {
        assert!(schema.contains(&format!("\"{key}\"")), "{key}");
    }
}
