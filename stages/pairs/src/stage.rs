//! The stage: read, decide, write, count.

use kit::rows::{Pair, Verdict};
use kit::{
    Amount, CachedRows, Context, Finding, Forecast, ForecastInputs, InputPort, Job, Outcome, Outlook, OutputPort,
    Result, Stage, Table,
};
use rayon::prelude::*;
use serde_json::json;

use crate::candidates::{self, Candidates, Names, Sides, Wanted};
use crate::config::{Order, Pairs, Repeats, Shape, Write};
use crate::draw::Key;
use crate::output::{self, PairsInOrder};
use crate::rules::{Decision, Reason, decide};
use crate::{grouped, items};

/// Bins of the histogram of labels, over [0.5, 1].
const BINS: usize = 10;
/// Memory for what is held of a row, bytes (measured).
const BYTES_PER_ROW: u64 = 80;

impl Pairs {
    fn compute(&self, context: &Context<'_>) -> Result<Outcome> {
        match context.table_of("from") {
            Some(Table::Pairs) => run::<Pair>(self, context),
            Some(Table::Items) => grouped::run(self, context),
            _ => run::<Verdict>(self, context),
        }
    }
}

impl Pairs {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        if context.table_of("from") == Some(Table::Items) {
            grouped::group_of(self)?;
        }
        Ok(Forecast::of_rows(Amount::exact(context.count_rows_of(&["from"])?)))
    }

    /// The same from what the inputs are expected to hold, and what the ports will.
    fn estimate(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        let Some(from) = ahead.input("from") else { return Ok(Outlook::default()) };
        let Some(rows) = from.rows else { return Ok(Outlook::default()) };
        let mut pairs = rows.bounded().up_to(self.budget.unwrap_or(u64::MAX));
        if let (Some(cap), Some(prompts)) = (self.cap_per_prompt, from.prompts) {
            pairs = pairs.up_to(prompts.value.saturating_mul(cap.into()));
        }
        let (table, written) = match (self.write, self.repeats) {
            _ if from.table == Table::Items => (Table::Items, rows.bounded()),
            (Write::Pairs, _) => (Table::Pairs, pairs),
            (Write::Items, Some(Repeats::Separate)) => (Table::Items, pairs.times(2)),
            (Write::Items, _) => {
                let most = from.responses.map_or(u64::MAX, |responses| responses.value);
                (Table::Items, pairs.times(2).up_to(most))
            }
        };
        let forecast = Forecast::of_rows(rows).note(format!("{written} {table}"));
        let forecast =
            forecast.holding(rows.value.saturating_mul(BYTES_PER_ROW).saturating_add(kit::held_bytes(&from)));
        Ok(Outlook::of(forecast).port(table.name(), from.turned_into(table, Some(written))))
    }
}

