//! Dawid and Skene's model (Applied Statistics 28, 1979): the truth of each comparison and the habits of each
//! annotator, from the votes alone.
//!
//! Annotator k votes v with probability theta_k[c, v] where the truth is c; votes are independent given the truth. EM
//! starts with each comparison's shares of votes as its posterior. Only that start distinguishes the classes: where
//! most annotators are wrong more often than right, so is the answer.

/// A round ends the search when no posterior moves by this.
pub const TOLERANCE: f64 = 1e-10;
/// Or after so many rounds.
pub const MAX_ROUNDS: u32 = 10_000;

/// A vote: who, the class it is for, and how many votes it stands for.
pub type Said = (usize, usize, f64);

/// The result of a fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The posterior of each comparison, by class.
    pub posteriors: Vec<Vec<f64>>,
    /// The share of each class.
    pub shares: Vec<f64>,
    /// By annotator: P(vote | truth), a row for each true class. A row without any evidence is all 0.
    pub matrices: Vec<Vec<Vec<f64>>>,
    /// Rounds of EM.
    pub rounds: u32,
    /// True where the posteriors converged.
    pub converged: bool,
    /// Of the votes, in nats, without the prior.
    pub log_likelihood: f64,
}

/// Fits the model. `smoothing` votes are added to each cell of a matrix and to each class. A comparison without votes
/// has the shares of the classes as its posterior.
pub fn fit(votes: &[Vec<Said>], annotators: usize, classes: usize, smoothing: f64) -> Fit {
    let mut posteriors: Vec<Vec<f64>> = votes.iter().map(|votes| start(votes, classes)).collect();
    let (mut rounds, mut converged) = (0, false);
    let (mut shares, mut matrices, mut log_likelihood) = (Vec::new(), Vec::new(), 0.0);
    while rounds < MAX_ROUNDS && !converged {
        rounds += 1;
        shares = shares_of(&posteriors, classes, smoothing);
        matrices = matrices_of(votes, &posteriors, annotators, classes, smoothing);
        let (mut moved, mut sum) = (0.0_f64, 0.0);
        for (votes, before) in votes.iter().zip(&mut posteriors) {
            let (after, likelihood) = posterior(votes, &shares, &matrices);
            sum += likelihood;
            moved = before.iter().zip(&after).fold(moved, |moved, (before, after)| moved.max((before - after).abs()));
            *before = after;
        }
        log_likelihood = sum;
        converged = moved < TOLERANCE;
    }
    Fit { posteriors, shares, matrices, rounds, converged, log_likelihood }
}

/// Shares of the votes; all classes alike where there are none.
fn start(votes: &[Said], classes: usize) -> Vec<f64> {
    let mut posterior = vec![0.0; classes];
    votes.iter().for_each(|(_, class, weight)| posterior[*class] += weight);
    normalised(posterior).unwrap_or_else(|| vec![1.0 / classes as f64; classes])
}

fn normalised(values: Vec<f64>) -> Option<Vec<f64>> {
    let sum: f64 = values.iter().sum();
    (sum > 0.0).then(|| values.into_iter().map(|value| value / sum).collect())
}

fn shares_of(posteriors: &[Vec<f64>], classes: usize, smoothing: f64) -> Vec<f64> {
    let sums = (0..classes).map(|class| posteriors.iter().map(|posterior| posterior[class]).sum::<f64>());
    let whole = classes as f64 * smoothing + posteriors.len() as f64;
    sums.map(|sum| (smoothing + sum) / whole).collect()
}

fn matrices_of(
    votes: &[Vec<Said>],
    posteriors: &[Vec<f64>],
    annotators: usize,
    classes: usize,
    smoothing: f64,
) -> Vec<Vec<Vec<f64>>> {
    let mut matrices = vec![vec![vec![smoothing; classes]; classes]; annotators];
    for (votes, posterior) in votes.iter().zip(posteriors) {
        for &(annotator, vote, weight) in votes {
            for (row, share) in matrices[annotator].iter_mut().zip(posterior) {
                row[vote] += weight * share;
            }
        }
    }
    for row in matrices.iter_mut().flatten() {
        if let Some(normalised) = normalised(row.clone()) {
            *row = normalised;
        }
    }
    matrices
}

