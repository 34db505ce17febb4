//! Token sequences as a forest that computes every shared prefix once.
//!
//! Sequences that begin with the same tokens share these rows: a prompt serves its responses, a rubric serves all
//! judgements. The rows of a [`Forest`] are packed without padding: each tree is a root segment followed by its
//! branches, each branch a contiguous range of rows, parents before children. A row sees the rows of its own segment
//! and of its ancestors up to itself; along such a path the depths run 0, 1, 2, ... and are the positions.

use crate::{Error, Result, Sequence};
use std::ops::Range;

/// A run of rows that lie on one path through a tree, at depths `depth`, `depth` + 1, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first row.
    pub row: usize,
    /// Number of rows.
    pub len: usize,
    /// The depth of the first row.
    pub depth: usize,
}

/// A segment: rows with one path to the root and no fork inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Its own rows.
    pub own: Span,
    /// The segments above it, from the root down. Their depths run from 0 to `own.depth` without a gap.
    pub above: Vec<Span>,
}

/// A tree: the rows of its root segment, and its branches, which depend on the root and not on each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    pub root: Range<usize>,
    pub branches: Vec<Range<usize>>,
    /// Its segments (indices into `Forest::segments`), in the order of their rows; the first one is the root.
    pub segments: Range<usize>,
}

/// The sum of a sequence that a scored token belongs to: prompt or response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Prompt,
    Response,
}

/// A scored token: the row that predicts it, the token, and the sums it enters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scored {
    /// Index into `Forest::scored_rows`.
    pub row: usize,
    pub target: u32,
    /// (index of the sequence in the caller's list, part). Sequences that share the token all stand here.
    pub owners: Vec<(usize, Part)>,
}

/// One micro-batch: whole trees, packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Forest {
    /// The token of each row.
    pub ids: Vec<u32>,
    /// The position of each row in its sequence.
    pub depths: Vec<u32>,
    pub segments: Vec<Segment>,
    pub trees: Vec<Tree>,
    /// The rows that meet the LM head, ascending.
    pub scored_rows: Vec<u32>,
    /// Sorted by row, then target.
    pub scored: Vec<Scored>,
    /// For each sequence in it, in the order of their ids: its index in the caller's list and the row of its last
    /// computed token.
    pub ends: Vec<(usize, usize)>,
    /// True where all of them are rotated as long texts.
    pub long: bool,
}

impl Forest {
    /// The spans on the path to `row`, from the root down, the last one ending with it.
    pub fn path(&self, row: usize) -> Vec<Span> {
        let at = self.segments.partition_point(|segment| segment.own.row + segment.own.len <= row);
        let Segment { own, above } = &self.segments[at];
        let mut path = above.clone();
        path.push(Span { len: row + 1 - own.row, ..*own });
        path
    }

    /// The rows on the path to `row`, from the root down.
    pub fn path_rows(&self, row: usize) -> Vec<u32> {
        self.path(row).iter().flat_map(|span| span.row as u32..(span.row + span.len) as u32).collect()
    }
}

/// The rows of each sequence that are to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The log-probability of the response and, where asked for, of the prompt. The last token of a sequence needs no
    /// row, since nothing after it is scored.
    Scores { prompt_part: bool },
    /// The states of all tokens.
    States,
    /// Those of the last token of each.
    Ends,
}

