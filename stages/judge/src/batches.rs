//! Batches that do not depend on shards.
//!
//! Which sequences are computed together changes log-probs by rounding. Here batches are cut first, and shards are whole
//! batches, so that another size of shards gives the same bytes.

use std::ops::Range;

use kit::{CHARACTERS_PER_TOKEN, Message, shard_ranges};

/// The batches of a work list, and the shards made of them.
pub(crate) struct Batches {
    batches: Vec<Range<usize>>,
}

impl Batches {
    /// Cuts consecutive groups, each with about how many tokens it needs, into batches of at least `budget` tokens.
    pub(crate) fn cut(groups: impl Iterator<Item = (Range<usize>, usize)>, budget: usize) -> Batches {
        let (mut batches, mut tokens) = (Vec::<Range<usize>>::new(), budget);
        for (group, more) in groups {
            match batches.last_mut() {
                Some(batch) if tokens < budget => {
                    batch.end = group.end;
                    tokens += more;
                }
                _ => {
                    batches.push(group);
                    tokens = more;
                }
            }
        }
        Batches { batches }
    }

    /// Shards of at least `size` units.
    pub(crate) fn shards(&self, size: usize) -> Vec<Range<usize>> {
        shard_ranges(self.batches.iter().map(ExactSizeIterator::len), size)
    }

    /// The batches of a shard.
    pub(crate) fn within(&self, shard: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (start, end) = (shard.start, shard.end);
        self.batches.iter().filter(move |batch| start <= batch.start && batch.end <= end).cloned()
    }
}

/// About how many tokens messages have.
pub(crate) fn about(messages: &[Message]) -> usize {
    let characters: usize = messages.iter().map(|message| message.content.chars().count()).sum();
    (characters as f64 / CHARACTERS_PER_TOKEN).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_of_any_size_are_whole_batches() {
        let groups = [(0..2, 5), (2..3, 5), (3..4, 20), (4..6, 1), (6..7, 1)];
        let batches = Batches::cut(groups.into_iter(), 10);
        let all: Vec<_> = batches.within(&(0..7)).collect();
        assert_eq!(all, [0..3, 3..4, 4..7]);
        assert_eq!(batches.shards(1), all);
        assert_eq!(batches.shards(4), [0..4, 4..7]);
        assert_eq!(batches.within(&(0..4)).collect::<Vec<_>>(), [0..3, 3..4]);
        assert_eq!(Batches::cut(std::iter::empty(), 10).shards(3), Vec::<Range<usize>>::new());
    }
}
