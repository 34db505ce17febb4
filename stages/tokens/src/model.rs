//! The model of a stage, on the device of the run.

use kit::{Context, Result};
use lm::{Decoder, Device, Dtype, Precision};

use crate::error::lm_error;

/// Opens the device of the run; warns where it or a precision is slow there.
///
/// # Errors
/// When there is no such device.
pub fn open_device(context: &Context<'_>, dtype: Dtype) -> Result<Device> {
    let device = lm::open_device(context.device).map_err(lm_error)?;
    lm::device_warnings(&device).into_iter().for_each(|text| context.warn(text));
    dtype.warning(&device).into_iter().for_each(|text| context.warn(text));
    Ok(device)
}

/// Loads the decoder of an input there, an adapter with its base.
///
/// # Errors
/// When there is no such device, or when the folder cannot be read.
pub fn load_decoder(context: &Context<'_>, input: &str, precision: Precision) -> Result<Decoder> {
    let device = open_device(context, precision.dtype)?;
    Decoder::load_in(&context.model(input)?.path, &device, precision).map_err(lm_error)
}

/// Loads the reward model of an input there.
///
/// # Errors
/// As [`load_decoder`], and where the folder's model gives no single number for a text.
pub fn load_reward_model(context: &Context<'_>, input: &str, precision: Precision) -> Result<Decoder> {
    let device = open_device(context, precision.dtype)?;
    Decoder::load_reward_model(&context.model(input)?.path, &device, precision).map_err(lm_error)
}
