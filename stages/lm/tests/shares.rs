//! The optimizer's state in shares of several ranks: the bytes are those of one.

use crate::common;

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Barrier, Mutex};

use common::{numbers, oracle, rows};
use lm::{AdamW, DType, Decoder, Device, LogProbs, Memory, Sequence, Share, Training};

const FILE: &str = "training_state.safetensors";

/// Where ranks meet to swap numbers.
struct Meeting {
    all: Barrier,
    numbers: Vec<Mutex<Vec<f32>>>,
}

impl Meeting {
    fn gather(&self, share: Share, own: &[f32]) -> Result<Vec<Vec<f32>>, Infallible> {
        *self.numbers[share.rank].lock().unwrap() = own.to_vec();
        self.all.wait();
        let all = self.numbers.iter().map(|numbers| numbers.lock().unwrap().clone()).collect();
        self.all.wait();
        Ok(all)
    }
}

/// Trains in so many ranks that all have the same gradients, from the state in one folder, if any, into that of another.
fn train(dtype: DType, of: usize, steps: usize, from: Option<&Path>, to: &Path) {
    let meeting = Meeting { all: Barrier::new(of), numbers: (0..of).map(|_| Mutex::default()).collect() };
    let sequences: Vec<Sequence> = rows(&numbers("llama")).iter().map(|row| row.sequence()).collect();
    let batch: Vec<&Sequence> = sequences.iter().take(3).collect();
    std::thread::scope(|scope| {
        for rank in 0..of {
            let (meeting, batch) = (&meeting, &batch);
            scope.spawn(move || {
                let share = Share { rank, of };
                let decoder = Decoder::load_as(&oracle("llama"), &Device::Cpu, dtype).unwrap();
                let adamw = AdamW { weight_decay: 0.1, ..AdamW::default() };
                let training = Training::of_share(decoder, adamw, Some(0.5), Memory::Keep, 512, share);
                let mut training = training.unwrap();
                from.into_iter().for_each(|from| training.load_state(from).unwrap());
                for _ in 0..steps {
                    training.forward(batch, false).unwrap();
                    training.backward(&[LogProbs { response: -0.1, prompt: 0.0 }; 3]).unwrap();
                    training.step(1e-3).unwrap();
                    training.spread(|own| meeting.gather(share, own)).unwrap().unwrap();
                }
                assert_eq!(training.is_shared(), of > 1);
                assert_eq!(training.save_state(to).is_err(), of > 1, "a share is no state");
                let keeps = rank == 0;
                let state = training.gathered_state(keeps, |own| meeting.gather(share, own)).unwrap().unwrap();
                if keeps {
                    state.save(to).unwrap();
                }
            });
        }
    });
}

#[test]
fn shares_give_the_bytes_of_the_whole_and_go_on_in_other_numbers() {
    for dtype in [DType::F32, DType::BF16] {
        let folder = || tempfile::tempdir().unwrap();
        let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(FILE)).unwrap();
        let (whole, half) = (folder(), folder());
        train(dtype, 1, 4, None, whole.path());
        train(dtype, 4, 2, None, half.path());
        for of in [1, 2, 3, 8] {
            let (broken, unbroken) = (folder(), folder());
            train(dtype, of, 2, Some(half.path()), broken.path());
            assert!(read(&broken) == read(&whole), "{dtype:?}: 4 shares, then {of}");
            train(dtype, of, 4, None, unbroken.path());
            assert!(read(&unbroken) == read(&whole), "{dtype:?}: {of} shares");
        }
        let untrained = folder();
        train(dtype, 1, 0, None, untrained.path());
        assert!(read(&untrained) != read(&whole));
    }
}

/// No rank holds what is of another one's share.
#[test]
fn rows_are_shared_out_without_gap_or_overlap() {
    for (all, of) in [(10, 4), (3, 8), (64, 8), (1, 2), (0, 2)] {
        let rows: Vec<usize> = (0..of).flat_map(|rank| Share { rank, of }.rows(all)).collect();
        assert_eq!(rows, (0..all).collect::<Vec<_>>());
        let most = (0..of).map(|rank| Share { rank, of }.rows(all).len()).max().unwrap();
        assert!(most <= all.div_ceil(of), "{all} rows in {of} shares");
    }
}
