//! Every format that people have, from its text to the rows of the tables.

use crate::common;

use common::{Data, Done, say};
use kit::rows::{Comparison, Embedding, Item, Pair, Prompt, Response, Verdict};
use serde_json::{Value, json};

/// The pairs of a file with one row: prompt, chosen, rejected, p_hat.
fn pair(text: &str, more: Value) -> [String; 4] {
    let data = Data::of("a.jsonl", text);
    let done = data.run(&["a.jsonl"], more).unwrap();
    let rows: Vec<Pair> = done.rows("pairs");
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(row.form, "same");
    assert_eq!(row.chosen_prompt, row.rejected_prompt);
    [say(&row.chosen_prompt), say(&row.chosen), say(&row.rejected), row.p_hat.to_string()]
}

fn check(text: &str, more: Value, expected: [&str; 4]) {
    assert_eq!(pair(text, more), expected);
}

fn ingest(text: &str, more: Value) -> Done {
    Data::of("a.jsonl", text).run(&["a.jsonl"], more).unwrap()
}

#[test]
fn trl_preference() {
    let explicit = r#"{"prompt":"The sky is","chosen":" blue.","rejected":" green."}"#;
    check(explicit, json!({}), ["text: The sky is", "text:  blue.", "text:  green.", "1"]);
    check(explicit, json!({"form": "chat"}), ["user: The sky is", "assistant:  blue.", "assistant:  green.", "1"]);
    let implicit = r#"{"chosen":"The sky is blue.","rejected":"The sky is green.","p_hat":0.75}"#;
    check(implicit, json!({}), ["text: The sky is", "text:  blue.", "text:  green.", "0.75"]);
    let messages = r#"{"prompt":[{"role":"system","content":"s"},{"role":"user","content":"q"}],
        "chosen":[{"role":"assistant","content":"a"}],"rejected":[{"role":"assistant","content":"b"}]}"#;
    check(&messages.replace('\n', ""), json!({}), ["system: s | user: q", "assistant: a", "assistant: b", "1"]);
    let shared = r#"{"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],
        "rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]}"#;
    check(&shared.replace('\n', ""), json!({}), ["user: q", "assistant: a", "assistant: b", "1"]);
    let repeated = r#"{"prompt":[{"role":"user","content":"q"}],
        "chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],
        "rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]}"#;
    check(&repeated.replace('\n', ""), json!({}), ["user: q", "assistant: a", "assistant: b", "1"]);
}

#[test]
fn ultrafeedback_binarized() {
    let row = r#"{"prompt":"q","prompt_id":"f0e37e9f7800261167ce91143f98f511f768847236f133f2d0aed60b444ebe57",
        "chosen":[{"content":"q","role":"user"},{"content":"a","role":"assistant"}],
        "rejected":[{"content":"q","role":"user"},{"content":"b","role":"assistant"}],
        "messages":[{"content":"q","role":"user"},{"content":"a","role":"assistant"}],
        "score_chosen":8.0,"score_rejected":6.5}"#;
    let done = ingest(&row.replace('\n', ""), json!({}));
    let pair = done.rows::<Pair>("pairs").remove(0);
    assert_eq!(say(&pair.chosen_prompt), "user: q");
    assert!(pair.chosen_prompt_id.starts_with("f0e37e9f"));
    let responses: Vec<Response> = done.rows("responses");
    let scores: Vec<_> = responses.iter().map(|r| (r.text.as_str(), r.k, r.score)).collect();
    assert_eq!(scores, [("a", 0, Some(8.0)), ("b", 1, Some(6.5))]);
    assert_eq!(done.rows::<Prompt>("prompts").len(), 1);
}

#[test]
fn hh_transcripts() {
    let row = json!({
        "chosen": "\n\nHuman: one?\n\nAssistant: 1.\n\nHuman: two?\n\nAssistant: 2.",
        "rejected": "\n\nHuman: one?\n\nAssistant: 1.\n\nHuman: two?\n\nAssistant: No.",
    });
    let prompt = "text: \n\nHuman: one?\n\nAssistant: 1.\n\nHuman: two?\n\nAssistant:";
    check(&row.to_string(), json!({}), [prompt, "text:  2.", "text:  No.", "1"]);
    let turns = "user: one? | assistant: 1. | user: two?";
    check(&row.to_string(), json!({"form": "chat"}), [turns, "assistant: 2.", "assistant: No.", "1"]);
}