impl Stage for Pairs {
    fn version(&self) -> String {
        "3".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        let from = InputPort::new("from", &self.from, Table::Verdicts).or(Table::Pairs);
        vec![if self.write == Write::Items { from.or(Table::Items) } else { from }]
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let main = match (self.write, self.kl_group) {
            (Write::Pairs, _) => OutputPort::new(Table::Pairs),
            (Write::Items, Some(_)) => OutputPort::new(Table::Items),
            (Write::Items, None) => {
                OutputPort::new(Table::Items).without("kl_response_id").without("kl_response").without("kl_group")
            }
        };
        vec![main, OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn draws(&self) -> bool {
        self.noise.is_some()
            || self.shape == Some(Shape::Stairs)
            || self.cap_per_prompt.is_some()
            || self.mix.is_some()
            || self.budget.is_some()
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(self.estimate(ahead), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || self.compute(context)))
    }
}

fn run<R: Sides>(settings: &Pairs, context: &Context<'_>) -> Result<Outcome> {
    let rows = context.count_rows_of(&["from"])? as usize;
    let candidates = candidates::read::<R>(context.batches::<R>(&["from"])?, rows, Wanted::of(settings))?;
    if rows == 0 {
        context.note(format!("no {} came in, so no pair goes out", R::TABLE));
    }
    let decisions = decide(settings, context.seed, &candidates)?;
    let names = Names::read::<R>(context.batches::<R>(&["from"])?, &named(settings, R::TABLE, &decisions))?;
    context.reject_rows::<R>(&["from"], |row| match decisions.get(row as usize) {
        Some(Decision::Dropped(reason)) => {
            let detail = detail(settings, candidates.p_first(row), &names, *reason);
            Some((names.get(row).to_owned(), reason.word(), detail))
        }
        _ => None,
    })?;
    let mut outcome = figures(&candidates, &decisions);
    match settings.write {
        Write::Pairs => {
            let candidates = candidates.into_keys();
            let given = R::TABLE == Table::Pairs;
            let pairs = PairsInOrder {
                rows: match given {
                    true => by_name(settings.order, &decisions, &names)?,
                    false => by_key(settings.order, &decisions, &candidates),
                },
                decisions: &decisions,
                candidates: &candidates,
                names: given.then_some(&names),
            };
            output::write_pairs::<R>(context, &pairs)?;
        }
        Write::Items => {
            let layout = R::LAYOUT;
            let wanted: Vec<bool> = decisions.iter().map(is_kept).collect();
            let columns = [layout.first[0], layout.first[1], layout.second[0], layout.second[1]];
            let ids = CachedRows::read(context.batches::<R>(&["from"])?.only(&columns), &wanted)?;
            let items = items::items(settings, &candidates, &decisions, &names, &layout, &ids)?;
            drop(ids);
            output::write_items::<R>(context, &items)?;
            let repeated = items.iter().filter(|item| item.pairs > 1).count();
            outcome = outcome
                .figure("items", items.len())
                .figure("responses in several pairs", repeated)
                .figure("responses both chosen and rejected", items.iter().filter(|item| item.mixed).count());
        }
    }
    Ok(outcome)
}

fn is_kept(decision: &Decision) -> bool {
    matches!(decision, Decision::Kept { .. })
}

/// The rows whose ids are written: those that are left out, those that their reasons name, and the kept ones where an
/// id goes on.
fn named(settings: &Pairs, table: Table, decisions: &[Decision]) -> Vec<bool> {
    let kept = match settings.write {
        Write::Pairs => table == Table::Pairs,
        Write::Items => settings.repeats == Some(Repeats::Separate),
    };
    let mut named = vec![false; decisions.len()];
    for (row, decision) in decisions.iter().enumerate() {
        named[row] |= kept || !is_kept(decision);
        if let Decision::Dropped(Reason::Duplicate(at) | Reason::Contradictory(at) | Reason::Averaged(at)) = decision {
            named[*at as usize] = true;
        }
    }
    named
}

fn kept_rows(decisions: &[Decision]) -> Vec<u32> {
    let kept = decisions.iter().enumerate().filter(|(_, decision)| is_kept(decision));
    kept.map(|(row, _)| row as u32).collect()
}

/// The kept rows in the order of the ids that are made of both sides. No two are equal.
fn by_key(order: Order, decisions: &[Decision], candidates: &Candidates) -> Vec<u32> {
    let rows = kept_rows(decisions);
    if order == Order::Input {
        return rows;
    }
    let key = |row: u32| match decisions[row as usize] {
        Decision::Kept { swapped, .. } => candidates.keys(row)[usize::from(swapped)],
        Decision::Dropped(_) => unreachable!("the row is kept"),
    };
    let mut keyed: Vec<(Key, u32)> = rows.into_iter().map(|row| (key(row), row)).collect();
    keyed.par_sort_unstable();
    keyed.into_iter().map(|(_, row)| row).collect()
}

/// The kept rows in the order of the ids that they came with.
fn by_name(order: Order, decisions: &[Decision], names: &Names) -> Result<Vec<u32>> {
    let rows = kept_rows(decisions);
    let mut sorted = rows.clone();
    sorted.par_sort_unstable_by(|&a, &b| names.get(a).cmp(names.get(b)));
    if let Some(twice) = sorted.windows(2).find(|two| names.get(two[0]) == names.get(two[1])) {
        let name = names.get(twice[0]);
        let text = format!("pair_id `{name}` names two pairs of different responses; give each its own");
        return Err(kit::Error::data(text));
    }
    Ok(if order == Order::Id { sorted } else { rows })
}

fn detail(settings: &Pairs, p_first: f64, ids: &Names, reason: Reason) -> String {
    match reason {
        Reason::SameResponse => "both sides are the same response".to_owned(),
        Reason::Duplicate(earlier) => format!("the same two responses as in `{}`", ids.get(earlier)),
        Reason::Contradictory(earlier) => {
            format!("the same two responses as in `{}`, which favours the other side", ids.get(earlier))
        }
        Reason::Averaged(earlier) => format!("its label is part of the mean in `{}`", ids.get(earlier)),
        Reason::Tie => format!("p_hat {p_first}, tie width {}", settings.tie_width.unwrap_or(0.0)),
        Reason::BelowThreshold => format!("p_hat {p_first}, min_p_hat {}", settings.min_p_hat.unwrap_or(0.5)),
        Reason::AboveThreshold => format!("p_hat {p_first}, max_p_hat {}", settings.max_p_hat.unwrap_or(1.0)),
        Reason::Shape => format!("p_hat {p_first}, outside the wanted shape"),
        Reason::Capped => format!("its prompt has {} pairs already", settings.cap_per_prompt.unwrap_or(0)),
        Reason::Mix => "more of its form than the shares allow".to_owned(),
        Reason::Budget => format!("beyond the budget of {}", settings.budget.unwrap_or(0)),
    }
}

fn figures(candidates: &Candidates, decisions: &[Decision]) -> Outcome {
    let (mut kept, mut joint, mut flipped, mut sum) = (0_u64, 0_u64, 0_u64, 0.0);
    let mut histogram = [0_u64; BINS];
    let mut dropped = std::collections::BTreeMap::new();
    for (row, decision) in decisions.iter().enumerate() {
        match *decision {
            Decision::Kept { swapped, p_hat, .. } => {
                kept += 1;
                joint += u64::from(candidates.joint(row as u32));
                flipped += u64::from(swapped);
                sum += p_hat;
                histogram[(((p_hat - 0.5) * 2.0 * BINS as f64) as usize).min(BINS - 1)] += 1;
            }
            Decision::Dropped(reason) => *dropped.entry(reason.word()).or_insert(0_u64) += 1,
        }
    }
    let read = candidates.len() as u64;
    let mut outcome = Outcome::default()
        .balance("from", read, kept, read - kept)
        .figure("pairs kept", kept)
        .figure("pairs same", kept - joint)
        .figure("pairs joint", joint)
        .figure("p_hat histogram over [0.5, 1]", json!(histogram));
    if kept > 0 {
        let share = |part: f64| part / kept as f64;
        outcome = outcome.figure("share flipped", share(flipped as f64)).figure("mean p_hat", share(sum));
    }
    dropped.into_iter().fold(outcome, |outcome, (word, rows)| outcome.figure(&format!("dropped {word}"), rows))
}

#[cfg(test)]
mod tests {
    use harness::Place;
    use kit::rows::{Comparison, Item, Message, Reject};
    use kit::{Digest, Row};
    use serde_json::Value;

