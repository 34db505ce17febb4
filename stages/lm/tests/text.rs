//! Token ids against transformers and TRL, on the oracle models and on the templates of known families.

use std::path::{Path, PathBuf};

use harness::oracle;
use lm::{PromptMismatch, Refusal, Sequence, SpecialText, Text, TextRules, TooLong, Turn};
use serde_json::Value as Json;

const RULES: TextRules = TextRules {
    special_text: SpecialText::Escape,
    too_long: TooLong::Reject,
    on_prefix_mismatch: PromptMismatch::Keep,
};

fn chats() -> PathBuf {
    harness::root().join("stages/lm/tests/fixtures/chat")
}

fn json(path: impl AsRef<Path>) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn lines(path: impl AsRef<Path>) -> Vec<Json> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(value: &Json) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn turn<'a>(role: &'a str, content: &'a str) -> Turn<'a> {
    Turn::new(role, content)
}

fn check_oracle(sequence: &Sequence, expected: &Json, place: &str) {
    let (prompt, completion) = (ids(&expected["prompt_ids"]), ids(&expected["completion_ids"]));
    assert_eq!(sequence.ids[..sequence.start], prompt, "{place}: prompt");
    assert_eq!(sequence.ids[sequence.start..], completion, "{place}: completion");
    assert_eq!((sequence.escaped, sequence.cut), (0, 0), "{place}");
}

#[test]
fn oracle_ids_are_equal() {
    for model in ["llama", "llama3", "qwen2", "qwen3", "mistral"] {
        let text = Text::load(&oracle(model)).unwrap();
        assert_eq!(text.eos_ids(), [2]);
        let expected = json(oracle(format!("{model}.json")));
        for (table, file) in [("pairs", "pairs.jsonl"), ("joint", "joint.jsonl")] {
            for (form, roles) in [("text", ["text", "text"]), ("chat", ["user", "assistant"])] {
                for (row, data) in lines(oracle(file)).iter().enumerate() {
                    let of = |key: &str| data[key].as_str();
                    let prompt = |side: &str| of(&format!("{side}_prompt")).or_else(|| of("prompt")).unwrap();
                    let side =
                        |side: &str| ([turn(roles[0], prompt(side))], [turn(roles[1], data[side].as_str().unwrap())]);
                    let (chosen, rejected) = (side("chosen"), side("rejected"));
                    let pair =
                        text.pair((&chosen.0, &chosen.1), (&rejected.0, &rejected.1), &RULES, 1024).unwrap().unwrap();
                    let expected = &expected[table][form];
                    let place = format!("{model} {table} {form} row {row}");
                    check_oracle(&pair.0, &expected["chosen"][row], &format!("{place} chosen"));
                    check_oracle(&pair.1, &expected["rejected"][row], &format!("{place} rejected"));
                    let single = text.single(&chosen.0, &chosen.1, &RULES, 1024).unwrap().unwrap();
                    check_oracle(&single, &expected["chosen"][row], &format!("{place} single"));
                    let prompt = text.prompt(&chosen.0, &RULES, 1024).unwrap().unwrap();
                    assert_eq!(prompt.ids, ids(&expected["chosen"][row]["prompt_ids"]), "{place} prompt");
                    assert_eq!(prompt.start, prompt.ids.len());
                }
            }
        }
    }
}

const FAMILIES: [&str; 6] = ["llama3", "qwen2", "qwen3", "gemma", "mistral", "llama2"];