#[test]
fn dialogues_with_other_marks_are_read_as_such() {
    let row = |chosen: String, rejected: String| json!({"chosen": chosen, "rejected": rejected}).to_string();
    for (shared, ends) in [
        ("Human: What?\nAssistant: ", ""),
        ("\n\nHUMAN: What?\n\nAssistant: ", ""),
        ("User: What?\n\nAssistant: ", ""),
        ("### Human: What?\n### Assistant: ", ""),
        ("### Instruction:\nWhat?\n\n### Response:\n", ""),
        ("<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
        ("[INST] What? [/INST] ", "</s>"),
    ] {
        let side = |answer: &str| format!("{shared}It is {answer}.{ends}");
        let text = row(side("three"), side("blue"));
        check(
            &text,
            json!({"form": "chat"}),
            ["user: What?", "assistant: It is three.", "assistant: It is blue.", "1"],
        );
        let [prompt, chosen, ..] = pair(&text, json!({}));
        assert_eq!(prompt.trim_end(), format!("text: {}", shared.trim_end()));
        assert_eq!(format!("{prompt}{}", chosen.strip_prefix("text: ").unwrap()), format!("text: {}", side("three")));
        // A value that cannot be one is refused.
        let other = side("blue").replace("What?", "What now?");
        for form in ["chat", "text"] {
            let error = Data::of("a.jsonl", row(side("three"), other.clone())).run(&["a.jsonl"], json!({"form": form}));
            assert!(error.err().unwrap().contains("prompts_differ"), "{shared}");
        }
    }
    for (shared, reason) in [
        ("A chat. USER: What? ASSISTANT: ", "no_transcript"),
        ("User: What?\nRobot: ", "no_transcript"),
        ("Some words.\n\nHuman: What?\n\nAssistant: ", "no_transcript"),
        ("What?\n<extra_id_1>Assistant\n", "no_transcript"),
    ] {
        let text = row(format!("{shared}It is three."), format!("{shared}It is blue."));
        for form in ["chat", "text"] {
            let error = Data::of("a.jsonl", &text).run(&["a.jsonl"], json!({"form": form})).err().unwrap();
            assert!(error.contains(&format!("a.jsonl:1: {reason}: ")) && error.contains("give the prompt"), "{error}");
        }
    }
}

#[test]
fn transcripts_beside_plain_rows_and_beside_their_prompt() {
    let talk = |answer: &str| format!("\n\nHuman: What?\n\nAssistant: It is {answer}.");
    let rows = [
        json!({"chosen": talk("three"), "rejected": talk("blue")}),
        json!({"chosen": "plain text a", "rejected": "plain text b"}),
    ];
    for rows in [[&rows[0], &rows[1]], [&rows[1], &rows[0]]] {
        let done = ingest(&format!("{}\n{}\n", rows[0], rows[1]), json!({"form": "chat"}));
        let mut said: Vec<_> =
            done.rows::<Pair>("pairs").iter().map(|it| [say(&it.chosen_prompt), say(&it.chosen)].join(" | ")).collect();
        said.sort();
        assert_eq!(said, ["user: What? | assistant: It is three.", "user: plain text | assistant:  a"]);
        assert_eq!(done.outcome.figures["prompts that end inside a sentence"], 1);
        assert_eq!(done.outcome.figures["pairs of dialogues as text, split at their last answers"], 1);
    }
    let expected = ["user: What?", "assistant: It is three.", "assistant: It is blue.", "1"];
    for prompt in ["\n\nHuman: What?\n\nAssistant:", "\n\nHuman: What?\n\nAssistant: ", "What?", "else"] {
        let row = json!({"prompt": prompt, "chosen": talk("three"), "rejected": talk("blue")}).to_string();
        let done = ingest(&row, json!({"form": "chat"}));
        let elsewhere = done.outcome.figures.contains_key("prompt column is not in the messages");
        assert_eq!(elsewhere, prompt == "else", "{prompt}");
        check(&row, json!({"form": "chat"}), expected);
    }
    let twice = json!({"prompt": "What is it?", "chosen": "What is it? Three.", "rejected": "What is it? Blue."});
    let done = ingest(&twice.to_string(), json!({}));
    assert_eq!(done.outcome.figures["responses that begin with their prompt"], 1);
}

#[test]
fn no_response_begins_inside_a_word_or_json() {
    let row = |chosen: &str, rejected: &str| json!({"chosen": chosen, "rejected": rejected}).to_string();
    check(&row("It is blue.", "It is black."), json!({}), ["text: It is", "text:  blue.", "text:  black.", "1"]);
    let json = row("Say it. {\"a\": \"one x\"}", "Say it. {\"a\": \"one y\"}");
    let expected = ["text: Say it.", "text:  {\"a\": \"one x\"}", "text:  {\"a\": \"one y\"}", "1"];
    check(&json, json!({}), expected);
    let talk = |answer: &str| {
        json!([{"role": "user", "content": "What?"}, {"role": "assistant", "content": format!("It is {answer}.")}])
            .to_string()
    };
    // Written as JSON text once, twice and three times.
    let again = |text: &str| serde_json::to_string(text).unwrap();
    let [mut chosen, mut rejected] = [talk("three"), talk("blue")];
    for _ in 0..3 {
        let expected = ["user: What?", "assistant: It is three.", "assistant: It is blue.", "1"];
        check(&row(&chosen, &rejected), json!({"form": "chat"}), expected);
        [chosen, rejected] = [again(&chosen), again(&rejected)];
    }
    let fenced = |text: &str| format!("```json\n{text}\n```");
    let lines = |answer: &str| talk(answer).replace("},{", "}\n{").replace(['[', ']'], "");
    let [three, blue] = [talk("three"), talk("blue")];
    for (chosen, rejected, reason) in [
        (fenced(&three), fenced(&blue), "inside_json"),
        (format!("Here: {three}"), format!("Here: {blue}"), "inside_json"),
        (again(&three)[..60].to_owned(), again(&blue)[..50].to_owned(), "broken_messages"),
        (three[..three.len() - 2].to_owned(), blue[..blue.len() - 2].to_owned(), "broken_messages"),
        (lines("three"), lines("blue"), "messages_apart"),
        ("[{\"a\": \"It is 3\"}]".to_owned(), "[{\"a\": \"It is 4\"}]".to_owned(), "inside_json"),
    ] {
        for form in ["chat", "text"] {
            let data = Data::of("a.jsonl", row(&chosen, &rejected));
            let error = data.run(&["a.jsonl"], json!({"form": form})).err().unwrap();
            assert!(error.contains(&format!("a.jsonl:1: {reason}: ")), "{chosen}: {error}");
        }
    }
}

#[test]
fn empty_columns_have_no_part_in_finding_the_format() {
    let plain = json!({
        "chosen": "\n\nHuman: What is 1?\n\nAssistant: It is three.",
        "rejected": "\n\nHuman: What is 1?\n\nAssistant: It is blue.",
    });
    let names = ["prompt", "instruction", "question", "query", "context", "history", "input", "messages", "system"];
    let names = names.iter().chain(&["completion", "embedding", "label", "response_0", "chosen_prompt", "tools"]);
    for name in names {
        for empty in [json!(null), json!(""), json!(" \n"), json!([])] {
            let mut row = plain.clone();
            row[name] = empty;
            let done = Data::of("a.jsonl", format!("{row}\n")).run(&["a.jsonl"], json!({"form": "chat"})).unwrap();
            let pair = done.rows::<Pair>("pairs").remove(0);
            let said = [say(&pair.chosen_prompt), say(&pair.chosen), say(&pair.rejected)];
            assert_eq!(said, ["user: What is 1?", "assistant: It is three.", "assistant: It is blue."], "{row}");
            assert_eq!(done.outcome.figures["columns"], format!("hh: chosen, rejected; empty: {name}"));
        }
    }
    // As CSV has it; and where it is not empty further on, its row is refused.
    let csv = |more: &str| {
        let cell = |answer: &str| format!("\"\n\nHuman: q\n\nAssistant: {answer}\"");
        let row = |i: usize, question: &str| format!("{i},{},{},{question}\n", cell(&i.to_string()), cell("no"));
        let rows: String = (0..60).map(|i| row(i, if i == 59 { more } else { "" })).collect();
        Data::of("a.csv", format!("Unnamed: 0,chosen,rejected,question\n{rows}")).run(&["a.csv"], json!({}))
    };
    assert_eq!(
        csv("").unwrap().outcome.figures["columns"],
        "hh: chosen, rejected; not read: Unnamed: 0; empty: question"
    );
    let error = csv("What?").err().unwrap();
    assert!(error.contains("late_column: column `question` is empty in the first rows"), "{error}");
}

#[test]
fn embeddings_beside_responses_are_an_addition() {
    for (row, format) in [
        (json!({"prompt": "q", "chosen": "a", "rejected": "b", "embedding": [1, 2]}), "preference"),
        (json!({"prompt": "q", "chosen": "a", "rejected": "b", "embedding": null}), "preference"),
        (json!({"prompt": "q", "completion": "a", "label": true, "embedding": [1, 2]}), "unpaired"),
        (json!({"prompt": "q", "response_0": "a", "response_1": "b", "embeddings": [1, 2]}), "jpo_judge"),
        (json!({"prompt": "q", "embedding": [1, 2], "response": null}), "embeddings"),
    ] {
        let done = ingest(&row.to_string(), json!({}));
        let layout = done.outcome.figures["columns"].as_str().unwrap().to_owned();
        assert!(layout.starts_with(&format!("{format}: ")), "{layout}");
        let warned = done.events.iter().any(|event| format!("{event:?}").contains("is not read beside responses"));
        assert_eq!(warned, layout.contains("not read: embedding"), "{layout}");
    }
}

#[test]
fn alpaca_and_orca() {
    let alpaca = r#"{"instruction":"Add.","input":"1 and 2","chosen":"3","rejected":"4"}"#;
    check(alpaca, json!({}), ["text: Add.\n1 and 2", "text: 3", "text: 4", "1"]);
    let orca = r#"{"system":"Be brief.","question":"q","chosen":"a","rejected":"b"}"#;
    check(orca, json!({"form": "chat"}), ["system: Be brief. | user: q", "assistant: a", "assistant: b", "1"]);
    check(orca, json!({"form": "text"}), ["text: q", "text: a", "text: b", "1"]);
}

#[test]
fn jpo_pairs_are_same_or_joint() {
    let done = ingest(
        "{\"i_chosen\":\"p\",\"r_chosen\":\"a\",\"i_reject\":\"p\",\"r_reject\":\"b\"}\n\
         {\"i_chosen\":\"p\",\"r_chosen\":\"a\",\"i_reject\":\"q\",\"r_reject\":\"c\"}\n",
        json!({}),
    );
    let pairs: Vec<Pair> = done.rows("pairs");
    let forms: Vec<_> = pairs.iter().map(|pair| pair.form.as_str()).collect();
    assert_eq!(forms, ["same", "joint"]);
    assert_eq!(say(&pairs[1].rejected_prompt), "text: q");
    assert_eq!(done.rows::<Response>("responses").len(), 3);
    assert_eq!(done.rows::<Prompt>("prompts").len(), 2);
    assert_eq!(done.outcome.figures["joint-prompt pairs"], 1);
}

#[test]
fn ids_of_the_data_are_kept() {
    let row = r#"{"chosen_prompt_id":"p0","chosen_prompt":"p","chosen":"a","rejected_prompt_id":"p1",
        "rejected_prompt":"q","rejected":"b","p_hat":0.9,"pair_id":7,"chosen_response_id":"r0"}"#;
    let pair = ingest(&row.replace('\n', ""), json!({})).rows::<Pair>("pairs").remove(0);
    let ids = [&pair.chosen_prompt_id, &pair.rejected_prompt_id, &pair.pair_id, &pair.chosen_response_id];
    assert_eq!(ids, ["p0", "p1", "7", "r0"]);
    assert_eq!(pair.rejected_response_id, kit::ids::response_id("p1", &pair.rejected));
}

