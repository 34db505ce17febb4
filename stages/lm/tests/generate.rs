//! Generation against transformers, against `score`, and against itself in other batches.

use harness::oracle;
use lm::{Decoder, Device, Finish, GenerateRequest, Generation, SamplingRules, Sequence, Text};
use serde_json::Value as Json;

fn greedy(max_tokens: usize) -> SamplingRules {
    SamplingRules { temperature: 0.0, top_p: None, top_k: None, max_tokens, stop: Vec::new() }
}

fn random(max_tokens: usize) -> SamplingRules {
    SamplingRules { temperature: 0.9, top_p: Some(0.95), top_k: Some(200), ..greedy(max_tokens) }
}

/// Prompts with what transformers 5.23 goes on with; `tests/fixtures/make_generate.py` asked it.
struct Case {
    prompt: Vec<u32>,
    ids: Vec<u32>,
    logp: f64,
}

fn cases(model: &str) -> Vec<Case> {
    let file = harness::root().join("stages/lm/tests/fixtures/greedy.json");
    let json: Json = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let ids = |value: &Json| value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let case = |case: &Json| Case {
        prompt: ids(&case["prompt_ids"]),
        ids: ids(&case["ids"]),
        logp: case["logp"].as_f64().unwrap(),
    };
    json[model].as_array().unwrap().iter().map(case).collect()
}

fn load(model: &str) -> (Text, Decoder) {
    (Text::load(&oracle(model)).unwrap(), Decoder::load(&oracle(model), &Device::Cpu).unwrap())
}

fn requests<'a>(cases: &'a [Case], seeds: &[u64]) -> Vec<GenerateRequest<'a>> {
    let request = |(index, case): (usize, &'a Case)| GenerateRequest {
        ids: &case.prompt,
        seeds: seeds.iter().map(|seed| seed + 100 * index as u64).collect(),
    };
    cases.iter().enumerate().map(request).collect()
}

#[test]
fn greedy_is_that_of_transformers() {
    for model in ["llama", "llama3", "qwen2", "qwen3", "mistral"] {
        let (text, decoder) = load(model);
        let cases = cases(model);
        let got = decoder.generate(&text, &requests(&cases, &[1]), &greedy(48), 4096).unwrap();
        for (index, (case, got)) in cases.iter().zip(&got).enumerate() {
            assert_eq!(got[0].ids, case.ids, "{model} {index}");
            assert!((got[0].logp - case.logp).abs() < 1e-3, "{model} {index}: {} {}", got[0].logp, case.logp);
            assert_eq!(got[0].finish, Finish::Length);
            assert_eq!(got[0].text, text.decode(&case.ids).unwrap());
        }
    }
}

#[test]
fn logp_is_the_score() {
    for model in ["llama", "qwen3", "mistral"] {
        let (text, decoder) = load(model);
        let cases = cases(model);
        let got = decoder.generate(&text, &requests(&cases, &[1, 2, 3]), &random(20), 512).unwrap();
        for (case, samples) in cases.iter().zip(&got) {
            for sample in samples {
                let start = case.prompt.len();
                let ids = case.prompt.iter().chain(&sample.ids).copied().collect();
                let sequence = Sequence::new(ids, start);
                let score = decoder.score(&[&sequence], false, 4096).unwrap()[0].response;
                assert!((sample.logp - score).abs() < 1e-4, "{model}: {} {score}", sample.logp);
            }
        }
    }
}

fn check_equal(one: &Generation, other: &Generation) {
    assert_eq!((&one.ids, &one.text, one.finish), (&other.ids, &other.text, other.finish));
    assert!((one.logp - other.logp).abs() < 1e-4);
}

#[test]
fn a_response_depends_on_its_seed_alone() {
    let (text, decoder) = load("llama");
    let cases = cases("llama");
    let together = decoder.generate(&text, &requests(&cases, &[1, 2, 3, 4]), &random(16), 1 << 20).unwrap();
    for budget in [1, 60, 150, 400] {
        let cut = decoder.generate(&text, &requests(&cases, &[1, 2, 3, 4]), &random(16), budget).unwrap();
        together.iter().flatten().zip(cut.iter().flatten()).for_each(|(a, b)| check_equal(a, b));
    }
    for (index, request) in requests(&cases, &[4, 2]).into_iter().enumerate() {
        let alone = decoder.generate(&text, &[request], &random(16), 4096).unwrap();
        check_equal(&together[index][3], &alone[0][0]);
        check_equal(&together[index][1], &alone[0][1]);
    }
    let all = together.iter().flatten().map(|one| &one.ids).collect::<std::collections::HashSet<_>>();
    assert_eq!(all.len(), 24, "every seed and every prompt gives another response");
    // Twice the same bytes, log-probabilities included.
    let again = decoder.generate(&text, &requests(&cases, &[1, 2, 3, 4]), &random(16), 1 << 20).unwrap();
    assert_eq!(again, together);
}

