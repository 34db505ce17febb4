//! Rules on rows, their orientation and their labels: a pure function of candidates, settings and seed.

use std::collections::HashMap;

use kit::{Error, Result, Seed};

use crate::candidates::Candidates;
use crate::config::{Duplicates, Labels, Mix, Noise, NoiseKind, Pairs, Shape, Ties, Weights};
use crate::draw::Key;
use crate::groups::first_rows;

/// Tolerance of a label of 1/2: smaller differences are rounding.
const EXACT: f64 = 1e-12;
/// Cut of `skewed`, and the bins of `stairs` (arXiv 2409.06691, section 4).
const SKEWED_BELOW: f64 = 0.8;
const STAIRS: (f64, f64) = (0.65, 0.9);
const STEPS: usize = 5;

/// The reason why a row is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    SameResponse,
    /// As an earlier row, which is named.
    Duplicate(u32),
    /// As an earlier row, but favouring the other side.
    Contradictory(u32),
    /// Its label went into an earlier row.
    Averaged(u32),
    Tie,
    BelowThreshold,
    AboveThreshold,
    Shape,
    Capped,
    Mix,
    Budget,
}

impl Reason {
    /// The word in the table of rejects.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Reason::SameResponse => "same_response",
            Reason::Duplicate(_) => "duplicate",
            Reason::Contradictory(_) => "contradictory",
            Reason::Averaged(_) => "averaged",
            Reason::Tie => "tie",
            Reason::BelowThreshold => "below_threshold",
            Reason::AboveThreshold => "above_threshold",
            Reason::Shape => "shape",
            Reason::Capped => "capped",
            Reason::Mix => "mix",
            Reason::Budget => "budget",
        }
    }
}

/// The rules' decision on a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Decision {
    /// It stays.
    Kept {
        /// Side 1 is chosen.
        swapped: bool,
        /// P(chosen better), at least 1/2.
        p_hat: f64,
        /// Weight in the loss.
        weight: f64,
    },
    /// It goes.
    Dropped(Reason),
}

/// A row that is still in the running.
#[derive(Debug, Clone, Copy)]
struct Runner {
    row: u32,
    swapped: bool,
    p_hat: f64,
}

