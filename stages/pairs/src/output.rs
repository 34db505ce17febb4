//! Writing: the columns of pairs and items, gathered from the rows of the input.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Float64Array, StringArray, UInt64Array};
use kit::rows::Pair;
use kit::{Context, Result, write_gathered};

use crate::candidates::Sides;
use crate::draw::Key;
use crate::items::Item;

/// A pair before it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OrientedPair<'a> {
    /// The row it comes from.
    pub row: u32,
    /// Side 1 is chosen.
    pub swapped: bool,
    /// P(chosen better).
    pub p_hat: f64,
    /// Weight in the loss.
    pub weight: f64,
    /// Its id.
    pub id: Id<'a>,
}

/// The id of a pair. All pairs of a table have ids of one kind, which are in the order of their texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Id<'a> {
    /// Made of the ids of both sides.
    Made(Key),
    /// As it came.
    Given(&'a str),
}

impl<'a> Id<'a> {
    /// As it is written.
    pub(crate) fn text(self) -> Cow<'a, str> {
        match self {
            Id::Made(key) => Cow::Owned(key.hex()),
            Id::Given(text) => Cow::Borrowed(text),
        }
    }
}

/// Writes the port `pairs`.
pub(crate) fn write_pairs<R: Sides>(context: &Context<'_>, pairs: &[OrientedPair<'_>]) -> Result<()> {
    let layout = R::LAYOUT;
    let comparison = if R::TABLE == <Pair as kit::Row>::TABLE { "comparison_id" } else { layout.id };
    let needs = |pair: &OrientedPair<'_>| [Some(pair.row), None];
    write_gathered::<R, Pair, _>(context, &["from"], "pairs", pairs, needs, |held, pairs| {
        let rows: Vec<u32> = pairs.iter().map(|pair| pair.row).collect();
        let chosen: Vec<_> = pairs.iter().map(|pair| (pair.row, pair.swapped)).collect();
        let rejected: Vec<_> = pairs.iter().map(|pair| (pair.row, !pair.swapped)).collect();
        let mut columns = vec![text(pairs.iter().map(|pair| pair.id.text())), held.gather(comparison, &rows)?];
        columns.push(held.gather("form", &rows)?);
        for side in [&chosen, &rejected] {
            for (first, second) in layout.first.iter().zip(layout.second) {
                columns.push(held.gather_either(first, second, side)?);
            }
        }
        columns.push(numbers(pairs.iter().map(|pair| pair.p_hat)));
        columns.push(numbers(pairs.iter().map(|pair| pair.weight)));
        columns.extend([held.gather("source_file", &rows)?, held.gather("source_line", &rows)?]);
        Ok(columns)
    })
}

/// Writes the port `items`.
pub(crate) fn write_items<R: Sides>(context: &Context<'_>, items: &[Item]) -> Result<()> {
    let layout = R::LAYOUT;
    let needs = |item: &Item| [Some(item.side.0), item.kl.map(|(place, _)| place.0)];
    write_gathered::<R, kit::rows::Item, _>(context, &["from"], "items", items, needs, |held, items| {
        let rows: Vec<u32> = items.iter().map(|item| item.side.0).collect();
        let sides: Vec<_> = items.iter().map(|item| item.side).collect();
        let mut columns = vec![text(items.iter().map(|item| item.id.as_str()))];
        for (first, second) in layout.first.iter().zip(layout.second) {
            columns.push(held.gather_either(first, second, &sides)?);
        }
        columns.push(numbers(items.iter().map(|item| item.label)));
        columns.push(numbers(items.iter().map(|item| item.weight)));
        // Either every item has a mismatched response or none has.
        let partners: Vec<_> = items.iter().filter_map(|item| item.kl.map(|(place, _)| place)).collect();
        if partners.is_empty() {
            let none: StringArray = items.iter().map(|_| None::<&str>).collect();
            columns.extend([Arc::new(none.clone()) as ArrayRef, Arc::new(none)]);
        } else {
            columns.push(held.gather_either(layout.first[1], layout.second[1], &partners)?);
            columns.push(plain_text(&held.gather_either(layout.first[3], layout.second[3], &partners)?));
        }
        columns.push(Arc::new(items.iter().map(|item| item.kl.map(|(_, group)| group)).collect::<UInt64Array>()));
        columns.extend([held.gather("source_file", &rows)?, held.gather("source_line", &rows)?]);
        Ok(columns)
    })
}

pub(crate) fn text(values: impl Iterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<StringArray>())
}

pub(crate) fn numbers(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values.collect::<Vec<_>>()))
}

/// The text of lists of messages: their contents, a line break between two.
pub(crate) fn plain_text(messages: &ArrayRef) -> ArrayRef {
    let lists = messages.as_list::<i32>();
    let texts = (0..lists.len()).map(|row| {
        let list = lists.value(row);
        let contents = list.as_struct().column(1).as_string::<i32>();
        Some((0..contents.len()).map(|at| contents.value(at)).collect::<Vec<_>>().join("\n"))
    });
    Arc::new(texts.collect::<StringArray>())
}