#[test]
fn an_eos_token_ends_a_response() {
    let (_, decoder) = load("llama");
    let cases = cases("llama");
    let folder = std::env::temp_dir().join(format!("lm-generate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(oracle("llama").join(file), folder.join(file)).unwrap();
    }
    let at = (4..).find(|at| !cases[0].ids[..*at].contains(&cases[0].ids[*at])).unwrap();
    let end = cases[0].ids[at];
    std::fs::write(folder.join("generation_config.json"), format!("{{\"eos_token_id\": [{end}]}}")).unwrap();
    let text = Text::load(&folder).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(text.eos_ids(), [end, 2], "the tokenizer's own EOS ends a response too");

    let got = decoder.generate(&text, &requests(&cases[..1], &[1]), &greedy(48), 4096).unwrap().remove(0).remove(0);
    assert_eq!((&got.ids[..], got.finish), (&cases[0].ids[..=at], Finish::Eos));
    assert_eq!(got.text, text.decode(&cases[0].ids[..at]).unwrap());
    // As the last token allowed it is still an EOS; one token earlier the limit comes first.
    let last = decoder.generate(&text, &requests(&cases[..1], &[1]), &greedy(at + 1), 4096).unwrap();
    assert_eq!(last[0][0].finish, Finish::Eos);
    let before = decoder.generate(&text, &requests(&cases[..1], &[1]), &greedy(at), 4096).unwrap();
    assert_eq!((before[0][0].ids.len(), before[0][0].finish), (at, Finish::Length));
}

#[test]
fn a_stop_text_ends_a_response() {
    let (text, decoder) = load("llama");
    let cases = cases("llama");
    let whole = text.decode(&cases[2].ids).unwrap();
    let characters = whole.char_indices().map(|(at, _)| at).collect::<Vec<_>>();
    let (from, to) = (characters[characters.len() / 2], characters[characters.len() / 2 + 3]);
    let stop = whole[from..to].to_owned();
    let rules = SamplingRules { stop: vec!["never to be seen".to_owned(), stop.clone()], ..greedy(48) };
    let got = decoder.generate(&text, &requests(&cases[2..3], &[1]), &rules, 4096).unwrap().remove(0).remove(0);
    assert_eq!(got.finish, Finish::Stop);
    assert_eq!(got.text, whole[..whole.find(&stop).unwrap()]);
    assert!(got.ids.len() < 48 && cases[2].ids.starts_with(&got.ids), "its tokens end where the stop text is complete");
    assert!(text.decode(&got.ids).unwrap().contains(&stop));
    assert!(!text.decode(&got.ids[..got.ids.len() - 1]).unwrap().contains(&stop));
}

#[test]
fn limits() {
    let (text, decoder) = load("llama");
    let positions = decoder.max_positions();
    let generate = |prompt: usize, max_tokens: usize| {
        let ids = vec![5; prompt];
        let request = GenerateRequest { ids: &ids, seeds: vec![1, 2] };
        decoder.generate(&text, &[request], &random(max_tokens), 64)
    };
    let one = generate(10, 1).unwrap();
    assert!(one[0].iter().all(|one| one.ids.len() == 1));
    let full = generate(positions - 3, 50).unwrap();
    assert!(full[0].iter().all(|one| one.ids.len() <= 3 && (one.finish == Finish::Eos || one.ids.len() == 3)));
    let error = generate(positions, 1).unwrap_err();
    assert!(error.is_data() && error.to_string().contains("leaves none for a response"), "{error}");
    assert!(generate(0, 1).unwrap_err().is_data());
    assert!(generate(3, 0).unwrap_err().to_string().contains("`max_tokens` is 0"));
    let none = [GenerateRequest { ids: &[5], seeds: vec![] }];
    assert_eq!(decoder.generate(&text, &none, &greedy(4), 64).unwrap(), [vec![]]);
}