    use super::*;

    fn verdict(number: usize, a: &str, b: &str, p_hat: f64) -> Verdict {
        let side = |side: &str| {
            let (prompt, response) = side.split_once('/').unwrap();
            (prompt.to_owned(), response.to_owned())
        };
        let (a, b) = (side(a), side(b));
        let row = Comparison {
            comparison_id: format!("c{number:05}"),
            form: if a.0 == b.0 { "same" } else { "joint" }.to_owned(),
            a_prompt: vec![Message::new("user", format!("prompt {}", a.0))],
            a_response: vec![Message::new("assistant", format!("response {} {}", a.0, a.1))],
            a_prompt_id: a.0,
            a_response_id: a.1,
            b_prompt: vec![Message::new("user", format!("prompt {}", b.0))],
            b_response: vec![Message::new("assistant", format!("response {} {}", b.0, b.1))],
            b_prompt_id: b.0,
            b_response_id: b.1,
            source_file: Some("d.jsonl".to_owned()),
            source_line: Some(number as u64 + 1),
        };
        Verdict::of(row, p_hat, None)
    }

    /// Runs the stage over a table: the place with its ports in `out`, its outcome and its notes.
    fn run<R: Row + Clone>(rows: &[R], yaml: Value, seed: u64) -> (Place, Result<Outcome>, Vec<String>) {
        let place = Place::new().seeded(seed).table("from", rows.to_vec());
        let (stage, _) = (crate::KIND.configure)(harness::with(json!({"from": "x"}), &yaml)).unwrap();
        let outcome = place.stage("out", &*stage);
        let notes = place.notes();
        (place, outcome, notes)
    }

    fn pairs_of(place: &Place) -> Vec<Pair> {
        place.rows("out/pairs")
    }