/// `tests/fixtures/make_chat.py` made the folders and asked transformers 5.23 for the ids.
#[test]
fn families_of_chat_templates_are_equal() {
    let expected = json(chats().join("expected.json"));
    let rules = TextRules { special_text: SpecialText::Allow, ..RULES };
    for family in FAMILIES {
        let text = Text::load(&chats().join(family)).unwrap();
        let expected = &expected[family];
        for case in expected["chat"].as_array().unwrap() {
            let place = format!("{family}: {}", case["messages"]);
            let of = |pair: &Json, index: usize| pair[index].as_str().unwrap().to_owned();
            let messages = case["messages"].as_array().unwrap();
            let messages = messages.iter().map(|pair| (of(pair, 0), of(pair, 1))).collect::<Vec<_>>();
            let turns = messages.iter().map(|(role, content)| turn(role, content)).collect::<Vec<_>>();
            let response = [turn("assistant", case["response"].as_str().unwrap())];
            let single = text.single(&turns, &response, &rules, 4096).unwrap();
            if let Some(words) = case["refused"].as_str() {
                assert_eq!(single.unwrap_err(), Refusal::Template { detail: words.to_owned() }, "{place}");
                continue;
            }
            let prompt = text.prompt(&turns, &rules, 4096).unwrap().unwrap();
            assert_eq!(prompt.ids, ids(&case["prompt_ids"]), "{place}");
            check_common_prefix(&single, &prompt.ids, &ids(&case["whole_ids"]), &place);
            if let Some(bos) = expected["bos"].as_u64() {
                assert_eq!(prompt.ids.iter().filter(|id| **id == bos as u32).count(), 1, "{place}: one BOS");
            }
        }
        for case in expected["text"].as_array().unwrap() {
            let place = format!("{family} text: {case}");
            let prompt = [turn("text", case["prompt"].as_str().unwrap())];
            let response = [turn("text", case["response"].as_str().unwrap())];
            let alone = ids(&case["prompt_ids"]);
            match text.prompt(&prompt, &rules, 4096).unwrap() {
                Ok(prompt) => assert_eq!(prompt.ids, alone, "{place}"),
                Err(refusal) => assert!(refusal == Refusal::EmptyPrompt && alone.is_empty(), "{place}: {refusal}"),
            }
            let single = text.single(&prompt, &response, &rules, 4096).unwrap();
            check_common_prefix(&single, &alone, &ids(&case["whole_ids"]), &place);
        }
        for pair in expected["decoded"].as_array().unwrap() {
            assert_eq!(text.decode(&ids(&pair[0])).unwrap(), pair[1].as_str().unwrap(), "{family}");
        }
    }
}

