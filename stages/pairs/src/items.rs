//! Items: the sides of the kept pairs, each with a label of its own.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use kit::{CachedRows, Error, Result};

use crate::candidates::{Candidates, Layout, Names};
use crate::config::{Order, Pairs, Repeats};
use crate::draw::Key;
use crate::groups::first_rows;
use crate::rules::Decision;

/// An item before it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// The row it comes from, and whether it is that row's side 1.
    pub side: (u32, bool),
    /// Desirability, in [0, 1].
    pub label: f64,
    /// Weight in the loss.
    pub weight: f64,
    /// The pairs it stands for.
    pub pairs: u32,
    /// It was chosen in one pair and rejected in another.
    pub mixed: bool,
    /// Its id.
    pub id: String,
    /// Place of its mismatched response, with the number of its group.
    pub kl: Option<(KlPlace, u64)>,
}

/// The row and side of a mismatched response.
pub(crate) type KlPlace = (u32, bool);

/// The items of the kept pairs, in the order they will be written. `ids` has the id columns of the kept rows.
///
/// # Errors
/// When rows for KTO have only one prompt.
pub(crate) fn items(
    settings: &Pairs,
    candidates: &Candidates,
    decisions: &[Decision],
    rows: &Names,
    layout: &Layout,
    ids: &CachedRows,
) -> Result<Vec<Item>> {
    let mut items = sides(decisions);
    if settings.repeats.unwrap_or(Repeats::Mean) == Repeats::Mean {
        let key = |at: u32| {
            let (row, side) = items[at as usize].side;
            candidates.sides(row)[usize::from(side)]
        };
        let first = first_rows(items.len(), key);
        items = merged(items, &first);
        let places = ids.places(items.iter().map(|item| item.side.0)).into_iter().zip(&items);
        let places: Vec<_> = places.map(|(place, item)| (place, item.side.1)).collect();
        if !places.is_empty() {
            let prompts = ids.gather_either(layout.first[0], layout.second[0], &places)?;
            let responses = ids.gather_either(layout.first[1], layout.second[1], &places)?;
            for (at, item) in items.iter_mut().enumerate() {
                let (prompt, response) = (prompts.as_string::<i32>().value(at), responses.as_string::<i32>().value(at));
                item.id = kit::ids::item_id(prompt, response, item.label);
            }
        }
    } else {
        for item in &mut items {
            item.id = kit::id_of(&["item", rows.get(item.side.0), if item.side.1 { "1" } else { "0" }]);
        }
    }
    if settings.order == Order::Id {
        items.sort_by(|a, b| a.id.cmp(&b.id));
    }
    if let Some(group) = settings.kl_group {
        let prompts: Vec<Key> =
            items.iter().map(|item| candidates.prompts(item.side.0)[usize::from(item.side.1)]).collect();
        let partners = mismatched(&prompts, group as usize)?;
        let places: Vec<_> = partners.into_iter().map(|at| items[at].side).collect();
        for (at, place) in places.into_iter().enumerate() {
            items[at].kl = Some((place, at as u64 / u64::from(group)));
        }
    }
    Ok(items)
}

/// Both sides of every kept pair, chosen first, in the order of the rows.
fn sides(decisions: &[Decision]) -> Vec<Item> {
    let mut items = Vec::new();
    for (row, decision) in decisions.iter().enumerate() {
        if let Decision::Kept { swapped, p_hat, weight } = *decision {
            for (side, label) in [(swapped, p_hat), (!swapped, 1.0 - p_hat)] {
                let side = (row as u32, side);
                items.push(Item { side, label, weight, pairs: 1, mixed: false, id: String::new(), kl: None });
            }
        }
    }
    items
}

/// One item per response: the weighted mean of its labels (the plain mean where all weights are 0), the mean of its
/// weights. `first` has for each item the first one of the same response.
fn merged(items: Vec<Item>, first: &[u32]) -> Vec<Item> {
    let mut means: BTreeMap<u32, (Item, f64, f64, f64)> = BTreeMap::new();
    for (at, item) in items.into_iter().enumerate() {
        let chosen = at.is_multiple_of(2);
        let (label, weight) = (item.label, item.weight);
        let first_chosen = first[at].is_multiple_of(2);
        let (mean, labels, weighted, weights) =
            means.entry(first[at]).or_insert((Item { pairs: 0, ..item }, 0.0, 0.0, 0.0));
        mean.pairs += 1;
        mean.mixed |= chosen != first_chosen;
        *labels += label;
        *weighted += weight * label;
        *weights += weight;
    }
    means
        .into_values()
        .map(|(item, labels, weighted, weights)| {
            let count = f64::from(item.pairs);
            let label = if weights > 0.0 { weighted / weights } else { labels / count };
            Item { label: label.clamp(0.0, 1.0), weight: weights / count, ..item }
        })
        .collect()
}

/// For each row the next one with another prompt: in its group, around the corner; else in the whole table.
pub(crate) fn mismatched(prompts: &[Key], group: usize) -> Result<Vec<usize>> {
    let rows = prompts.len();
    let other = |at: usize, start: usize, length: usize| {
        (1..length).map(|step| start + (at - start + step) % length).find(|&next| prompts[next] != prompts[at])
    };
    (0..rows)
        .map(|at| {
            let start = at - at % group;
            other(at, start, group.min(rows - start)).or_else(|| other(at, 0, rows)).ok_or_else(|| {
                let text =
                    format!("`kl_group` mismatches responses across prompts, but all {rows} items have one prompt");
                Error::Pipeline(text)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prompts: &str, group: usize, expected: &[usize]) {
        let keys: Vec<_> = prompts.chars().map(|prompt| Key::made_of(&[&prompt.to_string()])).collect();
        assert_eq!(mismatched(&keys, group).unwrap(), expected, "{prompts} in groups of {group}");
    }

    #[test]
    fn responses_rotate_within_their_group() {
        check("abc", 3, &[1, 2, 0]);
        check("abcd", 2, &[1, 0, 3, 2]);
        check("aab", 3, &[2, 2, 0]);
        // The last group is short and alone: its row looks at the whole table.
        check("abc", 2, &[1, 0, 0]);
        check("aabb", 2, &[2, 2, 0, 0]);
        check("", 4, &[]);
    }

    #[test]
    fn one_prompt_cannot_be_mismatched() {
        let key = Key::made_of(&["a"]);
        let error = mismatched(&[key, key], 2).unwrap_err();
        assert!(matches!(error, Error::Pipeline(_)) && error.to_string().contains("2 items have one prompt"));
    }

    #[test]
    fn labels_of_a_response_are_averaged_by_weight() {
        let kept = |swapped, p_hat, weight| Decision::Kept { swapped, p_hat, weight };
        // Response 0 wins with 0.9 (weight 3) and loses with 0.6 (label 0.4, weight 1).
        let items = merged(sides(&[kept(false, 0.9, 3.0), kept(true, 0.6, 1.0)]), &[0, 1, 2, 0]);
        let labels: Vec<_> =
            items.iter().map(|item| (item.side, item.label, item.weight, item.pairs, item.mixed)).collect();
        let mean = (3.0 * 0.9 + 0.4) / 4.0;
        assert_eq!(labels[0], ((0, false), mean, 2.0, 2, true));
        assert_eq!(labels[1], ((0, true), 1.0 - 0.9, 3.0, 1, false));
        assert_eq!(labels[2], ((1, true), 0.6, 1.0, 1, false));
    }
}
