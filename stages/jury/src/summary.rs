//! The figures of a jury, and of each of its sources.

use std::collections::BTreeSet;

use kit::rows::{AnnotatorRow, SummaryRow};

use crate::agreement::{Pair, Tally, fleiss, krippendorff};
use crate::bench::Bench;
use crate::dawid_skene::Fit;

/// Most pairs whose kappas are written one by one.
const MOST_PAIRS: usize = 300;

fn row(metric: impl Into<String>, value: f64, rows: u64, note: &str) -> SummaryRow {
    SummaryRow { metric: metric.into(), value, low: None, high: None, rows, note: note.to_owned() }
}

/// Counts of the votes, and the agreement of the voters.
pub fn agreement(bench: &Bench, pairs: &[Pair], tally: Tally) -> Vec<SummaryRow> {
    let rows = tally.voted;
    let sources = bench.sources.len() as f64;
    let votes: f64 = bench.ballots.iter().flatten().map(|ballot| ballot.weight).sum();
    let mut summary = vec![
        row("sources", sources, rows, "annotators and judges with a name"),
        row("votes", votes, rows, "by weight"),
        row("unanimous", tally.unanimous as f64, rows, "comparisons whose votes, two or more, are all for one side"),
        row("all_ties", tally.all_ties as f64, rows, "comparisons whose votes, two or more, are all ties"),
        row("split", tally.split as f64, rows, "comparisons whose votes differ"),
        row("no_majority", tally.no_majority as f64, rows, "split ones in which nothing has more votes than all else"),
        row("single", tally.single as f64, rows, "comparisons with one vote"),
    ];
    let overlap: BTreeSet<&str> = bench
        .ballots
        .iter()
        .filter(|ballots| ballots.iter().any(|one| one.source != ballots[0].source))
        .flat_map(|ballots| ballots.iter().filter_map(|ballot| ballot.source))
        .map(|source| bench.sources[source].as_str())
        .collect();
    summary.push(row("overlapping", overlap.len() as f64, rows, "sources that share a comparison with another"));
    if let Some((alpha, units)) = krippendorff(&bench.ballots) {
        summary.push(row("krippendorff_alpha", alpha, units, "nominal, comparisons with two votes or more"));
    }
    if let Some((kappa, units)) = fleiss(&bench.ballots) {
        summary.push(row("fleiss_kappa", kappa, units, "every comparison has as many votes"));
    }
    if pairs.len() <= MOST_PAIRS {
        for pair in pairs {
            let names = format!("{}~{}", bench.sources[pair.one], bench.sources[pair.other]);
            let note = "unweighted, comparisons that both voted on";
            summary.extend(pair.kappa.map(|kappa| row(format!("cohen_kappa/{names}"), kappa, pair.rows, note)));
            summary.push(row(format!("exact_agreement/{names}"), pair.exact, pair.rows, "share with the same vote"));
        }
    }
    summary
}

/// The results of EM.
pub fn dawid_skene(fit: &Fit, classes: &[f64], rows: u64) -> Vec<SummaryRow> {
    let note = match fit.converged {
        true => "until no posterior moved by 1e-10",
        false => "stopped before the posteriors came to rest",
    };
    let mut summary = vec![
        row("dawid_skene/iterations", f64::from(fit.rounds), rows, note),
        row("dawid_skene/log_likelihood", fit.log_likelihood, rows, "of the votes, in nats, without the prior"),
    ];
    for (class, share) in classes.iter().zip(&fit.shares) {
        summary.push(row(
            format!("dawid_skene/share/{}", word(*class)),
            *share,
            rows,
            "estimated share of comparisons",
        ));
    }
    summary
}

/// A side in words.
fn word(class: f64) -> &'static str {
    match class {
        1.0 => "a",
        0.0 => "b",
        _ => "tie",
    }
}

/// The votes of each source and its share of agreement with the others.
pub fn annotators(bench: &Bench, pairs: &[Pair]) -> Vec<AnnotatorRow> {
    let mut table = Vec::new();
    for (source, name) in bench.sources.iter().enumerate() {
        let ballots = bench.ballots.iter().flatten().filter(|ballot| ballot.source == Some(source));
        let votes = ballots.map(|ballot| ballot.weight).sum();
        table.push(figure(name, "votes", votes, comparisons_of(bench, source)));
        let with = pairs.iter().filter(|pair| pair.one == source || pair.other == source);
        let (same, shared) =
            with.fold((0.0, 0), |(same, shared), pair| (same + pair.exact * pair.rows as f64, shared + pair.rows));
        if shared > 0 {
            table.push(figure(name, "agreement", same / shared as f64, shared));
        }
    }
    table
}

/// The matrix of each source: P(vote | truth).
pub fn matrices(bench: &Bench, fit: &Fit, classes: &[f64]) -> Vec<AnnotatorRow> {
    let mut table = Vec::new();
    for (source, name) in bench.sources.iter().enumerate() {
        let rows = comparisons_of(bench, source);
        for (truth, of_truth) in classes.iter().zip(&fit.matrices[source]) {
            for (vote, probability) in classes.iter().zip(of_truth) {
                let row = figure(name, "matrix", *probability, rows);
                table.push(AnnotatorRow { truth: Some(*truth), vote: Some(*vote), ..row });
            }
        }
    }
    table
}

fn comparisons_of(bench: &Bench, source: usize) -> u64 {
    let own = bench.ballots.iter().filter(|ballots| ballots.iter().any(|ballot| ballot.source == Some(source)));
    own.count() as u64
}

fn figure(annotator: &str, measure: &str, value: f64, rows: u64) -> AnnotatorRow {
    let (annotator, measure) = (annotator.to_owned(), measure.to_owned());
    AnnotatorRow { annotator, measure, truth: None, vote: None, fit: None, value, rows }
}