/// Gemma 3 has no system role: its template puts that message before the user's. Ids by transformers 5.24.
#[test]
fn gemma_3_puts_a_system_message_into_the_first_turn() {
    let folder = tempfile::tempdir().unwrap();
    let gemma = chats().join("gemma");
    let mut config = json(gemma.join("tokenizer_config.json"));
    config.as_object_mut().unwrap().remove("chat_template");
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    std::fs::copy(gemma.join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    std::fs::copy(chats().join("gemma3.jinja"), folder.path().join("chat_template.jinja")).unwrap();
    let text = Text::load(folder.path()).unwrap();
    let turns = [turn("system", "Be brief."), turn("user", " Who is there? ")];
    let want = [
        2, 4, 326, 324, 347, 262, 282, 310, 351, 323, 314, 310, 311, 270, 262, 262, 300, 313, 320, 382, 346, 344, 280,
        5, 262, 4, 318, 320, 309, 310, 317, 262, 289, 325, 382, 365, 270, 5, 262,
    ];
    assert_eq!(text.prompt(&turns, &RULES, 4096).unwrap().unwrap().ids, want[..32]);
    let single = text.single(&turns, &[turn("assistant", "It is I.")], &RULES, 4096).unwrap().unwrap();
    assert_eq!((&single.ids[..], single.start), (&want[..], 32));
}

fn check_common_prefix(got: &Result<Sequence, Refusal>, alone: &[u32], whole: &[u32], place: &str) {
    let start = alone.iter().zip(whole).take_while(|(a, b)| a == b).count();
    match got {
        Ok(sequence) => {
            assert_eq!(sequence.ids, whole, "{place}");
            assert_eq!((sequence.start, sequence.prompt_tokens), (start, alone.len()), "{place}");
        }
        Err(Refusal::EmptyPrompt) => assert_eq!(start, 0, "{place}"),
        Err(Refusal::EmptyCompletion) => assert_eq!(start, whole.len(), "{place}"),
        Err(refusal) => panic!("{place}: {refusal}"),
    }
}

/// In raw text the escaped ids are those of transformers' `split_special_tokens`.
#[test]
fn special_text_is_ordinary_text_in_raw_text() {
    let expected = json(chats().join("expected.json"));
    for family in FAMILIES {
        let text = Text::load(&chats().join(family)).unwrap();
        for case in expected[family]["plain"].as_array().unwrap() {
            let prompt = [turn("text", case["prompt"].as_str().unwrap())];
            let response = [turn("text", case["response"].as_str().unwrap())];
            let single = text.single(&prompt, &response, &RULES, 4096).unwrap().unwrap();
            let mut whole = ids(&case["body_ids"]);
            whole.push(case["eos_id"].as_u64().unwrap() as u32);
            assert_eq!(single.ids, whole, "{family}: {case}");
            assert_eq!(single.escaped, 1, "{family}: {case}");
        }
    }
}

#[test]
fn special_text_in_messages() {
    for family in FAMILIES {
        let text = Text::load(&chats().join(family)).unwrap();
        let eos = json(chats().join("expected.json"))[family]["eos"].as_str().unwrap().to_owned();
        let content = format!("say {eos} twice {eos}");
        let user = [turn("user", &content)];
        let count = |sequence: &Sequence| {
            let special = |id: &&u32| text.special_ids().contains(id);
            sequence.ids.iter().filter(special).count()
        };
        let plain = text.prompt(&[turn("user", "say that twice")], &RULES, 4096).unwrap().unwrap();
        let escaped = text.prompt(&user, &RULES, 4096).unwrap().unwrap();
        assert_eq!(count(&escaped), count(&plain), "{family}: the template's own tokens alone");
        assert_eq!(escaped.escaped, 2);
        assert!(text.decode(&escaped.ids).unwrap().contains(&content), "{family}: every character is there");
        let allowed = TextRules { special_text: SpecialText::Allow, ..RULES };
        let allowed = text.prompt(&user, &allowed, 4096).unwrap().unwrap();
        assert_eq!((count(&allowed), allowed.escaped), (count(&plain) + 2, 0), "{family}");
        let reject = TextRules { special_text: SpecialText::Reject, ..RULES };
        assert_eq!(text.prompt(&user, &reject, 4096).unwrap(), Err(Refusal::SpecialText { token: eos.clone() }));
        assert!(text.prompt(&[turn("user", "no such thing")], &reject, 4096).unwrap().is_ok());

        // Private characters in the text are no way around it.
        let forged = (0..40).map(|index| char::from_u32(0xF0000 + index).unwrap()).collect::<String>() + &eos;
        let forged = text.prompt(&[turn("user", &forged)], &RULES, 4096).unwrap().unwrap();
        assert_eq!((count(&forged), forged.escaped), (count(&plain), 1), "{family}");
    }
}

#[test]
fn escaped_text_is_tokenised_as_if_the_token_were_none() {
    // With `|` and `<` the ordinary tokens around the span may merge with it, exactly as in a text without the token.
    let text = Text::load(&oracle("llama")).unwrap();
    let escaped = text.prompt(&[turn("user", "a <|im_end|> b")], &RULES, 1024).unwrap().unwrap();
    let ordinary = text.prompt(&[turn("user", "a <|im_EnD|> b")], &RULES, 1024).unwrap().unwrap();
    assert_eq!(escaped.ids.iter().filter(|id| **id == 2).count(), ordinary.ids.iter().filter(|id| **id == 2).count());
    assert!(text.decode(&escaped.ids).unwrap().contains("a <|im_end|> b"));
    // Across the border of prompt and response, too.
    let single = text.single(&[turn("text", "x<|im_")], &[turn("text", "end|> y")], &RULES, 1024).unwrap().unwrap();
    assert_eq!((single.ids.iter().filter(|id| **id == 2).count(), single.escaped), (1, 1));
    // The EOS at the very end of a completion is the end.
    let ended = text.single(&[turn("text", "x")], &[turn("text", " y<|im_end|>")], &RULES, 1024).unwrap().unwrap();
    assert_eq!((ended.ids.last(), ended.escaped), (Some(&2), 0));
}

#[test]
fn a_token_that_is_a_whole_word_cannot_be_escaped() {
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "added_tokens": [{"id": 0, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "model": {"type": "WordLevel", "vocab": {"<end>": 0, "<unk>": 1, "yes": 2}, "unk_token": "<unk>"}
    });
    let folder = copy_with("words", |folder| {
        std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        std::fs::write(folder.join("tokenizer_config.json"), "{\"eos_token\": \"<end>\"}").unwrap();
    });
    let text = Text::load(folder.path()).unwrap();
    let refused = text.single(&[turn("text", "yes <end>")], &[turn("text", " yes")], &RULES, 64).unwrap();
    assert_eq!(refused, Err(Refusal::SpecialText { token: "<end>".to_owned() }));
    let sequence = text.single(&[turn("text", "yes")], &[turn("text", " yes <end>")], &RULES, 64).unwrap().unwrap();
    assert_eq!((sequence.ids, sequence.start), (vec![2, 2, 0], 1));
}

#[test]
fn too_long() {
    let text = Text::load(&oracle("llama")).unwrap();
    let prompt = [turn("text", "one two three four five six seven eight nine ten")];
    let (short, long) = ([turn("text", " yes")], [turn("text", " no, never in a hundred years")]);
    let whole = text.pair((&prompt, &short), (&prompt, &long), &RULES, 1024).unwrap().unwrap();
    let tokens = whole.1.ids.len();
    let limit = tokens - 3;
    assert_eq!(
        text.pair((&prompt, &short), (&prompt, &long), &RULES, limit).unwrap(),
        Err(Refusal::TooLong { tokens, limit })
    );
    assert!(text.pair((&prompt, &short), (&prompt, &long), &RULES, tokens).unwrap().is_ok());

    let cut_rules = TextRules { too_long: TooLong::CutLeft, ..RULES };
    let cut = text.pair((&prompt, &short), (&prompt, &long), &cut_rules, limit).unwrap().unwrap();
    for (cut, whole) in [(&cut.0, &whole.0), (&cut.1, &whole.1)] {
        assert_eq!(cut.ids, whole.ids[3..], "both sides lose the same tokens");
        assert_eq!((cut.start, cut.prompt_tokens, cut.cut), (whole.start - 3, whole.prompt_tokens - 3, 3));
    }
    // One prompt token stays; below that the row is refused.
    let completion = whole.1.ids.len() - whole.1.start;
    assert_eq!(text.single(&prompt, &long, &cut_rules, completion + 1).unwrap().unwrap().start, 1);
    let refused = text.single(&prompt, &long, &cut_rules, completion).unwrap();
    assert_eq!(refused, Err(Refusal::TooLong { tokens, limit: completion }));
    // Different prompts are cut each for itself.
    let other = [turn("text", "one")];
    let joint = text.pair((&other, &short), (&prompt, &long), &cut_rules, limit).unwrap().unwrap();
    assert_eq!((joint.0.cut, joint.1.cut), (0, 3));

    let error = text.single(&prompt, &long, &TextRules { too_long: TooLong::Error, ..RULES }, limit).unwrap_err();
    assert!(
        error.is_data() && error.to_string().contains(&format!("has {tokens} tokens, the limit is {limit}")),
        "{error}"
    );

    // A leading BOS stays where it is.
    let text = Text::load(&chats().join("llama3")).unwrap();
    let whole = text.single(&prompt, &long, &RULES, 1024).unwrap().unwrap();
    let cut = text.single(&prompt, &long, &cut_rules, whole.ids.len() - 2).unwrap().unwrap();
    assert_eq!((cut.ids[0], &cut.ids[1..]), (whole.ids[0], &whole.ids[3..]));
}

#[test]
fn a_pair_starts_at_the_shorter_common_prefix() {
    let text = Text::load(&oracle("llama")).unwrap();
    // "th" + "e" merges, "th" + "!" does not.
    let prompt = [turn("text", "all of th")];
    let (merging, other) = ([turn("text", "e rest")], [turn("text", "! no")]);
    let alone = text.single(&prompt, &other, &RULES, 64).unwrap().unwrap();
    let merged = text.single(&prompt, &merging, &RULES, 64).unwrap().unwrap();
    assert!(merged.start < merged.prompt_tokens && alone.start == alone.prompt_tokens, "{merged:?} {alone:?}");
    let pair = text.pair((&prompt, &merging), (&prompt, &other), &RULES, 64).unwrap().unwrap();
    assert_eq!((pair.0.start, pair.1.start), (merged.start, merged.start));
    assert_eq!(pair.1.ids, alone.ids);
    let strict = TextRules { on_prefix_mismatch: PromptMismatch::Reject, ..RULES };
    let refused = text.pair((&prompt, &merging), (&prompt, &other), &strict, 64).unwrap().unwrap_err();
    assert_eq!(refused, Refusal::PrefixMismatch { start: merged.start, prompt_tokens: merged.prompt_tokens });
    assert_eq!(refused.reason(), "prefix_mismatch");
    assert!(text.single(&prompt, &other, &strict, 64).unwrap().is_ok());
}

#[test]
fn continuations_are_tokenised_with_the_prompt() {
    let text = Text::load(&oracle("llama")).unwrap();
    let prompt = [turn("user", "Which is better?")];
    let alone = text.prompt(&prompt, &RULES, 64).unwrap().unwrap();
    let labels = text.continuations(&prompt, &["A", " A", "B"], &RULES, 64).unwrap().unwrap();
    for label in &labels {
        assert_eq!((&label.ids[..label.start], label.start), (&alone.ids[..], alone.ids.len()));
        assert_ne!(label.ids.last(), Some(&2), "no EOS");
    }
    assert_eq!(labels[1].ids.len() - labels[1].start, 1);
    let raw = text.continuations(&[turn("text", "all of th")], &["e", "!"], &RULES, 64).unwrap().unwrap();
    assert_eq!(raw[0].start, raw[1].start, "one context for all");
    assert!(raw[0].start < raw[0].prompt_tokens);
    let empty = text.continuations(&prompt, &["A", ""], &RULES, 64).unwrap();
    assert_eq!(empty, Err(Refusal::EmptyCompletion));
}

#[test]
fn forms() {
    let text = Text::load(&oracle("llama")).unwrap();
    let user = [turn("user", "Hi")];
    // Raw text after a generation prompt ends with the EOS and without the template's newline.
    let chat = text.single(&user, &[turn("assistant", "Yes")], &RULES, 64).unwrap().unwrap();
    let raw = text.single(&user, &[turn("text", "Yes")], &RULES, 64).unwrap().unwrap();
    assert_eq!(raw.ids, chat.ids[..chat.ids.len() - 1]);
    assert_eq!(text.single(&user, &[], &RULES, 64).unwrap(), Err(Refusal::EmptyCompletion));
    let two = [turn("assistant", "a"), turn("assistant", "b")];
    assert_eq!(text.single(&[turn("text", "x")], &two, &RULES, 64).unwrap().unwrap_err().reason(), "form");
    let mixed = [turn("user", "a"), turn("text", "b")];
    assert_eq!(text.prompt(&mixed, &RULES, 64).unwrap().unwrap_err().reason(), "form");
    assert_eq!(text.prompt(&[turn("text", "")], &RULES, 64).unwrap(), Err(Refusal::EmptyPrompt));
}

fn copy_with(name: &str, change: impl Fn(&Path)) -> tempdir::Folder {
    let folder = tempdir::Folder::new(name);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(oracle("llama").join(file), folder.path().join(file)).unwrap();
    }
    change(folder.path());
    folder
}

