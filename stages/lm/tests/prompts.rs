//! The scored tokens of a conversation: the text before an answer, and whose words follow.

use serde_json::Value as Json;

use lm::{Displaced, PromptMismatch, Refusal, Sequence, SpecialText, Text, TextRules, TooLong, Turn};

const STOP: TextRules = TextRules {
    special_text: SpecialText::Escape,
    too_long: TooLong::Reject,
    on_prefix_mismatch: PromptMismatch::Stop,
};

const QWEN: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The system message goes into the last message if that is the user's, as Mistral's templates v2 and v3 have it.
const SYSTEM_LAST: &str = "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}\
                           {% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}\
                           {% for m in rest %}{% if m.role == 'user' %}<|im_start|>{% if loop.last and system is defined %}\
                           {{ system }}\n\n{% endif %}{{ m.content }}<|im_end|>{% else %} {{ m.content }}\
                           <|endoftext|>{% endif %}{% endfor %}";

/// The tokenizer of the Qwen fixtures under a template.
fn text(template: &str) -> Text {
    let folder = tempfile::tempdir().unwrap();
    let from = harness::root().join("stages/lm/tests/fixtures/chat/qwen2");
    std::fs::copy(from.join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = r#"{"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    Text::load(folder.path()).unwrap()
}

fn turn<'a>(role: &'a str, content: &'a str) -> Turn<'a> {
    Turn::new(role, content)
}

/// The text of a sequence, its scored part between brackets.
fn shown(text: &Text, sequence: &Sequence) -> String {
    let pieces = text.pieces(sequence).unwrap();
    let tokens: Vec<usize> = pieces.iter().flat_map(|(_, tokens, _)| tokens.clone()).collect();
    assert_eq!(tokens, (0..sequence.ids.len()).collect::<Vec<_>>(), "each token in one piece");
    let scored: usize = pieces.iter().filter(|(.., scored)| *scored).map(|(_, tokens, _)| tokens.len()).sum();
    assert_eq!(scored, sequence.completion_tokens());
    pieces.into_iter().map(|(piece, _, scored)| if scored { format!("[{piece}]") } else { piece }).collect()
}

#[test]
fn a_prompt_that_is_another_before_an_answer_stops() {
    let text = text(SYSTEM_LAST);
    let prompt = [turn("system", "be brief"), turn("user", "what is one plus one?")];
    let answer = [turn("assistant", "it is two")];
    let refused = text.single(&prompt, &answer, &STOP, 512).unwrap().unwrap_err();
    assert_eq!(refused.reason(), "prompt_displaced");
    let Refusal::Displaced { start, prompt_tokens, own, scored } = &refused else { panic!("{refused}") };
    assert!(start + 2 < *prompt_tokens && scored.starts_with("what is one"), "{refused:?}");
    assert!(own.starts_with("be brief"), "{refused:?}");

    let mut rows = Displaced::default();
    rows.note("pair `p`", &refused);
    rows.note("pair `q`", &Refusal::EmptyCompletion);
    let told = rows.stop(9).unwrap();
    assert!(told.starts_with("1 of 9 rows cannot be scored as they stand. pair `p`: the chat template"), "{told}");
    assert!(told.contains("on_prefix_mismatch: append"), "{told}");
    assert_eq!(Displaced::default().stop(9), None);

    // Without a system message the prompt is the same before an answer.
    let sequence = text.single(&prompt[1..], &answer, &STOP, 512).unwrap().unwrap();
    assert!(!sequence.displaced);
    let user = "<|im_start|>what is one plus one?<|im_end|>";
    assert_eq!(shown(&text, &sequence), format!("{user}[ it is two<|endoftext|>]"));
}

#[test]
fn an_answer_is_appended_to_the_prompts_own_rendering() {
    let text = text(SYSTEM_LAST);
    let prompt = [turn("system", "be brief"), turn("user", "what is one plus one?")];
    let rules = TextRules { on_prefix_mismatch: PromptMismatch::Append, ..STOP };
    let sides = ([turn("assistant", "it is two")], [turn("assistant", "<|im_end|> three")]);
    let (one, other) = text.pair((&prompt, &sides.0), (&prompt, &sides.1), &rules, 512).unwrap().unwrap();
    let before = "<|im_start|>be brief\n\nwhat is one plus one?<|im_end|>";
    assert_eq!(shown(&text, &one), format!("{before}[ it is two<|endoftext|>]"));
    assert_eq!(shown(&text, &other), format!("{before}[ <|im_end|> three<|endoftext|>]"));
    assert!(one.displaced && other.displaced && one.start == one.prompt_tokens);
    assert_eq!(text.prompt(&prompt, &rules, 512).unwrap().unwrap().ids, one.ids[..one.start]);

    let keep = TextRules { on_prefix_mismatch: PromptMismatch::Keep, ..STOP };
    let kept = text.single(&prompt, &sides.0, &keep, 512).unwrap().unwrap();
    assert_eq!(shown(&text, &kept), "<|im_start|>[what is one plus one?<|im_end|> it is two<|endoftext|>]");
    assert!(kept.displaced);
    let reject = TextRules { on_prefix_mismatch: PromptMismatch::Reject, ..STOP };
    let refused = text.single(&prompt, &sides.0, &reject, 512).unwrap().unwrap_err();
    assert_eq!(refused.reason(), "prefix_mismatch");
}

#[test]
fn an_opening_of_two_tokens_may_differ() {
    // As templates of reasoning models do, whose answers are written without the thoughts.
    let text = text(&QWEN.replace("assistant\n{% endif", "assistant\n: {% endif"));
    let sequence = text.single(&[turn("user", "hi")], &[turn("assistant", "no")], &STOP, 64).unwrap().unwrap();
    assert!(sequence.start < sequence.prompt_tokens && !sequence.displaced, "{sequence:?}");
    // More than that is said.
    let longer = self::text(&QWEN.replace("assistant\n{% endif", "assistant\none two three four {% endif"));
    let refused = longer.single(&[turn("user", "hi")], &[turn("assistant", "no")], &STOP, 64).unwrap().unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("one two three four") && said.contains("with the answer \"no<|im_end|>\\n\""), "{said}");
    // Both are quoted where one is white space, and where nothing follows.
    for opening in ["\n\n\n \n \n \n", "<|im_start|><|im_end|><|im_start|><|im_end|>"] {
        let odd = self::text(&QWEN.replace("assistant\n{% endif", &format!("assistant\n{opening}{{% endif")));
        let refused = odd.single(&[turn("user", "hi")], &[turn("assistant", "no")], &STOP, 64).unwrap().unwrap_err();
        let Refusal::Displaced { own, scored, .. } = &refused else { panic!("{refused}") };
        assert!(!own.trim().is_empty() && !scored.trim().is_empty(), "{refused}");
    }
    let silent = "{% if add_generation_prompt %}<|im_start|>one two three four{% else %}<|im_start|>{% endif %}";
    let silent = self::text(silent);
    let refused = silent.single(&[turn("user", "hi")], &[turn("assistant", "no")], &STOP, 64).unwrap().unwrap_err();
    assert!(refused.to_string().contains("in the prompt, and with the answer nothing"), "{refused}");
    let rules = TextRules { on_prefix_mismatch: PromptMismatch::Append, ..STOP };
    let sequence = longer.single(&[turn("user", "hi")], &[turn("assistant", "no")], &rules, 64).unwrap().unwrap();
    let before = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\none two three four";
    // The space before the answer is a part of its first token.
    assert_eq!(shown(&longer, &sequence), format!("{before}[ no<|im_end|>\n]"));
}

