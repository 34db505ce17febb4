//! TensorBoard's event files: TFRecord frames around protocol-buffer messages, written by hand.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kit::rows::Metric;
use kit::{Error, Result};

use crate::log::figures;

/// An open event file. It holds times, so it lies in a hidden folder beside the ports and is part of none.
pub(crate) struct EventFile {
    file: File,
    path: std::path::PathBuf,
}

impl EventFile {
    /// A new file in the folder; a resumed run adds one, and TensorBoard joins them.
    pub(crate) fn create(folder: &Path) -> Result<EventFile> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let now = now();
        let path = folder.join(format!("events.out.tfevents.{}.halftone.{}", now as u64, std::process::id()));
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        let mut events = EventFile { file, path };
        events.write(&version_event(now))?;
        Ok(events)
    }

    /// Adds the figures of a step.
    pub(crate) fn add(&mut self, metric: &Metric) -> Result<()> {
        self.write(&scalar_event(now(), metric))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        self.file.write_all(&frame(event)).map_err(Error::io(&self.path))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// Length, its checksum, the bytes, their checksum.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked_crc(data).to_le_bytes());
    out
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// `Event { wall_time: 1, file_version: 3 }`.
fn version_event(time: f64) -> Vec<u8> {
    let mut event = fixed64(1, time);
    event.extend(bytes(3, b"brain.Event:2"));
    event
}

/// `Event { wall_time: 1, step: 2, summary: 5 }`, `Summary { value: 1 }`, `Value { tag: 1, simple_value: 2 }`.
fn scalar_event(time: f64, metric: &Metric) -> Vec<u8> {
    let mut summary = Vec::new();
    for (name, value) in figures(metric) {
        let tag = match name.strip_prefix("eval_") {
            Some(name) => format!("eval/{name}"),
            None => format!("train/{name}"),
        };
        let mut scalar = bytes(1, tag.as_bytes());
        scalar.push(2 << 3 | 5); // field 2, four bytes
        scalar.extend((value as f32).to_le_bytes());
        summary.extend(bytes(1, &scalar));
    }
    let mut event = fixed64(1, time);
    event.push(2 << 3);
    event.extend(varint(metric.step));
    event.extend(bytes(5, &summary));
    event
}

fn fixed64(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_tensorboard() {
        // tensorboard.compat.tensorflow_stub.io + masked crc32c; the version event of a file at time 0:
        // Event(wall_time=0.0, file_version="brain.Event:2").
        let event = version_event(0.0);
        assert_eq!(event, b"\x09\0\0\0\0\0\0\0\0\x1a\x0dbrain.Event:2");
        // crc32c("123456789") = 0xe3069283, the check value of the polynomial.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let framed = frame(&event);
        assert_eq!(framed.len(), 8 + 4 + event.len() + 4);
        assert_eq!(framed[..8], (event.len() as u64).to_le_bytes());
        assert_eq!(varint(300), [0xac, 0x02]);
    }
}
