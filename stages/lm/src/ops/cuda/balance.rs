//! The cut of attention into blocks of a GPU, so that none is still at work when all others are done: long ones come
//! first, and keys that many queries see are the work of several blocks, whose sums are added in a fixed order. What is
//! cut where follows from the tiles and the form of the blocks alone.

use crate::ops::gpu_memory::AT_A_TIME;
use crate::ops::tiles::{ROWS, Shape, Tile};
use std::ops::Range;

/// Steps below which it does not pay to be a block of one's own: a block begins with its keys and ends with its sums,
/// which take about as long as four steps.
const FEWEST: usize = 32;

/// Tiles by their keys, those with most first.
pub(crate) fn longest_first(tiles: &[Tile]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..tiles.len()).collect();
    order.sort_by_key(|&tile| std::cmp::Reverse(tiles[tile].queries.depth + tiles[tile].queries.len));
    order
}

/// The work of one block, for each key-value head: a tile as keys, and some of the tiles whose queries see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub tile: usize,
    /// Of `ByKeys::readers`.
    pub readers: Range<usize>,
    /// Steps of 64 queries.
    pub steps: usize,
    /// Where its sums go, in tiles that have several parts.
    pub slot: Option<usize>,
}

/// A tile, and the slots of its parts in the order of their readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shared {
    pub tile: usize,
    pub slots: Range<usize>,
}

/// The work of the backward by keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByKeys {
    /// The longest first.
    pub parts: Vec<Part>,
    /// Tiles as readers, those of one tile together, ascending.
    pub readers: Vec<usize>,
    pub shared: Vec<Shared>,
}

impl ByKeys {
    /// The cut for blocks of this form, where `blocks` of them take one part for all of its key-value heads.
    pub fn new(tiles: &[Tile], shape: &Shape, blocks: usize) -> ByKeys {
        let readers = readers(tiles, shape.window);
        let steps = |reader: usize| (shape.group() * tiles[reader].queries.len).div_ceil(ROWS);
        let total: usize = readers.iter().flatten().map(|&reader| steps(reader)).sum();
        let most = (total * blocks / AT_A_TIME).max(FEWEST);
        let mut all = ByKeys { parts: Vec::new(), readers: readers.concat(), shared: Vec::new() };
        let (mut first, mut slots) = (0, 0);
        for (tile, readers) in readers.iter().enumerate() {
            let counts: Vec<usize> = readers.iter().map(|&reader| steps(reader)).collect();
            let cuts = cut(&counts, most);
            let begun = slots;
            for readers in &cuts {
                let steps = counts[readers.clone()].iter().sum();
                let slot = (cuts.len() > 1).then_some(slots);
                slots += usize::from(slot.is_some());
                all.parts.push(Part { tile, readers: first + readers.start..first + readers.end, steps, slot });
            }
            if slots > begun {
                all.shared.push(Shared { tile, slots: begun..slots });
            }
            first += readers.len();
        }
        all.parts.sort_by_key(|part| std::cmp::Reverse(part.steps));
        all
    }

    /// Slots of all parts.
    pub fn slots(&self) -> usize {
        self.shared.last().map_or(0, |shared| shared.slots.end)
    }
}

/// For each tile, as keys, the tiles whose queries see some of it, ascending.
fn readers(tiles: &[Tile], window: Option<usize>) -> Vec<Vec<usize>> {
    let mut readers = vec![Vec::new(); tiles.len()];
    for (reader, tile) in tiles.iter().enumerate() {
        for span in &tile.keys {
            let from = tiles.partition_point(|t| t.queries.row + t.queries.len <= span.row);
            let to = tiles.partition_point(|t| t.queries.row < span.row + span.len);
            for (list, keys) in readers[from..to].iter_mut().zip(&tiles[from..to]) {
                // The nearest pair of the two is the last key and the first query.
                let last = keys.queries.depth + keys.queries.len - 1;
                if window.is_none_or(|window| last + window > tile.queries.depth) {
                    list.push(reader);
                }
            }
        }
    }
    readers
}

