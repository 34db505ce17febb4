//! Agreement of annotators beyond chance.
//!
//! Votes count as the side they prefer: a, neither, b. A vote of weight w is w votes.

use std::collections::BTreeMap;

use crate::bench::Ballot;

/// a, neither, b.
const SIDES: usize = 3;

fn class(ballot: &Ballot) -> usize {
    match ballot.side() {
        1.0 => 0,
        0.0 => 2,
        _ => 1,
    }
}

/// The weight of the votes for a, for neither and for b.
pub fn counts(ballots: &[Ballot]) -> [f64; SIDES] {
    let mut counts = [0.0; SIDES];
    ballots.iter().for_each(|ballot| counts[class(ballot)] += ballot.weight);
    counts
}

/// A pair of different classes.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..SIDES).flat_map(|c| (0..SIDES).filter(move |k| *k != c).map(move |k| (c, k)))
}

/// Krippendorff's alpha for nominal values, over the comparisons with more than one vote (Content Analysis, ch. 11), and
/// the number of those comparisons. None where no two votes can be compared, or all are equal.
///
/// `1 - (N - 1) sum_u sum_(c != k) n_uc n_uk / (m_u - 1) / sum_(c != k) n_c n_k`
pub fn krippendorff(ballots: &[Vec<Ballot>]) -> Option<(f64, u64)> {
    let units: Vec<[f64; SIDES]> =
        ballots.iter().map(|it| counts(it)).filter(|it| it.iter().sum::<f64>() > 1.0).collect();
    let mut totals = [0.0; SIDES];
    let mut observed = 0.0;
    for unit in &units {
        let votes: f64 = unit.iter().sum();
        observed += pairs().map(|(c, k)| unit[c] * unit[k]).sum::<f64>() / (votes - 1.0);
        totals.iter_mut().zip(unit).for_each(|(total, count)| *total += count);
    }
    let all: f64 = totals.iter().sum();
    let expected: f64 = pairs().map(|(c, k)| totals[c] * totals[k]).sum();
    (expected > 0.0).then(|| (1.0 - (all - 1.0) * observed / expected, units.len() as u64))
}

/// Fleiss' kappa (Psychological Bulletin 76, 1971): (P - Pe) / (1 - Pe). Every comparison with votes has to have the
/// same number of them, at least two; otherwise nothing, also where all votes are the same.
pub fn fleiss(ballots: &[Vec<Ballot>]) -> Option<(f64, u64)> {
    let units: Vec<[f64; SIDES]> = ballots.iter().filter(|it| !it.is_empty()).map(|it| counts(it)).collect();
    let votes: f64 = units.first()?.iter().sum();
    if votes < 2.0 || units.iter().any(|unit| unit.iter().sum::<f64>() != votes) {
        return None;
    }
    let of =
        |unit: &[f64; SIDES]| unit.iter().map(|count| count * (count - 1.0)).sum::<f64>() / (votes * (votes - 1.0));
    let rows = units.len() as f64;
    let observed = units.iter().map(of).sum::<f64>() / rows;
    let share = |class: usize| units.iter().map(|unit| unit[class]).sum::<f64>() / (rows * votes);
    let expected: f64 = (0..SIDES).map(|class| share(class).powi(2)).sum();
    (expected < 1.0).then(|| ((observed - expected) / (1.0 - expected), units.len() as u64))
}

/// Two sources compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The first source.
    pub one: usize,
    /// The second source.
    pub other: usize,
    /// Comparisons that both voted on, once each.
    pub rows: u64,
    /// The share of them on which they say the same.
    pub exact: f64,
    /// Cohen's kappa, unweighted: (po - pe) / (1 - pe); nothing where chance alone would make them agree always.
    pub kappa: Option<f64>,
}

/// Every two sources that voted on the same comparisons. One that voted on a comparison more than once is not held
/// against others there.
pub fn cohen(ballots: &[Vec<Ballot>]) -> Vec<Pair> {
    let mut tables: BTreeMap<(usize, usize), [[f64; SIDES]; SIDES]> = BTreeMap::new();
    for ballots in ballots {
        let alone = |it: &&Ballot| ballots.iter().filter(|other| other.source == it.source).count() == 1;
        let once: Vec<(usize, usize)> =
            ballots.iter().filter(alone).filter_map(|it| Some((it.source?, class(it)))).collect();
        for (at, (one, vote)) in once.iter().enumerate() {
            for (other, against) in &once[at + 1..] {
                let (key, cell) =
                    if one < other { ((*one, *other), (*vote, *against)) } else { ((*other, *one), (*against, *vote)) };
                tables.entry(key).or_default()[cell.0][cell.1] += 1.0;
            }
        }
    }
    let pair = |((one, other), table): ((usize, usize), [[f64; SIDES]; SIDES])| {
        let rows: f64 = table.iter().flatten().sum();
        let exact = (0..SIDES).map(|c| table[c][c]).sum::<f64>() / rows;
        let share = |c: usize| table[c].iter().sum::<f64>() * table.iter().map(|row| row[c]).sum::<f64>();
        let chance = (0..SIDES).map(share).sum::<f64>() / (rows * rows);
        let kappa = (chance < 1.0).then(|| (exact - chance) / (1.0 - chance));
        Pair { one, other, rows: rows as u64, exact, kappa }
    };
    tables.into_iter().map(pair).collect()
}

/// Counts of the votes on comparisons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Comparisons with votes.
    pub voted: u64,
    /// Those with one vote.
    pub single: u64,
    /// Those whose votes, two or more, are all for one side.
    pub unanimous: u64,
    /// Those whose votes, two or more, are all ties.
    pub all_ties: u64,
    /// Those whose votes differ.
    pub split: u64,
    /// Those of the split ones in which nothing has more votes than all else.
    pub no_majority: u64,
}

