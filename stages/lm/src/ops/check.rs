//! Finite differences, and the plain forms against the kernels.

use crate::Result;
use crate::device::open_device;
use crate::ops::cuda::emulator::emulated;
use candle_core::{DType, Device, Tensor};
use std::sync::OnceLock;

/// Numbers between -1 and 1 that look random: f64, of the given shape.
pub(crate) fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let numbers = crate::random::normal(seed, "numbers", n, 0.5);
    Tensor::from_vec(numbers.into_iter().map(f64::from).collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

type Backward<'a> = Box<dyn Fn(&[Tensor], &Tensor, &[Tensor]) -> Result<Vec<(usize, Tensor)>> + 'a>;

/// A value computed from inputs, with its backward: (inputs, gradient by the value, a buffer of zeros for each input)
/// -> gradients by some inputs; the others are added to their buffers.
pub(crate) struct Case<'a> {
    value: Tensor,
    backward: Backward<'a>,
}

impl<'a> Case<'a> {
    pub fn new(
        value: Tensor,
        backward: impl Fn(&[Tensor], &Tensor, &[Tensor]) -> Result<Vec<(usize, Tensor)>> + 'a,
    ) -> Case<'a> {
        Case { value, backward: Box::new(backward) }
    }
}

/// Checks the gradient of sum(value * c), c fixed, by every number of every input, in f64.
pub(crate) fn gradients<'a>(inputs: &[Tensor], forward: impl Fn(&[Tensor]) -> Result<Case<'a>>) {
    let case = forward(inputs).unwrap();
    let g = numbers(99, case.value.dims());
    let buffers: Vec<Tensor> = inputs.iter().map(|t| t.zeros_like().unwrap()).collect();
    let mut got: Vec<Tensor> = buffers.clone();
    for (i, gradient) in (case.backward)(inputs, &g, &buffers).unwrap() {
        got[i] = gradient;
    }
    let loss = |inputs: &[Tensor]| -> f64 {
        let value = forward(inputs).unwrap().value;
        (value * &g).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    for (i, input) in inputs.iter().enumerate() {
        let base = input.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let got = got[i].flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for at in 0..base.len() {
            let shifted = |by: f64| {
                let mut numbers = base.clone();
                numbers[at] += by;
                let mut inputs = inputs.to_vec();
                inputs[i] = Tensor::from_vec(numbers, input.dims(), &Device::Cpu).unwrap();
                loss(&inputs)
            };
            let h = 1e-5;
            let want = (shifted(h) - shifted(-h)) / (2.0 * h);
            let error = (got[at] - want).abs() / want.abs().max(1.0);
            assert!(error < 1e-7, "input {i}, number {at}: {} by hand, {want} by differences", got[at]);
        }
    }
}

/// Checks that f32 kernels, those for GPUs (emulated, or on the device of the tests) and the plain form give what the
/// f64 kernels give.
pub(crate) fn plain_agrees(inputs: &[Tensor], run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>) {
    let want = run(inputs).unwrap();
    let compare = |name: &str, got: Vec<Tensor>, tolerance: f64| {
        assert_eq!(got.len(), want.len());
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let got = got.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
            let worst = (got - want).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            let worst = worst.to_scalar::<f64>().unwrap();
            assert!(worst < tolerance, "{name}, output {i}: off by {worst}");
        }
    };
    let f32s: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
    compare("f32 kernel", run(&f32s).unwrap(), 1e-4);
    super::plainly(|| compare("plain form", run(inputs).unwrap(), 1e-10));
    if let Some(got) = emulated(|| run(&f32s)) {
        compare("GPU kernel, emulated", got.unwrap(), 1e-4);
    }
    if let Some(gpu) = test_device() {
        let there: Vec<Tensor> = f32s.iter().map(|t| t.to_device(gpu).unwrap()).collect();
        compare("GPU", run(&there).unwrap(), 1e-3);
    }
}

/// The device that `HALFTONE_TEST_DEVICE` names, opened once for all tests.
pub(crate) fn test_device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    DEVICE.get_or_init(|| std::env::var("HALFTONE_TEST_DEVICE").ok().map(|name| open_device(&name).unwrap())).as_ref()
}
