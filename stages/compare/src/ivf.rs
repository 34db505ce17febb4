//! Nearest neighbours by an inverted file (IVF): rows are parted into lists, each around a centroid, and a row is
//! compared exactly with the rows of the lists whose centroids are the most similar to it.
//!
//! N rows, D width, L lists, P probes. About N P/L products a row in place of N/2. The centroids come from spherical
//! k-means on a drawn sample. Every choice goes by a total order and every sum by row, so the result does not depend on
//! the number of threads; with P = L it is that of [`crate::nearest`] to the last bit.

use std::ops::Range;
use std::sync::Mutex;

use kit::{Interrupt, Result, Seed};
use rayon::prelude::*;

use crate::tile::{BLOCK, Best, Tile};

/// Rows of the sample for each list.
const SAMPLE: usize = 64;
/// Rounds of k-means.
const ROUNDS: usize = 10;
/// Rows whose neighbours are looked for exactly too.
const ASKED: usize = 512;

/// How the rows are parted and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lists {
    /// Lists, at least 1.
    pub lists: usize,
    /// Lists whose rows a row is compared with, from 1 to `lists`.
    pub probes: usize,
}

/// The part of the exact neighbours of some drawn rows that was found.
#[derive(Debug, PartialEq)]
pub(crate) struct Recall {
    /// From 0 to 1; none where there are no neighbours.
    pub part: Option<f64>,
    /// Rows that were drawn.
    pub asked: usize,
}

/// Rows in lists.
pub(crate) struct Parted {
    /// The rows of each list, ascending.
    members: Vec<Vec<u32>>,
    /// The lists that are searched for each row, [N, P], the nearest first.
    probed: Vec<u32>,
    probes: usize,
}

