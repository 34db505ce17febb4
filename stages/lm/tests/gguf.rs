//! A quantised file gives the numbers of the folder that it was made from.

#[path = "../../../tests/harness/gguf.rs"]
mod gguf;

use lm::{Decoder, Device, GgufModel, Sequence};

fn sequence(ids: &[u32], start: usize) -> Sequence {
    Sequence { ids: ids.to_vec(), start, prompt_tokens: start, escaped: 0, cut: 0 }
}

#[test]
fn unquantised_files_give_the_folders_numbers() {
    for (name, family) in [("llama", "llama"), ("qwen2", "qwen2"), ("qwen3", "qwen3")] {
        let oracles = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/oracles");
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.gguf");
        gguf::write(&oracles.join(name), family, &file);
        let decoder = Decoder::load(&oracles.join(name), &Device::Cpu).unwrap();
        let model = GgufModel::load(&file, &Device::Cpu).unwrap();
        // One token and several, prompts in common and not, one prompt twice in a row and again later.
        let sequences = [
            sequence(&[5, 9, 33, 7], 3),
            sequence(&[5, 9, 33, 8], 3),
            sequence(&[5, 9, 33, 8, 21, 40], 3),
            sequence(&[5, 9, 33, 11, 2], 3),
            sequence(&[17, 3], 1),
            sequence(&[5, 9, 33, 7], 3),
        ];
        let all: Vec<&Sequence> = sequences.iter().collect();
        let scores = model.score(&all).unwrap();
        let expected = decoder.score(&all, false, 4096).unwrap();
        for (got, wanted) in scores.iter().zip(&expected) {
            assert!((got - wanted.response).abs() < 1e-3, "{name}: {got} {}", wanted.response);
        }
        assert_eq!(scores[0], scores[5]);
        assert!(GgufModel::positions(&file).unwrap() > 8);
    }
}

#[test]
fn a_file_that_is_none_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    std::fs::write(&file, b"GGUF\x03 but not whole").unwrap();
    let error = GgufModel::load(&file, &Device::Cpu).err().unwrap();
    assert!(error.is_data() && error.to_string().contains("model.gguf"), "{error}");
}
