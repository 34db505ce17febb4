//! Exact nearest neighbours by cosine, in blocks.
//!
//! A tile serves the rows of both its blocks, so each product is computed once. Beside the rows themselves memory is k
//! neighbours a row and one tile per thread. A list of neighbours is the best k under a total order, so it does not
//! depend on the order of the tiles.

use std::sync::Mutex;

use kit::{Interrupt, Result};
use rayon::prelude::*;

use crate::tile::{BLOCK, Best, Tile};

/// The `k` most similar other rows of each row, the most similar first, ties by row number. `matrix` is [N, D], rows of
/// unit length.
///
/// # Errors
/// When a signal asks to stop.
pub(crate) fn nearest(matrix: &[f32], width: usize, k: usize, interrupt: &Interrupt) -> Result<Vec<Vec<u32>>> {
    let rows = matrix.len() / width.max(1);
    let blocks: Vec<&[f32]> = matrix.chunks(BLOCK * width.max(1)).collect();
    let best: Vec<Mutex<Best>> = blocks.iter().map(|block| Mutex::new(Best::new(block.len() / width, k))).collect();
    // Neighbouring tiles of the list share few blocks, so threads seldom wait for each other.
    let tiles: Vec<(usize, usize)> =
        (0..blocks.len()).flat_map(|apart| (0..blocks.len() - apart).map(move |at| (at, at + apart))).collect();
    tiles.par_iter().try_for_each_init(Tile::default, |tile, &(one, other)| {
        interrupt.check()?;
        tile.multiply(blocks[one], blocks[other], width);
        let lock = |at: usize| best[at].lock().expect("no thread panics while it holds a list");
        let mut best = lock(one);
        for (row, values) in tile.rows().enumerate() {
            let named = |column| (one != other || row != column).then_some((other * BLOCK + column) as u32);
            best.offer(row, values, named);
        }
        drop(best);
        if one != other {
            let mut best = lock(other);
            for (row, values) in tile.rows().enumerate() {
                let row = Some((one * BLOCK + row) as u32);
                values.iter().enumerate().for_each(|(column, value)| best.offer(column, &[*value], |_| row));
            }
        }
        Ok(())
    })?;
    let best = best.into_iter().flat_map(|best| best.into_inner().expect("no thread panicked").into_rows());
    let neighbours: Vec<Vec<u32>> = best.collect();
    assert_eq!(neighbours.len(), rows, "every row has a list");
    Ok(neighbours)
}

#[cfg(test)]
pub(crate) mod tests {
    use kit::Seed;

    use super::*;

    /// Rows of unit length, of which so many differ.
    pub(crate) fn matrix(rows: usize, width: usize, distinct: usize) -> Vec<f32> {
        let row = |row: usize| {
            let values: Vec<f64> = (0..width)
                .map(|at| {
                    (Seed(row as u64 % distinct as u64).derive("t", "", at as u64) >> 11) as f64 / 2f64.powi(53) - 0.5
                })
                .collect();
            let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
            values.into_iter().map(move |value| (value / norm) as f32)
        };
        (0..rows).flat_map(row).collect()
    }

    /// All similarities in f64, sorted.
    fn brute_force(matrix: &[f32], width: usize, k: usize) -> Vec<Vec<u32>> {
        let rows: Vec<&[f32]> = matrix.chunks(width).collect();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        (0..rows.len())
            .map(|one| {
                let mut others: Vec<(f64, u32)> = (0..rows.len())
                    .filter(|&other| other != one)
                    .map(|other| (dot(rows[one], rows[other]), other as u32))
                    .collect();
                others.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                others.truncate(k);
                others.into_iter().map(|(_, other)| other).collect()
            })
            .collect()
    }

    #[test]
    fn blocks_find_what_brute_force_finds() {
        // One block, several, and a last one of a single row.
        for (rows, width, k) in [(1, 3, 2), (2, 1, 5), (40, 16, 3), (1025, 24, 7)] {
            let matrix = matrix(rows, width, rows);
            let found = nearest(&matrix, width, k, &Interrupt::default()).unwrap();
            assert_eq!(found, brute_force(&matrix, width, k), "{rows} rows");
        }
    }

    #[test]
    fn ties_go_by_row() {
        // Every vector stands in the matrix many times, in several blocks.
        let matrix = matrix(1200, 8, 5);
        let found = nearest(&matrix, 8, 4, &Interrupt::default()).unwrap();
        for (row, list) in found.iter().enumerate() {
            let twins: Vec<u32> =
                (0..1200).filter(|&other| other % 5 == row as u32 % 5 && other != row as u32).collect();
            assert_eq!(*list, twins[..4]);
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let matrix = matrix(1100, 12, 700);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| nearest(&matrix, 12, 6, &Interrupt::default()).unwrap())
        };
        assert_eq!(with(1), with(4));
    }

    #[test]
    fn a_signal_stops_it() {
        let interrupt = Interrupt::default();
        interrupt.raise();
        assert!(nearest(&matrix(10, 2, 10), 2, 1, &interrupt).is_err());
    }
}
