//! Rows that cannot be taken: each is named with its file, line and reason, and none is lost.

use crate::common;

use common::{Data, say};
use kit::Event;
use kit::rows::{Pair, Prompt, Reject};
use serde_json::json;

const GOOD: &str = r#"{"prompt":"p","chosen":"a","rejected":"b"}"#;

/// A file of a good row, a bad one, and another good one; the bad row's reason and detail.
fn check(bad: impl AsRef<[u8]>, reason: &str, detail: &str) {
    let mut text = GOOD.as_bytes().to_vec();
    text.push(b'\n');
    text.extend_from_slice(bad.as_ref());
    text.push(b'\n');
    text.extend_from_slice(GOOD.replace("\"a\"", "\"c\"").as_bytes());
    let data = Data::of("a.jsonl", &text);
    let error = data.run(&["a.jsonl"], json!({})).err().expect("the default is to fail");
    let expected = format!(
        "1 of 3 rows cannot be taken:\n  a.jsonl:2: {reason}: {detail}\nmend them, or go on without them with \
         `on_bad_row: reject`"
    );
    assert_eq!(error, expected);
    let done = data.run(&["a.jsonl"], json!({"on_bad_row": "reject"})).unwrap();
    assert_eq!(done.balance(), [3, 2, 1]);
    assert_eq!(done.rejects(), [(2, reason.to_owned())]);
    assert_eq!(done.rows::<Pair>("pairs").len(), 2);
    assert!(done.events.contains(&Event::RowsRejected { reason: reason.to_owned(), rows: 1 }));
}