#[test]
fn judge_files_are_comparisons() {
    let done = ingest(r#"{"instruction":"p","response_0":"a","response_1":"b"}"#, json!({}));
    let rows: Vec<Comparison> = done.rows("comparisons");
    assert_eq!((say(&rows[0].a_response), rows[0].form.as_str()), ("text: a".to_owned(), "same"));
    assert!(!done.folder().join("pairs").exists());

    let joint = r#"{"instruction_0":"p","response_0":"a","instruction_1":"q","response_1":"b"}"#;
    let rows: Vec<Comparison> = ingest(joint, json!({})).rows("comparisons");
    assert_eq!((say(&rows[0].b_prompt), rows[0].form.as_str()), ("text: q".to_owned(), "joint"));
}

#[test]
fn judged_files_are_verdicts_and_pairs() {
    let row = |response: &str, feedback: u32| {
        json!({"instruction": "p", "response_0": "a", "response_1": response, "feedback": feedback}).to_string() + "\n"
    };
    let done = ingest(&[row("b", 0), row("c", 1), row("d", 2)].concat(), json!({}));
    let p_hats: Vec<_> = done.rows::<Verdict>("verdicts").iter().map(|verdict| verdict.p_hat).collect();
    assert_eq!(p_hats, [1.0, 0.0, 0.5]);
    let pairs: Vec<Pair> = done.rows("pairs");
    let sides: Vec<_> = pairs.iter().map(|pair| (say(&pair.chosen), say(&pair.rejected), pair.p_hat)).collect();
    let expected = [("text: a", "text: b", 1.0), ("text: c", "text: a", 1.0), ("text: a", "text: d", 0.5)];
    assert_eq!(sides, expected.map(|(chosen, rejected, p)| (chosen.to_owned(), rejected.to_owned(), p)));
    let verdicts: Vec<Verdict> = done.rows("verdicts");
    assert_eq!(pairs[1].comparison_id.as_ref(), Some(&verdicts[1].comparison_id));

    let alpaca_eval = r#"{"instruction":"p","output_1":"a","output_2":"b","preference":1.75,"annotator":"gpt"}"#;
    let verdict = ingest(alpaca_eval, json!({})).rows::<Verdict>("verdicts").remove(0);
    assert_eq!((verdict.p_hat, verdict.judge.as_deref()), (0.25, Some("gpt")));
}

#[test]
fn decisions_of_an_evaluation_are_verdicts_on_the_run_against_gold() {
    let key = |number: usize| {
        let between = "<SEP>".repeat(4);
        format!("### Instructions: {number}\n\n### Response:{between}gold {number}{between}answer {number}")
    };
    let decisions: serde_json::Map<String, Value> = [(1, "model"), (2, "gold"), (3, "equal")]
        .map(|(number, word)| (key(number), json!(word)))
        .into_iter()
        .collect();
    let data = Data::of("verdicts.json", serde_json::to_string_pretty(&json!({"dove": decisions})).unwrap());
    let done = data.run(&["verdicts.json"], json!({})).unwrap();
    let verdicts: Vec<Verdict> = done.rows("verdicts");
    let labels: Vec<_> = verdicts.iter().map(|row| (say(&row.a_response), say(&row.b_response), row.p_hat)).collect();
    let expected = [(1, 1.0), (2, 0.0), (3, 0.5)]
        .map(|(number, p)| (format!("text: answer {number}"), format!("text: gold {number}"), p));
    assert_eq!(labels, expected);
    assert_eq!(say(&verdicts[0].a_prompt), "text: ### Instructions: 1\n\n### Response:");
    assert_eq!(verdicts[2].source_line, Some(5));
}

#[test]
fn soft_labels_below_a_half_are_turned_around() {
    let done = ingest(r#"{"prompt":"p","chosen":"a","rejected":"b","p_hat":0.2,"weight":3}"#, json!({}));
    let pair = done.rows::<Pair>("pairs").remove(0);
    assert_eq!((say(&pair.chosen), pair.p_hat, pair.weight), ("text: b".to_owned(), 0.8, 3.0));
    assert_eq!(done.outcome.figures["turned around, p_hat below 1/2"], 1);
}

#[test]
fn pairs_can_be_judged_anew_without_a_hint_of_their_label() {
    let rows: String = (0..64)
        .map(|i| json!({"prompt": format!("p{i}"), "chosen": "good", "rejected": "bad"}).to_string() + "\n")
        .collect();
    let done = ingest(&rows, json!({}));
    let comparisons: Vec<Comparison> = done.rows("comparisons");
    let first = comparisons.iter().filter(|row| say(&row.a_response) == "text: good").count();
    assert!((16..=48).contains(&first), "the chosen side comes first in {first} of 64");
    let pairs: Vec<Pair> = done.rows("pairs");
    let ids = |id: &dyn Fn(usize) -> String| (0..64).map(id).collect::<Vec<_>>();
    assert_eq!(ids(&|i| pairs[i].comparison_id.clone().unwrap()), ids(&|i| comparisons[i].comparison_id.clone()));
}

#[test]
fn unpaired_labels_are_truth_values_or_numbers() {
    let done = ingest(
        "{\"prompt\":\"p\",\"completion\":\"a\",\"label\":true}\n{\"prompt\":\"p\",\"completion\":\"b\",\"label\":false}\n\
         {\"prompt\":\"p\",\"completion\":\"c\",\"label\":0.25}\n",
        json!({}),
    );
    let labels: Vec<_> = done.rows::<Item>("items").iter().map(|item| (say(&item.response), item.label)).collect();
    assert_eq!(labels, [("text: a", 1.0), ("text: b", 0.0), ("text: c", 0.25)].map(|(t, l)| (t.to_owned(), l)));
}

#[test]
fn demonstrations_are_responses_and_items() {
    let row = r#"{"instruction_id":"t3","subreddit":"x","instruction":"p","gold_response":"a"}"#;
    let done = ingest(row, json!({"form": "chat"}));
    let response = done.rows::<Response>("responses").remove(0);
    assert_eq!((response.prompt_id.as_str(), say(&response.messages)), ("t3", "assistant: a".to_owned()));
    assert_eq!(done.rows::<Item>("items")[0].label, 1.0);

    let row = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#;
    let item = ingest(row, json!({})).rows::<Item>("items").remove(0);
    assert_eq!((say(&item.prompt), say(&item.response)), ("user: q".to_owned(), "assistant: a".to_owned()));
}

#[test]
fn equal_samples_are_one_response_with_a_count() {
    let row = |text: &str| json!({"prompt": "p", "completion": text}).to_string() + "\n";
    let done = ingest(&[row("a"), row("b"), row("a"), row("a")].concat(), json!({}));
    let responses: Vec<_> = done.rows::<Response>("responses").iter().map(|r| (r.text.clone(), r.k, r.count)).collect();
    assert_eq!(responses, [("a".to_owned(), 0, 3), ("b".to_owned(), 1, 1)]);
    assert_eq!(done.balance(), [4, 2, 2]);
    assert_eq!(done.rejects(), [(3, "duplicate".to_owned()), (4, "duplicate".to_owned())]);
}

#[test]
fn prompts_alone() {
    for row in [r#"{"id":"x","prompt":"q"}"#, r#"{"prompt_id":"x","messages":[{"role":"user","content":"q"}]}"#] {
        let done = ingest(row, json!({"form": "chat"}));
        let prompt = done.rows::<Prompt>("prompts").remove(0);
        assert_eq!((prompt.prompt_id.as_str(), say(&prompt.messages)), ("x", "user: q".to_owned()));
        assert_eq!((prompt.source_line, prompt.source_file.unwrap().ends_with("a.jsonl")), (Some(1), true));
    }
}

#[test]
fn embeddings_have_unit_length() {
    let done = ingest(
        "{\"prompt_id\":\"p0\",\"embedding\":[3,4]}\n{\"prompt_id\":\"p1\",\"embedding\":[0,0]}\n\
         {\"prompt_id\":\"p2\",\"embedding\":[1,2,3]}\n{\"prompt_id\":\"p0\",\"embedding\":[1,0]}\n",
        json!({"on_bad_row": "reject"}),
    );
    let rows: Vec<Embedding> = done.rows("embeddings");
    assert_eq!((rows.len(), rows[0].embedding.clone()), (1, vec![0.6, 0.8]));
    let reasons = [(2, "no_direction"), (3, "wrong_width"), (4, "id_conflict")];
    assert_eq!(done.rejects(), reasons.map(|(line, reason)| (line, reason.to_owned())));
}

#[test]
fn columns_are_called_what_the_file_calls_them() {
    let row = r#"{"frage":"p","gut":"a","schlecht":"b","p":0.6}"#;
    let columns = json!({"columns": {"prompt": "frage", "chosen": "gut", "rejected": "schlecht", "p_hat": "p"}});
    check(row, columns, ["text: p", "text: a", "text: b", "0.6"]);
}

#[test]
fn csv_tsv_and_json_lists_hold_the_same() {
    let expected = ["text: p, \"q\"\nr", "text: a", "text: b", "0.75"];
    let data = Data::new();
    data.write("a.csv", "prompt,chosen,rejected,p_hat\n\"p, \"\"q\"\"\nr\",a,b,0.75\n");
    data.write("a.tsv", "\u{feff}prompt\tchosen\trejected\tp_hat\r\n\"p, \"\"q\"\"\nr\"\ta\tb\t0.75");
    let object = json!({"prompt": "p, \"q\"\nr", "chosen": "a", "rejected": "b", "p_hat": 0.75});
    data.write("a.json", serde_json::to_string_pretty(&vec![object.clone()]).unwrap());
    data.write("b.json", object.to_string());
    for (name, line) in [("a.csv", 2), ("a.tsv", 2), ("a.json", 2), ("b.json", 1)] {
        let pair = data.run(&[name], json!({})).unwrap().rows::<Pair>("pairs").remove(0);
        assert_eq!(
            [say(&pair.chosen_prompt), say(&pair.chosen), say(&pair.rejected), pair.p_hat.to_string()],
            expected
        );
        assert_eq!(pair.source_line, Some(line), "{name}");
    }
}

#[test]
fn several_files_are_read_in_order() {
    let data = Data::of("a.jsonl", "{\"prompt\":\"p\"}\n");
    data.write("b.csv", "instruction\nq\n");
    let prompts: Vec<Prompt> = data.run(&["b.csv", "a.jsonl"], json!({})).unwrap().rows("prompts");
    let found: Vec<_> = prompts.iter().map(|p| (say(&p.messages), p.source_line)).collect();
    assert_eq!(found, [("text: q".to_owned(), Some(2)), ("text: p".to_owned(), Some(1))]);
}

#[test]
fn a_limit_reads_the_first_rows() {
    let rows: String = (0..10).map(|i| json!({"prompt": i.to_string()}).to_string() + "\n").collect();
    let done = ingest(&rows, json!({"limit": 3}));
    assert_eq!((done.balance(), done.rows::<Prompt>("prompts").len()), ([3, 3, 0], 3));
}

#[test]
fn a_pattern_or_a_folder_stands_for_its_files_in_the_order_of_their_names() {
    let data = Data::new();
    std::fs::create_dir(data.path("texts")).unwrap();
    for name in ["b", "a", "c"] {
        data.write(&format!("texts/{name}.jsonl"), format!("{{\"prompt\":\"{name}\"}}\n"));
    }
    data.write("texts/notes.md", "not data").write("texts/.a.jsonl", "left by an editor");
    let prompts = |files: &[&str]| {
        let rows = data.run(files, json!({})).unwrap().rows::<Prompt>("prompts");
        rows.iter().map(|row| row.messages[0].content.clone()).collect::<Vec<_>>()
    };
    assert_eq!(prompts(&["texts"]), ["a", "b", "c"]);
    assert_eq!(prompts(&["texts/*.jsonl"]), ["a", "b", "c"]);
    assert_eq!(prompts(&["texts/c.jsonl", "texts/?.jsonl"]), ["c", "a", "b"]);
    // Each file counts by its content.
    let config = data.config(&["texts/*.jsonl"], json!({}));
    let (stage, _) = (ingest::KIND.configure)(config).unwrap();
    assert_eq!(stage.files(), ["a", "b", "c"].map(|name| data.path(&format!("texts/{name}.jsonl"))));
    data.write("texts/d.csv", "prompt\nd\n");
    let found = data.check(&["texts"], json!({}));
    assert_eq!(data.short(&found[0].text), "texts: `*.csv` and `*.jsonl` are in this folder; write which you mean");
    assert_eq!(prompts(&["texts/*.jsonl"]), ["a", "b", "c"]);
}

#[test]
fn conversations_stored_as_text_are_read_as_what_they_are() {
    let side =
        |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]).to_string();
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let data = Data::of("a.csv", format!("chosen,rejected\n{},{}\n", quoted(&side("a")), quoted(&side("b"))));
    data.write("a.jsonl", json!({"chosen": side("a"), "rejected": side("b")}).to_string());
    data.write("mixed.jsonl", json!({"prompt": "q", "chosen": side("a"), "rejected": side("b")}).to_string());
    data.write("chat.jsonl", json!({"messages": side("a")}).to_string());
    for name in ["a.csv", "a.jsonl", "mixed.jsonl"] {
        let done = data.run(&[name], json!({"form": "chat"})).unwrap();
        let pair = done.rows::<Pair>("pairs").remove(0);
        let said = [say(&pair.chosen_prompt), say(&pair.chosen), say(&pair.rejected)];
        assert_eq!(said, ["user: q", "assistant: a", "assistant: b"], "{name}");
        assert_eq!(done.outcome.figures["texts that hold messages as JSON, read as messages"], 2);
    }
    let item = data.run(&["chat.jsonl"], json!({})).unwrap().rows::<Item>("items").remove(0);
    assert_eq!(say(&item.response), "assistant: a");
    let python = side("it's").replace("\"role\"", "'role'").replace("\"content\"", "'content'");
    data.write("python.jsonl", json!({"chosen": python, "rejected": python}).to_string());
    let error = data.run(&["python.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("python_list: column `chosen` holds messages as Python prints them"), "{error}");
    assert!(error.contains("to_json(orient=\"records\", lines=True)"), "{error}");
}

#[test]
fn columns_are_named_as_messages_name_them() {
    let row = json!({"domain": "general", "ctx": "q", "left": "a", "right": "b", "vote": -2});
    let data = Data::of("a.jsonl", row.to_string());
    let error = &data.check(&["a.jsonl"], json!({"format": "jpo_judge", "columns": {"prompt": "ctx"}}))[0].text;
    assert!(error.contains("needs `response_0`, `response_1`"), "{error}");
    let columns =
        json!({"columns": {"prompt": "ctx", "response_0": "left", "response_1": "right", "strength": "vote"}});
    let verdict = data.run(&["a.jsonl"], columns).unwrap().rows::<Verdict>("verdicts").remove(0);
    assert_eq!((say(&verdict.a_response), verdict.p_hat), ("text: a".to_owned(), 5.0 / 6.0));
    let old = data.check(&["a.jsonl"], json!({"columns": {"response0": "left"}}));
    assert!(old[0].text.contains("unknown variant `response0`"), "{old:?}");
}

#[test]
fn tools_and_their_calls_are_kept() {
    let call = r#"{"type":"function","function":{"name":"add","arguments":{"b":1,"a":2}}}"#;
    let tools = r#"[{"type":"function","function":{"name":"add","parameters":{"type":"object","properties":{"b":{},"a":{}}}}}]"#;
    let row = format!(
        r#"{{"messages":[{{"role":"user","content":"2+1?"}},{{"role":"assistant","tool_calls":[{call}]}},{{"role":"tool","name":"add","content":"3"}},{{"role":"assistant","content":"3."}}],"tools":{tools}}}"#
    );
    let item = ingest(&row, json!({})).rows::<Item>("items").remove(0);
    let extra = |at: usize| item.prompt[at].extra.clone().unwrap();
    assert_eq!(extra(0), format!(r#"{{"tools":{tools}}}"#));
    assert_eq!(extra(1), format!(r#"{{"tool_calls":[{call}]}}"#));
    assert_eq!((extra(2).as_str(), say(&item.response)), (r#"{"name":"add"}"#, "assistant: 3.".to_owned()));
    let chosen = format!(r#"[{{"role":"assistant","content":null,"tool_calls":[{call}]}}]"#);
    let row = format!(
        r#"{{"prompt":"q","chosen":{chosen},"rejected":[{{"role":"assistant","content":"no"}}],"tools":{}}}"#,
        Value::from(tools)
    );
    let done = ingest(&row, json!({}));
    let pair = done.rows::<Pair>("pairs").remove(0);
    assert_eq!(pair.chosen_prompt[0].extra.as_deref(), Some(format!(r#"{{"tools":{tools}}}"#).as_str()));
    assert_eq!(done.rows::<Response>("responses")[0].text, format!("[{call}]"));
    let text = r#"{"prompt":"q","chosen":"a","rejected":"b","tools":[{"x":1}]}"#;
    let done = ingest(text, json!({}));
    let warned =
        |event: &kit::Event| matches!(event, kit::Event::Warned { text } if text.starts_with("`tools` are not read"));
    assert!(done.events.iter().any(warned), "{:?}", done.events);
    assert_eq!(
        ingest(text, json!({"form": "chat"})).rows::<Pair>("pairs")[0].chosen_prompt[0].extra.as_deref(),
        Some(r#"{"tools":[{"x":1}]}"#)
    );
}
