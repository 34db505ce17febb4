//! From what the sources say to one probability each, and to the tables.

use std::collections::BTreeSet;

use kit::rows::{AnnotatorRow, Comparison, JuryVerdict, SummaryRow};
use kit::{Context, Error, Outcome, Result};

use crate::agreement::{cohen, counts, krippendorff, tally};
use crate::bench::{Ballot, Bench, base};
use crate::config::{Jury, Method};
use crate::dawid_skene::{self, Fit};
use crate::doubts::doubts;
use crate::share::{by_source, mean, mean_log_odds, smoothed};
use crate::summary;

/// The result for one comparison.
#[derive(Debug, Clone, Copy)]
struct Answer {
    p_hat: f64,
    log_odds: Option<f64>,
}

pub(crate) fn deliberate(stage: &Jury, context: &Context<'_>) -> Result<Outcome> {
    let mut bench = Bench::read(stage, context)?;
    if bench.ballots.iter().all(Vec::is_empty) {
        let read: u64 = bench.read.values().sum();
        let first = bench.rejects.first().map_or(String::new(), |reject| format!("; the first: {}", reject.detail));
        return Err(Error::data(format!(
            "nothing of {read} rows says anything about one of {} comparisons{first}",
            bench.index.len()
        )));
    }
    let pairs = cohen(&bench.ballots);
    doubts(&bench, &pairs, stage.method).into_iter().for_each(|doubt| context.warn(doubt));
    let mut found: Option<(Fit, Vec<f64>)> = None;
    let answers: Vec<Option<Answer>> = match stage.method {
        Method::DawidSkene => {
            let (fit, classes) = modelled(&bench, context, stage.smoothing.unwrap_or(0.0))?;
            let p_hat = |posterior: &Vec<f64>| posterior.iter().zip(&classes).map(|(p, class)| p * class).sum::<f64>();
            let answers = fit
                .posteriors
                .iter()
                .map(|posterior| Some(Answer { p_hat: p_hat(posterior).clamp(0.0, 1.0), log_odds: None }));
            let answers = answers.collect();
            found = Some((fit, classes));
            answers
        }
        method => bench.ballots.iter().map(|ballots| alone(method, ballots, stage.a.unwrap_or(0.0))).collect(),
    };
    let fit = found.as_ref().map(|(fit, classes)| (fit, classes.as_slice()));
    let tally = tally(&bench.ballots);
    let mut figures = summary::agreement(&bench, &pairs, tally);
    figures.extend(fit.iter().flat_map(|(fit, classes)| summary::dawid_skene(fit, classes, tally.voted)));
    let written = write_verdicts(stage, context, &mut bench, &answers, &mut figures)?;
    let annotators = summary::annotators(&bench, &pairs, fit);
    finish(stage, context, bench, figures, annotators, written)
}

/// By the votes on one comparison alone; nothing where it has none.
fn alone(method: Method, ballots: &[Ballot], a: f64) -> Option<Answer> {
    if ballots.is_empty() {
        return None;
    }
    let (p_hat, log_odds) = match method {
        Method::Share => (smoothed(ballots, 0.0), None),
        Method::Beta => (smoothed(ballots, a), None),
        Method::Mean => (mean(ballots), None),
        Method::MeanLogOdds => {
            let (p, z) = mean_log_odds(ballots);
            (p, Some(z))
        }
        Method::DawidSkene => unreachable!("it looks at all comparisons together"),
    };
    Some(Answer { p_hat: p_hat.clamp(0.0, 1.0), log_odds })
}

/// The model of Dawid and Skene, with what each of its classes is as a vote.
fn modelled(bench: &Bench, context: &Context<'_>, smoothing: f64) -> Result<(Fit, Vec<f64>)> {
    let ballots = || bench.ballots.iter().flatten();
    if ballots().any(|ballot| ballot.source.is_none()) {
        return Err(Error::data(
            "some votes have no annotator, and Dawid-Skene learns each annotator's habits; name the column of annotators to \
             `ingest` (`columns: {annotator: THEIRS}`), or take `method: share` or `beta`",
        ));
    }
    let classes: Vec<f64> =
        [1.0, 0.5, 0.0].into_iter().filter(|class| ballots().any(|ballot| ballot.side() == *class)).collect();
    let between = ballots().filter(|ballot| ballot.side() != ballot.vote).count();
    if between > 0 {
        context.note(format!("{between} votes lie between the sides and count as the one that they prefer"));
    }
    let class = |ballot: &Ballot| classes.iter().position(|class| *class == ballot.side()).expect("it has a class");
    let said = |ballot: &Ballot| (ballot.source.expect("checked above"), class(ballot), ballot.weight);
    let votes: Vec<_> = bench.ballots.iter().map(|ballots| ballots.iter().map(said).collect()).collect();
    let fit = dawid_skene::fit(&votes, bench.sources.len(), classes.len(), smoothing);
    if !fit.converged {
        context.warn(format!("Dawid-Skene did not come to rest in {} rounds", fit.rounds));
    }
    Ok((fit, classes))
}

