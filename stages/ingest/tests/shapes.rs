//! Shapes of files: packed, in other encodings, with text around their rows, or no data at all.

use crate::common;

use std::io::Write;

use common::{Data, say};
use kit::rows::{Pair, Prompt};
use serde_json::{Value, json};

const ROWS: &str =
    "{\"prompt\":\"p\",\"chosen\":\"a\",\"rejected\":\"b\"}\n{\"prompt\":\"q\",\"chosen\":\"ä\",\"rejected\":\"d\"}\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn utf_16(text: &str) -> Vec<u8> {
    [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

/// The chosen responses of a file and the lines that they stand in.
fn chosen(name: &str, bytes: impl AsRef<[u8]>) -> Vec<(String, u64)> {
    let data = Data::of(name, bytes);
    let pairs: Vec<Pair> = data.run(&[name], json!({})).unwrap().rows("pairs");
    pairs.iter().map(|pair| (say(&pair.chosen), pair.source_line.unwrap())).collect()
}

fn both(lines: [u64; 2]) -> Vec<(String, u64)> {
    vec![("text: a".to_owned(), lines[0]), ("text: ä".to_owned(), lines[1])]
}

#[test]
fn packed_text_is_read_under_any_name() {
    let csv = "prompt,chosen,rejected\np,a,b\nq,ä,d\n";
    let list = format!("[{}]", ROWS.trim().replace('\n', ",\n"));
    let zstd = |bytes: &str| zstd::encode_all(bytes.as_bytes(), 1).unwrap();
    for (name, bytes, lines) in [
        ("a.jsonl.gz", gzip(ROWS.as_bytes()), [1, 2]),
        ("a.jsonl", gzip(ROWS.as_bytes()), [1, 2]),
        ("a.bin", zstd(ROWS), [1, 2]),
        ("a.json.zst", zstd(&list), [1, 2]),
        ("a.csv.gz", gzip(csv.as_bytes()), [2, 3]),
        ("a.csv", zstd(csv), [2, 3]),
    ] {
        assert_eq!(chosen(name, bytes), both(lines), "{name}");
    }
}

#[test]
fn a_folder_of_packed_parts_is_one_table_and_rows_are_estimated() {
    let data = Data::new();
    std::fs::create_dir(data.path("parts")).unwrap();
    let rows: String = (0..200_000)
        .map(|i| format!("{{\"prompt\":\"a long enough prompt, number {i:06}, to fill a file\"}}\n"))
        .collect();
    data.write("parts/b.jsonl.gz", gzip(rows.as_bytes()))
        .write("parts/a.jsonl.zst", zstd::encode_all(&b"{\"prompt\":\"first\"}\n"[..], 1).unwrap());
    let (stage, _) = (ingest::KIND.configure)(data.config(&["parts"], json!({"limit": 2}))).unwrap();
    assert_eq!(stage.check(), []);
    let prompts: Vec<Prompt> = data.run(&["parts"], json!({"limit": 2})).unwrap().rows("prompts");
    assert_eq!(prompts[0].messages[0].content, "first");
    let found = |name: &str| {
        serde_json::from_value::<ingest::Ingest>(data.config(&[name], json!({}))).unwrap().found().unwrap()
    };
    assert_eq!((found("parts/a.jsonl.zst").rows, found("parts/a.jsonl.zst").counted), (1, true));
    assert_eq!((found("parts/b.jsonl.gz").rows, found("parts/b.jsonl.gz").counted), (200_000, true));
}

#[test]
fn utf_16_and_byte_order_marks_are_no_content() {
    assert_eq!(chosen("a.jsonl", utf_16(ROWS)), both([1, 2]));
    assert_eq!(chosen("a.csv", utf_16("prompt,chosen,rejected\r\np,a,b\r\nq,ä,d\r\n")), both([2, 3]));
    assert_eq!(chosen("a.jsonl", format!("\u{feff}{}", ROWS.replace('\n', "\n\u{feff}"))), both([1, 2]));
    assert_eq!(chosen("a.json", format!("\u{feff}[{}]", ROWS.trim().replace('\n', ","))), both([1, 1]));
}

#[test]
fn json_is_read_whatever_stands_around_the_rows() {
    let rows: Vec<Value> = ROWS.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    // Keys in front of the list, other keys behind it.
    let wrapped = pretty(&json!({"a_version": {"major": 1}, "data": rows, "tail": [1, 2]}));
    assert_eq!(chosen("a.json", &wrapped), both([6, 11]));
    assert_eq!(chosen("a.jsonl", json!({"data": rows}).to_string()), both([1, 1]));
    assert_eq!(chosen("a.jsonl", format!("{}\n{}\n", pretty(&rows[0]), pretty(&rows[1]))), both([1, 6]));
    assert_eq!(chosen("a.jsonl", pretty(&json!(rows))), both([2, 7]));
    let error = Data::of("a.json", pretty(&json!({"test": rows, "train": rows}))).run(&["a.json"], json!({})).err();
    assert!(error.as_ref().unwrap().contains("a second list of objects in one file"), "{error:?}");
}

#[test]
fn numbers_that_json_does_not_have_are_absent() {
    let row = |chosen: &str, margin: &str, score: &str| {
        format!(
            "{{\"prompt\":\"p\",\"chosen\":\"{chosen}\",\"rejected\":\"NaN\",\"margin\":{margin},\"score_chosen\":{score}}}\n"
        )
    };
    let data = Data::of("a.jsonl", [row("a", "NaN", "NaN"), row("b", "-Infinity", "1.5")].concat());
    let done = data.run(&["a.jsonl"], json!({})).unwrap();
    let scores: Vec<_> = done.rows::<kit::rows::Response>("responses").iter().map(|row| row.score).collect();
    assert_eq!(scores, [None, None, Some(1.5)]);
    let data = Data::of("a.jsonl", row("a", "1", "Infinity"));
    let error = data.run(&["a.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("column `score_chosen` is the number Infinity, wanted a number"), "{error}");
    let text = r#"{"prompt":"p","chosen":"a","rejected":-Infinity}"#;
    let error = Data::of("a.jsonl", text).run(&["a.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("column `rejected` is the number -Infinity, wanted text or messages"), "{error}");
    let row = |chosen: &str, p_hat: &str| {
        format!("{{\"prompt\":\"p\",\"chosen\":\"{chosen}\",\"rejected\":\"b\",\"p_hat\":{p_hat}}}\n")
    };
    for empty in ["NaN", "null", "\"\""] {
        let found = Data::of("a.jsonl", row("a", empty)).check(&["a.jsonl"], json!({}));
        assert!(found[0].text.contains("leave it out with `columns: {p_hat: null}`"), "{empty}: {found:?}");
    }
    let left = Data::of("a.jsonl", row("a", "NaN")).run(&["a.jsonl"], json!({"columns": {"p_hat": null}})).unwrap();
    assert_eq!(left.rows::<Pair>("pairs")[0].p_hat, 1.0);
    let late = row("a", "0.9") + &row("c", "NaN");
    let error = Data::of("a.jsonl", late).run(&["a.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("a.jsonl:2: missing: column `p_hat` is null"), "{error}");
}

#[test]
fn what_is_no_data_is_called_what_it_is() {
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0002f74190d6caea8\nsize 123456789\n";
    let wide = |order: fn(u32) -> [u8; 4]| "{\"a\": 1}".chars().flat_map(|it| order(it.into())).collect::<Vec<_>>();
    let (little, big) = (wide(u32::to_le_bytes), wide(u32::to_be_bytes));
    let cases: [(&str, &[u8], &str); 21] = [
        ("a.jsonl", &little, "UTF-32; write it as UTF-8: iconv -f utf-32le -t utf-8"),
        ("a.jsonl", &[&[0xff, 0xfe, 0, 0], &little[..]].concat(), "UTF-32; write it as UTF-8: iconv -f utf-32le"),
        ("a.jsonl", &[&[0, 0, 0xfe, 0xff], &big[..]].concat(), "UTF-32; write it as UTF-8: iconv -f utf-32be"),
        ("a.jsonl", &big, "UTF-32; write it as UTF-8: iconv -f utf-32be"),
        ("a.jsonl.gz", &gzip(&gzip(b"{\"prompt\":\"p\"}")), "packed twice; unpack it once"),
        (
            "a.json",
            br#"{"columns":["prompt"],"index":[0],"data":[["p"]]}"#,
            "pandas writes with orient=\"split\"; write rows instead: to_json(orient=\"records\", lines=True)",
        ),
        ("a.jsonl", b"<!DOCTYPE html>\n<html>", "a web page; the download gave a page in place of the data"),
        ("a.parquet", b"\n<HTML lang=\"en\">", "a web page"),
        (
            "a.parquet",
            pointer.as_bytes(),
            "a Git LFS pointer to a file of 123456789 bytes, not the file; fetch it: git lfs pull",
        ),
        ("a.csv", b"PK\x03\x04rest", "a zip archive (or .xlsx, .npz)"),
        ("a.jsonl.xz", b"\xfd7zXZ\0", "packed with xz; unpack it first"),
        ("a.jsonl", b"{\0\"\0a\0\"\0:\0", "UTF-16 without a byte order mark; write it as UTF-8: iconv -f utf-16le"),
        ("a.jsonl", b"\0{\0\"\0a\0\"\0:", "UTF-16 without a byte order mark; write it as UTF-8: iconv -f utf-16be"),
        ("a.csv", b"prompt,chosen,rejected\rp,a,b\rq,c,d\r", "its lines end in CR alone; write them with LF: tr"),
        ("a.jsonl", b"{\"prompt\":\"p\"}\r{\"prompt\":\"q\"}\r", "its lines end in CR alone"),
        ("a.arrow", b"ARROW1\0\0", "an Arrow file"),
        ("a.tar", &tar, "a tar archive"),
        ("a.jsonl", &gzip(&tar), "packed, and inside: a tar archive"),
        ("a.parquet.gz", &gzip(b"PAR1...."), "Parquet that is packed once more"),
        (
            "a.json",
            br#"{"prompt":{"0":"p","1":"q"},"chosen":{"0":"a","1":"b"}}"#,
            "to_json(orient=\"records\", lines=True)",
        ),
        ("a.json", br#"{"q1":{"prompt":"p"},"q2":{"prompt":"q"}}"#, "an object with a row under each key"),
    ];
    for (name, bytes, what) in cases {
        let data = Data::of(name, bytes);
        let found = data.check(&[name], json!({}));
        assert!(found.len() == 1 && data.short(&found[0].text).starts_with(&format!("{name}: ")), "{name}: {found:?}");
        assert!(found[0].text.contains(what), "{name}: {found:?}");
    }
}

#[test]
fn a_folder_of_save_to_disk_is_called_so() {
    let data = Data::new();
    for (folder, files) in [
        ("one", vec!["dataset_info.json", "state.json", "data-00000-of-00001.arrow"]),
        ("splits", vec!["dataset_dict.json"]),
    ] {
        std::fs::create_dir(data.path(folder)).unwrap();
        files.iter().for_each(|file| std::fs::write(data.path(folder).join(file), "{}").unwrap());
        let found = data.check(&[folder], json!({}));
        assert!(found[0].text.contains("a folder of `save_to_disk`, whose rows are Arrow files"), "{found:?}");
    }
}

#[test]
fn pipes_and_devices_are_no_files() {
    let data = Data::new();
    std::os::unix::fs::symlink("/dev/zero", data.path("zero.jsonl")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", data.path("zero.parquet")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(data.path("pipe.jsonl")).status().unwrap().success());
    for (name, what) in [("zero.jsonl", "a device"), ("zero.parquet", "a device"), ("pipe.jsonl", "a pipe")] {
        let found = data.check(&[name], json!({}));
        assert_eq!(data.short(&found[0].text), format!("{name} is {what}, wanted a file"));
    }
}

#[test]
fn names_that_are_not_utf_8_are_refused_in_patterns() {
    use std::os::unix::ffi::OsStrExt;
    let data = Data::of("a.jsonl", ROWS);
    std::fs::write(data.path("").join(std::ffi::OsStr::from_bytes(b"b\xff.jsonl")), ROWS).unwrap();
    let found = data.check(&["*.jsonl"], json!({}));
    assert!(found[0].text.contains("`b\u{fffd}.jsonl` fits and its name is not UTF-8"), "{found:?}");
    assert_eq!(data.check(&["a.*"], json!({})), []);
}
