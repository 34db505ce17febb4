//! What became of a verdict: the rules decided once more, over all rows.

use kit::rows::{Item, Pair, Reject, Verdict};
use kit::{Context, Fact, Held, Result, Table, Traced, Trail, TwoSided};
use serde_json::Value;

use crate::candidates::{self, Candidate, Ids, Sides};
use crate::config::{Labels, Pairs, Weights, Write};
use crate::rules::{Fate, decide};
use crate::stage::{detail, oriented};
use crate::{grouped, items};

/// The pairs or items of a trail.
pub(crate) fn trace(settings: &Pairs, context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    match context.table_of("from") {
        Some(Table::Pairs) => of_rows::<Pair>(settings, context, trail),
        Some(Table::Items) => grouped::trace(settings, context, trail),
        _ => of_rows::<Verdict>(settings, context, trail),
    }
}

/// All rows with what the rules say of them.
struct Decided {
    candidates: Vec<Candidate>,
    fates: Vec<Fate>,
    ids: Ids,
}

fn of_rows<R: Sides + TwoSided>(settings: &Pairs, context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    let pairs: Vec<Pair> = match settings.write {
        Write::Pairs => trail.pairs_in(&[context.port("pairs")])?,
        Write::Items => Vec::new(),
    };
    let written: Vec<Item> = match settings.write {
        Write::Pairs => Vec::new(),
        Write::Items => trail.sides_in(&[context.port("items")])?,
    };
    let keys = trail.sides.each_ref().map(|side| candidates::side_key(&side.prompt_id, &side.response_id));
    let (candidates, ids) = candidates::read(context.batches::<R>(&["from"])?)?;
    let of_trail = |candidate: &Candidate| {
        let [a, b] = candidate.sides;
        [a, b] == keys || [b, a] == keys || (trail.is_single() && (a == keys[0] || b == keys[0]))
    };
    let rows: Vec<usize> = (0..candidates.len()).filter(|&row| of_trail(&candidates[row])).collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let fates = decide(settings, context.seed, &candidates)?;
    let decided = Decided { candidates, fates, ids };
    let is_row = |id: &str| rows.iter().any(|&row| decided.ids.get(row as u32) == id);
    let rejects: Vec<Reject> = kit::find(&[context.port("rejects")], &["row_id"], |cells| is_row(cells[0]))?;
    let mut traced: Vec<Traced> = rows.iter().filter_map(|&row| dropped(settings, &decided, &rejects, row)).collect();
    if settings.write == Write::Items {
        traced.extend(of_items::<R>(settings, context, &decided, written)?);
        return Ok(traced);
    }
    let again = oriented::<R>(settings.order, &decided.candidates, &decided.fates, &decided.ids)?;
    for row in rows {
        let Fate::Kept { swapped, p_hat, weight } = decided.fates[row] else { continue };
        let (candidate, id) = (&decided.candidates[row], decided.ids.get(row as u32));
        let pair_id =
            again.iter().find(|pair| pair.row as usize == row).map_or(Value::Null, |pair| pair.id.text().into());
        let same = |pair: &&Pair| match R::TABLE {
            Table::Pairs => pair.pair_id == id,
            _ => pair.comparison_id.as_deref() == Some(id),
        };
        let Some(pair) = pairs.iter().find(same) else {
            let facts = vec![Fact::checked("pair", "not written", pair_id, "the rules keep this row")];
            traced.push(Traced { title: format!("row {id}"), facts });
            continue;
        };
        let sides = [R::SIDES[0], R::SIDES[2]].map(|column| column.trim_end_matches("_prompt_id"));
        let chosen = |side: usize| Value::from(sides[side]);
        // Which side of the row that was read is the stored chosen one.
        let is_first = candidate.sides[0] == candidates::side_key(&pair.chosen_prompt_id, &pair.chosen_response_id);
        let mut facts = vec![
            Fact::told(&format!("P({} better)", sides[0]), candidate.p_first)
                .because(format!("`p_hat` of the {} {id}", R::TABLE)),
            Fact::checked(
                "chosen",
                chosen(usize::from(!is_first)),
                chosen(usize::from(swapped)),
                &why(settings, candidate, swapped, sides),
            ),
            Fact::checked("pair_id", pair.pair_id.as_str(), pair_id, "of the sides in this order, or as given"),
        ];
        facts.push(Fact::checked("p_hat", pair.p_hat, p_hat, &label(settings)));
        facts.push(Fact::checked("weight", pair.weight, weight, weighing(settings)));
        traced.push(Traced { title: format!("pair {}", pair.pair_id), facts });
    }
    Ok(traced)
}

