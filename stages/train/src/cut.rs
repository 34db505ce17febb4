//! The cut of a batch into ranks, and of a rank's share into parts that are computed one after the other.
//!
//! It is a function of the batch and of `batch.ranks`, never of the devices that compute: these take ranks side by side.

use objective::Mixture;

use crate::dataset::Dataset;
use crate::micro::{Assembled, Part};

impl Dataset {
    /// The parts of each of `ranks` ranks that forward and backward go through. For objectives that are sums a part is
    /// whole connected components up to a budget of tokens; else it is all of the rank's sequences, with all of the batch's
    /// edges and items. A rank beyond the components of a small batch has nothing to compute.
    pub(crate) fn cut(
        &self,
        assembled: &Assembled,
        objective: &Mixture,
        ranks: usize,
        budget: usize,
    ) -> Vec<Vec<Part>> {
        let separable = objective.separable();
        let components = self.components(assembled, separable);
        let tokens: Vec<usize> = components.iter().map(|part| self.part_tokens(assembled, part)).collect();
        let owners = balanced(&tokens, ranks);
        let mut cut: Vec<Vec<(Part, usize)>> = (0..ranks).map(|_| Vec::new()).collect();
        for ((component, tokens), owner) in components.into_iter().zip(tokens).zip(owners) {
            cut[owner].push((component, tokens));
        }
        let whole = |components: Vec<(Part, usize)>| {
            let mut sequences: Vec<usize> = components.into_iter().flat_map(|(part, _)| part.sequences).collect();
            sequences.sort_unstable();
            let batch = &assembled.batch;
            let (edges, items) = ((0..batch.edges.len()).collect(), (0..batch.items.len()).collect());
            vec![Part { sequences, edges, items }]
        };
        let of_rank = |components| if separable { packed(components, budget) } else { whole(components) };
        cut.into_iter().map(of_rank).collect()
    }
}

/// The rank of each component: the largest first, each to the rank that has the fewest tokens, of equal ones the first.
fn balanced(tokens: &[usize], ranks: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|&component| (std::cmp::Reverse(tokens[component]), component));
    let (mut loads, mut owners) = (vec![0; ranks], vec![0; tokens.len()]);
    for component in order {
        let rank = (0..ranks).min_by_key(|&rank| loads[rank]).expect("at least one rank");
        loads[rank] += tokens[component];
        owners[component] = rank;
    }
    owners
}

/// Components, in their order, in parts up to a budget of tokens.
fn packed(components: Vec<(Part, usize)>, budget: usize) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut filled = 0;
    for (component, tokens) in components {
        match parts.last_mut() {
            Some(part) if filled + tokens <= budget => {
                part.sequences.extend(component.sequences);
                part.edges.extend(component.edges);
                part.items.extend(component.items);
                filled += tokens;
            }
            _ => {
                parts.push(component);
                filled = tokens;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_have_about_as_many_tokens_and_a_small_batch_leaves_some_idle() {
        assert_eq!(balanced(&[3, 1, 4, 1, 5, 9], 1), [0; 6]);
        assert_eq!(balanced(&[3, 1, 4, 1, 5, 9], 2), [0, 1, 1, 1, 1, 0]);
        assert_eq!(balanced(&[2, 2, 2, 2], 4), [0, 1, 2, 3]);
        assert_eq!(balanced(&[7, 8], 8), [1, 0]);
        assert!(balanced(&[], 2).is_empty());
    }
}