/// The rows that are searched.
pub(crate) struct Rows<'a> {
    /// [N, D], rows of unit length.
    matrix: &'a [f32],
    width: usize,
    interrupt: &'a Interrupt,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(matrix: &'a [f32], width: usize, interrupt: &'a Interrupt) -> Rows<'a> {
        Rows { matrix, width: width.max(1), interrupt }
    }

    /// Parts all rows into lists.
    ///
    /// # Errors
    /// When a signal asks to stop.
    pub(crate) fn part(&self, Lists { lists, probes }: Lists, seed: Seed) -> Result<Parted> {
        let centroids = self.centroids(lists, seed)?;
        let probed = self.closest(&centroids, probes)?;
        let homes: Vec<u32> = probed.iter().step_by(probes).copied().collect();
        Ok(Parted { members: parted(&homes, lists, 1), probed, probes })
    }

    /// The `k` most similar other rows of each of some rows among those of its lists, the most similar first, ties by
    /// row number.
    ///
    /// # Errors
    /// When a signal asks to stop.
    pub(crate) fn nearest_in_lists(&self, k: usize, lists: &Parted, which: Range<usize>) -> Result<Vec<Vec<u32>>> {
        let Parted { members, probed, probes } = lists;
        let asking = parted(&probed[which.start * probes..which.end * probes], members.len(), *probes);
        let queries: Vec<u32> = (which.start as u32..which.end as u32).collect();
        self.search(k, members, &queries, |list| &asking[list])
    }

    /// How many of the exact neighbours are among `found`, the neighbours of all rows.
    ///
    /// # Errors
    /// When a signal asks to stop.
    pub(crate) fn recall(&self, k: usize, found: &[Vec<u32>], seed: Seed) -> Result<Recall> {
        let mut drawn = drawn(self.len(), ASKED, seed, "compare/recall");
        drawn.sort_unstable();
        let places: Vec<u32> = (0..drawn.len() as u32).collect();
        let all = [(0..self.len() as u32).collect()];
        let exact = self.search(k, &all, &drawn, |_| &places)?;
        let wanted: usize = exact.iter().map(Vec::len).sum();
        let common = drawn.iter().zip(&exact).map(|(&row, exact)| {
            let found = &found[row as usize];
            exact.iter().filter(|other| found.contains(other)).count()
        });
        let part = common.sum::<usize>() as f64 / wanted as f64;
        Ok(Recall { part: (wanted > 0).then_some(part), asked: drawn.len() })
    }

    fn len(&self) -> usize {
        self.matrix.len() / self.width
    }

    fn row(&self, row: u32) -> &[f32] {
        &self.matrix[row as usize * self.width..][..self.width]
    }

    /// Some rows, one after the other.
    fn gather(&self, rows: impl Iterator<Item = u32>, into: &mut Vec<f32>) {
        into.clear();
        rows.for_each(|row| into.extend_from_slice(self.row(row)));
    }

    /// L centroids of unit length, [L, D]: those of k-means on a sample, whose first rows it starts from. A list that
    /// loses all its rows keeps its centroid.
    fn centroids(&self, lists: usize, seed: Seed) -> Result<Vec<f32>> {
        let width = self.width;
        let drawn = drawn(self.len(), lists * SAMPLE, seed, "compare/lists");
        let (mut matrix, mut centroids) = (Vec::new(), Vec::new());
        self.gather(drawn.iter().copied(), &mut matrix);
        self.gather(drawn.iter().copied().take(lists), &mut centroids);
        let sample = Rows::new(&matrix, width, self.interrupt);
        for _ in 0..ROUNDS {
            let members = parted(&sample.closest(&centroids, 1)?, lists, 1);
            centroids.par_chunks_mut(width).zip(members).for_each(|(centroid, members)| {
                let mut sums = vec![0.0_f64; width];
                for &row in &members {
                    sums.iter_mut().zip(sample.row(row)).for_each(|(sum, &value)| *sum += f64::from(value));
                }
                let norm = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
                if norm > 0.0 {
                    centroid.iter_mut().zip(sums).for_each(|(to, sum)| *to = (sum / norm) as f32);
                }
            });
        }
        Ok(centroids)
    }

    /// For each row the numbers of its `count` most similar centroids, one row after the other.
    fn closest(&self, centroids: &[f32], count: usize) -> Result<Vec<u32>> {
        let blocks = self.matrix.par_chunks(BLOCK * self.width);
        let found = blocks.map_init(Tile::default, |tile, block| {
            self.interrupt.check()?;
            let mut best = Best::new(block.len() / self.width, count);
            for (at, others) in centroids.chunks(BLOCK * self.width).enumerate() {
                tile.multiply(block, others, self.width);
                let named = |column| Some((at * BLOCK + column) as u32);
                tile.rows().enumerate().for_each(|(row, values)| best.offer(row, values, named));
            }
            Ok(best.into_rows().flatten().collect::<Vec<u32>>())
        });
        Ok(found.collect::<Result<Vec<_>>>()?.concat())
    }

    /// The `k` most similar other rows of some rows among those of the lists that each asks for: `asking` gives for a
    /// list the places in `queries` of those that do, in order.
    fn search<'b>(
        &self,
        k: usize,
        members: &[Vec<u32>],
        queries: &[u32],
        asking: impl Fn(usize) -> &'b [u32] + Sync,
    ) -> Result<Vec<Vec<u32>>> {
        let best: Vec<Mutex<Best>> = queries.chunks(BLOCK).map(|block| Mutex::new(Best::new(block.len(), k))).collect();
        let tasks: Vec<(usize, &[u32])> = members
            .iter()
            .enumerate()
            .flat_map(|(list, members)| members.chunks(BLOCK).map(move |members| (list, members)))
            .collect();
        let buffers = || (Tile::default(), Vec::new(), Vec::new());
        tasks.par_iter().try_for_each_init(buffers, |(tile, asked, block), &(list, members)| {
            self.gather(members.iter().copied(), block);
            for places in asking(list).chunks(BLOCK) {
                self.interrupt.check()?;
                self.gather(places.iter().map(|&place| queries[place as usize]), asked);
                tile.multiply(asked, block, self.width);
                let mut rows = tile.rows();
                for places in places.chunk_by(|one, next| *one as usize / BLOCK == *next as usize / BLOCK) {
                    let mut best = best[places[0] as usize / BLOCK].lock().expect("no thread panics meanwhile");
                    for (&place, values) in places.iter().zip(&mut rows) {
                        let row = queries[place as usize];
                        let named = |column: usize| Some(members[column]).filter(|other| *other != row);
                        best.offer(place as usize % BLOCK, values, named);
                    }
                }
            }
            Ok(())
        })?;
        Ok(best.into_iter().flat_map(|best| best.into_inner().expect("no thread panicked").into_rows()).collect())
    }
}

/// For each list the rows that name it, in order; each row names `each` lists.
fn parted(named: &[u32], lists: usize, each: usize) -> Vec<Vec<u32>> {
    let mut counts = vec![0; lists];
    named.iter().for_each(|&list| counts[list as usize] += 1);
    let mut parts: Vec<Vec<u32>> = counts.into_iter().map(Vec::with_capacity).collect();
    named.iter().enumerate().for_each(|(at, &list)| parts[list as usize].push((at / each) as u32));
    parts
}