#[test]
fn broken_json() {
    check(r#"{"prompt":"p","chosen":"a","reje"#, "bad_json", "EOF while parsing a string, at byte 32 of 32");
    check("[]", "not_an_object", "invalid type: sequence, expected an object with columns");
    check("17", "not_an_object", "invalid type: integer `17`, expected an object with columns");
    check(b"\0\0\0\0", "bad_json", "expected value, at byte 1 of 4");
    check(b"{\"prompt\":\"\xff\"}", "invalid_utf8", "byte 12 of the row is not UTF-8");
    check(
        format!("{GOOD}{GOOD}"),
        "bad_json",
        "more behind the object; write one object a line: jq -c ., at byte 43 of 84",
    );
    check(
        r#"{"prompt":"p","chosen":"a","rejected":"b","chosen":"z"}"#,
        "bad_json",
        "column `chosen` stands twice in the row, at byte 55 of 55",
    );
    let deep = format!(r#"{{"prompt":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    check(deep, "bad_json", "recursion limit exceeded, at byte 137 of 20011");
}

#[test]
fn responses_of_the_wrong_role() {
    let said = |roles: &[&str]| {
        let messages = roles.iter().map(|role| format!(r#"{{"role":"{role}","content":"{role} says"}}"#));
        format!("[{}]", messages.collect::<Vec<_>>().join(","))
    };
    let row = |prompt: &str, chosen: &[&str], rejected: &[&str]| {
        let (chosen, rejected) = (said(chosen), said(rejected).replace("assistant says", "something else"));
        format!(r#"{{"prompt":{prompt},"chosen":{chosen},"rejected":{rejected}}}"#)
    };
    let detail = "the response begins with a message of the role `user`, wanted `assistant` (or `tool`); where a column \
                  holds whole conversations, they have to begin with the prompt";
    check(row(r#""q""#, &["assistant"], &["user", "assistant"]), "bad_roles", detail);
    // The prompt is not what the conversations begin with.
    let prompt = r#"[{"role":"user","content":"another"}]"#;
    check(row(prompt, &["user", "assistant"], &["user", "assistant"]), "bad_roles", detail);
    let differing = r#"{"prompt":"q","chosen":[{"role":"user","content":"x"},{"role":"assistant","content":"a"}],"rejected":[{"role":"user","content":"y"},{"role":"assistant","content":"b"}]}"#;
    check(differing, "no_shared_prompt", "the conversations in `chosen` and `rejected` begin differently");
}

#[test]
fn missing_and_wrong_values() {
    let row = |chosen: &str| GOOD.replace("\"a\"", chosen);
    check(r#"{"prompt":"p","rejected":"b"}"#, "missing", "column `chosen` is missing, wanted a value");
    check(row("null"), "missing", "column `chosen` is null, wanted a value");
    check(row("5"), "bad_value", "column `chosen` is the number 5, wanted text or messages");
    check(row(r#""\u0000""#), "nul_byte", "column `chosen` has a NUL byte at byte 0, wanted text");
    check(row(r#""\ud800""#), "bad_json", "unexpected end of hex escape, at byte 31 of 47");
    check(
        row(r#"[{"role":"assistant","content":"a"}]"#),
        "mixed_sides",
        "one of `chosen` and `rejected` is text and the other messages",
    );
}

#[test]
fn labels_are_there_in_all_rows_or_in_none() {
    let late = GOOD.replace('}', r#","p_hat":0.9}"#);
    let data = Data::of("a.jsonl", format!("{}{late}", format!("{GOOD}\n").repeat(60)));
    let error = data.run(&["a.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("a.jsonl:61: late_column: column `p_hat` is not in the first rows"), "{error}");

    let data = Data::of("b.jsonl", format!("{late}\n{GOOD}"));
    let error = data.run(&["b.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("b.jsonl:2: missing: column `p_hat` is missing"), "{error}");

    let wrong = GOOD.replace('}', r#","p_hat":1.5}"#);
    let data = Data::of("c.jsonl", format!("{late}\n{wrong}"));
    let error = data.run(&["c.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("bad_value: column `p_hat` is 1.5, wanted a probability in [0, 1]"), "{error}");
}

#[test]
fn a_wrong_type_far_down_is_named() {
    let row = |i: usize| json!({"prompt": format!("p{i}")}).to_string() + "\n";
    let text: String = (0..3000).map(row).chain(["{\"prompt\":5}\n".to_owned()]).collect();
    let error = Data::of("a.jsonl", text).run(&["a.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("a.jsonl:3001: bad_value: column `prompt` is the number 5"), "{error}");
}

#[test]
fn line_ends_and_marks_are_no_content() {
    let text = format!("\u{feff}{GOOD}\r\n\r\n{}\r\n", GOOD.replace("\"a\"", "\"c\""));
    let done = Data::of("a.jsonl", text).run(&["a.jsonl"], json!({})).unwrap();
    let lines: Vec<_> = done.rows::<Pair>("pairs").iter().map(|pair| pair.source_line.unwrap()).collect();
    assert_eq!((done.balance(), lines), ([2, 2, 0], vec![1, 3]));
}

#[test]
fn long_lines_are_read() {
    let long = "x".repeat(8 << 20);
    let text = format!("{}\n{{\"prompt\":\"short\"}}\n", json!({ "prompt": long }));
    let prompts: Vec<Prompt> = Data::of("a.jsonl", text).run(&["a.jsonl"], json!({})).unwrap().rows("prompts");
    assert_eq!(prompts[0].messages[0].content.len(), 8 << 20);
}

#[test]
fn lines_beyond_the_limit_are_rejected() {
    let long = "x".repeat(65 << 20);
    let text = format!("{{\"prompt\":\"p\"}}\n{{\"prompt\":\"{long}\"}}\n{{\"prompt\":\"q\"}}\n");
    let done = Data::of("a.jsonl", text).run(&["a.jsonl"], json!({"on_bad_row": "reject"})).unwrap();
    assert_eq!((done.balance(), done.rejects()), ([3, 2, 1], vec![(2, "line_too_long".to_owned())]));
}

#[test]
fn a_file_without_line_ends_is_given_up_soon() {
    for (name, text) in [("b.csv", ""), ("c.json", "[\""), ("d.jsonl", "{\"prompt\":\"p\"}\n")] {
        let data = Data::of(name, text);
        std::fs::OpenOptions::new().append(true).open(data.path(name)).unwrap().set_len(20 << 30).unwrap();
        let begun = std::time::Instant::now();
        let refusal = match data.check(&[name], json!({})) {
            found if found.is_empty() => data.run(&[name], json!({})).err().unwrap(),
            found => found[0].text.clone(),
        };
        let what = match name {
            "b.csv" => "the header, line 1: line_too_long: more than 67108864 bytes",
            _ => "line_too_long: no end of this row within 268435456 bytes",
        };
        assert!(refusal.contains(what), "{name}: {refusal}");
        // A sixtieth of the file is read; all of it takes minutes here.
        assert!(begun.elapsed().as_secs() < 60, "{name}: {:?}", begun.elapsed());
    }
}

#[test]
fn broken_csv() {
    let text = "prompt,chosen,rejected\n\
                p,a,b\n\
                \"p,c,d\n\
                p,\"e\"x,f\n\
                p,g\n\
                p,5\" pipe,h\n\
                p,i,\"open";
    let done = Data::of("a.csv", text).run(&["a.csv"], json!({"on_bad_row": "reject"})).unwrap();
    let chosen: Vec<_> = done.rows::<Pair>("pairs").iter().map(|pair| say(&pair.chosen)).collect();
    // A quote within a bare field is a character, as everywhere.
    assert_eq!(chosen, ["text: a", "text: 5\" pipe"]);
    let reasons = [(3, "stray_quote"), (4, "stray_quote"), (5, "wrong_width"), (7, "open_quote")];
    assert_eq!(done.rejects(), reasons.map(|(line, reason)| (line, reason.to_owned())));
    let numbers = Data::of("b.csv", "prompt,chosen,rejected,p_hat\np,a,b,high\n");
    let error = numbers.run(&["b.csv"], json!({})).err().unwrap();
    assert!(error.contains("b.csv:2: bad_value: column `p_hat` is the text \"high\", wanted a number"), "{error}");
}

#[test]
fn a_json_list_loses_its_bad_elements_only() {
    let text =
        format!("[\n {GOOD},\n 5,\n {{\"prompt\":\"p\" \"chosen\"}},\n {},\n", GOOD.replace("\"a\"", "\"c]\\\"\""));
    let done = Data::of("a.json", text).run(&["a.json"], json!({"on_bad_row": "reject"})).unwrap();
    let chosen: Vec<_> = done.rows::<Pair>("pairs").iter().map(|pair| say(&pair.chosen)).collect();
    assert_eq!(chosen, ["text: a", "text: c]\""]);
    let reasons = [(3, "not_an_object"), (4, "bad_json"), (6, "bad_json")];
    assert_eq!(done.rejects(), reasons.map(|(line, reason)| (line, reason.to_owned())));
    let error = Data::of("b.json", format!("[{GOOD}]\n{GOOD}")).run(&["b.json"], json!({})).err().unwrap();
    assert_eq!(error, "b.json: line 2: `{` after the end of the list; wanted JSON Lines or one list");
}

#[test]
fn the_first_bad_rows_are_named_and_all_are_counted() {
    let text = format!("{GOOD}\n{}", "{}\n".repeat(30));
    let data = Data::of("a.jsonl", text);
    let error = data.run(&["a.jsonl"], json!({})).err().unwrap();
    assert!(error.starts_with("30 of 31 rows cannot be taken:\n  a.jsonl:2: missing: "), "{error}");
    // A fault that many rows share stands once.
    assert_eq!(error.matches("a.jsonl:").count(), 3);
    assert!(error.contains("\n  and 27 more: missing column `prompt`\n"), "{error}");
    let error = data.run(&["a.jsonl"], json!({"on_bad_row": "reject", "max_rejects": 2})).err().unwrap();
    assert!(error.starts_with("more than 2 bad rows (`max_rejects`) within 4 rows; the first:\n"), "{error}");
    let done = data.run(&["a.jsonl"], json!({"on_bad_row": "reject", "max_rejects": 30})).unwrap();
    assert_eq!(done.balance(), [31, 1, 30]);
    assert_eq!(done.rows::<Reject>("rejects").len(), 30);
}

#[test]
fn nothing_left_is_an_error() {
    let error =
        Data::of("a.jsonl", "{\"prompt\":5}\n").run(&["a.jsonl"], json!({"on_bad_row": "reject"})).err().unwrap();
    assert!(error.contains("no row is left to go on with: 1 bad_value; the first: a.jsonl:1: bad_value"), "{error}");
    let error = Data::of("a.csv", "prompt\n").run(&["a.csv"], json!({})).err().unwrap();
    assert!(error.ends_with("no row is left to go on with: there are none"), "{error}");
}

#[test]
fn findings_come_before_the_run() {
    let data = Data::of("a.jsonl", format!("{GOOD}\n"));
    data.write("b.jsonl", "{\"prompt\":\"p\"}\n")
        .write("c.txt", "hello")
        .write("d.jsonl", "")
        .write("e.gz", b"\x1f\x8b\x08");
    let check = |files: &[&str], more: serde_json::Value, path: &str, text: &str| {
        let found: Vec<_> = data.check(files, more).iter().map(|f| (f.path.join("."), data.short(&f.text))).collect();
        assert!(found.iter().any(|(at, what)| at == path && what.contains(text)), "{found:?}");
    };
    assert_eq!(data.check(&["a.jsonl"], json!({})), []);
    let at_fault = |name: &str| data.check(&[name], json!({}))[0].in_data;
    assert!(at_fault("d.jsonl") && at_fault("e.gz") && !at_fault("c.txt"));
    // A missing file is found with the other files that configurations name.
    assert_eq!(data.check(&["none.jsonl"], json!({})), []);
    check(&["a.jsonl", "b.jsonl"], json!({}), "files", "a.jsonl` is preference and");
    check(&["c.txt"], json!({}), "files", "c.txt: neither JSON Lines, a JSON list, CSV, TSV nor Parquet");
    check(&["d.jsonl"], json!({}), "files", "d.jsonl: it holds no rows");
    data.write("f.json", "{\n  \"a\": 1,\n");
    check(
        &["f.json"],
        json!({}),
        "files",
        "f.json: no row can be read; the first: bad_json: the file ends inside an object",
    );
    assert!(at_fault("f.json"));
    check(&["e.gz"], json!({}), "files", "e.gz: damaged or cut off");
    check(&["a.jsonl"], json!({"holdout": 1.0}), "holdout", "1 is not in (0, 1)");
    check(&["a.jsonl"], json!({"max_rejects": 3}), "max_rejects", "no effect with `on_bad_row: fail`");
    check(&["a.jsonl"], json!({"columns": {"label": "prompt"}}), "columns", "format `preference` does not read it");
    check(&["a.jsonl"], json!({"columns": {"prompt": "pp"}}), "columns", "there is no column `pp`; found `chosen`");
    let two = "there is no column `pp`; `columns: chosen`: there is no column `cc`; found `chosen`";
    check(&["a.jsonl"], json!({"columns": {"prompt": "pp", "chosen": "cc"}}), "columns", two);
    check(&["a.jsonl"], json!({"format": "unpaired"}), "files", "format `unpaired` needs `completion`, `label`");
    check(&["a.jsonl"], json!({"fromat": "hh"}), "fromat", "unknown field `fromat`");
    assert_eq!(data.ports(&["b.jsonl"], json!({"holdout": 0.5})), ["prompts", "holdout_prompts", "rejects"]);
    // A missing file is one mistake; references to its tables are not further ones.
    assert!(data.ports(&["none.jsonl"], json!({})).contains(&"pairs".to_owned()));
}

#[test]
fn ids_that_are_none_can_be_left_out() {
    let rows = |id: &dyn Fn(usize) -> serde_json::Value, name: &str| -> String {
        let row = |i: usize| json!({"prompt": format!("p{i}"), "chosen": "a", "rejected": "b", name: id(i)});
        (0..9).map(|i| format!("{}\n", row(i))).collect()
    };
    for (name, id, columns) in [
        ("id", &(|i: usize| json!(i as f64 + 0.5)) as &dyn Fn(usize) -> serde_json::Value, "{id: null}"),
        ("pair_id", &|_| json!(""), "{id: null}"),
        ("prompt_id", &|_| json!([1]), "{prompt_id: null}"),
        ("prompt_id", &|_| json!("same"), "{prompt_id: null}"),
        ("chosen_response_id", &|_| json!({"a": 1}), "{chosen_response_id: null}"),
    ] {
        let data = Data::of("a.jsonl", rows(id, name));
        let error = data.run(&["a.jsonl"], json!({})).err().unwrap();
        assert!(error.contains(&format!("leave them out: `columns: {columns}`")), "{error}");
        assert!(error.matches("a.jsonl:").count() <= 6 && error.contains("more: "), "{error}");
        let ours = columns.trim_matches(['{', '}']).split(':').next().unwrap();
        assert_eq!(data.run(&["a.jsonl"], json!({"columns": {ours: null}})).unwrap().balance(), [9, 9, 0]);
    }
}
