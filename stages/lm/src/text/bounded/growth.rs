//! Filters and methods that make much out of little: how much, before they do.

use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, filters};
use minijinja_contrib::pycompat;

use super::meter::{afford, seen};

/// The filters whose results can be far larger than what they are given.
const GROWING: [&str; 7] = ["replace", "join", "indent", "format", "slice", "batch", "tojson"];

/// The name under which a growing filter does its work without looking at sizes; under its own name it is guarded.
pub fn unbounded(filter: &str) -> String {
    format!("<unbounded> {filter}")
}

/// Puts a guard before the growing filters and methods of an environment.
pub(super) fn guard(environment: &mut Environment<'static>) {
    macro_rules! originals {
        ($($name:ident),*) => { $(environment.add_filter(unbounded(stringify!($name)), filters::$name);)* };
    }
    originals!(replace, join, indent, format, slice, batch, tojson);
    for name in GROWING {
        environment.add_filter(name, move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            foresee(name, &arguments)?;
            state.apply_filter(&unbounded(name), &arguments)
        });
    }
    environment.set_unknown_method_callback(|state, value, method, arguments| {
        if value.as_str().is_some() && ["replace", "join", "format"].contains(&method) {
            let mut all = vec![value.clone()];
            all.extend(arguments.iter().cloned());
            // `", ".join(list)` where the filter is `list|join(", ")`.
            if method == "join" && all.len() > 1 {
                all.swap(0, 1);
            }
            foresee(method, &all)?;
        }
        pycompat::unknown_method_callback(state, value, method, arguments)
    });
}

/// Checks that the most a growing filter will make may still be made; the bytes are counted once they are there.
fn foresee(name: &str, arguments: &[Value]) -> Result<(), Error> {
    let Some(value) = arguments.first() else { return Ok(()) };
    let size = seen(value)?;
    let others = &arguments[1..];
    let mut other_bytes = 0;
    for other in others {
        other_bytes += seen(other)?.bytes;
    }
    let number = others.iter().map(|other| largest_number(other, 0)).max().unwrap_or(0);
    let bytes = match name {
        "replace" => {
            let (Some(text), Some(from)) = (value.as_str(), others.first().and_then(Value::as_str)) else {
                return afford(size.bytes.saturating_mul(1 + other_bytes));
            };
            let places = if from.is_empty() { text.len() + 1 } else { text.matches(from).count() };
            size.bytes + places.saturating_mul(other_bytes)
        }
        "join" => size.bytes.saturating_add(size.values.saturating_mul(other_bytes)),
        "indent" => {
            let lines = value.as_str().map_or(1, |text| 1 + text.matches('\n').count());
            size.bytes.saturating_add(lines.saturating_mul(number.max(4)))
        }
        "format" => {
            let text = value.as_str().unwrap_or_default();
            let places = text.matches(['%', '{']).count();
            let width = digits(text).max(if text.contains('*') || text.contains(":{") { number } else { 0 });
            size.bytes.saturating_add(places.saturating_mul(other_bytes.saturating_add(width).saturating_add(64)))
        }
        // Lists: `number` of them, or as long as that.
        "slice" | "batch" => size.values.saturating_add(number).saturating_mul(64),
        _ => {
            let beside = number.saturating_mul(size.depth + 1).saturating_add(other_bytes);
            size.bytes.saturating_mul(6).saturating_add(size.values.saturating_mul(beside))
        }
    };
    afford(bytes)
}

/// The largest whole number of an argument or of the named ones among them.
fn largest_number(value: &Value, depth: usize) -> usize {
    if value.is_kwargs() || (value.kind() == ValueKind::Map && depth == 0) {
        let keys = value.try_iter().into_iter().flatten();
        let values = keys.filter_map(|key| value.get_item(&key).ok());
        return values.map(|value| largest_number(&value, depth + 1)).max().unwrap_or(0);
    }
    match value.kind() {
        ValueKind::Number => usize::try_from(value.clone()).unwrap_or(usize::MAX),
        ValueKind::Seq => {
            let items = value.try_iter().into_iter().flatten();
            items.filter_map(|item| usize::try_from(item).ok()).max().unwrap_or(0)
        }
        // A text that each line begins with.
        ValueKind::String => value.as_str().map_or(0, str::len),
        _ => 0,
    }
}

/// The largest number that is spelled in a text.
fn digits(text: &str) -> usize {
    let numbers = text.split(|letter: char| !letter.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.map(|digits| digits.parse().unwrap_or(usize::MAX)).max().unwrap_or(0)
}

/// `left * right`, where a text or a list is repeated only as far as it may be.
pub(super) fn times(left: &Value, right: &Value) -> Result<Value, Error> {
    let repeated = |value: &Value| matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Iterable);
    let (value, times) = match (repeated(left), repeated(right)) {
        (true, false) => (left, right),
        (false, true) => (right, left),
        _ => return product(left, right),
    };
    let Some(times) = i64::try_from(times.clone()).ok().map(|times| usize::try_from(times).unwrap_or(0)) else {
        return Err(impossible(left, right));
    };
    afford(seen(value)?.bytes.saturating_mul(times))?;
    match value.as_str() {
        Some(text) => Ok(Value::from(text.repeat(times))),
        None => {
            let items: Vec<Value> = value.try_iter()?.collect();
            Ok(Value::from_iter(std::iter::repeat_n(items, times).flatten()))
        }
    }
}

fn product(left: &Value, right: &Value) -> Result<Value, Error> {
    let whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    if whole(left) && whole(right) {
        let (one, other) = (i128::try_from(left.clone())?, i128::try_from(right.clone())?);
        let product = one.checked_mul(other).ok_or_else(|| impossible(left, right))?;
        return Ok(i64::try_from(product).map_or_else(|_| Value::from(product), Value::from));
    }
    match (f64::try_from(left.clone()), f64::try_from(right.clone())) {
        (Ok(one), Ok(other)) => Ok(Value::from(one * other)),
        _ => Err(impossible(left, right)),
    }
}

fn impossible(left: &Value, right: &Value) -> Error {
    super::failed(&format!("unable to calculate {} * {}", left.kind(), right.kind()))
}