/// So many of the rows, in the order of their draws.
fn drawn(rows: usize, count: usize, seed: Seed, purpose: &str) -> Vec<u32> {
    let mut draws: Vec<(u64, u32)> =
        (0..rows as u32).into_par_iter().map(|row| (seed.derive(purpose, "", row.into()), row)).collect();
    draws.par_sort_unstable();
    draws.into_iter().take(count).map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest::nearest;
    use crate::nearest::tests::matrix;

    #[derive(Debug, PartialEq)]
    struct Found {
        neighbours: Vec<Vec<u32>>,
        recall: Option<f64>,
        asked: usize,
    }

    fn found(matrix: &[f32], width: usize, k: usize, lists: usize, probes: usize) -> Found {
        let interrupt = Interrupt::default();
        let rows = Rows::new(matrix, width, &interrupt);
        let parted = rows.part(Lists { lists, probes }, Seed(5)).unwrap();
        let neighbours = rows.nearest_in_lists(k, &parted, 0..rows.len()).unwrap();
        let Recall { part: recall, asked } = rows.recall(k, &neighbours, Seed(5)).unwrap();
        Found { neighbours, recall, asked }
    }

    #[test]
    fn rows_that_are_searched_apart_find_the_same() {
        let matrix = matrix(1300, 12, 900);
        let interrupt = Interrupt::default();
        let rows = Rows::new(&matrix, 12, &interrupt);
        let parted = rows.part(Lists { lists: 30, probes: 4 }, Seed(5)).unwrap();
        let of = |which: Range<usize>| rows.nearest_in_lists(6, &parted, which).unwrap();
        let whole = of(0..1300);
        for cuts in [&[0, 1, 1300][..], &[0, 511, 512, 513, 1024, 1300], &[0, 700, 700, 1299, 1300]] {
            let apart: Vec<_> = cuts.windows(2).flat_map(|cut| of(cut[0]..cut[1])).collect();
            assert_eq!(apart, whole, "{cuts:?}");
        }
    }

    #[test]
    fn with_all_lists_probed_it_is_the_exact_search() {
        // Some rows, more than a block, as many lists as rows, and rows that stand there many times.
        for (rows, width, distinct, k, lists) in
            [(40, 16, 40, 3, 5), (1100, 24, 1100, 7, 9), (9, 4, 9, 20, 9), (1200, 8, 5, 4, 30), (700, 2, 700, 5, 20)]
        {
            let matrix = matrix(rows, width, distinct);
            let exact = nearest(&matrix, width, k, &Interrupt::default()).unwrap();
            let found = found(&matrix, width, k, lists, lists);
            assert_eq!((found.neighbours, found.recall), (exact, Some(1.0)), "{rows} rows in {lists} lists");
        }
    }

    #[test]
    fn recall_is_the_part_of_the_exact_neighbours_that_is_found() {
        // No more rows than are asked, so that all are.
        let matrix = matrix(500, 16, 500);
        let exact = nearest(&matrix, 16, 4, &Interrupt::default()).unwrap();
        let mut last = 0.0;
        for probes in [1, 3, 8] {
            let found = found(&matrix, 16, 4, 20, probes);
            let both = exact.iter().zip(&found.neighbours);
            let common: usize = both.map(|(exact, found)| exact.iter().filter(|row| found.contains(row)).count()).sum();
            assert_eq!((found.asked, found.recall), (500, Some(common as f64 / 2000.0)));
            assert!(found.recall.unwrap() > last, "{:?} at {probes}", found.recall);
            last = found.recall.unwrap();
        }
        assert!((0.9..1.0).contains(&last), "{last}");
    }

    #[test]
    fn neighbours_are_the_best_of_the_lists_probed() {
        // Two far groups: a list for each, and one probe finds all.
        let mut rows = matrix(300, 8, 300);
        for (row, values) in rows.chunks_mut(8).enumerate() {
            values.iter_mut().for_each(|value| *value *= 0.1);
            values[0] += if row.is_multiple_of(2) { 1.0 } else { -1.0 };
            let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
            values.iter_mut().for_each(|value| *value /= norm);
        }
        let exact = nearest(&rows, 8, 5, &Interrupt::default()).unwrap();
        assert_eq!(found(&rows, 8, 5, 2, 1).neighbours, exact);
    }

    #[test]
    fn threads_do_not_matter() {
        let matrix = matrix(1500, 12, 900);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| found(&matrix, 12, 6, 25, 3))
        };
        assert_eq!(with(1), with(4));
    }

    #[test]
    fn few_rows_have_few_neighbours() {
        assert_eq!(found(&[1.0, 0.0], 2, 3, 1, 1), Found { neighbours: vec![vec![]], recall: None, asked: 1 });
        assert_eq!(found(&[1.0, 0.0, 0.0, 1.0], 2, 3, 2, 2).neighbours, [[1], [0]]);
    }

    #[test]
    fn a_signal_stops_it() {
        let interrupt = Interrupt::default();
        interrupt.raise();
        let matrix = matrix(10, 2, 10);
        let rows = Rows::new(&matrix, 2, &interrupt);
        assert!(rows.part(Lists { lists: 2, probes: 1 }, Seed(1)).is_err());
        assert!(rows.recall(1, &[], Seed(1)).is_err());
    }
}