/// Decides on every candidate, in the order of the settings' fields.
///
/// # Errors
/// When the mix asks for a form that the data does not have.
pub(crate) fn decide(settings: &Pairs, seed: Seed, candidates: &Candidates) -> Result<Vec<Decision>> {
    let mut reasons: Vec<Option<Reason>> = vec![None; candidates.len()];
    let means = distinct(settings.duplicates, candidates, &mut reasons);
    let mut runners: Vec<Runner> = Vec::with_capacity(reasons.iter().filter(|reason| reason.is_none()).count());
    for row in (0..candidates.len() as u32).filter(|row| reasons[*row as usize].is_none()) {
        let label = means.get(&row).copied().unwrap_or_else(|| candidates.p_first(row));
        let key = candidates.key(row);
        let p_first = settings.noise.as_ref().map_or(label, |noise| disturb(noise, seed, key, label));
        let swapped = if (p_first - 0.5).abs() <= EXACT {
            // A tie has no better side. The coin depends on the ids alone, so that the order of the sides is nothing.
            let [first, second] = candidates.keys(row);
            (first > second) != key.coin()
        } else {
            p_first < 0.5
        };
        let p_hat = if swapped { 1.0 - p_first } else { p_first }.max(0.5);
        runners.push(Runner { row, swapped, p_hat });
    }

    let keep =
        |runners: &mut Vec<Runner>, reasons: &mut Vec<Option<Reason>>, reason, stays: &dyn Fn(&Runner) -> bool| {
            runners.retain(|runner| {
                let stays = stays(runner);
                if !stays {
                    reasons[runner.row as usize] = Some(reason);
                }
                stays
            });
        };
    if settings.ties == Ties::Drop {
        let width = settings.tie_width.unwrap_or(0.0) + EXACT;
        keep(&mut runners, &mut reasons, Reason::Tie, &|runner| runner.p_hat - 0.5 > width);
    }
    if let Some(low) = settings.min_p_hat {
        keep(&mut runners, &mut reasons, Reason::BelowThreshold, &|runner| runner.p_hat >= low);
    }
    if let Some(high) = settings.max_p_hat {
        keep(&mut runners, &mut reasons, Reason::AboveThreshold, &|runner| runner.p_hat <= high);
    }
    let draws = |runners: &[Runner], purpose: &str| -> Vec<Runner> {
        let key = |runner: &Runner| candidates.key(runner.row);
        let mut drawn = runners.to_vec();
        drawn.sort_by_cached_key(|runner| (key(runner).draw(seed, purpose), key(runner)));
        drawn
    };
    let keep_drawn = |runners: &mut Vec<Runner>, reasons: &mut Vec<Option<Reason>>, reason, drawn: &[Runner]| {
        let mut stays = vec![false; candidates.len()];
        drawn.iter().for_each(|runner| stays[runner.row as usize] = true);
        keep(runners, reasons, reason, &|runner| stays[runner.row as usize]);
    };
    match settings.shape {
        Some(Shape::Skewed) => keep(&mut runners, &mut reasons, Reason::Shape, &|runner| runner.p_hat < SKEWED_BELOW),
        Some(Shape::Stairs) => {
            let drawn = stairs(&draws(&runners, "pairs/shape"));
            keep_drawn(&mut runners, &mut reasons, Reason::Shape, &drawn);
        }
        None => {}
    }
    if let Some(cap) = settings.cap_per_prompt {
        let drawn = capped(cap, &draws(&runners, "pairs/cap"), candidates);
        keep_drawn(&mut runners, &mut reasons, Reason::Capped, &drawn);
    }
    if let Some(mix) = &settings.mix {
        let drawn = draws(&runners, "pairs/mix");
        let shares = mixed(mix, None, &drawn, candidates)?;
        keep_drawn(&mut runners, &mut reasons, Reason::Mix, &shares);
        if settings.budget.is_some() {
            // The first rows of each form, so some of those that the shares allow.
            let afforded = mixed(mix, settings.budget, &drawn, candidates)?;
            keep_drawn(&mut runners, &mut reasons, Reason::Budget, &afforded);
        }
    }
    if let Some(budget) = settings.budget.and_then(|budget| usize::try_from(budget).ok())
        && runners.len() > budget
    {
        let drawn = draws(&runners, "pairs/budget");
        keep_drawn(&mut runners, &mut reasons, Reason::Budget, &drawn[..budget]);
    }

    let mut decisions: Vec<Option<Decision>> =
        reasons.into_iter().map(|reason| reason.map(Decision::Dropped)).collect();
    for Runner { row, swapped, p_hat } in runners {
        let weight = match settings.weight {
            Weights::Given => candidates.weight(row),
            Weights::Uniform => 1.0,
            Weights::Certainty => candidates.weight(row) * (2.0 * p_hat - 1.0),
        };
        let p_hat = if settings.labels == Labels::Hard { 1.0 } else { p_hat };
        decisions[row as usize] = Some(Decision::Kept { swapped, p_hat, weight });
    }
    Ok(decisions.into_iter().map(|decision| decision.expect("a row stays or has a reason to go")).collect())
}

