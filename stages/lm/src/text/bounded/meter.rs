//! The bytes that a rendering has made so far, and the size of a value.

use std::cell::Cell;
use std::time::{Duration, Instant};

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::beyond;

/// Bytes that one rendering may make, all its values and its output together.
const MADE: usize = 256 << 20;
/// Bytes that one value may come to when all of it is written out.
const VALUE: usize = 64 << 20;
/// Most levels of lists and mappings in each other.
const DEPTH: usize = 100;
/// Seconds that one rendering may take.
const SECONDS: u64 = 60;
/// Bytes that a value counts beside its text.
const NODE: usize = 32;

thread_local! {
    static METER: Cell<Option<Meter>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Meter {
    left: usize,
    until: Instant,
}

/// A rendering on this thread that is metered until this is dropped.
pub(super) struct Metered(Option<Meter>);

impl Metered {
    pub(super) fn start() -> Metered {
        let meter = Meter { left: MADE, until: Instant::now() + Duration::from_secs(SECONDS) };
        Metered(METER.replace(Some(meter)))
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        METER.set(self.0);
    }
}

/// Size of a value when all of it is written out.
#[derive(Default)]
pub(super) struct Size {
    pub(super) bytes: usize,
    pub(super) values: usize,
    pub(super) depth: usize,
}

/// Takes bytes from what the rendering may still make.
pub(super) fn charge(bytes: usize) -> Result<(), Error> {
    let Some(meter) = METER.get() else { return Ok(()) };
    let Some(left) = meter.left.checked_sub(bytes) else {
        return Err(beyond(&format!("make more than {MADE} bytes of text and values in one rendering")));
    };
    METER.set(Some(Meter { left, ..meter }));
    Ok(())
}

/// Checks that the rendering may make so many bytes more.
pub(super) fn afford(bytes: usize) -> Result<(), Error> {
    let before = METER.get();
    let charged = charge(bytes);
    METER.set(before);
    charged
}

/// Measures a value that is taken up.
pub(super) fn seen(value: &Value) -> Result<Size, Error> {
    if METER.get().is_some_and(|meter| Instant::now() > meter.until) {
        return Err(beyond(&format!("take more than {SECONDS} seconds for one rendering")));
    }
    let mut size = Size::default();
    walk(value, 0, &mut size)?;
    Ok(size)
}

/// Measures and counts a value that was made. What is computed only when it is asked for becomes a list.
pub(super) fn made(value: Value) -> Result<Value, Error> {
    // So does a list that is put together from others when it is walked through.
    let put_together = |value: &Value| value.downcast_object_ref::<Vec<Value>>().is_none() && !value.is_tuple();
    let value = match value.kind() {
        kind if kind == ValueKind::Iterable || (kind == ValueKind::Seq && put_together(&value)) => {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                charge(NODE)?;
                items.push(item);
            }
            Value::from(items)
        }
        ValueKind::Seq | ValueKind::Map => {
            charge(NODE * (1 + value.len().unwrap_or(0)))?;
            value
        }
        _ => {
            charge(NODE + value.as_str().map_or(0, str::len))?;
            value
        }
    };
    seen(&value)?;
    Ok(value)
}

/// Measures and counts a value that is written out.
pub(super) fn written(value: &Value) -> Result<(), Error> {
    charge(seen(value)?.bytes)
}

fn walk(value: &Value, depth: usize, size: &mut Size) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(beyond(&format!("nest lists and mappings more than {DEPTH} deep")));
    }
    size.depth = size.depth.max(depth);
    size.values += 1;
    size.bytes += match (value.as_str(), value.as_bytes()) {
        (Some(text), _) => text.len(),
        (None, Some(bytes)) => bytes.len(),
        (None, None) => NODE,
    };
    if size.bytes > VALUE {
        return Err(beyond(&format!("make a value of more than {VALUE} bytes")));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                walk(&item, depth + 1, size)?;
            }
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                walk(&key, depth + 1, size)?;
                walk(&value.get_item(&key)?, depth + 1, size)?;
            }
        }
        _ => {}
    }
    Ok(())
}
