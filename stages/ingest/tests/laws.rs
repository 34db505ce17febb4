//! Laws for any file: no row is lost, whatever is wrong with it, and what was written is what is read.

use crate::common;

use std::fs::File;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use common::Data;
use kit::rows::Prompt;
use parquet::arrow::ArrowWriter;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

/// A file of good rows.
fn good(name: &str) -> Vec<u8> {
    let row = |i: usize| json!({"prompt": format!("p \"{i}\", ä"), "chosen": "a", "rejected": "b\nc", "p_hat": 0.75});
    let rows: Vec<_> = (0..12).map(row).collect();
    match name.rsplit('.').next() {
        Some("jsonl") => rows.iter().map(|row| row.to_string() + "\n").collect::<String>().into_bytes(),
        Some("json") => serde_json::to_vec_pretty(&rows).unwrap(),
        Some("csv") => {
            let line = |i: usize| format!("\"p \"\"{i}\"\", ä\",a,\"b\nc\",0.75\r\n");
            ("prompt,chosen,rejected,p_hat\n".to_owned() + &(0..12).map(line).collect::<String>()).into_bytes()
        }
        _ => {
            let data = Data::new();
            let column = |name: &str| -> ArrayRef {
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row[name].as_str().unwrap())))
            };
            let columns = ["prompt", "chosen", "rejected"].map(|name| (name, column(name)));
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let mut writer =
                ArrowWriter::try_new(File::create(data.path(name)).unwrap(), batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            std::fs::read(data.path(name)).unwrap()
        }
    }
}

/// Some bytes changed, and perhaps the end cut off.
fn damage() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>)> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\"\\\n\r,{}[]\0 ".to_vec())];
    (vec((any::<prop::sample::Index>(), byte), 0..4), proptest::option::weighted(0.3, any::<prop::sample::Index>()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_lose_no_row(
        name in prop::sample::select(vec!["a.jsonl", "a.json", "a.csv", "a.parquet"]),
        (changes, cut) in damage(),
    ) {
        let mut bytes = good(name);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let data = Data::of(name, &bytes);
        // `run` checks that what was read was kept or rejected; an error names the file.
        match data.run(&[name], json!({"on_bad_row": "reject", "format": "preference"})) {
            Ok(done) => {
                prop_assert_eq!(done.rows::<kit::rows::Pair>("pairs").len() as u64, done.balance()[1]);
                prop_assert_eq!(done.rejects().len() as u64, done.balance()[2]);
                if name == "a.jsonl" {
                    let rows = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
                    prop_assert_eq!(done.balance()[0], rows as u64);
                }
            }
            Err(error) => prop_assert!(error.contains(name), "{}", error),
        }
    }

    #[test]
    fn any_text_survives_csv_and_json(texts in vec("[ -~äß\u{1F600}\n\r\t\"]{1,12}", 1..40)) {
        let texts: Vec<String> = texts.into_iter().enumerate().map(|(i, text)| format!("{i}{text}")).collect();
        let quoted = |delimiter: &str| {
            // The first field of each line is empty.
            let line = |text: &String| format!("{delimiter}\"{}\"\n", text.replace('"', "\"\""));
            format!("id{delimiter}prompt\n") + &texts.iter().map(line).collect::<String>()
        };
        let rows: Vec<_> = texts.iter().map(|text| json!({ "prompt": text })).collect();
        let data = Data::new();
        data.write("a.csv", quoted(",")).write("a.tsv", quoted("\t"));
        data.write("a.json", serde_json::to_vec_pretty(&rows).unwrap());
        data.write("a.jsonl", rows.iter().map(|row| row.to_string() + "\n").collect::<String>());
        for name in ["a.csv", "a.tsv", "a.json", "a.jsonl"] {
            let prompts: Vec<Prompt> = data.run(&[name], json!({})).map_err(TestCaseError::fail)?.rows("prompts");
            let found: Vec<_> = prompts.iter().map(|prompt| prompt.messages[0].content.clone()).collect();
            prop_assert_eq!(&found, &texts, "{}", name);
        }
    }
}