/// Finds rows of one response, and of two responses seen before. Gives P(side 0 better) of the rows whose label is a
/// mean.
fn distinct(duplicates: Duplicates, candidates: &Candidates, reasons: &mut [Option<Reason>]) -> HashMap<u32, f64> {
    let first = first_rows(candidates.len(), |row| candidates.key(row));
    // For `average`: the labels of a first row and its kin, and their sum, all as P(the side with the smaller key
    // first).
    let canonical = |row: u32, p: f64| {
        let [first, second] = candidates.keys(row);
        if first < second { p } else { 1.0 - p }
    };
    let mut sums: HashMap<u32, (f64, f64)> = HashMap::new();
    for (row, earlier) in first.into_iter().enumerate() {
        let at = row as u32;
        if candidates.same(at) {
            reasons[row] = Some(Reason::SameResponse);
        } else if earlier != at {
            let [label, before] = [at, earlier].map(|row| canonical(row, candidates.p_first(row)));
            let (count, sum) = sums.entry(earlier).or_insert((1.0, before));
            *count += 1.0;
            *sum += label;
            let opposed = (label - 0.5) * (before - 0.5) < 0.0;
            reasons[row] = Some(match duplicates {
                Duplicates::Average => Reason::Averaged(earlier),
                Duplicates::First if opposed => Reason::Contradictory(earlier),
                Duplicates::First => Reason::Duplicate(earlier),
            });
        }
    }
    match duplicates {
        Duplicates::First => HashMap::new(),
        Duplicates::Average => sums.into_iter().map(|(row, (count, sum))| (row, canonical(row, sum / count))).collect(),
    }
}

/// The label with noise on it; the draw depends on the two responses, not on which comes first.
fn disturb(noise: &Noise, seed: Seed, key: Key, p_first: f64) -> f64 {
    match noise.kind {
        NoiseKind::BFlip | NoiseKind::SFlip => {
            if key.happens(seed, "pairs/noise", noise.rate) {
                1.0 - p_first
            } else {
                p_first
            }
        }
        NoiseKind::SAve => {
            // Worked out on the better side, so that the two orders of the sides round alike.
            let better = p_first.max(1.0 - p_first);
            let averaged = (1.0 - noise.rate) * better + noise.rate * (1.0 - better);
            if p_first < 0.5 { 1.0 - averaged } else { averaged }
        }
    }
}

/// Rows whose counts fall over equal bins: bin i holds at most (5 - i)/5 of the first bin and no more than the bin
/// before it.
fn stairs(drawn: &[Runner]) -> Vec<Runner> {
    let (low, high) = STAIRS;
    let mut bins: [Vec<Runner>; STEPS] = Default::default();
    for runner in drawn.iter().filter(|runner| (low..high).contains(&runner.p_hat)) {
        // 0.7 is the edge of a bin, though (0.7 - 0.65) / 0.05 falls short of 1.
        let bin = (runner.p_hat - low) / (high - low) * STEPS as f64 + 1e-9;
        bins[(bin as usize).min(STEPS - 1)].push(*runner);
    }
    let mut limit = bins[0].len();
    let level = limit;
    for (step, bin) in bins.iter_mut().enumerate() {
        limit = limit.min(level * (STEPS - step) / STEPS).min(bin.len());
        bin.truncate(limit);
    }
    bins.concat()
}

/// Rows in drawn order as long as each of their prompts has room.
fn capped(cap: u32, drawn: &[Runner], candidates: &Candidates) -> Vec<Runner> {
    let mut taken: HashMap<Key, u32> = HashMap::new();
    let room = |runner: &&Runner| {
        let [a, b] = candidates.prompts(runner.row);
        let full = [a, b].iter().any(|prompt| taken.get(prompt).is_some_and(|&taken| taken == cap));
        if !full {
            *taken.entry(a).or_insert(0) += 1;
            if b != a {
                *taken.entry(b).or_insert(0) += 1;
            }
        }
        !full
    };
    drawn.iter().filter(room).copied().collect()
}

