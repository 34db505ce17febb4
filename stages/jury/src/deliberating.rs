//! From the inputs to the tables.

use std::collections::BTreeSet;

use kit::probability::logit;
use kit::rows::{AnnotatorRow, Comparison, JuryVerdict, SummaryRow, Verdict};
use kit::{Context, Error, Outcome, Result};

use crate::agreement::{cohen, counts, krippendorff, tally};
use crate::answers::{Answer, answers};
use crate::bench::{Ballot, Bench, base};
use crate::config::{Jury, Method};
use crate::doubts::doubts;
use crate::gold;
use crate::measure::{Known, figures};
use crate::share::{EDGE, by_source};
use crate::summary;

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
    let gold = if stage.gold.is_some() { gold::read(context, &mut bench)? } else { vec![None; bench.index.len()] };
    let pairs = cohen(&bench.ballots);
    doubts(&bench, &pairs, stage.method).into_iter().for_each(|doubt| context.warn(doubt));
    let found = answers(stage, context, &bench, &gold)?;
    let mut summary = summary::agreement(&bench, &pairs, tally(&bench.ballots));
    summary.extend(found.figures);
    summary.extend(against_gold(stage, &bench, &gold, &found.each));
    let mut annotators = summary::annotators(&bench, &pairs);
    annotators.extend(found.annotators);
    let verdicts = write_verdicts(stage, context, &mut bench, &found.each, &mut summary)?;
    finish(stage, context, bench, summary, annotators, verdicts)
}

/// The jury and each of its sources held against gold.
fn against_gold(stage: &Jury, bench: &Bench, gold: &[Option<f64>], answers: &[Option<Answer>]) -> Vec<SummaryRow> {
    let mut jury = Vec::new();
    let mut sources = vec![Vec::new(); bench.sources.len()];
    for ((gold, answer), ballots) in gold.iter().zip(answers).zip(&bench.ballots) {
        let (Some(gold), Some(answer)) = (*gold, answer) else { continue };
        let p = answer.p_hat;
        jury.push(Known { p, log_odds: answer.log_odds.unwrap_or_else(|| logit(p, EDGE)), gold });
        for (source, p, log_odds) in by_source(ballots) {
            sources
                .get_mut(source.unwrap_or(usize::MAX))
                .into_iter()
                .for_each(|it| it.push(Known { p, log_odds, gold }));
        }
    }
    if jury.is_empty() {
        return Vec::new();
    }
    let note = match stage.method {
        Method::Stack => "against gold, by fits that have not seen the row",
        _ => "against gold",
    };
    let mut rows = figures("jury", &jury, note);
    for (name, known) in bench.sources.iter().zip(&sources).filter(|(_, known)| !known.is_empty()) {
        rows.extend(figures(name, known, "against gold, as the source says it"));
    }
    rows
}

/// Writes the labels and gives their number.
fn write_verdicts(
    stage: &Jury,
    context: &Context<'_>,
    bench: &mut Bench,
    answers: &[Option<Answer>],
    summary: &mut Vec<SummaryRow>,
) -> Result<u64> {
    let base = base(stage);
    let mut writer = context.writer::<JuryVerdict>("verdicts")?;
    let mut done = BTreeSet::new();
    let (mut verdicts, mut sum) = (0, 0.0);
    for row in context.rows::<Comparison>(base)? {
        let row = row?;
        let Some(at) = bench.index.by_id(&row.comparison_id) else { continue };
        if !done.insert(at) {
            continue;
        }
        let Some(answer) = &answers[at] else {
            if base == "comparisons" {
                let place = (row.source_file, row.source_line);
                bench.reject(base, row.comparison_id, "no_vote", "no source has a vote on it".to_owned(), place);
            }
            continue;
        };
        verdicts += 1;
        sum += answer.p_hat;
        writer.push(verdict(row, stage.method, &bench.ballots[at], answer))?;
    }
    writer.finish()?;
    summary.push(SummaryRow {
        metric: "mean_p_hat".to_owned(),
        value: sum / verdicts.max(1) as f64,
        low: None,
        high: None,
        rows: verdicts,
        note: "mean P(a better)".to_owned(),
    });
    Ok(verdicts)
}

fn verdict(row: Comparison, method: Method, ballots: &[Ballot], answer: &Answer) -> JuryVerdict {
    let [votes_a, votes_tie, votes_b] = counts(ballots);
    let judge = format!("jury/{}", method.name());
    JuryVerdict {
        log_odds: answer.log_odds,
        votes_a,
        votes_tie,
        votes_b,
        sources: by_source(ballots).len() as u32,
        unadjusted_p_hat: answer.unadjusted,
        fit: answer.fit.clone(),
        ..JuryVerdict::from(Verdict::of(row, answer.p_hat, Some(judge)))
    }
}

fn finish(
    stage: &Jury,
    context: &Context<'_>,
    bench: Bench,
    summary: Vec<SummaryRow>,
    annotators: Vec<AnnotatorRow>,
    verdicts: u64,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for (input, read) in &bench.read {
        let rejected = bench.rejects.iter().filter(|reject| reject.input == *input).count() as u64;
        outcome = outcome.balance(input, *read, read - rejected, rejected);
    }
    outcome = outcome.figure("verdicts", verdicts).figure("method", stage.method.name());
    for row in summary.iter().filter(|row| !row.metric.contains('~')) {
        outcome = outcome.figure(&row.metric, rounded(row.value));
    }
    if let Some((alpha, _)) = krippendorff(&bench.ballots) {
        outcome = outcome.headline("krippendorff_alpha", alpha, None, "agreement beyond chance");
    }
    for row in summary.iter().filter(|row| ["accuracy/jury", "log_loss/jury"].contains(&row.metric.as_str())) {
        outcome = outcome.headline(&row.metric, row.value, row.low.zip(row.high), "against gold");
    }
    let mut table = context.writer::<SummaryRow>("summary")?;
    table.extend(summary)?;
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