    #[test]
    fn verdicts_become_oriented_pairs() {
        let rows = [verdict(0, "p/1", "p/2", 0.25), verdict(1, "p/1", "q/1", 0.75), verdict(2, "q/2", "q/2", 0.5)];
        let (place, outcome, _) = run(&rows, json!({"order": "input"}), 0);
        let outcome = outcome.unwrap();
        assert_eq!(outcome.balance[0], kit::Balance { input: "from".to_owned(), read: 3, kept: 2, rejected: 1 });
        assert_eq!(outcome.figures["mean p_hat"], json!(0.75));
        assert_eq!(outcome.figures["share flipped"], json!(0.5));
        assert_eq!(outcome.figures["dropped same_response"], json!(1));
        let pairs = pairs_of(&place);
        assert_eq!(pairs[0].pair_id, kit::ids::pair_id(("p", "2"), ("p", "1")));
        assert_eq!(pairs[0].comparison_id.as_deref(), Some("c00000"));
        assert_eq!(pairs[0].chosen, rows[0].b_response);
        assert_eq!(pairs[0].rejected, rows[0].a_response);
        assert_eq!((pairs[0].p_hat, pairs[0].weight, pairs[0].source_line), (0.75, 1.0, Some(1)));
        assert_eq!(pairs[1].chosen_prompt, rows[1].a_prompt);
        assert_eq!(pairs[1].rejected_prompt, rows[1].b_prompt);
        assert_eq!(pairs[1].form, "joint");
        let rejects: Vec<Reject> = place.rows("out/rejects");
        assert_eq!(rejects.len(), 1);
        assert_eq!((rejects[0].row_id.as_str(), rejects[0].reason.as_str()), ("c00002", "same_response"));
        assert_eq!(rejects[0].source_line, Some(3));
    }

    #[test]
    fn pairs_keep_their_ids_and_are_turned_where_the_label_says_so() {
        let (place, ..) = run(&[verdict(0, "p/1", "p/2", 0.9)], json!({}), 0);
        let mut pair = pairs_of(&place).remove(0);
        pair.pair_id = "mine".to_owned();
        pair.p_hat = 0.1;
        pair.weight = 3.0;
        let (place, ..) = run(&[pair.clone()], json!({}), 0);
        let turned = pairs_of(&place).remove(0);
        assert_eq!((turned.pair_id.as_str(), turned.p_hat, turned.weight), ("mine", 0.9, 3.0));
        assert_eq!((turned.chosen, turned.rejected_response_id), (pair.rejected, pair.chosen_response_id));
        assert_eq!(turned.comparison_id, pair.comparison_id);
    }

    #[test]
    fn one_id_for_two_pairs_is_an_error() {
        let (place, ..) = run(&[verdict(0, "p/1", "p/2", 0.9), verdict(1, "p/3", "p/4", 0.9)], json!({}), 0);
        let mut pairs = pairs_of(&place);
        pairs.iter_mut().for_each(|pair| pair.pair_id = "mine".to_owned());
        let error = run(&pairs, json!({}), 0).1.unwrap_err();
        assert!(error.to_string().contains("`mine` names two pairs"), "{error}");
    }

    #[test]
    fn bad_labels_are_named() {
        for (p_hat, shown) in [(f64::NAN, "NaN"), (1.5, "1.5"), (-0.1, "-0.1")] {
            let error = run(&[verdict(0, "p/1", "p/2", 0.5), verdict(1, "p/1", "p/3", p_hat)], json!({}), 0).1;
            let text = error.unwrap_err().to_string();
            let expected =
                format!("part-00000.parquet: row 2, column `p_hat`: {shown}, wanted a probability in [0, 1]");
            assert!(text.ends_with(&expected), "{text}");
        }
    }

    #[test]
    fn nothing_in_nothing_out() {
        for write in ["pairs", "items"] {
            let yaml = json!({"write": write, "cap_per_prompt": 2, "mix": {"same": 0.5, "joint": 0.5}});
            let (place, outcome, notes) = run::<Verdict>(&[], yaml, 0);
            assert_eq!(outcome.unwrap().balance[0].read, 0);
            assert_eq!(notes, ["no verdicts came in, so no pair goes out"]);
            assert_eq!(kit::rows_of(&place.port(&format!("out/{write}"))).unwrap(), 0);
            assert_eq!(kit::rows_of(&place.port("out/rejects")).unwrap(), 0);
        }
    }

    fn many(rows: usize) -> Vec<Verdict> {
        (0..rows)
            .map(|row| {
                let (p, q) = (row % 97, if row % 3 == 0 { (row + 1) % 97 } else { row % 97 });
                let label = (row * 7919 % 1000) as f64 / 999.0;
                verdict(row, &format!("p{p}/r{}", row % 11), &format!("p{q}/r{}", row * row % 7 + 4), label)
            })
            .collect()
    }

