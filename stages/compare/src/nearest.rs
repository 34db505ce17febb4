//! Exact nearest neighbours by cosine, in blocks.
//!
//! N rows, D width, B rows of a block. A tile is the product of two blocks, [B, D] x [D, B] -> [B, B]; it serves the
//! rows of both, so each product is computed once. Beside the rows themselves memory is k neighbours a row and one tile
//! per thread. A list of neighbours is the best k under a total order, so it does not depend on the order of the tiles.

use std::sync::{Mutex, MutexGuard};

use kit::{Interrupt, Result};
use rayon::prelude::*;

/// Rows of a block.
const BLOCK: usize = 512;

/// The `k` most similar other rows of each row, the most similar first, ties by row number. `matrix` is [N, D], rows of
/// unit length.
///
/// # Errors
/// When a signal asks to stop.
pub(crate) fn nearest(matrix: &[f32], width: usize, k: usize, interrupt: &Interrupt) -> Result<Vec<Vec<u32>>> {
    let rows = matrix.len() / width.max(1);
    let blocks: Vec<&[f32]> = matrix.chunks(BLOCK * width.max(1)).collect();
    let lists: Vec<Mutex<Lists>> = blocks.iter().map(|block| Mutex::new(Lists::new(block.len() / width, k))).collect();
    // Neighbouring tiles of the list share few blocks, so threads seldom wait for each other.
    let tiles: Vec<(usize, usize)> =
        (0..blocks.len()).flat_map(|apart| (0..blocks.len() - apart).map(move |at| (at, at + apart))).collect();
    tiles.par_iter().try_for_each_init(Vec::new, |tile, &(one, other)| {
        interrupt.check()?;
        product(blocks[one], blocks[other], width, tile);
        let (height, length) = (blocks[one].len() / width, blocks[other].len() / width);
        let lock = |at: usize| lists[at].lock().expect("no thread panics while it holds a list");
        take_rows(&mut lock(one), tile, length, other * BLOCK, one == other);
        if one != other {
            take_columns(&mut lock(other), tile, height, length, one * BLOCK);
        }
        Ok(())
    })?;
    let lists = lists.into_iter().flat_map(|lists| lists.into_inner().expect("no thread panicked").entries);
    let neighbours: Vec<Vec<u32>> = lists.map(|list| list.into_iter().map(|(_, row)| row).collect()).collect();
    assert_eq!(neighbours.len(), rows, "every row has a list");
    Ok(neighbours)
}

/// The best rows so far for each row of a block, the best first, and what a new one has to reach.
struct Lists {
    k: usize,
    entries: Vec<Vec<(f32, u32)>>,
    bars: Vec<f32>,
}

impl Lists {
    fn new(rows: usize, k: usize) -> Lists {
        Lists { k, entries: vec![Vec::with_capacity(k.min(1024)); rows], bars: vec![f32::NEG_INFINITY; rows] }
    }

    #[cold]
    fn offer(&mut self, row: usize, similarity: f32, other: u32) {
        let list = &mut self.entries[row];
        let at = list.partition_point(|&(value, row)| value > similarity || (value == similarity && row < other));
        if at < self.k {
            list.insert(at, (similarity, other));
            list.truncate(self.k);
            if list.len() == self.k {
                self.bars[row] = list[self.k - 1].0;
            }
        }
    }
}

/// Offers every row of the tile its columns; `first` is the number of column 0.
fn take_rows(lists: &mut MutexGuard<'_, Lists>, tile: &[f32], length: usize, first: usize, diagonal: bool) {
    for (row, values) in tile.chunks(length).enumerate() {
        for (column, &value) in values.iter().enumerate() {
            if value >= lists.bars[row] && !(diagonal && row == column) {
                lists.offer(row, value, (first + column) as u32);
            }
        }
    }
}

/// Offers every column of the tile its rows; `first` is the number of row 0.
fn take_columns(lists: &mut MutexGuard<'_, Lists>, tile: &[f32], height: usize, length: usize, first: usize) {
    for row in 0..height {
        for column in 0..length {
            let value = tile[row * length + column];
            if value >= lists.bars[column] {
                lists.offer(column, value, (first + row) as u32);
            }
        }
    }
}

/// tile = one x other^T: [A, D] x [D, B] -> [A, B], row by row.
fn product(one: &[f32], other: &[f32], width: usize, tile: &mut Vec<f32>) {
    let (height, length) = (one.len() / width, other.len() / width);
    tile.clear();
    tile.resize(height * length, 0.0);
    // SAFETY: the three buffers have the shapes and strides given, and do not overlap.
    unsafe {
        gemm::gemm(
            height,
            length,
            width,
            tile.as_mut_ptr(),
            1,
            length as isize,
            false,
            one.as_ptr(),
            1,
            width as isize,
            other.as_ptr(),
            width as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use kit::Seed;

    use super::*;

    fn matrix(rows: usize, width: usize, distinct: usize) -> Vec<f32> {
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
