//! Products of blocks of rows, and the best rows found in them.
//!
//! D width, A and B rows of two blocks: [A, D] x [D, B] -> [A, B]. A value of a tile is the same to the last bit in
//! whatever tile its two rows meet, and whichever comes first.

/// Rows of a block.
pub(crate) const BLOCK: usize = 512;

/// Blocks are filled up with zeros to so many rows each. Of smaller products gemm 0.19 makes some by other kernels,
/// which sum in another order.
const LEAST: [usize; 2] = [8, 65];

/// The product of two blocks.
#[derive(Default)]
pub(crate) struct Tile {
    values: Vec<f32>,
    filled: [Vec<f32>; 2],
    height: usize,
    length: usize,
    /// Values from one row to the next.
    stride: usize,
}

impl Tile {
    /// Takes the product of two blocks of rows of a width.
    pub(crate) fn multiply(&mut self, one: &[f32], other: &[f32], width: usize) {
        (self.height, self.length) = (one.len() / width, other.len() / width);
        let [fill_one, fill_other] = &mut self.filled;
        let (one, other) = (filled(one, LEAST[0] * width, fill_one), filled(other, LEAST[1] * width, fill_other));
        let height = one.len() / width;
        self.stride = other.len() / width;
        self.values.clear();
        self.values.resize(height * self.stride, 0.0);
        // SAFETY: the three buffers have the shapes and strides given, and do not overlap.
        unsafe {
            gemm::gemm(
                height,
                self.stride,
                width,
                self.values.as_mut_ptr(),
                1,
                self.stride as isize,
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

    /// For each row of the first block its products with the rows of the other.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks(self.stride).take(self.height).map(|row| &row[..self.length])
    }
}

fn filled<'a>(block: &'a [f32], least: usize, fill: &'a mut Vec<f32>) -> &'a [f32] {
    if block.len() >= least {
        return block;
    }
    fill.clear();
    fill.extend_from_slice(block);
    fill.resize(least, 0.0);
    fill
}

/// The best k rows so far for each row of a block, the best first, ties by row number, and what a new one has to reach.
pub(crate) struct Best {
    k: usize,
    entries: Vec<Vec<(f32, u32)>>,
    bars: Vec<f32>,
}

impl Best {
    pub(crate) fn new(rows: usize, k: usize) -> Best {
        Best { k, entries: vec![Vec::new(); rows], bars: vec![f32::NEG_INFINITY; rows] }
    }

    /// Offers a row of the block others by their similarities; `named` gives the number of each, or none.
    pub(crate) fn offer(&mut self, row: usize, similarities: &[f32], named: impl Fn(usize) -> Option<u32>) {
        for (at, &similarity) in similarities.iter().enumerate() {
            if similarity >= self.bars[row]
                && let Some(other) = named(at)
            {
                self.insert(row, similarity, other);
            }
        }
    }

    #[cold]
    fn insert(&mut self, row: usize, similarity: f32, other: u32) {
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

    /// The best rows of each row.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = Vec<u32>> {
        self.entries.into_iter().map(|list| list.into_iter().map(|(_, row)| row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_does_not_depend_on_the_tile() {
        for width in [1, 2, 3, 24, 384, 768, 1000] {
            let matrix: Vec<f32> =
                (0..600 * width as u32).map(|at| (at.wrapping_mul(2_654_435_761) as i32) as f32 / 1e9).collect();
            let of = |from: usize, until: usize| &matrix[from * width..until * width];
            let mut whole = Tile::default();
            whole.multiply(of(0, 512), of(88, 600), width);
            let whole: Vec<Vec<f32>> = whole.rows().map(<[f32]>::to_vec).collect();
            let mut tile = Tile::default();
            for (first, height, other, length) in
                [(0, 1, 88, 1), (3, 2, 90, 64), (7, 9, 100, 65), (100, 300, 599, 1), (511, 1, 88, 512), (2, 64, 99, 63)]
            {
                for turned in [false, true] {
                    let (one, two) = (of(first, first + height), of(other, other + length));
                    match turned {
                        false => tile.multiply(one, two, width),
                        true => tile.multiply(two, one, width),
                    }
                    let found: Vec<&[f32]> = tile.rows().collect();
                    for row in 0..height {
                        for column in 0..length {
                            let value = if turned { found[column][row] } else { found[row][column] };
                            let wanted = whole[first + row][other - 88 + column];
                            assert_eq!(value.to_bits(), wanted.to_bits(), "{width}: {height} x {length}");
                        }
                    }
                }
            }
        }
    }
}