/// Packs sequences into micro-batches of at most `budget_tokens` rows.
///
/// A tree stays whole where it fits into a micro-batch; one that is larger than the budget is cut between its branches
/// and its trunk is repeated. A single sequence longer than the budget makes a micro-batch of its own.
///
/// Errors: a sequence with no token before its completion, and a token outside the vocabulary.
pub(crate) fn forests(
    sequences: &[&Sequence],
    want: Want,
    vocab_size: usize,
    budget_tokens: usize,
) -> Result<Vec<Forest>> {
    for (i, sequence) in sequences.iter().enumerate() {
        let Sequence { ids, start, .. } = sequence;
        if ids.is_empty() || (matches!(want, Want::Scores { .. }) && (*start == 0 || *start > ids.len())) {
            let (start, len) = (start, ids.len());
            return Err(Error::input(format!(
                "sequence {i}: the completion starts at token {start} of {len}; one token at least must precede it"
            )));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::input(format!(
                "sequence {i}: token id {id} is outside the model's vocabulary of {vocab_size}; does the tokenizer belong to this model?"
            )));
        }
    }
    let rows_of = |i: usize| -> &[u32] {
        let ids = &sequences[i].ids;
        match want {
            Want::States | Want::Ends => ids,
            Want::Scores { .. } => &ids[..(ids.len() - 1).max(1)],
        }
    };
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by(|&a, &b| rows_of(a).cmp(rows_of(b)).then(a.cmp(&b)));
    let paths: Vec<&[u32]> = order.iter().map(|&i| rows_of(i)).collect();
    // How many rows each path shares with the one before it in the order.
    let shared: Vec<usize> = (0..paths.len())
        .map(|i| if i == 0 { 0 } else { paths[i - 1].iter().zip(paths[i]).take_while(|(a, b)| a == b).count() })
        .collect();
    let ranges = Cutter { paths: &paths, shared: &shared, budget: budget_tokens, ranges: Vec::new(), open: None }.cut();
    Ok(ranges
        .into_iter()
        .map(|range| {
            let mut builder = Builder { paths: &paths, shared: &shared, forest: Forest::default(), row_of: Vec::new() };
            builder.pack(range.clone());
            builder.score(range.clone(), &order, sequences, want);
            builder.forest
        })
        .collect())
}

/// Decides which sequences, in sorted order, make a micro-batch together.
struct Cutter<'a> {
    paths: &'a [&'a [u32]],
    shared: &'a [usize],
    budget: usize,
    ranges: Vec<Range<usize>>,
    /// The micro-batch being filled: its range and its rows so far.
    open: Option<(Range<usize>, usize)>,
}

impl Cutter<'_> {
    fn cut(mut self) -> Vec<Range<usize>> {
        if !self.paths.is_empty() {
            // A work list instead of recursion: forks can nest as deep as there are sequences.
            let mut todo: Vec<Range<usize>> = std::iter::once(0..self.paths.len()).collect();
            while let Some(range) = todo.pop() {
                todo.extend(self.place(range).into_iter().rev());
            }
        }
        self.ranges.extend(self.open.map(|(range, _)| range));
        self.ranges
    }

    /// Rows of a range of paths beyond the first `known` of its first path.
    fn rows(&self, range: &Range<usize>, known: usize) -> usize {
        range.clone().map(|i| self.paths[i].len() - if i == range.start { known } else { self.shared[i] }).sum()
    }

    /// Puts a range into the open micro-batch or a new one; gives back its parts where it is too large for either.
    fn place(&mut self, range: Range<usize>) -> Vec<Range<usize>> {
        if let Some((open, rows)) = &self.open {
            let more = self.rows(&range, self.shared[range.start]);
            if rows + more <= self.budget {
                self.open = Some((open.start..range.end, rows + more));
                return Vec::new();
            }
        }
        let fresh = self.rows(&range, 0);
        if fresh <= self.budget || range.len() == 1 {
            self.ranges.extend(self.open.take().map(|(range, _)| range));
            self.open = Some((range, fresh));
            return Vec::new();
        }
        let fork = range.clone().skip(1).map(|i| self.shared[i]).min().expect("a range of two or more");
        let cuts: Vec<usize> = range.clone().skip(1).filter(|&i| self.shared[i] == fork).collect();
        let (mut parts, mut start) = (Vec::new(), range.start);
        for end in cuts.into_iter().chain([range.end]) {
            parts.push(start..end);
            start = end;
        }
        parts
    }
}

/// Lays out the rows of one micro-batch.
struct Builder<'a> {
    paths: &'a [&'a [u32]],
    shared: &'a [usize],
    forest: Forest,
    /// For each path of the range, the spans of its rows from the root down.
    row_of: Vec<Vec<Span>>,
}

