//! Signs in the votes themselves that make an answer without gold doubtful.

use crate::agreement::{Pair, krippendorff};
use crate::bench::Bench;
use crate::config::Method;

/// Agreement below this is low. Krippendorff draws conclusions from 0.667 on only.
const LOW: f64 = 0.4;
/// Two sources with at least this kappa may be one.
const ALIKE: f64 = 0.7;
/// If it is this much above what all have together.
const BEYOND: f64 = 0.3;
/// Shared comparisons from which a kappa of two says something.
const ENOUGH: u64 = 20;
/// Names that a sentence lists.
const NAMED: usize = 6;

/// Sentences for a person, each with what to do.
pub fn doubts(bench: &Bench, pairs: &[Pair], method: Method) -> Vec<String> {
    let mut doubts = Vec::new();
    let unnamed = bench.ballots.iter().flatten().any(|ballot| ballot.source.is_none());
    if bench.sources.len() + usize::from(unnamed) == 1 && !unnamed {
        doubts.push(format!(
            "all votes are of one source, `{}`: nothing can be said about agreement, and each label is what it says",
            bench.sources[0]
        ));
    }
    doubts.extend(alone(bench));
    let alpha = krippendorff(&bench.ballots);
    if let Some((alpha, _)) = alpha.filter(|(alpha, _)| *alpha < LOW) {
        let more = match method {
            Method::DawidSkene => "; Dawid-Skene can then be wrong with confidence: hold it against gold labels",
            _ => "; labels of so little agreement are worth holding against gold",
        };
        doubts.push(format!("the sources agree little (Krippendorff's alpha {alpha:.3}){more}"));
    }
    let name = |source: usize| bench.sources[source].as_str();
    let alpha = alpha.map_or(0.0, |(alpha, _)| alpha);
    let known = pairs.iter().filter(|pair| pair.rows >= ENOUGH);
    let mut alike: Vec<(f64, &Pair)> = known.filter_map(|pair| Some((pair.kappa?, pair))).collect();
    alike.retain(|(kappa, _)| *kappa >= ALIKE && kappa - alpha >= BEYOND);
    alike.sort_by(|one, other| other.0.total_cmp(&one.0));
    if !alike.is_empty() && bench.sources.len() > 2 {
        let shown: Vec<String> = alike
            .iter()
            .map(|(kappa, pair)| format!("`{}` and `{}` ({kappa:.2})", name(pair.one), name(pair.other)))
            .collect();
        doubts.push(format!(
            "some sources are nearly one, by Cohen's kappa far above that of all: {}; they count as several, though \
             they err together",
            listed(shown)
        ));
    }
    let against = (0..bench.sources.len()).filter_map(|source| {
        let own: Vec<f64> = pairs
            .iter()
            .filter(|pair| (pair.one == source || pair.other == source) && pair.rows >= ENOUGH)
            .filter_map(|pair| pair.kappa)
            .collect();
        let mean = own.iter().sum::<f64>() / own.len() as f64;
        (!own.is_empty() && mean < 0.0).then(|| format!("`{}` ({mean:.2})", name(source)))
    });
    let against: Vec<String> = against.collect();
    if !against.is_empty() {
        doubts.push(format!(
            "some sources agree with the others less often than by chance (mean kappa): {}; see that their votes mean \
             what the others' do",
            listed(against)
        ));
    }
    doubts
}

/// Sources whose comparisons have no other vote.
fn alone(bench: &Bench) -> Option<String> {
    let mut shares = vec![false; bench.sources.len()];
    for ballots in &bench.ballots {
        let first = ballots.first().map(|ballot| ballot.source);
        if ballots.iter().any(|ballot| Some(ballot.source) != first) {
            ballots.iter().filter_map(|ballot| ballot.source).for_each(|source| shares[source] = true);
        }
    }
    let alone: Vec<String> = bench
        .sources
        .iter()
        .zip(&shares)
        .filter(|(_, shares)| !**shares)
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    (bench.sources.len() > 1 && !alone.is_empty()).then(|| {
        format!(
            "{} voted on nothing that another source voted on: nothing is known of how they agree with it",
            listed(alone)
        )
    })
}

fn listed(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.join(", ") + &more
}