#[test]
fn generation_marks_say_what_is_scored() {
    let marked = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}\
                  {% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\
                  {% endif %}{{ '\n' }}{% endfor %}\
                  {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let text = text(marked);
    let prompt = [turn("user", "hi"), turn("assistant", "yes?"), turn("user", "who is <|im_start|>?")];
    let answer = [turn("assistant", "I"), turn("user", "and"), turn("assistant", "you <|im_end|> too")];
    let sequence = text.single(&prompt, &answer, &STOP, 512).unwrap().unwrap();
    let before = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes?<|im_end|>\n\
                  <|im_start|>user\nwho is <|im_start|>?<|im_end|>\n<|im_start|>assistant\n";
    let scored =
        "[I<|im_end|>]\n<|im_start|>user\nand<|im_end|>\n<|im_start|>assistant\n[you <|im_end|> too<|im_end|>]\n";
    assert_eq!(shown(&text, &sequence), format!("{before}{scored}"));
    assert_eq!(sequence.escaped, 2);
    // A cut moves what is left out with the tokens.
    let rules = TextRules { too_long: TooLong::CutLeft, ..STOP };
    let cut = text.single(&prompt, &answer, &rules, sequence.ids.len() - 5).unwrap().unwrap();
    let first = |sequence: &Sequence| sequence.ids[sequence.unscored[0].clone()].to_vec();
    assert_eq!((cut.cut, first(&cut), cut.completion_tokens()), (5, first(&sequence), sequence.completion_tokens()));
    // Private characters of the text are no borders.
    let private = [turn("assistant", "\u{10FFFB}a\u{10FFFC}b\u{10FFFD}")];
    let sequence = text.single(&prompt, &private, &STOP, 512).unwrap().unwrap();
    assert!(shown(&text, &sequence).ends_with("[\u{10FFFB}a\u{10FFFC}b\u{10FFFD}<|im_end|>]\n"));
    let keep = TextRules { on_prefix_mismatch: PromptMismatch::Keep, ..STOP };
    let refused = text.single(&prompt, &[turn("user", "me")], &keep, 512).unwrap().unwrap_err();
    assert_eq!(refused, Refusal::NothingMarked);
}

#[test]
fn what_others_say_in_a_completion_is_not_scored() {
    let text = text(QWEN);
    let prompt = [turn("user", "how warm is it?")];
    let answer = [turn("assistant", "call"), turn("tool", "20"), turn("tool", "21"), turn("assistant", "twenty")];
    let sequence = text.single(&prompt, &answer, &STOP, 512).unwrap().unwrap();
    let before = "<|im_start|>user\nhow warm is it?<|im_end|>\n<|im_start|>assistant\n";
    let tools = "<|im_start|>tool\n20<|im_end|>\n<|im_start|>tool\n21<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(shown(&text, &sequence), format!("{before}[call<|im_end|>\n]{tools}[twenty<|im_end|>\n]"));
    let last = [turn("assistant", "call"), turn("tool", "20")];
    let sequence = text.single(&prompt, &last, &STOP, 512).unwrap().unwrap();
    let tool = "<|im_start|>tool\n20<|im_end|>\n";
    assert_eq!(shown(&text, &sequence), format!("{before}[call<|im_end|>\n]{tool}"));
    // A completion of others alone is taken as it is.
    let keep = TextRules { on_prefix_mismatch: PromptMismatch::Keep, ..STOP };
    let sequence = text.single(&prompt, &[turn("user", "20")], &keep, 512).unwrap().unwrap();
    assert!(sequence.unscored.is_empty());
}

#[test]
fn calls_that_a_template_leaves_out_are_refused() {
    let calls =
        r#"{"tool_calls": [{"type": "function", "function": {"name": "warm", "arguments": {"city": "Bern"}}}]}"#;
    let old = r#"{"content": null, "function_call": {"name": "warm", "arguments": "{}"}}"#;
    let call = |extra, content| Turn { extra: Some(extra), ..Turn::new("assistant", content) };
    let prompt = [turn("user", "how warm is it?")];
    let deaf = text(&QWEN.replace("m.content", "m.content or ''"));
    for answer in [
        vec![call(calls, "")],
        vec![call(calls, " \n")],
        vec![call(old, "")],
        vec![call(calls, ""), turn("tool", "20"), turn("assistant", "twenty")],
        vec![turn("assistant", "well"), turn("tool", "20"), call(calls, "")],
    ] {
        let refused = deaf.single(&prompt, &answer, &STOP, 512).unwrap().unwrap_err();
        assert_eq!(refused.reason(), "tool_calls_left_out", "{refused}");
    }
    let pair = deaf.pair((&prompt, &[turn("assistant", "20")]), (&prompt, &[call(calls, "")]), &STOP, 512).unwrap();
    assert_eq!(pair.unwrap_err().reason(), "tool_calls_left_out");
    // Words are there to be learned, and so is the end after no call.
    for answer in [call(calls, "I will look"), call(r#"{"tool_calls": []}"#, ""), turn("assistant", "")] {
        deaf.single(&prompt, &[answer], &STOP, 512).unwrap().unwrap();
    }
    let hears = text(&QWEN.replace("{{ m.content }}", "{{ m.content or m.tool_calls }}"));
    hears.single(&prompt, &[call(calls, "")], &STOP, 512).unwrap().unwrap();
}

#[test]
fn answers_that_a_template_leaves_out_are_refused() {
    let prompt = [turn("user", "how warm is it?")];
    let answer = [turn("assistant", "twenty")];
    let several = [turn("assistant", "call"), turn("tool", "20"), turn("assistant", "twenty")];
    let deaf = text(&QWEN.replace("{{ m.content }}", "{{ m.content if m.role != 'assistant' }}"));
    for answer in [&answer[..], &several] {
        let refused = deaf.single(&prompt, answer, &STOP, 512).unwrap().unwrap_err();
        assert_eq!(refused.reason(), "words_left_out", "{refused}");
    }
    // An answer without words is all there; so is one that a template shortens or changes.
    deaf.single(&prompt, &[turn("assistant", " ")], &STOP, 512).unwrap().unwrap();
    for change in ["m.content.split('</think>')[-1] | trim", "m.content | upper"] {
        let changes = text(&QWEN.replace("m.content", change));
        let answer = [turn("assistant", "<think>warm</think> twenty ")];
        changes.single(&prompt, &answer, &STOP, 512).unwrap().unwrap();
    }
}

/// `fixtures/make_tools.py` asked transformers for text and mask.
#[test]
fn conversations_with_tools_are_those_of_transformers() {
    let cases = std::fs::read_to_string(harness::root().join("stages/lm/tests/fixtures/tools.json")).unwrap();
    let cases: Vec<Json> = serde_json::from_str(&cases).unwrap();
    let ids =
        |value: &Json| -> Vec<u32> { value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect() };
    for case in &cases {
        let text = text(case["template"].as_str().unwrap());
        let all: Vec<OwnTurn> = [&case["prompt"], &case["answer"]]
            .iter()
            .flat_map(|messages| messages.as_array().unwrap())
            .enumerate()
            .map(|(index, message)| OwnTurn::of(message, if index == 0 { &case["tools"] } else { &Json::Null }))
            .collect();
        let turns: Vec<Turn> = all.iter().map(OwnTurn::turn).collect();
        let (prompt, answer) = turns.split_at(case["prompt"].as_array().unwrap().len());
        // Where a template opens an answer in another way than it writes one is not what is asked here.
        let rules = TextRules { on_prefix_mismatch: PromptMismatch::Keep, ..STOP };
        let place = || format!("{}\n{}", case["template"].as_str().unwrap(), case["answer"]);
        assert_eq!(text.prompt(prompt, &rules, 4096).unwrap().unwrap().ids, ids(&case["prompt_ids"]), "{}", place());
        let sequence = match text.single(prompt, answer, &rules, 4096).unwrap() {
            Ok(sequence) => sequence,
            Err(refusal) => {
                let of_answer = &ids(&case["mask"])[ids(&case["prompt_ids"]).len()..];
                assert!(refusal == Refusal::NothingMarked && !of_answer.contains(&1), "{refusal}: {}", place());
                continue;
            }
        };
        let whole = ids(&case["whole_ids"]);
        assert_eq!(sequence.ids, whole, "{}\n{}", place(), text.decode(&sequence.ids).unwrap());
        let scored: Vec<u32> = (0..whole.len()).map(|at| u32::from(sequence.is_scored(at))).collect();
        // What the prompt has of marked turns is not scored.
        let mask: Vec<u32> = ids(&case["mask"]);
        assert_eq!(scored[sequence.start..], mask[sequence.start..], "{}", place());
    }
    assert_eq!(cases.len(), 12);
}

struct OwnTurn {
    role: String,
    content: String,
    extra: String,
}

impl OwnTurn {
    /// A message as tables have it.
    fn of(message: &Json, tools: &Json) -> OwnTurn {
        // The fixture's own text, for the order of keys.
        let mut extra = Vec::new();
        for (name, value) in message.as_object().unwrap() {
            match (name.as_str(), value) {
                ("role", _) | ("content", Json::String(_)) => {}
                (name, value) => extra.push(format!("{name:?}: {}", ordered(value))),
            }
        }
        if !tools.is_null() {
            extra.push(format!("\"tools\": {}", ordered(tools)));
        }
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        OwnTurn { role: text("role"), content: text("content"), extra: format!("{{{}}}", extra.join(", ")) }
    }

    fn turn(&self) -> Turn<'_> {
        Turn { extra: Some(&self.extra), ..Turn::new(&self.role, &self.content) }
    }
}

/// JSON whose objects have the keys of tools and calls in the order in which the fixture writes them.
fn ordered(value: &Json) -> String {
    const ORDER: [&str; 14] = [
        "type",
        "function",
        "name",
        "description",
        "parameters",
        "properties",
        "arguments",
        "city",
        "days",
        "least",
        "most",
        "exact",
        "all",
        "none",
    ];
    match value {
        Json::Object(object) => {
            let place = |key: &str| ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len());
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort_by_key(|key| place(key));
            let fields: Vec<String> = keys.iter().map(|key| format!("{key:?}: {}", ordered(&object[*key]))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(ordered).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[test]
fn tokens_without_a_row_in_the_model_are_named_when_text_becomes_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let from = harness::root().join("stages/lm/tests/fixtures/chat/qwen2");
    std::fs::copy(from.join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"eos_token": "<|im_end|>"}"#).unwrap();
    let vocabulary = Text::load(folder.path()).unwrap().vocabulary();
    for (rows, works) in [(vocabulary, true), (10, false)] {
        std::fs::write(folder.path().join("config.json"), format!("{{\"vocab_size\": {rows}}}")).unwrap();
        let text = Text::load(folder.path()).unwrap();
        let read = text.single(&[turn("text", "how warm")], &[turn("text", " it is")], &STOP, 64);
        assert_eq!(read.is_ok(), works);
        if let Err(error) = read {
            let error = error.to_string();
            assert!(error.contains("and the model's `vocab_size` is 10; does the tokenizer belong"), "{error}");
        }
    }
}
