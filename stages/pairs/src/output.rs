//! Writing: the columns of pairs and items, gathered from the rows of the input.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Float64Array, StringArray, UInt64Array};
use kit::rows::Pair;
use kit::{Context, Result, write_gathered};

use crate::candidates::{Candidates, Names, Sides};
use crate::items::{Item, KlPlace};
use crate::rules::Decision;

/// The kept pairs in the order in which they are written.
pub(crate) struct PairsInOrder<'a> {
    /// Their rows.
    pub rows: Vec<u32>,
    /// The decision on every row.
    pub decisions: &'a [Decision],
    /// The ids that are made of both sides.
    pub candidates: &'a Candidates,
    /// The ids that the pairs came with, where they go on.
    pub names: Option<&'a Names>,
}

impl PairsInOrder<'_> {
    /// Whether side 1 is chosen, P(chosen better) and the weight in the loss.
    fn kept(&self, row: u32) -> (bool, f64, f64) {
        match self.decisions[row as usize] {
            Decision::Kept { swapped, p_hat, weight } => (swapped, p_hat, weight),
            Decision::Dropped(_) => unreachable!("the row is kept"),
        }
    }

    fn id(&self, row: u32) -> Cow<'_, str> {
        match self.names {
            Some(names) => Cow::Borrowed(names.get(row)),
            None => Cow::Owned(self.candidates.keys(row)[usize::from(self.kept(row).0)].hex()),
        }
    }
}

/// Writes the port `pairs`.
pub(crate) fn write_pairs<R: Sides>(context: &Context<'_>, pairs: &PairsInOrder<'_>) -> Result<()> {
    let layout = R::LAYOUT;
    let comparison = if R::TABLE == <Pair as kit::Row>::TABLE { "comparison_id" } else { layout.id };
    let needs = |row: &u32| [Some(*row), None];
    write_gathered::<R, Pair, _>(context, &["from"], "pairs", &pairs.rows, needs, |held, rows| {
        let kept: Vec<(bool, f64, f64)> = rows.iter().map(|row| pairs.kept(*row)).collect();
        let places = held.places(rows.iter().copied());
        let sides = |of: bool| places.iter().zip(&kept).map(|(place, kept)| (*place, kept.0 == of)).collect::<Vec<_>>();
        let mut columns = vec![text(rows.iter().map(|row| pairs.id(*row))), held.gather(comparison, &places)?];
        columns.push(held.gather("form", &places)?);
        for side in [sides(true), sides(false)] {
            for (first, second) in layout.first.iter().zip(layout.second) {
                columns.push(held.gather_either(first, second, &side)?);
            }
        }
        columns.push(numbers(kept.iter().map(|kept| kept.1)));
        columns.push(numbers(kept.iter().map(|kept| kept.2)));
        columns.extend([held.gather("source_file", &places)?, held.gather("source_line", &places)?]);
        Ok(columns)
    })
}

/// Writes the port `items`.
pub(crate) fn write_items<R: Sides>(context: &Context<'_>, items: &[Item]) -> Result<()> {
    let layout = R::LAYOUT;
    let needs = |item: &Item| [Some(item.side.0), item.kl.map(|(place, _)| place.0)];
    write_gathered::<R, kit::rows::Item, _>(context, &["from"], "items", items, needs, |held, items| {
        let places = held.places(items.iter().map(|item| item.side.0));
        let sides: Vec<_> = places.iter().zip(items).map(|(place, item)| (*place, item.side.1)).collect();
        let mut columns = vec![text(items.iter().map(|item| item.id.as_str()))];
        for (first, second) in layout.first.iter().zip(layout.second) {
            columns.push(held.gather_either(first, second, &sides)?);
        }
        columns.push(numbers(items.iter().map(|item| item.label)));
        columns.push(numbers(items.iter().map(|item| item.weight)));
        // Either every item has a mismatched response or none has.
        let partners: Vec<KlPlace> = items.iter().filter_map(|item| item.kl.map(|(place, _)| place)).collect();
        if partners.is_empty() {
            let none: StringArray = items.iter().map(|_| None::<&str>).collect();
            columns.extend([Arc::new(none.clone()) as ArrayRef, Arc::new(none)]);
        } else {
            let places = held.places(partners.iter().map(|partner| partner.0)).into_iter();
            let partners: Vec<_> = places.zip(&partners).map(|(place, partner)| (place, partner.1)).collect();
            columns.push(held.gather_either(layout.first[1], layout.second[1], &partners)?);
            columns.push(plain_text(&held.gather_either(layout.first[3], layout.second[3], &partners)?));
        }
        columns.push(Arc::new(items.iter().map(|item| item.kl.map(|(_, group)| group)).collect::<UInt64Array>()));
        columns.extend([held.gather("source_file", &places)?, held.gather("source_line", &places)?]);
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