impl Builder<'_> {
    fn pack(&mut self, range: Range<usize>) {
        // The spans of the path of the previous sequence; segments are cut where a later sequence leaves them.
        let forks = self.fork_depths(&range);
        let mut path: Vec<Span> = Vec::new();
        for (i, cuts) in range.clone().zip(forks) {
            let known = if i == range.start { 0 } else { self.shared[i] };
            while path.last().is_some_and(|span| span.depth + span.len > known) {
                path.pop();
            }
            let mut depth = known;
            for end in cuts.into_iter().chain([self.paths[i].len()]) {
                if end > depth {
                    let own = Span { row: self.forest.ids.len(), len: end - depth, depth };
                    self.forest.ids.extend(&self.paths[i][depth..end]);
                    self.forest.depths.extend((depth..end).map(|d| d as u32));
                    self.note(own, &path);
                    path.push(own);
                    depth = end;
                }
            }
            self.row_of.push(path.clone());
        }
    }

    /// For each path, the depths inside its own new rows at which a later path forks off, ascending.
    fn fork_depths(&self, range: &Range<usize>) -> Vec<Vec<usize>> {
        let mut forks: Vec<Vec<usize>> = vec![Vec::new(); range.len()];
        // Paths whose new rows may still be left: (index in the range, first own depth), own depths ascending.
        let mut open: Vec<(usize, usize)> = Vec::new();
        for i in range.clone() {
            let (at, known) = (i - range.start, if i == range.start { 0 } else { self.shared[i] });
            while open.last().is_some_and(|&(_, own)| own >= known) {
                open.pop();
            }
            if let Some(&(owner, _)) = open.last() {
                forks[owner].push(known);
            }
            open.push((at, known));
        }
        for cuts in &mut forks {
            cuts.sort_unstable();
            cuts.dedup();
        }
        forks
    }

    fn note(&mut self, own: Span, path: &[Span]) {
        let forest = &mut self.forest;
        let rows = own.row..own.row + own.len;
        let segment = forest.segments.len();
        match path.len() {
            0 => forest.trees.push(Tree { root: rows, branches: Vec::new(), segments: segment..segment + 1 }),
            depth => {
                let tree = forest.trees.last_mut().expect("a segment below a root");
                tree.segments.end = segment + 1;
                if depth == 1 {
                    tree.branches.push(rows);
                } else {
                    tree.branches.last_mut().expect("a segment below a branch").end = rows.end;
                }
            }
        }
        forest.segments.push(Segment { own, above: path.to_vec() });
    }

    /// Lists the scored rows and targets, each once.
    fn score(&mut self, range: Range<usize>, order: &[usize], sequences: &[&Sequence], want: Want) {
        let row_at = |path: &[Span], depth: usize| {
            let span = path[path.partition_point(|span| span.depth + span.len <= depth)];
            span.row + depth - span.depth
        };
        // (row, target, sequence, part)
        let mut all: Vec<(u32, u32, usize, Part)> = Vec::new();
        for (path, i) in self.row_of.iter().zip(range) {
            let (index, sequence) = (order[i], sequences[order[i]]);
            self.forest.ends.push((index, row_at(path, self.paths[i].len() - 1)));
            let Want::Scores { prompt_part } = want else { continue };
            let first = if prompt_part { 1 } else { sequence.start };
            for depth in (first..sequence.ids.len()).filter(|&at| at < sequence.start || sequence.is_scored(at)) {
                let part = if depth < sequence.start { Part::Prompt } else { Part::Response };
                all.push((row_at(path, depth - 1) as u32, sequence.ids[depth], index, part));
            }
        }
        all.sort_by_key(|&(row, target, index, part)| (row, target, index, part == Part::Response));
        let forest = &mut self.forest;
        if want == Want::Ends {
            forest.scored_rows = forest.ends.iter().map(|&(_, row)| row as u32).collect();
            forest.scored_rows.sort_unstable();
            forest.scored_rows.dedup();
        }
        for (row, target, index, part) in all {
            if forest.scored_rows.last() != Some(&row) {
                forest.scored_rows.push(row);
            }
            let row = forest.scored_rows.len() - 1;
            match forest.scored.last_mut() {
                Some(last) if (last.row, last.target) == (row, target) => last.owners.push((index, part)),
                _ => forest.scored.push(Scored { row, target, owners: vec![(index, part)] }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(ids: &[u32], start: usize) -> Sequence {
        Sequence::new(ids.to_vec(), start)
    }

    fn pack(sequences: &[Sequence], prompt_part: bool, budget: usize) -> Vec<Forest> {
        let refs: Vec<&Sequence> = sequences.iter().collect();
        forests(&refs, Want::Scores { prompt_part }, 100, budget).unwrap()
    }

    /// The ids on the path to a row, read through the segments.
    fn path_to(forest: &Forest, row: usize) -> Vec<u32> {
        let segment = forest.segments.iter().find(|s| (s.own.row..s.own.row + s.own.len).contains(&row)).unwrap();
        let mut ids = Vec::new();
        for span in segment.above.iter().chain([&segment.own]) {
            assert_eq!(span.depth, ids.len(), "depths run without a gap");
            ids.extend(&forest.ids[span.row..(span.row + span.len).min(row + 1)]);
        }
        ids
    }

    /// Every target is predicted by a row whose path is exactly what precedes it, whatever the sharing and the budget.
    #[test]
    fn paths_are_the_sequences() {
        let mut state = 7u64;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        for round in 0..200 {
            let n = 1 + random(9) as usize;
            let sequences: Vec<Sequence> = (0..n)
                .map(|_| {
                    let len = 2 + random(7) as usize;
                    let ids: Vec<u32> = (0..len).map(|_| random(2) as u32).collect();
                    sequence(&ids, 1 + random(len as u64 - 1) as usize)
                })
                .collect();
            let prompt_part = round % 2 == 0;
            for budget in [1, 5, 9, 1000] {
                let forests = pack(&sequences, prompt_part, budget);
                let mut seen = vec![Vec::new(); n];
                for forest in &forests {
                    assert!(forest.ids.len() <= budget || forest.ends.len() == 1);
                    assert_eq!(forest.segments.iter().map(|s| s.own.len).sum::<usize>(), forest.ids.len());
                    for tree in &forest.trees {
                        let mut end = tree.root.end;
                        for branch in &tree.branches {
                            assert_eq!(branch.start, end);
                            end = branch.end;
                        }
                        for s in &forest.segments[tree.segments.clone()] {
                            assert!(tree.root.start <= s.own.row && s.own.row + s.own.len <= end);
                        }
                    }
                    for scored in &forest.scored {
                        let path = path_to(forest, forest.scored_rows[scored.row] as usize);
                        for &(index, part) in &scored.owners {
                            let Sequence { ids, start, .. } = &sequences[index];
                            assert_eq!(path, ids[..path.len()]);
                            assert_eq!(ids[path.len()], scored.target);
                            assert_eq!(part == Part::Response, path.len() >= *start);
                            seen[index].push(path.len());
                        }
                    }
                    for &(index, row) in &forest.ends {
                        assert_eq!(path_to(forest, row), sequences[index].ids[..sequences[index].ids.len() - 1]);
                    }
                }
                for (sequence, mut seen) in sequences.iter().zip(seen) {
                    seen.sort_unstable();
                    let first = if prompt_part { 1 } else { sequence.start };
                    assert_eq!(seen, (first..sequence.ids.len()).collect::<Vec<_>>());
                }
            }
            // In one micro-batch no two rows have the same path.
            let all = pack(&sequences, prompt_part, 1000);
            let mut paths: Vec<_> = (0..all[0].ids.len()).map(|row| path_to(&all[0], row)).collect();
            let rows = paths.len();
            paths.sort();
            paths.dedup();
            assert_eq!(paths.len(), rows);
        }
    }

    #[test]
    fn labels_of_one_token_cost_no_row() {
        let forests = pack(&[sequence(&[1, 2, 3, 8], 3), sequence(&[1, 2, 3, 9], 3)], false, 100);
        assert_eq!(forests[0].ids, [1, 2, 3]);
        assert_eq!(forests[0].scored_rows, [2]);
        assert_eq!(forests[0].scored.iter().map(|s| s.target).collect::<Vec<_>>(), [8, 9]);
    }

    #[test]
    fn a_tree_that_fits_is_not_cut() {
        let sequences =
            [sequence(&[1, 1, 1, 1, 1, 1], 2), sequence(&[2, 2, 2, 3, 3, 3], 2), sequence(&[2, 2, 2, 4, 4, 4], 2)];
        // 5 rows, then a tree of 3 + 2 + 2.
        let ends = |budget| pack(&sequences, false, budget).iter().map(|f| f.ends.len()).collect::<Vec<_>>();
        assert_eq!(ends(12), [3]);
        assert_eq!(ends(11), [1, 2]);
        assert_eq!(ends(7), [1, 2]);
        assert_eq!(ends(6), [1, 1, 1]);
    }

    #[test]
    fn what_cannot_be_scored_is_named() {
        let check = |ids: &[u32], start, want: &str| {
            let sequence = sequence(ids, start);
            let error = forests(&[&sequence], Want::Scores { prompt_part: false }, 100, 10).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        };
        check(&[], 0, "starts at token 0 of 0");
        check(&[1, 2], 0, "starts at token 0 of 2");
        check(&[1, 2], 3, "starts at token 3 of 2");
        check(&[1, 100], 1, "token id 100 is outside");
    }
}