/// Number and mean of the labels that were written.
struct Written {
    verdicts: u64,
    mean_p_hat: f64,
}

fn write_verdicts(
    stage: &Jury,
    context: &Context<'_>,
    bench: &mut Bench,
    answers: &[Option<Answer>],
    figures: &mut Vec<SummaryRow>,
) -> Result<Written> {
    let base = base(stage);
    let mut writer = context.writer::<JuryVerdict>("verdicts")?;
    let mut done = BTreeSet::new();
    let mut written = Written { verdicts: 0, mean_p_hat: 0.0 };
    for row in context.rows::<Comparison>(base)? {
        let row = row?;
        let Some(at) = bench.index.by_id(&row.comparison_id) else { continue };
        if !done.insert(at) {
            continue;
        }
        let ballots = &bench.ballots[at];
        let Some(answer) = answers[at].filter(|_| !ballots.is_empty()) else {
            if base == "comparisons" {
                let place = (row.source_file, row.source_line);
                bench.reject(base, row.comparison_id, "no_vote", "no source has a vote on it".to_owned(), place);
            }
            continue;
        };
        written.verdicts += 1;
        written.mean_p_hat += answer.p_hat;
        writer.push(verdict(row, stage.method, ballots, answer))?;
    }
    writer.finish()?;
    written.mean_p_hat /= written.verdicts.max(1) as f64;
    figures.push(SummaryRow {
        metric: "mean_p_hat".to_owned(),
        value: written.mean_p_hat,
        low: None,
        high: None,
        rows: written.verdicts,
        note: "mean P(a better)".to_owned(),
    });
    Ok(written)
}

fn verdict(row: Comparison, method: Method, ballots: &[Ballot], answer: Answer) -> JuryVerdict {
    let [votes_a, votes_tie, votes_b] = counts(ballots);
    JuryVerdict {
        comparison_id: row.comparison_id,
        form: row.form,
        a_prompt_id: row.a_prompt_id,
        a_response_id: row.a_response_id,
        a_prompt: row.a_prompt,
        a_response: row.a_response,
        b_prompt_id: row.b_prompt_id,
        b_response_id: row.b_response_id,
        b_prompt: row.b_prompt,
        b_response: row.b_response,
        ab_logp_a: None,
        ab_logp_b: None,
        ab_mass: None,
        ab_p: None,
        ba_logp_a: None,
        ba_logp_b: None,
        ba_mass: None,
        ba_p: None,
        position_gap: None,
        bounded: None,
        p_hat: answer.p_hat,
        log_odds: answer.log_odds,
        votes_a,
        votes_tie,
        votes_b,
        sources: by_source(ballots).len() as u32,
        unadjusted_p_hat: None,
        fit: None,
        judge: Some(format!("jury/{}", method.name())),
        template: None,
        source_file: row.source_file,
        source_line: row.source_line,
    }
}

fn finish(
    stage: &Jury,
    context: &Context<'_>,
    bench: Bench,
    figures: Vec<SummaryRow>,
    annotators: Vec<AnnotatorRow>,
    written: Written,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for (input, read) in &bench.read {
        let rejected = bench.rejects.iter().filter(|reject| reject.input == *input).count() as u64;
        outcome = outcome.balance(input, *read, read - rejected, rejected);
    }
    outcome = outcome.figure("verdicts", written.verdicts).figure("method", stage.method.name());
    for row in figures.iter().filter(|row| !row.metric.contains('~')) {
        outcome = outcome.figure(&row.metric, rounded(row.value));
    }
    if let Some((alpha, _)) = krippendorff(&bench.ballots) {
        outcome = outcome.headline("krippendorff_alpha", alpha, None, "agreement beyond chance");
    }
    let mut table = context.writer::<SummaryRow>("summary")?;
    table.extend(figures)?;
    table.finish()?;
    let mut table = context.writer::<AnnotatorRow>("annotators")?;
    table.extend(annotators)?;
    table.finish()?;
    context.write_rejects(bench.rejects)?;
    Ok(outcome)
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