    #[test]
    fn equal_runs_make_equal_bytes_sorted_by_id() {
        let rows = many(20_000);
        let yaml = json!({"cap_per_prompt": 30, "budget": 900, "noise": {"kind": "s_flip", "rate": 0.1}});
        let (first, outcome, _) = run(&rows, yaml.clone(), 7);
        let (second, ..) = run(&rows, yaml.clone(), 7);
        let digest = |place: &Place, table: Table| {
            kit::read_port(&place.port(&format!("out/{}", table.name())), table).unwrap().digest()
        };
        for table in [Table::Pairs, Table::Rejects] {
            assert_eq!(digest(&first, table), digest(&second, table));
        }
        let (third, ..) = run(&rows, yaml, 8);
        assert_ne!(digest(&first, Table::Pairs), digest(&third, Table::Pairs));
        let pairs = pairs_of(&first);
        assert!(pairs.is_sorted_by(|a, b| a.pair_id < b.pair_id));
        let balance = &outcome.unwrap().balance[0];
        assert_eq!((balance.kept, balance.read), (pairs.len() as u64, 20_000));
        assert_eq!(kit::rows_of(&first.port("out/rejects")).unwrap(), balance.rejected);
    }

    /// Raise [`Stage::version`] when this changes: results in people's stores were made by the version before.
    #[test]
    fn the_version_stands_for_these_rows() {
        let yaml = json!({"cap_per_prompt": 9, "noise": {"kind": "s_flip", "rate": 0.1}, "weight": "certainty"});
        let (place, ..) = run(&many(2000), yaml, 7);
        let rows = format!("{:?}", pairs_of(&place));
        let yaml = json!({"write": "items", "kl_group": 8, "shape": "stairs"});
        let (place, ..) = run(&many(2000), yaml, 7);
        let items: Vec<Item> = place.rows("out/items");
        let digest = Digest::of(format!("{rows}{items:?}").as_bytes()).short(16);
        assert_eq!((crate::KIND.configure)(json!({"from": "x"})).unwrap().0.version(), "3");
        assert_eq!(digest, "06bfc8b25d5f39ee");
    }

    #[test]
    fn swapping_a_and_b_mirrors_the_label_and_gives_the_same_pair() {
        let rows = many(500);
        let mirrored: Vec<Verdict> = rows.iter().map(harness::exchanged).collect();
        let (one, ..) = run(&rows, json!({}), 0);
        let (other, ..) = run(&mirrored, json!({}), 0);
        let (one, other) = (pairs_of(&one), pairs_of(&other));
        assert_eq!(one.len(), other.len());
        for (one, other) in one.iter().zip(&other) {
            assert!((one.p_hat - other.p_hat).abs() < 1e-15);
            assert_eq!(*one, Pair { p_hat: one.p_hat, ..other.clone() });
        }
    }

    #[test]
    fn items_carry_labels_and_mismatched_responses() {
        let rows = [
            verdict(0, "p/1", "p/2", 0.25),
            verdict(1, "p/1", "p/3", 0.75),
            verdict(2, "q/1", "q/2", 1.0),
            verdict(3, "q/1", "q/2", 1.0),
        ];
        let (place, outcome, _) = run(&rows, json!({"write": "items", "kl_group": 2}), 0);
        let figures = outcome.unwrap().figures;
        assert_eq!(figures["items"], json!(5));
        assert_eq!(figures["responses both chosen and rejected"], json!(1));
        let items: Vec<Item> = place.rows("out/items");
        assert!(items.is_sorted_by(|a, b| a.item_id < b.item_id));
        let of = |id: (&str, &str)| items.iter().find(|item| (&*item.prompt_id, &*item.response_id) == id).unwrap();
        assert_eq!(of(("p", "1")).label, 0.5);
        assert_eq!(of(("p", "2")).label, 0.75);
        assert_eq!(of(("q", "2")).label, 0.0);
        assert_eq!(of(("p", "3")).response, rows[1].b_response);
        assert_eq!(of(("p", "3")).item_id, kit::ids::item_id("p", "3", 0.25));
        for (at, item) in items.iter().enumerate() {
            assert_eq!(item.kl_group, Some(at as u64 / 2));
            let other = items.iter().find(|other| {
                Some(&other.response_id) == item.kl_response_id.as_ref()
                    && Some(&other.response[0].content) == item.kl_response.as_ref()
            });
            assert_ne!(other.unwrap().prompt_id, item.prompt_id);
        }
        let yaml = json!({"write": "items", "repeats": "separate", "labels": "hard", "ties": "drop", "order": "input"});
        let (place, ..) = run(&rows, yaml, 0);
        let items: Vec<Item> = place.rows("out/items");
        let labels: Vec<_> = items.iter().map(|item| (item.response_id.as_str(), item.label)).collect();
        assert_eq!(labels, [("2", 1.0), ("1", 0.0), ("1", 1.0), ("3", 0.0), ("1", 1.0), ("2", 0.0)]);
        assert!(items.iter().all(|item| item.kl_response.is_none() && item.kl_group.is_none()));
    }

