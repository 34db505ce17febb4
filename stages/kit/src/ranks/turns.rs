//! How ranks add up numbers that all of them have: each adds a share of the numbers, and sends the sums to the others.

use std::ops::Range;

/// One exchange of a sum: two ranks swap numbers.
///
/// Of each half of the ranks' pairs one adds the first half of the numbers and the other the second, and so on with
/// halves of these: after log2(ranks) turns each rank has the sums of 1 / ranks of the numbers. As many turns bring them
/// to all. A rank sends 2 (ranks - 1) / ranks of the numbers. Each number is added as a balanced tree over the ranks,
/// ((0+1)+(2+3))+((4+5)+(6+7)), whichever rank adds it: the same bits as where one rank adds them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The rank that swaps with this one.
    pub partner: usize,
    /// The numbers that are sent.
    pub sent: Range<usize>,
    /// The place of those that come.
    pub taken: Range<usize>,
    /// True where these are added to one's own, false where they replace them.
    pub added: bool,
}

/// The turns of one rank.
pub(super) fn turns(rank: usize, size: usize, numbers: usize) -> Vec<Turn> {
    let (mut own, mut turns) = (0..numbers, Vec::new());
    for bit in bits(size) {
        let middle = own.start + own.len() / 2;
        let (first, second) = (own.start..middle, middle..own.end);
        let (kept, sent) = if rank & bit == 0 { (first, second) } else { (second, first) };
        turns.push(Turn { partner: rank ^ bit, sent, taken: kept.clone(), added: true });
        own = kept;
    }
    let back = |turn: &Turn| Turn { sent: turn.taken.clone(), taken: turn.sent.clone(), added: false, ..*turn };
    let back: Vec<Turn> = turns.iter().rev().map(back).collect();
    turns.extend(back);
    turns
}

/// In each round a rank meets the one whose number differs in this bit.
pub(super) fn bits(size: usize) -> impl Iterator<Item = usize> {
    (0..size.trailing_zeros()).map(|round| 1 << round)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds up as the turns say: what each rank has at the end, and how many numbers it sent.
    fn summed(mut all: Vec<Vec<f32>>) -> (Vec<Vec<f32>>, Vec<usize>) {
        let (size, numbers) = (all.len(), all[0].len());
        let of_ranks: Vec<Vec<Turn>> = (0..size).map(|rank| turns(rank, size, numbers)).collect();
        let mut sent = vec![0; size];
        for at in 0..of_ranks[0].len() {
            let before = all.clone();
            for (rank, turns) in of_ranks.iter().enumerate() {
                let Turn { partner, taken, added, .. } = turns[at].clone();
                let theirs = &of_ranks[partner][at];
                assert_eq!((theirs.partner, &theirs.sent), (rank, &taken), "partners swap");
                for i in taken {
                    all[rank][i] = before[partner][i] + if added { before[rank][i] } else { 0.0 };
                }
                sent[rank] += turns[at].sent.len();
            }
        }
        (all, sent)
    }

    #[test]
    fn sums_are_balanced_trees_on_all_ranks() {
        for size in [1, 2, 4, 8, 64] {
            for numbers in [0, 1, 3, 64, 1000] {
                // Their sum depends on its order.
                let number = |rank: usize, i: usize| 0.1 * ((rank * 7 + i) as f32 % 61.0 + 1.0).powi(9);
                let all = (0..size).map(|rank| (0..numbers).map(|i| number(rank, i)).collect()).collect();
                let (got, _) = summed(all);
                let tree = |i: usize| {
                    let mut tree: Vec<f32> = (0..size).map(|rank| number(rank, i)).collect();
                    while tree.len() > 1 {
                        tree = tree.chunks(2).map(|two| two[0] + two[1]).collect();
                    }
                    tree[0].to_bits()
                };
                let wanted: Vec<u32> = (0..numbers).map(tree).collect();
                for got in got {
                    assert_eq!(got.into_iter().map(f32::to_bits).collect::<Vec<_>>(), wanted, "{size} ranks");
                }
            }
        }
    }

    #[test]
    fn a_rank_sends_less_than_twice_the_numbers() {
        for (size, sent) in [(1, 0), (2, 1024), (4, 1536), (8, 1792), (64, 2016)] {
            assert_eq!(summed(vec![vec![1.0; 1024]; size]).1, vec![sent; size]);
        }
    }
}