/// The posterior of a comparison and the log-likelihood of its votes.
fn posterior(votes: &[Said], shares: &[f64], matrices: &[Vec<Vec<f64>>]) -> (Vec<f64>, f64) {
    let log = |class: usize| {
        let said = votes.iter().map(|(annotator, vote, weight)| weight * matrices[*annotator][class][*vote].ln());
        shares[class].ln() + said.sum::<f64>()
    };
    let logs: Vec<f64> = (0..shares.len()).map(log).collect();
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if votes.is_empty() || top == f64::NEG_INFINITY {
        return (shares.to_vec(), 0.0);
    }
    let scaled: Vec<f64> = logs.iter().map(|log| (log - top).exp()).collect();
    let sum: f64 = scaled.iter().sum();
    (scaled.into_iter().map(|value| value / sum).collect(), top + sum.ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: &[f64], wanted: &[f64]) {
        assert_eq!(got.len(), wanted.len());
        assert!(got.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() < 1e-9), "{got:?} {wanted:?}");
    }

    /// Seven comparisons, three annotators, two classes; -1 is no vote.
    const VOTES: [[i32; 3]; 7] = [[0, 0, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1], [0, 0, -1], [1, 1, 0], [-1, 1, 1]];

    fn votes(of: &[[i32; 3]]) -> Vec<Vec<Said>> {
        let said = |row: &[i32; 3]| {
            let said = row.iter().enumerate().filter(|(_, vote)| **vote >= 0);
            said.map(|(who, vote)| (who, *vote as usize, 1.0)).collect()
        };
        of.iter().map(said).collect()
    }

    #[test]
    fn one_round_by_hand() {
        // Two comparisons, one annotator each way: posteriors (1, 0) and (1/2, 1/2).
        let said = [vec![(0, 0, 1.0), (1, 0, 1.0)], vec![(0, 0, 1.0), (1, 1, 1.0)]];
        let begun: Vec<_> = said.iter().map(|votes| start(votes, 2)).collect();
        near(&shares_of(&begun, 2, 0.0), &[0.75, 0.25]);
        near(&shares_of(&begun, 2, 1.0), &[2.5 / 4.0, 1.5 / 4.0]);
        let matrices = matrices_of(&said, &begun, 2, 2, 0.0);
        near(&matrices[0][0], &[1.0, 0.0]);
        near(&matrices[1][0], &[2.0 / 3.0, 1.0 / 3.0]);
        near(&matrices[1][1], &[0.0, 1.0]);
        // Second comparison: 3/4 * 1 * 1/3 against 1/4 * 1 * 1: even.
        let (second, likelihood) = posterior(&said[1], &[0.75, 0.25], &matrices);
        near(&second, &[0.5, 0.5]);
        assert!((likelihood - 0.5f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn laws() {
        for smoothing in [0.0, 1.0] {
            let whole = fit(&votes(&VOTES), 3, 2, smoothing);
            assert!(whole.converged && whole.rounds > 2, "{whole:?}");
            // Who is called first does not matter.
            let other = fit(&votes(&VOTES.map(|[a, b, c]| [c, a, b])), 3, 2, smoothing);
            for (one, other) in whole.posteriors.iter().zip(&other.posteriors) {
                near(one, other);
            }
            // Exchanged sides mirror the answer.
            let mirrored = VOTES.map(|row| row.map(|vote| if vote < 0 { vote } else { 1 - vote }));
            let mirrored = fit(&votes(&mirrored), 3, 2, smoothing);
            for (one, other) in whole.posteriors.iter().zip(&mirrored.posteriors) {
                near(one, &[other[1], other[0]]);
            }
            // A vote of weight two is two votes.
            let mut double = votes(&VOTES);
            double[1].push((2, 1, 1.0));
            let mut weighted = votes(&VOTES);
            weighted[1][2].2 = 2.0;
            let (double, weighted) = (fit(&double, 3, 2, smoothing), fit(&weighted, 3, 2, smoothing));
            assert_eq!(double.rounds, weighted.rounds);
            for (one, other) in double.posteriors.iter().zip(&weighted.posteriors) {
                near(one, other);
            }
        }
    }

    #[test]
    fn one_annotator_is_believed() {
        let alone = fit(&[vec![(0, 0, 1.0)], vec![(0, 1, 1.0)], Vec::new()], 1, 2, 0.0);
        near(&alone.posteriors[0], &[1.0, 0.0]);
        near(&alone.posteriors[1], &[0.0, 1.0]);
        near(&alone.posteriors[2], &[0.5, 0.5]);
    }

    #[test]
    fn the_likelihood_never_falls() {
        let votes = votes(&VOTES);
        let (mut last, mut posteriors) = (f64::NEG_INFINITY, votes.iter().map(|it| start(it, 2)).collect::<Vec<_>>());
        for _ in 0..30 {
            let shares = shares_of(&posteriors, 2, 0.0);
            let matrices = matrices_of(&votes, &posteriors, 3, 2, 0.0);
            let round: Vec<_> = votes.iter().map(|votes| posterior(votes, &shares, &matrices)).collect();
            let likelihood: f64 = round.iter().map(|it| it.1).sum();
            assert!(likelihood >= last - 1e-12, "{likelihood} after {last}");
            last = likelihood;
            posteriors = round.into_iter().map(|it| it.0).collect();
        }
    }
}
