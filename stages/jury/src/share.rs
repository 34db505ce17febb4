//! One probability from the votes on one comparison alone.

use kit::probability::{logit, sigmoid};

use crate::bench::Ballot;

/// Probabilities are kept this far from 0 and 1 where their log-odds are needed: a hard vote is not infinite.
pub const EDGE: f64 = 1e-6;

/// (votes for a + ties / 2 + a) / (votes + 2 a): the mean of the posterior under Beta(a, a); the share for a = 0.
pub fn smoothed(ballots: &[Ballot], a: f64) -> f64 {
    let (sum, votes) = ballots
        .iter()
        .fold((0.0, 0.0), |(sum, votes), ballot| (sum + ballot.weight * ballot.vote, votes + ballot.weight));
    (sum + a) / (votes + 2.0 * a)
}

/// The answer of each source, in the order of the sources: the weighted means of its votes and of their log-odds. Those
/// without a name are one source.
pub fn by_source(ballots: &[Ballot]) -> Vec<(Option<usize>, f64, f64)> {
    let mut order: Vec<Option<usize>> = ballots.iter().map(|ballot| ballot.source).collect();
    order.sort_unstable();
    order.dedup();
    let of = |source: Option<usize>| {
        let own = ballots.iter().filter(|ballot| ballot.source == source);
        let (mut p, mut z, mut weight) = (0.0, 0.0, 0.0);
        for ballot in own {
            p += ballot.weight * ballot.vote;
            z += ballot.weight * ballot.log_odds.unwrap_or_else(|| logit(ballot.vote, EDGE));
            weight += ballot.weight;
        }
        (source, p / weight, z / weight)
    };
    order.into_iter().map(of).collect()
}

/// The mean of the sources' probabilities.
pub fn mean(ballots: &[Ballot]) -> f64 {
    let said = by_source(ballots);
    said.iter().map(|(_, p, _)| p).sum::<f64>() / said.len() as f64
}

/// The mean of the sources' log-odds, and the probability that it is.
pub fn mean_log_odds(ballots: &[Ballot]) -> (f64, f64) {
    let said = by_source(ballots);
    let z = said.iter().map(|(_, _, z)| z).sum::<f64>() / said.len() as f64;
    (sigmoid(z), z)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(source: usize, vote: f64, weight: f64) -> Ballot {
        Ballot { source: Some(source), vote, log_odds: None, weight }
    }

    #[test]
    fn shares_by_hand() {
        // Two for a, one tie, one for b: 2.5 of 4.
        let votes = [ballot(0, 1.0, 1.0), ballot(1, 1.0, 1.0), ballot(2, 0.5, 1.0), ballot(3, 0.0, 1.0)];
        assert_eq!(smoothed(&votes, 0.0), 0.625);
        assert_eq!(smoothed(&votes, 0.5), 3.0 / 5.0);
        assert_eq!(smoothed(&votes, 1.0), 3.5 / 6.0);
        // A weight is so many votes.
        assert_eq!(smoothed(&[ballot(0, 1.0, 2.0), votes[2].clone(), votes[3].clone()], 0.5), 3.0 / 5.0);
    }

    #[test]
    fn each_source_counts_once_in_means() {
        let votes = [ballot(0, 1.0, 1.0), ballot(0, 0.0, 1.0), ballot(1, 0.8, 5.0)];
        assert!((mean(&votes) - 0.65).abs() < 1e-15);
        let (p, z) = mean_log_odds(&[ballot(0, 0.9, 1.0), ballot(1, 0.5, 1.0)]);
        // numpy: log(9) / 2 = 1.0986122886681098, 1 / (1 + exp(-that)) = 0.75
        assert!((z - 1.098_612_288_668_109_8).abs() < 1e-12 && (p - 0.75).abs() < 1e-12);
        let uncut = Ballot { log_odds: Some(40.0), ..ballot(0, 1.0, 1.0) };
        assert_eq!(mean_log_odds(&[uncut]).1, 40.0);
    }
}