    #[test]
    fn items_get_mismatched_responses_and_keep_everything_else() {
        let rows = [verdict(0, "p/1", "p/2", 1.0), verdict(1, "q/1", "q/2", 0.75), verdict(2, "r/1", "r/2", 0.25)];
        let (place, ..) = run(&rows, json!({"write": "items"}), 0);
        let given: Vec<Item> = place.rows("out/items");
        let (place, outcome, _) = run(&given, json!({"write": "items", "kl_group": 3}), 0);
        let outcome = outcome.unwrap();
        assert_eq!(outcome.balance[0], kit::Balance { input: "from".to_owned(), read: 6, kept: 6, rejected: 0 });
        assert_eq!(outcome.figures["groups"], json!(2));
        let items: Vec<Item> = place.rows("out/items");
        for (at, (item, before)) in items.iter().zip(&given).enumerate() {
            let other = items.iter().find(|other| {
                Some(&other.response_id) == item.kl_response_id.as_ref()
                    && Some(&other.response[0].content) == item.kl_response.as_ref()
            });
            assert_ne!(other.unwrap().prompt_id, item.prompt_id);
            assert_eq!(item.kl_group, Some(at as u64 / 3));
            let plain = Item { kl_response_id: None, kl_response: None, kl_group: None, ..item.clone() };
            assert_eq!(plain, *before);
        }
        // Items straight from verdicts are the same.
        let (place, ..) = run(&rows, json!({"write": "items", "kl_group": 3}), 0);
        assert_eq!(place.rows::<Item>("out/items"), items);
        let refused = |yaml| run(&given, yaml, 0).1.unwrap_err().to_string();
        assert!(refused(json!({"write": "items"})).contains("what can be added is `kl_group`"));
        let yaml = json!({"write": "items", "kl_group": 3, "ties": "drop"});
        assert!(refused(yaml).contains("`ties` is about pairs"));
    }

    #[test]
    fn the_memory_of_many_verdicts_is_foretold() {
        let memory = |rows: u64| {
            let (stage, _) = (crate::KIND.configure)(json!({"from": "verdicts"})).unwrap();
            let verdicts = kit::Expected::of_rows(Table::Verdicts, Amount::about(rows));
            let inputs = std::collections::BTreeMap::from([("from", vec![verdicts])]);
            let ahead = ForecastInputs { inputs, ..ForecastInputs::default() };
            stage.forecast(&ahead).unwrap().forecast.unwrap().memory
        };
        assert_eq!(memory(1000), None);
        // Measured: 1.1 to 1.2 GB.
        let many = memory(10_000_000).unwrap();
        assert!((1_100_000_000..1_600_000_000).contains(&many), "{many}");
        assert!(memory(1_000_000_000).unwrap() > 50 * many);
    }

    #[test]
    fn settings_without_effect_are_found() {
        let check = |yaml: Value, path: &[&str]| {
            let (stage, _) = (crate::KIND.configure)(harness::with(json!({"from": "verdicts"}), &yaml)).unwrap();
            let findings = stage.check();
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(findings[0].path, path);
        };
        check(json!({"tie_width": 0.1}), &["tie_width"]);
        check(json!({"labels": "hard"}), &["labels"]);
        check(json!({"min_p_hat": 0.4}), &["min_p_hat"]);
        check(json!({"min_p_hat": 0.9, "max_p_hat": 0.8}), &["min_p_hat"]);
        check(json!({"mix": {"same": 0.5, "joint": 0.4}}), &["mix"]);
        check(json!({"noise": {"kind": "b_flip", "rate": 0.1}}), &["noise", "kind"]);
        check(json!({"noise": {"kind": "s_ave", "rate": 1.1}}), &["noise", "rate"]);
        check(json!({"kl_group": 4}), &["kl_group"]);
        check(json!({"write": "items", "kl_group": 1}), &["kl_group"]);
        check(json!({"budget": 0}), &["budget"]);
    }
}