/// As many rows as the shares allow, and the budget.
fn mixed(mix: &Mix, budget: Option<u64>, drawn: &[Runner], candidates: &Candidates) -> Result<Vec<Runner>> {
    let (joint, same): (Vec<Runner>, Vec<Runner>) = drawn.iter().partition(|runner| candidates.joint(runner.row));
    let mut total = budget.map_or(f64::INFINITY, |budget| budget as f64);
    for (form, share, rows) in [("same", mix.same, &same), ("joint", mix.joint, &joint)] {
        if share > 0.0 {
            if rows.is_empty() && !drawn.is_empty() {
                let text = format!("`mix` wants a share of {share} of `{form}` pairs, but no such pair is left");
                return Err(Error::Pipeline(text));
            }
            total = total.min(rows.len() as f64 / share);
        }
    }
    // A share of 0.1 of 10 rows is 1 row, though 0.1 * 10.000000000000002 may fall short of it.
    let take = |rows: &[Runner], share: f64| rows[..((total * share + 1e-6) as usize).min(rows.len())].to_vec();
    Ok([take(&same, mix.same), take(&joint, mix.joint)].concat())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::candidates::Candidate;

    /// A candidate of two responses `a` and `b`, such as `p1/r1`.
    pub(crate) fn candidate(a: &str, b: &str, p_first: f64) -> Candidate {
        let parts = |side: &str| {
            let (prompt, response) = side.split_once('/').unwrap();
            (prompt.to_owned(), response.to_owned())
        };
        let ((ap, ar), (bp, br)) = (parts(a), parts(b));
        let key = |parts: &[&str]| Key::made_of(parts);
        let pair = |c: (&str, &str), r: (&str, &str)| Key(kit::ids::pair_bits(c, r));
        Candidate {
            keys: [pair((&ap, &ar), (&bp, &br)), pair((&bp, &br), (&ap, &ar))],
            prompts: [key(&[&ap]), key(&[&bp])],
            sides: [key(&[&ap, &ar]), key(&[&bp, &br])],
            joint: ap != bp,
            p_first,
            weight: 1.0,
        }
    }

    fn settings(yaml: serde_json::Value) -> Pairs {
        let yaml = harness::with(serde_json::json!({"from": "verdicts"}), &yaml);
        let settings: Pairs = serde_json::from_value(yaml).unwrap();
        assert_eq!(settings.findings(), []);
        settings
    }

    fn words(decisions: &[Decision]) -> Vec<String> {
        let word = |decision: &Decision| match decision {
            Decision::Kept { swapped, p_hat, weight } => {
                format!("{} {p_hat:.2} w{weight:.2}", if *swapped { "b" } else { "a" })
            }
            Decision::Dropped(reason) => reason.word().to_owned(),
        };
        decisions.iter().map(word).collect()
    }

    /// Six rows of known labels, decided on with some settings.
    fn check(yaml: serde_json::Value, expected: [&str; 6]) {
        let rows = [
            candidate("p/1", "p/2", 0.9),
            candidate("p/1", "p/3", 0.2),
            candidate("p/2", "p/1", 0.6),
            candidate("p/2", "q/1", 0.52),
            candidate("q/1", "q/1", 0.7),
            candidate("q/1", "q/2", 0.45),
        ];
        assert_eq!(
            words(&decide(&settings(yaml.clone()), Seed(1), &Candidates::of(&rows)).unwrap()),
            expected,
            "{yaml}"
        );
    }

    #[test]
    fn rules_one_by_one() {
        use serde_json::json;
        let same = "same_response";
        check(json!({}), ["a 0.90 w1.00", "b 0.80 w1.00", "contradictory", "a 0.52 w1.00", same, "b 0.55 w1.00"]);
        check(
            json!({"duplicates": "average"}),
            ["a 0.65 w1.00", "b 0.80 w1.00", "averaged", "a 0.52 w1.00", same, "b 0.55 w1.00"],
        );
        check(
            json!({"ties": "drop", "tie_width": 0.02}),
            ["a 0.90 w1.00", "b 0.80 w1.00", "contradictory", "tie", same, "b 0.55 w1.00"],
        );
        check(
            json!({"min_p_hat": 0.55, "max_p_hat": 0.85}),
            ["above_threshold", "b 0.80 w1.00", "contradictory", "below_threshold", same, "b 0.55 w1.00"],
        );
        check(
            json!({"labels": "hard", "ties": "drop", "weight": "certainty"}),
            ["a 1.00 w0.80", "b 1.00 w0.60", "contradictory", "a 1.00 w0.04", same, "b 1.00 w0.10"],
        );
        check(json!({"shape": "skewed"}), ["shape", "shape", "contradictory", "a 0.52 w1.00", same, "b 0.55 w1.00"]);
        check(
            json!({"noise": {"kind": "s_ave", "rate": 0.25}}),
            ["a 0.70 w1.00", "b 0.65 w1.00", "contradictory", "a 0.51 w1.00", same, "b 0.53 w1.00"],
        );
        check(
            json!({"noise": {"kind": "s_flip", "rate": 1.0}}),
            ["b 0.90 w1.00", "a 0.80 w1.00", "contradictory", "b 0.52 w1.00", same, "a 0.55 w1.00"],
        );
        check(
            json!({"noise": {"kind": "b_flip", "rate": 1.0}, "labels": "hard", "ties": "drop"}),
            ["b 1.00 w1.00", "a 1.00 w1.00", "contradictory", "b 1.00 w1.00", same, "a 1.00 w1.00"],
        );
    }

    /// Rows of random labels over a few prompts: (prompt, response) twice and the label.
    fn rows() -> impl Strategy<Value = Vec<Candidate>> {
        let row = (0..4_u8, 0..5_u8, 0..4_u8, 0..5_u8, 0..=32_u8).prop_map(|(p, r, q, s, label)| {
            candidate(&format!("{p}/{r}"), &format!("{q}/{s}"), f64::from(label) / 32.0)
        });
        proptest::collection::vec(row, 0..60)
    }

    fn any_settings() -> impl Strategy<Value = Pairs> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0..4_u8);
        (flags, proptest::option::of(1..4_u32), proptest::option::of(1..20_u64)).prop_map(
            |((average, drop, stairs, noise), cap, budget)| {
                let mut settings = settings(serde_json::json!({"cap_per_prompt": cap, "budget": budget}));
                settings.duplicates = if average { Duplicates::Average } else { Duplicates::First };
                settings.ties = if drop { Ties::Drop } else { Ties::Keep };
                settings.shape = stairs.then_some(Shape::Stairs);
                settings.noise = (noise > 0).then_some(Noise { kind: NoiseKind::SFlip, rate: f64::from(noise) / 4.0 });
                settings
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn limits_hold_and_labels_are_oriented(rows in rows(), settings in any_settings()) {
            let decisions = decide(&settings, Seed(5), &Candidates::of(&rows)).unwrap();
            prop_assert_eq!(decisions.len(), rows.len());
            let kept: Vec<_> = decisions.iter().zip(&rows).filter(|(decision, _)| matches!(decision, Decision::Kept { .. })).collect();
            let mut prompts: BTreeMap<Key, u32> = BTreeMap::new();
            let mut keys = std::collections::BTreeSet::new();
            for (decision, row) in &kept {
                let Decision::Kept { p_hat, .. } = decision else { unreachable!() };
                prop_assert!((0.5..=1.0).contains(p_hat));
                prop_assert!(keys.insert(row.keys[0].min(row.keys[1])));
                let mut sides = row.prompts.to_vec();
                sides.dedup();
                sides.into_iter().for_each(|prompt| *prompts.entry(prompt).or_insert(0) += 1);
            }
            prop_assert!(settings.budget.is_none_or(|budget| kept.len() as u64 <= budget));
            prop_assert!(settings.cap_per_prompt.is_none_or(|cap| prompts.values().all(|&pairs| pairs <= cap)));
        }

        /// Swapping the sides of any rows, with the label mirrored, changes nothing but which side is called a.
        #[test]
        fn sides_are_symmetric(rows in rows(), settings in any_settings(), swaps in any::<u64>()) {
            let mirrored: Vec<_> = rows.iter().enumerate().map(|(at, row)| {
                let mut row = row.clone();
                if swaps >> (at % 64) & 1 == 1 {
                    row.keys.swap(0, 1);
                    row.prompts.swap(0, 1);
                    row.sides.swap(0, 1);
                    row.p_first = 1.0 - row.p_first;
                }
                row
            }).collect();
            let sides = |rows: &[Candidate]| -> Vec<_> {
                decide(&settings, Seed(5), &Candidates::of(rows)).unwrap().into_iter().zip(rows).map(|(decision, row)| match decision {
                    Decision::Kept { swapped, p_hat, .. } => Ok((row.keys[usize::from(swapped)], p_hat)),
                    Decision::Dropped(reason) => Err(reason),
                }).collect()
            };
            prop_assert_eq!(sides(&rows), sides(&mirrored));
        }
    }

    #[test]
    fn stairs_fall() {
        let rows: Vec<_> = (0..3000)
            .map(|row| candidate(&format!("p/{row}"), "p/x", 0.5 + (f64::from(row * 7919 % 3000) + 0.5) / 6000.0))
            .collect();
        let decisions =
            decide(&settings(serde_json::json!({"shape": "stairs"})), Seed(1), &Candidates::of(&rows)).unwrap();
        let mut bins = [0; STEPS];
        for decision in decisions {
            if let Decision::Kept { p_hat, .. } = decision {
                assert!((0.65..0.9).contains(&p_hat));
                bins[(((p_hat - 0.65) / 0.05) as usize).min(STEPS - 1)] += 1;
            }
        }
        assert_eq!(bins[0], 300);
        assert_eq!(bins[1..], [240, 180, 120, 60]);
    }

    #[test]
    fn shares_are_exact() {
        let rows: Vec<_> =
            (0..40).map(|row| candidate(&format!("p/{row}"), if row < 30 { "p/x" } else { "q/x" }, 0.8)).collect();
        let count = |yaml| {
            let decisions = decide(&settings(yaml), Seed(1), &Candidates::of(&rows)).unwrap();
            let kept = |range: std::ops::Range<usize>| {
                decisions[range].iter().filter(|decision| matches!(decision, Decision::Kept { .. })).count()
            };
            (kept(0..30), kept(30..40))
        };
        assert_eq!(count(serde_json::json!({"mix": {"same": 0.5, "joint": 0.5}})), (10, 10));
        assert_eq!(count(serde_json::json!({"mix": {"same": 0.9, "joint": 0.1}})), (30, 3));
        assert_eq!(count(serde_json::json!({"mix": {"same": 0.7, "joint": 0.3}, "budget": 10})), (7, 3));
        assert_eq!(count(serde_json::json!({"mix": {"same": 1.0, "joint": 0.0}})), (30, 0));
        assert_eq!(count(serde_json::json!({"budget": 7})).0 + count(serde_json::json!({"budget": 7})).1, 7);
        let yaml = serde_json::json!({"mix": {"same": 0.5, "joint": 0.5}, "budget": 8});
        let decisions = decide(&settings(yaml), Seed(1), &Candidates::of(&rows)).unwrap();
        let dropped = |reason| decisions.iter().filter(|decision| **decision == Decision::Dropped(reason)).count();
        // The shares allow 10 and 10 of 30 and 10, the budget 4 and 4 of these.
        assert_eq!((dropped(Reason::Mix), dropped(Reason::Budget)), (20, 12));
        let none = decide(
            &settings(serde_json::json!({"mix": {"same": 0.5, "joint": 0.5}})),
            Seed(1),
            &Candidates::of(&rows[..5]),
        );
        assert!(none.unwrap_err().to_string().contains("no such pair is left"));
    }

    #[test]
    fn ties_favour_no_side() {
        let rows: Vec<_> = (0..2000).map(|row| candidate(&format!("p/{row}"), "p/x", 0.5)).collect();
        let decisions = decide(&settings(serde_json::json!({})), Seed(1), &Candidates::of(&rows)).unwrap();
        let swapped =
            decisions.iter().filter(|decision| matches!(decision, Decision::Kept { swapped: true, .. })).count();
        assert!((900..1100).contains(&swapped), "{swapped}");
    }
}