/// A row that the rules leave out, beside what `rejects` says of it.
fn dropped(settings: &Pairs, decided: &Decided, rejects: &[Reject], row: usize) -> Option<Traced> {
    let Fate::Dropped(reason) = decided.fates[row] else { return None };
    let id = decided.ids.get(row as u32);
    let how = detail(settings, &decided.candidates, &decided.ids, row as u32, reason);
    let of_row = || rejects.iter().filter(|reject| reject.row_id == id);
    let stored = of_row().find(|reject| reject.reason == reason.word()).or_else(|| of_row().next());
    let stored = stored.map_or(Value::Null, |reject| reject.reason.as_str().into());
    let facts = vec![Fact::checked("left out", stored, reason.word(), &how)];
    Some(Traced { title: format!("row {id}"), facts })
}

fn of_items<R: Sides>(
    settings: &Pairs,
    context: &Context<'_>,
    decided: &Decided,
    written: Vec<Item>,
) -> Result<Vec<Traced>> {
    let Decided { candidates, fates, ids } = decided;
    let layout = R::LAYOUT;
    let wanted: Vec<bool> = fates.iter().map(|fate| matches!(fate, Fate::Kept { .. })).collect();
    let columns = [layout.first[0], layout.first[1], layout.second[0], layout.second[1]];
    let names = Held::read(context.batches::<R>(&["from"])?.only(&columns), &wanted)?;
    let again = items::items(settings, candidates, fates, ids, &layout, &names)?;
    let of_item = |item: Item| {
        let found = again.iter().find(|other| other.id == item.item_id);
        let number = |value: fn(&items::Item) -> f64| found.map_or(Value::Null, |item| value(item).into());
        let pairs = found.map_or(0, |item| item.pairs);
        let how = format!("p_hat where chosen, 1 - p_hat where rejected; of {pairs} pairs");
        let facts = vec![
            Fact::told("response", item.response_id.as_str()),
            Fact::checked("label", item.label, number(|item| item.label), &how),
            Fact::checked("weight", item.weight, number(|item| item.weight), weighing(settings)),
        ];
        Traced { title: format!("item {}", item.item_id), facts }
    };
    Ok(written.into_iter().map(of_item).collect())
}

/// Why a side is the chosen one.
fn why(settings: &Pairs, candidate: &Candidate, swapped: bool, sides: [&str; 2]) -> String {
    let p = candidate.p_first;
    if swapped == (p < 0.5) && p != 0.5 {
        return format!("P({} better) is {} 1/2", sides[0], if swapped { "below" } else { "above" });
    }
    if p == 0.5 {
        return "an exact tie: a digest of the ids decides".to_owned();
    }
    match &settings.noise {
        Some(_) => "the noise turned the label over".to_owned(),
        None => "the mean over its duplicates decides".to_owned(),
    }
}

fn label(settings: &Pairs) -> String {
    let mut how = match settings.labels {
        Labels::Soft => "P(chosen better)".to_owned(),
        Labels::Hard => "labels: hard, the favoured side counts as certain".to_owned(),
    };
    if let Some(noise) = &settings.noise {
        how.push_str(&format!(", with noise of rate {}", noise.rate));
    }
    how
}

fn weighing(settings: &Pairs) -> &'static str {
    match settings.weight {
        Weights::Given => "from the data; 1 for verdicts",
        Weights::Uniform => "weight: uniform",
        Weights::Certainty => "weight: certainty, the given one times 2 p_hat - 1",
    }
}