/// A folder under the system's temporary folder, gone after the test.
mod tempdir {
    use std::path::{Path, PathBuf};

    pub struct Folder(PathBuf);

    impl Folder {
        pub fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("lm-text-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[test]
fn a_malformed_tokenizer_is_an_error_that_names_the_file() {
    let whole = std::fs::read_to_string(oracle("llama/tokenizer.json")).unwrap();
    let with = |path: &[&str], value: Json| {
        let mut tokenizer: Json = serde_json::from_str(&whole).unwrap();
        let mut place = &mut tokenizer;
        for key in path {
            place = &mut place[*key];
        }
        *place = value;
        tokenizer.to_string()
    };
    let cases = [
        ("empty", String::new()),
        ("torn", whole[..whole.len() / 2].to_owned()),
        ("nothing", "{}".to_owned()),
        ("a-list", "[1, 2]".to_owned()),
        ("null", "null".to_owned()),
        ("no-model", with(&["model"], Json::Null)),
        ("no-such-model", with(&["model", "type"], "Mystery".into())),
        ("empty-vocab", with(&["model", "vocab"], serde_json::json!({}))),
        ("vocab-of-texts", with(&["model", "vocab"], serde_json::json!({"a": "b"}))),
        ("merges-of-strangers", with(&["model", "merges"], serde_json::json!([["never", "seen"]]))),
        ("merges-of-one", with(&["model", "merges"], serde_json::json!(["one"]))),
        ("bad-pre-tokenizer", with(&["pre_tokenizer"], serde_json::json!({"type": "Split"}))),
        (
            "bad-regex",
            with(
                &["pre_tokenizer"],
                serde_json::json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
            ),
        ),
        (
            "bad-post-processor",
            with(&["post_processor", "single"], serde_json::json!([{"SpecialToken": {"id": "<s>", "type_id": 0}}])),
        ),
        (
            "bad-charsmap",
            with(&["normalizer"], serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ),
        ("added-token-elsewhere", with(&["added_tokens"], serde_json::json!([{"id": 7, "content": 3}]))),
        ("added-token-without-id", with(&["added_tokens"], serde_json::json!([{"content": "<x>"}]))),
    ];
    for (name, content) in cases {
        let folder = copy_with(name, |folder| std::fs::write(folder.join("tokenizer.json"), &content).unwrap());
        let file = folder.path().join("tokenizer.json");
        match Text::load(folder.path()) {
            Ok(_) => panic!("{name}: accepted"),
            Err(error) => {
                assert!(error.is_data(), "{name}: {error}");
                assert!(error.to_string().starts_with(&file.display().to_string()), "{name}: {error}");
            }
        }
    }
    let folder = copy_with("missing", |folder| std::fs::remove_file(folder.join("tokenizer.json")).unwrap());
    assert!(Text::load(folder.path()).err().unwrap().to_string().contains("tokenizer.json"));
}

#[test]
fn malformed_settings_name_their_file() {
    let check = |name: &str, file: &str, content: &str, words: &str| {
        let folder = copy_with(name, |folder| std::fs::write(folder.join(file), content).unwrap());
        let error = Text::load(folder.path()).err().unwrap_or_else(|| panic!("{name}: accepted")).to_string();
        assert!(error.contains(&format!("{file}: ")) && error.contains(words), "{name}: {error}");
    };
    check("config", "tokenizer_config.json", "{", "not JSON");
    check("eos", "tokenizer_config.json", "{\"eos_token\": 3}", "`eos_token`");
    check("eos-id", "generation_config.json", "{\"eos_token_id\": \"2\"}", "`eos_token_id`");
    check("template", "chat_template.jinja", "{% for %}", "not a chat template");
    check(
        "template-list",
        "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"a\", \"template\": \"\"}, {\"name\": \"b\", \"template\": \"\"}]}",
        "a, b",
    );
    let folder = copy_with("no-template", |_| ());
    let error = Text::load(folder.path()).unwrap().prompt(&[turn("user", "x")], &RULES, 64).unwrap_err();
    assert!(error.to_string().contains("has no chat template"), "{error}");
}
