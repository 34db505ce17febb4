//! Items that come as items: KTO's groups and mismatched responses are added, everything else stays.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, UInt64Array};
use kit::rows::{Item, Reject};
use kit::{Context, Error, Outcome, Result, Texts, write_gathered};

use crate::config::{Order, Pairs, Weights};
use crate::draw::Key;
use crate::items::mismatched;
use crate::output::{numbers, plain_text, text};

/// An item's row, the row of its mismatched response, and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grouped {
    row: u32,
    partner: u32,
    group: u64,
}

/// The size of the groups.
///
/// # Errors
/// When the settings ask for what items do not have.
pub(crate) fn group_of(settings: &Pairs) -> Result<u32> {
    let wrong = |text: String| Err(Error::Pipeline(text));
    if let [first, ..] = settings.rules_for_two()[..] {
        return wrong(format!("`{first}` is about pairs, and `from` holds items; leave it out"));
    }
    match settings.kl_group {
        Some(group) => Ok(group),
        None => wrong("`from` holds items already; what can be added is `kl_group`, for kto".to_owned()),
    }
}

/// Writes the items of the input with their mismatched responses.
pub(crate) fn run(settings: &Pairs, context: &Context<'_>) -> Result<Outcome> {
    let group = group_of(settings)?;
    let (ids, grouped) = grouped(settings, group, context)?;
    if grouped.is_empty() {
        context.note("no items came in, so no item goes out");
    }
    let needs = |item: &Grouped| [Some(item.row), Some(item.partner)];
    write_gathered::<Item, Item, _>(context, &["from"], "items", &grouped, needs, |held, items| {
        let rows = held.places(items.iter().map(|item| item.row));
        let partners = held.places(items.iter().map(|item| item.partner));
        let mut columns = vec![text(items.iter().map(|item| ids.get(item.row)))];
        for column in ["prompt_id", "response_id", "prompt", "response", "label"] {
            columns.push(held.gather(column, &rows)?);
        }
        columns.push(match settings.weight {
            Weights::Uniform => numbers(rows.iter().map(|_| 1.0)),
            _ => held.gather("weight", &rows)?,
        });
        columns.push(held.gather("response_id", &partners)?);
        columns.push(plain_text(&held.gather("response", &partners)?));
        columns.push(Arc::new(items.iter().map(|item| Some(item.group)).collect::<UInt64Array>()) as ArrayRef);
        columns.extend([held.gather("source_file", &rows)?, held.gather("source_line", &rows)?]);
        Ok(columns)
    })?;
    context.writer::<Reject>("rejects")?.finish()?;
    let mut desirable = 0_u64;
    for batch in context.batches::<Item>(&["from"])?.only(&["label"]) {
        let batch = batch?;
        let labels = batch.column("label").as_primitive::<Float64Type>();
        desirable += (0..labels.len()).filter(|&row| labels.value(row) > 0.5).count() as u64;
    }
    let rows = grouped.len() as u64;
    Ok(Outcome::default()
        .balance("from", rows, rows, 0)
        .figure("items", rows)
        .figure("items with a label above 1/2", desirable)
        .figure("groups", rows.div_ceil(u64::from(group))))
}

/// The ids of the input's rows, and the items in the order they are written.
fn grouped(settings: &Pairs, group: u32, context: &Context<'_>) -> Result<(Texts, Vec<Grouped>)> {
    let (mut ids, mut prompts) = (Texts::default(), Vec::new());
    for batch in context.batches::<Item>(&["from"])?.only(&["item_id", "prompt_id"]) {
        let batch = batch?;
        let (items, of) = (batch.column("item_id").as_string::<i32>(), batch.column("prompt_id").as_string::<i32>());
        for row in 0..batch.batch.num_rows() {
            ids.push(items.value(row));
            prompts.push(Key::made_of(&[of.value(row)]));
        }
    }
    let rows = u32::try_from(prompts.len()).map_err(|_| Error::data(format!("more than {} items", u32::MAX)))?;
    let mut order: Vec<u32> = (0..rows).collect();
    if settings.order == Order::Id {
        order.sort_by(|&a, &b| ids.get(a).cmp(ids.get(b)));
    }
    let in_order: Vec<Key> = order.iter().map(|&row| prompts[row as usize]).collect();
    let partners = mismatched(&in_order, group as usize)?;
    let of = |(at, partner): (usize, usize)| Grouped {
        row: order[at],
        partner: order[partner],
        group: at as u64 / u64::from(group),
    };
    let grouped = partners.into_iter().enumerate().map(of).collect();
    Ok((ids, grouped))
}