/// Counts them.
pub fn tally(ballots: &[Vec<Ballot>]) -> Tally {
    let mut tally = Tally::default();
    for counts in ballots.iter().filter(|it| !it.is_empty()).map(|it| counts(it)) {
        let (all, most) = (counts.iter().sum::<f64>(), counts.iter().copied().fold(0.0, f64::max));
        tally.voted += 1;
        match () {
            () if all <= 1.0 => tally.single += 1,
            () if counts[1] == all => tally.all_ties += 1,
            () if most == all => tally.unanimous += 1,
            () => {
                tally.split += 1;
                tally.no_majority += u64::from(counts.iter().filter(|count| **count == most).count() > 1);
            }
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(rows: &[&[f64]]) -> Vec<Vec<Ballot>> {
        let ballot = |(source, vote): (usize, &f64)| (!vote.is_nan()).then_some((source, *vote));
        let row = |row: &&[f64]| {
            let said = row.iter().enumerate().filter_map(ballot);
            said.map(|(source, vote)| Ballot { source: Some(source), vote, log_odds: None, weight: 1.0 }).collect()
        };
        rows.iter().map(row).collect()
    }

    const NAN: f64 = f64::NAN;

    #[test]
    fn figures_by_hand() {
        // a a a | a a b | b b b | tie tie a
        let all = votes(&[&[1.0, 1.0, 1.0], &[1.0, 1.0, 0.0], &[0.0, 0.0, 0.0], &[0.5, 0.5, 1.0]]);
        // numpy: D = (2*2*1/2 + 2*2*1/2) = 4; n = (6, 2, 4): 2*(12 + 24 + 8) = 88; 1 - 11*4/88 = 0.5
        assert_eq!(krippendorff(&all), Some((0.5, 4)));
        // P = (1 + 1/3 + 1 + 1/3) / 4 = 2/3; Pe = 1/4 + 1/36 + 1/9 = 7/18; (12/18 - 7/18) / (11/18) = 5/11
        let (kappa, rows) = fleiss(&all).unwrap();
        assert!((kappa - 5.0 / 11.0).abs() < 1e-12 && rows == 4);
        let pairs = cohen(&all);
        assert_eq!(
            pairs.iter().map(|it| (it.one, it.other, it.rows)).collect::<Vec<_>>(),
            [(0, 1, 4), (0, 2, 4), (1, 2, 4)]
        );
        assert_eq!((pairs[0].exact, pairs[0].kappa), (1.0, Some(1.0)));
        // First: a a b tie; third: a b b a: po = 1/2, pe = (2*2 + 0*1 + 1*2) / 16 = 3/8; (1/8) / (5/8) = 0.2
        assert!((pairs[1].kappa.unwrap() - 0.2).abs() < 1e-12 && pairs[1].exact == 0.5);
        let tally = tally(&all);
        assert_eq!((tally.voted, tally.unanimous, tally.all_ties, tally.split, tally.no_majority), (4, 2, 0, 2, 0));
    }

    #[test]
    fn missing_votes_and_single_ones() {
        let some = votes(&[&[1.0, NAN, 0.0], &[NAN, 1.0, NAN], &[], &[0.5, 0.5, NAN], &[1.0, 1.0, NAN]]);
        // Pairable: (a b), (tie tie), (a a): D = 2; n = (3, 2, 1): 2*(6 + 3 + 2) = 22; 1 - 5*2/22
        let (alpha, rows) = krippendorff(&some).unwrap();
        assert!((alpha - (1.0 - 10.0 / 22.0)).abs() < 1e-12 && rows == 3);
        // Not every comparison has as many votes.
        assert_eq!(fleiss(&some), None);
        let pairs = cohen(&some);
        assert_eq!(pairs.iter().map(|it| (it.one, it.other, it.rows)).collect::<Vec<_>>(), [(0, 1, 2), (0, 2, 1)]);
        let tally = tally(&some);
        assert_eq!((tally.voted, tally.single, tally.unanimous, tally.all_ties, tally.split), (4, 1, 1, 1, 1));
        assert_eq!(tally.no_majority, 1);
    }

    #[test]
    fn laws() {
        let all = votes(&[&[1.0, 1.0, 0.5], &[1.0, 0.0, 0.0], &[0.0, 0.0, 0.5], &[0.5, 0.5, 1.0]]);
        let turned: Vec<Vec<Ballot>> =
            all.iter().map(|row| row.iter().map(|it| Ballot { vote: 1.0 - it.vote, ..it.clone() }).collect()).collect();
        assert_eq!(
            (krippendorff(&all), fleiss(&all), cohen(&all)),
            (krippendorff(&turned), fleiss(&turned), cohen(&turned))
        );
        // A weight is so many votes of nobody in particular.
        let weighted = |row: &Vec<Ballot>| -> Vec<Ballot> {
            let counts = counts(row);
            let votes = [1.0, 0.5, 0.0].into_iter().zip(counts).filter(|(_, weight)| *weight > 0.0);
            votes.map(|(vote, weight)| Ballot { source: None, vote, log_odds: None, weight }).collect()
        };
        let counted: Vec<Vec<Ballot>> = all.iter().map(weighted).collect();
        assert_eq!(
            (krippendorff(&counted), fleiss(&counted), tally(&counted)),
            (krippendorff(&all), fleiss(&all), tally(&all))
        );
        assert!(cohen(&counted).is_empty());
        // Where all say the same there is nothing to be beyond chance.
        assert_eq!(krippendorff(&votes(&[&[1.0, 1.0], &[1.0, 1.0]])), None);
    }
}
