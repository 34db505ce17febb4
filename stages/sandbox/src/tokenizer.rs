//! The sandbox's tokenizer, as a `tokenizer.json`: one token per word, with the space before it.
//!
//! A text is cut into words with the space before them, the marks of the judge's form with the line break before them,
//! and colons; tokens are put together again without anything between them. So the tokens of a request and an answer
//! are those of the two put together, and decoding gives every text of the sandbox back as it was.

use serde_json::{Value, json};

use crate::words::{CATEGORIES, COUNTS, TAILS, VERBS};

/// Ends a response.
pub const EOS: &str = "<eos>";
/// Fills up; no text contains it.
pub const PAD: &str = "<pad>";
/// Stands for what is not of the sandbox.
pub const UNKNOWN: &str = "<unk>";

/// The token ids of the special tokens.
pub const PAD_ID: u32 = 0;
/// See [`EOS`].
pub const EOS_ID: u32 = 1;

/// Pattern of the pieces that a text is cut into.
const PIECES: &str = r"\n(?:A:|B:|check:|better:)?| ?[A-Za-z]+|[^\nA-Za-z]";

/// Every token, by id.
pub fn vocabulary() -> Vec<String> {
    let spaced = |word: &&str| format!(" {word}");
    let mut tokens: Vec<String> = [PAD, EOS, UNKNOWN].map(str::to_owned).to_vec();
    tokens.extend([":", "\n", "\nA:", "\nB:", "\ncheck:", "\nbetter:", " A", " B", " ok", " no"].map(str::to_owned));
    tokens.extend(VERBS.iter().map(|&verb| verb.to_owned()));
    tokens.extend(COUNTS.iter().map(spaced));
    tokens.extend(TAILS.iter().filter(|tail| !tail.is_empty()).map(spaced));
    for category in &CATEGORIES {
        tokens.extend([category.one, category.several].iter().map(spaced));
    }
    for category in &CATEGORIES {
        tokens.extend(category.words.iter().map(spaced));
    }
    tokens
}

/// `tokenizer.json`.
pub fn tokenizer_json() -> Value {
    let tokens = vocabulary();
    let ids: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let special = |(id, content): (usize, &str)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true
        })
    };
    let added: Vec<Value> = [PAD, EOS, UNKNOWN].into_iter().enumerate().map(special).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": PIECES}, "behavior": "Isolated", "invert": false},
        "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": UNKNOWN}
    })
}

/// `tokenizer_config.json`: no chat template, so everything in the sandbox is raw text.
pub fn tokenizer_config_json(positions: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "clean_up_tokenization_spaces": false,
        "model_max_length": positions
    })
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use rand::{Rng, SeedableRng};
    use tokenizers::Tokenizer;

    use super::*;
    use crate::forms;
    use crate::words::{Request, answer_text};

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_str(&tokenizer_json().to_string()).unwrap()
    }

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode(text, true).unwrap().get_ids().to_vec()
    }

    #[test]
    fn every_word_is_one_token_and_comes_back() {
        let tokenizer = tokenizer();
        for (id, token) in vocabulary().iter().enumerate() {
            assert_eq!(ids(&tokenizer, token), vec![id as u32], "{token:?}");
            assert_eq!(tokenizer.decode(&[id as u32], false).unwrap(), *token);
        }
        assert_eq!(ids(&tokenizer, " quasar"), vec![2]);
    }

    #[test]
    fn texts_of_the_sandbox_come_back_and_join_without_a_seam() {
        let tokenizer = tokenizer();
        let unknown = tokenizer.token_to_id(UNKNOWN).unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let all = Request::all();
        for _ in 0..2000 {
            let [a, b] = [(); 2].map(|()| all[rng.random_range(0..all.len())]);
            let (answer_a, answer_b) = (a.answer(rng.random(), &mut rng), b.answer(rng.random(), &mut rng));
            let check = forms::check_row(&a, &answer_a);
            for (prompt, response) in [
                (a.text(), answer_text(&answer_a)),
                (forms::same(&a.text(), &answer_text(&answer_a), &answer_text(&answer_b)), " A".to_owned()),
                (forms::joint(&a.text(), &answer_text(&answer_a), &b.text(), &answer_text(&answer_b)), " B".to_owned()),
                check,
            ] {
                let (left, right) = (ids(&tokenizer, &prompt), ids(&tokenizer, &response));
                let whole = ids(&tokenizer, &format!("{prompt}{response}"));
                assert_eq!(whole, [left, right.clone()].concat(), "{prompt:?} {response:?}");
                assert!(!whole.contains(&unknown), "{prompt:?} {response:?}");
                assert_eq!(tokenizer.decode(&right, false).unwrap(), response);
                assert_eq!(tokenizer.decode(&whole, false).unwrap(), format!("{prompt}{response}"));
                let ended = ids(&tokenizer, &format!("{response}{EOS}"));
                assert_eq!(tokenizer.decode(&ended, true).unwrap(), response);
                assert_eq!(ended.last(), Some(&EOS_ID));
            }
        }
    }
}