/// Cuts counts into runs of about the same sum, `most` but for what one count may be beyond.
fn cut(counts: &[usize], most: usize) -> Vec<Range<usize>> {
    let total: usize = counts.iter().sum();
    let runs = total.div_ceil(most);
    let (mut cuts, mut start, mut sum) = (Vec::new(), 0, 0);
    for (i, count) in counts.iter().enumerate() {
        sum += count;
        if sum * runs >= total * (cuts.len() + 1) {
            cuts.push(start..i + 1);
            start = i + 1;
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sequence;
    use crate::model::forest::{Span, Want, forests};
    use crate::ops::gpu_memory::most_sums;
    use crate::ops::tiles::{Tiles, tiles};
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    /// Trees of a trunk with branches, all of so many tokens.
    fn forest(trees: u32, trunk: u32, branches: u32, length: u32) -> Tiles {
        let ids = |tree: u32, branch: u32| {
            let own = (0..length).map(move |i| 1_000_000 + tree * 300_000 + branch * 1000 + i);
            (0..trunk).map(move |i| tree * 10_000 + i).chain(own).collect::<Vec<_>>()
        };
        let all = (0..trees).flat_map(|tree| (0..branches.max(1)).map(move |branch| ids(tree, branch)));
        let all: Vec<Sequence> = all.map(|ids| Sequence::new(ids.clone(), ids.len())).collect();
        let mut forests = forests(&all.iter().collect::<Vec<_>>(), Want::States, 1 << 30, 1 << 20).unwrap();
        assert_eq!(forests.len(), 1);
        tiles(&forests.remove(0))
    }

    fn shape(heads: usize, kv_heads: usize, window: Option<usize>) -> Shape {
        Shape { heads, kv_heads, head_dim: 64, window, scale: 0.3, cap: None }
    }

    /// When the last block ends, each starting in its turn where one ended first, beside an even share of all steps.
    fn time(blocks: &[usize]) -> f64 {
        let mut ends: BinaryHeap<_> = vec![Reverse(0); AT_A_TIME].into();
        for steps in blocks {
            let Reverse(free) = ends.pop().unwrap();
            ends.push(Reverse(free + steps));
        }
        let last = ends.into_iter().map(|Reverse(end)| end).max().unwrap();
        last as f64 * AT_A_TIME as f64 / blocks.iter().sum::<usize>() as f64
    }

    fn largest(blocks: &[usize]) -> f64 {
        *blocks.iter().max().unwrap() as f64 * 1000.0 / blocks.iter().sum::<usize>() as f64
    }

    /// The steps of the blocks of a launch, `times` for each.
    fn launch(steps: &[usize], times: usize) -> Vec<usize> {
        (0..times).flat_map(|_| steps.iter().copied()).collect()
    }

    /// One block a tile, in the order of the rows, beside what is done: the blocks of the backward by keys, the largest
    /// one in thousandths of all work, and the time of both beside an even share of it. Then the time of the forward,
    /// whose tiles keep their blocks and are ordered.
    #[test]
    fn no_block_is_most_of_the_work() {
        let mut table = String::new();
        for (name, heads, [trees, trunk, branches, length]) in [
            ("32 texts of 512", 14, [32, 512, 0, 0]),
            ("8 texts of 2048", 14, [8, 2048, 0, 0]),
            ("2 texts of 8192", 14, [2, 8192, 0, 0]),
            ("1 text of 2048", 14, [1, 2048, 0, 0]),
            ("32 pairs of 256 after 256", 12, [32, 256, 2, 256]),
            ("2 trunks of 4096, 8 of 512", 12, [2, 4096, 8, 512]),
            ("a rubric of 1024, 256 of 48", 14, [1, 1024, 256, 48]),
        ] {
            let tiles = forest(trees, trunk, branches, length);
            let shape = shape(heads, 2, None);
            let steps = |tile: &Tile| (shape.group() * tile.queries.len).div_ceil(ROWS);
            let before: Vec<usize> = readers(&tiles, None)
                .iter()
                .map(|readers| readers.iter().map(|&reader| steps(&tiles[reader])).sum())
                .collect();
            let by_keys = ByKeys::new(&tiles, &shape, 2);
            assert!(by_keys.slots() * shape.kv_heads * 2 * ROWS * shape.head_dim * 4 <= most_sums(shape.head_dim));
            let after: Vec<usize> = by_keys.parts.iter().map(|part| part.steps).collect();
            assert_eq!(before.iter().sum::<usize>(), after.iter().sum::<usize>());
            let (before, after) = (launch(&before, 2), launch(&after, 2));
            let keys = |tile: usize| (tiles[tile].queries.depth + tiles[tile].queries.len).div_ceil(ROWS);
            let in_order: Vec<usize> = (0..tiles.len()).map(keys).collect();
            let ordered: Vec<usize> = longest_first(&tiles).into_iter().map(keys).collect();
            table += &format!(
                "{name:<28} {:>4} {:>4} {:>5.1} {:>5.1} {:>5.2} {:>5.2}   {:>5.2} {:>5.2}\n",
                before.len(),
                after.len(),
                largest(&before),
                largest(&after),
                time(&before),
                time(&after),
                time(&launch(&in_order, heads)),
                time(&launch(&ordered, heads)),
            );
        }
        let recorded = "\
32 texts of 512               512  512   3.5   3.5  1.60  1.03    1.08  1.03
8 texts of 2048               512  512   3.8   3.8  1.62  1.00    1.09  1.00
2 texts of 8192               512  524   3.9   3.8  1.51  1.02    1.09  1.01
1 text of 2048                 64  262  30.3   4.7  8.00  1.25    1.75  1.71
32 pairs of 256 after 256     768  768   3.0   3.0  1.53  1.06    1.05  1.02
2 trunks of 4096, 8 of 512    512  636   5.0   3.8  1.38  1.14    1.07  1.03
a rubric of 1024, 256 of 48   544  772  30.4   3.8  8.07  1.05    1.01  1.00
";
        assert_eq!(table, recorded, "\n{table}");
    }

    /// Each tile meets each of its readers once, in their order, whatever is cut.
    #[test]
    fn parts_cover_all_pairs() {
        for (tiles, window) in [
            (forest(2, 700, 0, 0), None),
            (forest(2, 700, 0, 0), Some(100)),
            (forest(1, 130, 90, 70), None),
            (forest(1, 130, 90, 70), Some(90)),
        ] {
            let shape = shape(14, 2, window);
            let by_keys = ByKeys::new(&tiles, &shape, 2);
            let of = |tile: usize| {
                let mut parts: Vec<&Part> = by_keys.parts.iter().filter(|part| part.tile == tile).collect();
                parts.sort_by_key(|part| part.slot);
                let slots: Vec<usize> = parts.iter().filter_map(|part| part.slot).collect();
                let shared = by_keys.shared.iter().find(|shared| shared.tile == tile);
                assert_eq!(slots, shared.map_or(Vec::new(), |shared| shared.slots.clone().collect()));
                parts.into_iter().flat_map(|part| by_keys.readers[part.readers.clone()].to_vec()).collect::<Vec<_>>()
            };
            for tile in 0..tiles.len() {
                let Span { row, len, depth } = tiles[tile].queries;
                let sees = |reader: &Tile| {
                    let there = reader.keys.iter().any(|span| span.row < row + len && row < span.row + span.len);
                    there && window.is_none_or(|window| reader.queries.depth < depth + len - 1 + window)
                };
                let want: Vec<usize> = (0..tiles.len()).filter(|&reader| sees(&tiles[reader])).collect();
                assert_eq!(of(tile), want, "tile {tile}, {window:?}");
            }
            assert!(by_keys.parts.is_sorted_by_key(|part| Reverse(part.steps)));
        }
        assert!(ByKeys::new(&forest(1, 130, 90, 70), &shape(14, 2, None), 2).slots() > 3);
    }
}
