//! Sets of gradients: put aside, and added up in an order that the caller decides.

use crate::ops::{Kernel, Real, add_plain, change, kernel_for, view};
use crate::{Error, Result, Training};
use candle_core::Tensor;
use rayon::prelude::*;

/// Numbers that one task adds.
const STRETCH: usize = 1 << 15;

/// Sets of gradients beside those that backwards add to.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    /// Put aside, in their order.
    aside: Vec<Vec<Tensor>>,
    /// Of no meaning, for the next that is needed.
    spare: Vec<Vec<Tensor>>,
}

impl Sets {
    /// True where some were put aside and not added.
    pub fn open(&self) -> bool {
        !self.aside.is_empty()
    }

    /// Forgets what was put aside.
    pub fn discard(&mut self) {
        self.spare.append(&mut self.aside);
    }
}

impl Training {
    /// Puts the gradients so far aside; backwards begin again at 0.
    ///
    /// Errors: the device's.
    pub fn set_gradients_aside(&mut self) -> Result<()> {
        let mut spare = self.sets.spare.pop().into_iter().flatten();
        let mut aside = Vec::new();
        for gradient in self.decoder.parameters_mut().into_iter().filter_map(|parameter| parameter.gradient.as_mut()) {
            let zeros = match spare.next() {
                Some(tensor) => {
                    tensor.zero_set()?;
                    tensor
                }
                None => gradient.zeros_like()?,
            };
            aside.push(std::mem::replace(gradient, zeros));
        }
        self.sets.aside.push(aside);
        Ok(())
    }

    /// Adds the gradients that were put aside last to those since.
    ///
    /// Errors: none were put aside.
    pub fn add_gradients_aside(&mut self) -> Result<()> {
        let aside = self.sets.aside.pop().ok_or_else(|| Error::internal("no gradients were put aside"))?;
        let gradients = self.decoder.parameters().into_iter().filter_map(|parameter| parameter.gradient.as_ref());
        for (gradient, aside) in gradients.zip(&aside) {
            match kernel_for(&[gradient, aside]) {
                Kernel::F32 => add_on_cpu::<f32>(gradient, aside)?,
                Kernel::F64 => add_on_cpu::<f64>(gradient, aside)?,
                _ => add_plain(gradient, aside)?,
            }
        }
        self.sets.spare.push(aside);
        Ok(())
    }

    /// Sets of gradients that are held.
    pub fn gradient_sets(&self) -> usize {
        1 + self.sets.aside.len() + self.sets.spare.len()
    }
}

fn add_on_cpu<T: Real>(gradient: &Tensor, other: &Tensor) -> Result<()> {
    let other = view::<T>(other)?;
    change::<T>(gradient, |gradient| {
        let stretches = gradient.par_chunks_mut(STRETCH).zip(other.par_chunks(STRETCH));
        stretches.for_each(|(gradient, other)| gradient.iter_mut().zip(other).for_each(|(x, &y)| *x += y));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::gradient_tests::{assert_close, config, cotangents, gradients, numbers, sequences, training};
    use crate::{Decoder, Device, LogProbs, Memory, Sequence};
    use serde_json::json;

    fn whole() -> Training {
        let decoder = Decoder::init(config(json!({"model_type": "qwen2"})), 5, &Device::Cpu).unwrap();
        training(decoder.for_checks(), Memory::Keep, 1000)
    }

    #[test]
    fn gradients_put_aside_are_added_in_the_order_that_was_asked_for() {
        let mut training = whole();
        let alone: Vec<_> = (0..4)
            .map(|i| {
                training.discard().unwrap();
                gradients(&mut training, &[i])
            })
            .collect();
        training.discard().unwrap();
        for i in 0..4u32 {
            if i > 0 {
                training.set_gradients_aside().unwrap();
            }
            gradients(&mut training, &[i as usize]);
            (0..(i + 1).trailing_zeros()).for_each(|_| training.add_gradients_aside().unwrap());
        }
        assert_eq!(training.gradient_sets(), 3, "log2(4) + 1");
        let got = numbers(&training);
        for (k, (name, got)) in got.iter().enumerate() {
            let of = |i: usize, at: usize| alone[i][k].1[at];
            let wanted = (0..got.len()).map(|at| (of(0, at) + of(1, at)) + (of(2, at) + of(3, at)));
            assert!(got.iter().zip(wanted).all(|(got, wanted)| *got == wanted), "{name}");
        }
        training.step(1e-3).unwrap();
        training.set_gradients_aside().unwrap();
        assert!(training.step(1e-3).is_err(), "gradients that were put aside are not forgotten in silence");
        training.discard().unwrap();
        training.step(1e-3).unwrap();
        assert!(training.add_gradients_aside().is_err());
    }

    #[test]
    fn groups_forward_together_are_each_as_if_alone() {
        let (sequences, cotangents) = (sequences(), cotangents());
        let groups: Vec<Vec<usize>> = vec![vec![0, 1], vec![], vec![2, 3, 4]];
        let of = |group: &[usize]| -> Vec<&Sequence> { group.iter().map(|&i| &sequences[i]).collect() };
        let derivatives = |group: &[usize]| -> Vec<LogProbs> { group.iter().map(|&i| cotangents[i]).collect() };
        let (mut together, mut alone) = (whole(), whole());
        let scores = together.forward_groups(&groups.iter().map(|group| of(group)).collect::<Vec<_>>(), true).unwrap();
        for (group, scores) in groups.iter().zip(scores) {
            together.backward(&derivatives(group)).unwrap();
            assert_eq!(alone.forward(&of(group), true).unwrap(), scores);
            alone.backward(&derivatives(group)).unwrap();
        }
        assert!(together.backward(&[]).is_err(), "there is no fourth group");
        assert_close("groups", &numbers(&together), &numbers(&alone), 0.0);
    }
}
