//! Parquet as other tools write it.

use crate::common;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{
    FixedSizeListBuilder, Float32Builder, LargeListBuilder, ListBuilder, StringBuilder, StructBuilder,
};
use arrow_array::types::{ArrowPrimitiveType, Float16Type, Int8Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, DurationSecondArray,
    FixedSizeListArray, Float16Array, Float32Array, Int8Array, Int64Array, LargeBinaryArray, LargeStringArray,
    RecordBatch, StringViewArray, StructArray, TimestampMicrosecondArray, UInt8Array,
};
use arrow_schema::{DataType, Field, Fields, Schema};
use common::{Data, say};
use kit::rows::{Embedding, Item, Pair};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::json;

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    // The codecs of datasets on the Hugging Face hub and of pandas.
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
    let batch = batch.unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn conversations(rows: &[&[(&str, &str)]]) -> ArrayRef {
    // pyarrow sorts the fields of a struct as they come: content first.
    let fields =
        Fields::from(vec![Field::new("content", DataType::Utf8, true), Field::new("role", DataType::Utf8, true)]);
    let message = StructBuilder::new(fields, vec![Box::new(StringBuilder::new()), Box::new(StringBuilder::new())]);
    let mut lists = LargeListBuilder::new(message);
    for row in rows {
        for (role, content) in *row {
            lists.values().field_builder::<StringBuilder>(0).unwrap().append_value(content);
            lists.values().field_builder::<StringBuilder>(1).unwrap().append_value(role);
            lists.values().append(true);
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

#[test]
fn text_types_of_all_tools() {
    let data = Data::new();
    write(
        &data.path("a.parquet"),
        vec![
            ("prompt", Arc::new(LargeStringArray::from(vec![Some("p"), Some("q"), None]))),
            ("chosen", Arc::new(StringViewArray::from(vec!["a", "b", "c"]))),
            ("rejected", Arc::new(DictionaryArray::<Int8Type>::from_iter(["x", "y", "x"]))),
            ("p_hat", Arc::new(Float32Array::from(vec![0.75, 0.5, 1.0]))),
            ("id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ],
    );
    let done = data.run(&["a.parquet"], json!({"on_bad_row": "reject"})).unwrap();
    let pairs: Vec<_> =
        done.rows::<Pair>("pairs").iter().map(|p| (p.pair_id.clone(), say(&p.rejected), p.p_hat)).collect();
    assert_eq!(pairs, [("1", "text: x", 0.75), ("2", "text: y", 0.5)].map(|(i, r, p)| (i.to_owned(), r.to_owned(), p)));
    assert_eq!(done.rejects(), [(3, "missing".to_owned())]);
}

#[test]
fn conversations_are_lists_of_structs() {
    let data = Data::new();
    let chosen = conversations(&[&[("user", "q"), ("assistant", "a")]]);
    let rejected = conversations(&[&[("user", "q"), ("assistant", "b")]]);
    write(&data.path("a.parquet"), vec![("chosen", chosen), ("rejected", rejected)]);
    let pair = data.run(&["a.parquet"], json!({})).unwrap().rows::<Pair>("pairs").remove(0);
    assert_eq!([say(&pair.chosen_prompt), say(&pair.chosen)], ["user: q", "assistant: a"]);
}

#[test]
fn a_column_of_nulls_is_as_good_as_absent() {
    let data = Data::new();
    let text = |texts: [Option<&'static str>; 60]| -> ArrayRef { Arc::new(LargeStringArray::from(texts.to_vec())) };
    let columns = |late: Option<&'static str>| {
        let mut prompts = [None; 60];
        prompts[59] = late;
        vec![("prompt", text(prompts)), ("chosen", text([Some("p a"); 60])), ("rejected", text([Some("p b"); 60]))]
    };
    write(&data.path("a.parquet"), columns(None));
    let pair = data.run(&["a.parquet"], json!({})).unwrap().rows::<Pair>("pairs").remove(0);
    assert_eq!([say(&pair.chosen_prompt), say(&pair.chosen)], ["text: p", "text:  a"]);
    write(&data.path("a.parquet"), columns(Some("late")));
    let error = data.run(&["a.parquet"], json!({})).err().unwrap();
    assert!(error.contains("a.parquet:60: late_column: column `prompt` is empty in the first rows"), "{error}");
}

#[test]
fn truth_values_and_embeddings() {
    let data = Data::new();
    let text = |text: &'static str| -> ArrayRef { Arc::new(LargeStringArray::from(vec![text])) };
    let label = Arc::new(BooleanArray::from(vec![true]));
    write(&data.path("a.parquet"), vec![("prompt", text("p")), ("completion", text("a")), ("label", label)]);
    assert_eq!(data.run(&["a.parquet"], json!({})).unwrap().rows::<Item>("items")[0].label, 1.0);

    let mut vectors = FixedSizeListBuilder::new(Float32Builder::new(), 2);
    for vector in [[3.0, 4.0], [f32::NAN, 0.0]] {
        vectors.values().append_slice(&vector);
        vectors.append(true);
    }
    let ids = Arc::new(LargeStringArray::from(vec!["p", "q"]));
    write(&data.path("e.parquet"), vec![("prompt_id", ids), ("embedding", Arc::new(vectors.finish()))]);
    let done = data.run(&["e.parquet"], json!({"on_bad_row": "reject"})).unwrap();
    assert_eq!(done.rows::<Embedding>("embeddings")[0].embedding, [0.6, 0.8]);
    assert_eq!(done.rejects(), [(2, "bad_value".to_owned())]);
}

#[test]
fn a_folder_of_parts_is_one_table() {
    let data = Data::new();
    std::fs::create_dir(data.path("parts")).unwrap();
    for (name, prompt) in [("b.parquet", "second"), ("a.parquet", "first")] {
        let column = Arc::new(LargeStringArray::from(vec![prompt]));
        write(&data.path("parts").join(name), vec![("prompt", column)]);
    }
    let prompts: Vec<kit::rows::Prompt> = data.run(&["parts"], json!({})).unwrap().rows("prompts");
    let found: Vec<_> = prompts.iter().map(|p| (say(&p.messages), p.source_line)).collect();
    assert_eq!(found, [("text: first".to_owned(), Some(1)), ("text: second".to_owned(), Some(1))]);
    assert!(prompts[0].source_file.as_ref().unwrap().ends_with("parts/a.parquet"));
}

#[test]
fn tables_of_ours_can_come_back() {
    let data = Data::of("a.jsonl", r#"{"prompt":"p","chosen":"a","rejected":"b","p_hat":0.9}"#);
    let first = data.run(&["a.jsonl"], json!({})).unwrap();
    let part = first.folder().join("pairs/part-00000.parquet");
    std::fs::copy(part, data.path("pairs.parquet")).unwrap();
    let again = data.run(&["pairs.parquet"], json!({})).unwrap();
    let (before, after) = (first.rows::<Pair>("pairs").remove(0), again.rows::<Pair>("pairs").remove(0));
    assert_eq!(Pair { source_file: before.source_file.clone(), ..after }, before);
}

#[test]
fn a_torn_file_is_named() {
    let data = Data::new();
    let column: ArrayRef = Arc::new(LargeStringArray::from_iter_values((0..500).map(|i| format!("prompt {i}"))));
    write(&data.path("a.parquet"), vec![("prompt", column)]);
    let whole = std::fs::read(data.path("a.parquet")).unwrap();
    for length in (1..whole.len()).step_by(whole.len() / 16) {
        data.write("a.parquet", &whole[..length]);
        let error = data.run(&["a.parquet"], json!({"on_bad_row": "reject"})).err().unwrap();
        assert!(error.starts_with("a.parquet: not readable as Parquet: "), "{error}");
    }
    // Damage in a page, with the footer whole.
    let mut damaged = whole.clone();
    damaged[8..200].fill(0xee);
    data.write("a.parquet", &damaged);
    let error = data.run(&["a.parquet"], json!({"on_bad_row": "reject"})).err().unwrap();
    assert!(error.starts_with("a.parquet: not readable as Parquet: "), "{error}");
}

#[test]
fn a_column_that_nobody_reads_has_no_part_in_finding_the_format() {
    let data = Data::new();
    let talk = |answer: &str| -> ArrayRef {
        Arc::new(LargeStringArray::from(vec![
            format!("\n\nHuman: What is one plus two?\n\nAssistant: It is {answer}.");
            3
        ]))
    };
    let pairs = |name: &str, unread: ArrayRef| {
        let path = format!("{name}.parquet");
        write(&data.path(&path), vec![("chosen", talk("three")), ("rejected", talk("four")), ("unread", unread)]);
        let done = data.run(&[&path], json!({"form": "chat"})).unwrap();
        let pair = done.rows::<Pair>("pairs").remove(0);
        let columns = done.outcome.figures["columns"].as_str().unwrap().to_owned();
        assert_eq!(
            [say(&pair.chosen_prompt), say(&pair.chosen)],
            ["user: What is one plus two?", "assistant: It is three."],
            "{name}"
        );
        let what = if name == "nan" { "empty" } else { "not read" };
        assert_eq!(columns, format!("hh: chosen, rejected; {what}: unread"), "{name}");
    };
    pairs("stamped", Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3])));
    pairs("nan", Arc::new(Float32Array::from(vec![f32::NAN; 3])));
    pairs("picture", Arc::new(BinaryArray::from(vec![&b"\xff\xd8"[..]; 3])));
    pairs("date", Arc::new(Date32Array::from(vec![1, 2, 3])));
    pairs("duration", Arc::new(DurationSecondArray::from(vec![1, 2, 3])));
    let chats = conversations(&[&[("user", "q"), ("assistant", "a")]]);
    let stamp = Arc::new(TimestampMicrosecondArray::from(vec![1]));
    write(&data.path("chats.parquet"), vec![("messages", chats), ("created_at", stamp)]);
    assert_eq!(data.run(&["chats.parquet"], json!({})).unwrap().rows::<Item>("items").len(), 1);
}

#[test]
fn numbers_and_text_are_read_in_every_type_that_holds_them() {
    let data = Data::new();
    let label = |labels: ArrayRef| {
        let text: ArrayRef = Arc::new(BinaryArray::from(vec!["p".as_bytes(), "q".as_bytes()]));
        let completion: ArrayRef = Arc::new(LargeBinaryArray::from(vec!["ä".as_bytes(), "b".as_bytes()]));
        write(&data.path("a.parquet"), vec![("prompt", text), ("completion", completion), ("label", labels)]);
        let done = data.run(&["a.parquet"], json!({"on_bad_row": "reject"})).unwrap();
        assert_eq!(say(&done.rows::<Item>("items")[0].response), "text: ä");
        done.rows::<Item>("items").iter().map(|item| item.label).collect::<Vec<_>>()
    };
    let decimals = Decimal128Array::from(vec![25, 100]).with_precision_and_scale(5, 2).unwrap();
    assert_eq!(label(Arc::new(decimals)), [0.25, 1.0]);
    assert_eq!(label(Arc::new(Float16Array::from(vec![half(0.5), half(1.0)]))), [0.5, 1.0]);
    assert_eq!(label(Arc::new(UInt8Array::from(vec![0, 1]))), [0.0, 1.0]);
    // NaN is no label, and costs its row alone.
    assert_eq!(label(Arc::new(Float32Array::from(vec![0.5, f32::NAN]))), [0.5]);
    let keys = Int8Array::from(vec![Some(1), Some(0)]);
    let values = Arc::new(Float32Array::from(vec![1.0, 0.5]));
    assert_eq!(label(Arc::new(DictionaryArray::new(keys, values))), [0.5, 1.0]);

    let text: ArrayRef = Arc::new(LargeStringArray::from(vec!["p"]));
    let binary: ArrayRef = Arc::new(BinaryArray::from(vec![&b"\xff"[..]]));
    write(&data.path("b.parquet"), vec![("prompt", text), ("completion", binary)]);
    let error = data.run(&["b.parquet"], json!({})).err().unwrap();
    assert!(error.contains("column `completion` is 1 bytes that are not UTF-8, wanted text"), "{error}");
}

fn half(value: f32) -> <Float16Type as ArrowPrimitiveType>::Native {
    <<Float16Type as ArrowPrimitiveType>::Native>::from_f32(value)
}

#[test]
fn tool_calls_in_structs_lose_the_arguments_of_other_calls() {
    let data = Data::new();
    let text = |texts: Vec<Option<&str>>| -> ArrayRef { Arc::new(LargeStringArray::from(texts)) };
    let of = |fields: Vec<(&str, ArrayRef)>| -> ArrayRef {
        let fields = fields
            .into_iter()
            .map(|(name, array)| (Arc::new(Field::new(name, array.data_type().clone(), true)), array));
        Arc::new(StructArray::from(fields.collect::<Vec<_>>()))
    };
    let lists_of_one = |array: ArrayRef| -> ArrayRef {
        let item = Arc::new(Field::new("element", array.data_type().clone(), true));
        Arc::new(FixedSizeListArray::new(item, 1, array, None))
    };
    let arguments = of(vec![("zip", text(vec![Some("1"), None])), ("city", text(vec![None, Some("Rome")]))]);
    let function = of(vec![("name", text(vec![Some("f"), Some("g")])), ("arguments", arguments)]);
    let calls = lists_of_one(of(vec![("function", function)]));
    let messages = of(vec![
        ("content", text(vec![None, None])),
        ("role", text(vec![Some("assistant"); 2])),
        ("tool_calls", calls),
    ]);
    let [chosen, rejected] = [0, 1].map(|at| lists_of_one(messages.slice(at, 1)));
    write(&data.path("a.parquet"), vec![("prompt", text(vec![Some("q")])), ("chosen", chosen), ("rejected", rejected)]);
    let pair = data.run(&["a.parquet"], json!({})).unwrap().rows::<Pair>("pairs").remove(0);
    let calls =
        |arguments: &str| Some(format!(r#"{{"content":null,"tool_calls":[{{"function":{{"name":{arguments}}}}}]}}"#));
    assert_eq!(pair.chosen[0].extra, calls(r#""f","arguments":{"zip":"1"}"#));
    assert_eq!(pair.rejected[0].extra, calls(r#""g","arguments":{"city":"Rome"}"#));
}

#[test]
fn columns_and_items_of_the_type_json_are_what_they_say() {
    let data = Data::new();
    let extension = [("ARROW:extension:name".to_owned(), "arrow.json".to_owned())];
    let json_field = |name: &str| {
        Field::new(name, DataType::Utf8, true).with_metadata(std::collections::HashMap::from(extension.clone()))
    };
    let list = |texts: &[&str]| -> ArrayRef {
        let mut lists = ListBuilder::new(StringBuilder::new()).with_field(json_field("element"));
        lists.append_value(texts.iter().map(Some));
        Arc::new(lists.finish())
    };
    let text = |text: &str| -> ArrayRef { Arc::new(StringViewArray::from(vec![text])) };
    let call = r#"{"function": {"name": "f", "arguments": {"z": 1, "a": null}}}"#;
    let message = format!(r#"{{"role": "assistant", "content": "", "tool_calls": [{call}]}}"#);
    let columns = [
        ("prompt", list(&[r#"{"role": "user", "content": "q"}"#])),
        ("chosen", list(&[&message])),
        ("rejected", text(r#"[{"role": "assistant", "content": "b"}]"#)),
        ("tools", list(&[r#"{"y": 1, "x": 2}"#])),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| match *name {
            "rejected" => json_field(name).with_data_type(DataType::Utf8View),
            name => Field::new(name, array.data_type().clone(), true),
        })
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(data.path("a.parquet")).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let pair = data.run(&["a.parquet"], json!({})).unwrap().rows::<Pair>("pairs").remove(0);
    assert_eq!([say(&pair.chosen_prompt), say(&pair.rejected)], ["user: q", "assistant: b"]);
    assert_eq!(pair.chosen_prompt[0].extra.as_deref(), Some(r#"{"tools":[{"y":1,"x":2}]}"#));
    let calls = r#"{"tool_calls":[{"function":{"name":"f","arguments":{"z":1,"a":null}}}]}"#;
    assert_eq!(pair.chosen[0].extra.as_deref(), Some(calls));
}

#[test]
fn a_footer_that_claims_gibibytes_takes_none() {
    let data = Data::new();
    let file = File::create(data.path("a.parquet")).unwrap();
    // Sparse: as long as the footer claims.
    file.set_len(3 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"PAR1", 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"\xff\xff\xff\x7fPAR1", (3 << 30) - 8).unwrap();
    let error = data.run(&["a.parquet"], json!({})).err().unwrap();
    assert!(error.contains("its footer claims 2147483647 bytes, at most 268435456 are read"), "{error}");
}

#[test]
fn what_is_no_number_is_refused() {
    let data = Data::new();
    let text = |text: &'static str| -> ArrayRef { Arc::new(LargeStringArray::from(vec![text])) };
    let number = |number: f32| -> ArrayRef { Arc::new(Float32Array::from(vec![number])) };
    let with = |name: &'static str, column: ArrayRef| {
        let mut columns = vec![("prompt", text("p")), ("chosen", text("a")), ("rejected", text("b"))];
        columns.retain(|(other, _)| *other != name);
        columns.push((name, column));
        write(&data.path("a.parquet"), columns);
        match data.check(&["a.parquet"], json!({})) {
            found if found.is_empty() => data.run(&["a.parquet"], json!({})).err().unwrap(),
            found => found[0].text.clone(),
        }
    };
    let refusal = with("chosen", number(f32::INFINITY));
    assert!(refusal.contains("column `chosen` is the number Infinity, wanted text or messages"), "{refusal}");
    let refusal = with("p_hat", number(f32::NEG_INFINITY));
    assert!(refusal.contains("column `p_hat` is the number -Infinity, wanted a number"), "{refusal}");
    let refusal = with("p_hat", number(f32::NAN));
    assert!(refusal.contains("leave it out with `columns: {p_hat: null}`"), "{refusal}");
}
