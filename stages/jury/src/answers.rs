//! One probability for each comparison, by the method that is asked for.

use kit::probability::{cross_entropy, sigmoid};
use kit::rows::{AnnotatorRow, SummaryRow};
use kit::{Context, Error, Result};

use crate::bench::{Ballot, Bench};
use crate::config::{Jury, Method, Term};
use crate::dawid_skene::{self, Fit};
use crate::folds::{Folds, name_of};
use crate::share::{mean, mean_log_odds, smoothed};
use crate::stack::{Evidence, Stack};
use crate::summary;

/// `stack` refuses fewer gold labels.
pub const FEWEST: usize = 30;
/// Folds of the cross-fitting unless given.
const FOLDS: u32 = 5;

/// The answer for one comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// P(a better).
    pub p_hat: f64,
    /// Its log-odds, where the method adds log-odds.
    pub log_odds: Option<f64>,
    /// P(a better) with the terms that are not in the answer.
    pub unadjusted: Option<f64>,
    /// The fit that gave it.
    pub fit: Option<String>,
}

impl Answer {
    fn plain(p_hat: f64, log_odds: Option<f64>) -> Answer {
        Answer { p_hat: p_hat.clamp(0.0, 1.0), log_odds, unadjusted: None, fit: None }
    }
}

/// All answers, and the figures of how they were found.
#[derive(Debug, Default)]
pub struct Answers {
    /// By comparison; none where nobody said anything.
    pub each: Vec<Option<Answer>>,
    /// Figures of the method.
    pub figures: Vec<SummaryRow>,
    /// Figures of each source.
    pub annotators: Vec<AnnotatorRow>,
}

/// Finds them.
///
/// # Errors
/// When votes or gold labels are not enough for the method.
pub fn answers(stage: &Jury, context: &Context<'_>, bench: &Bench, gold: &[Option<f64>]) -> Result<Answers> {
    let each = |of: &dyn Fn(&[Ballot]) -> Answer| Answers {
        each: bench.ballots.iter().map(|it| (!it.is_empty()).then(|| of(it))).collect(),
        ..Answers::default()
    };
    Ok(match stage.method {
        Method::Share => each(&|ballots| Answer::plain(smoothed(ballots, 0.0), None)),
        Method::Beta => each(&|ballots| Answer::plain(smoothed(ballots, stage.a.unwrap_or(0.0)), None)),
        Method::Mean => each(&|ballots| Answer::plain(mean(ballots), None)),
        Method::MeanLogOdds => each(&|ballots| {
            let (p_hat, log_odds) = mean_log_odds(ballots);
            Answer::plain(p_hat, Some(log_odds))
        }),
        Method::DawidSkene => {
            let (fit, classes) = modelled(bench, context, stage.smoothing.unwrap_or(0.0))?;
            let p_hat = |posterior: &[f64]| posterior.iter().zip(&classes).map(|(p, class)| p * class).sum::<f64>();
            let answer = |(posterior, ballots): (&Vec<f64>, &Vec<Ballot>)| {
                (!ballots.is_empty()).then(|| Answer::plain(p_hat(posterior), None))
            };
            let voted = bench.ballots.iter().filter(|ballots| !ballots.is_empty()).count() as u64;
            Answers {
                each: fit.posteriors.iter().zip(&bench.ballots).map(answer).collect(),
                figures: summary::dawid_skene(&fit, &classes, voted),
                annotators: summary::matrices(bench, &fit, &classes),
            }
        }
        Method::Stack => stacked(stage, context, bench, gold)?,
    })
}

/// Refuses votes of nobody for methods that learn what each source is like.
fn named(bench: &Bench, method: Method) -> Result<()> {
    if bench.ballots.iter().flatten().all(|ballot| ballot.source.is_some()) {
        return Ok(());
    }
    Err(Error::data(format!(
        "some votes have no annotator, and `{}` learns each annotator's habits; name the column of annotators to \
         `ingest` (`columns: {{annotator: THEIRS}}`), or take `method: share` or `beta`",
        method.name()
    )))
}

/// Refuses votes that no two sources gave on one comparison: from them nothing can be learnt about either.
fn overlapping(bench: &Bench) -> Result<()> {
    let several = |ballots: &Vec<Ballot>| ballots.iter().any(|ballot| ballot.source != ballots[0].source);
    let who = match &bench.sources[..] {
        [] => return Ok(()),
        [only] => format!("all votes are of one annotator, `{only}`"),
        _ if bench.ballots.iter().any(several) => return Ok(()),
        all => format!("no two of {} annotators voted on the same comparison", all.len()),
    };
    Err(Error::data(format!(
        "{who}, and `dawid_skene` learns what each is like from how they agree; have some comparisons voted on by two, or \
         take `method: share` or `beta`"
    )))
}

/// The model of Dawid and Skene, with each of its classes as a vote.
fn modelled(bench: &Bench, context: &Context<'_>, smoothing: f64) -> Result<(Fit, Vec<f64>)> {
    named(bench, Method::DawidSkene)?;
    overlapping(bench)?;
    let ballots = || bench.ballots.iter().flatten();
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

fn stacked(stage: &Jury, context: &Context<'_>, bench: &Bench, gold: &[Option<f64>]) -> Result<Answers> {
    named(bench, Method::Stack)?;
    // Gold on what nobody spoke about teaches nothing about the sources.
    let said = |at: usize| !bench.ballots[at].is_empty();
    let gold: Vec<Option<f64>> = gold.iter().enumerate().map(|(at, gold)| gold.filter(|_| said(at))).collect();
    let known: Vec<usize> = (0..gold.len()).filter(|at| gold[*at].is_some()).collect();
    if known.len() < FEWEST {
        return Err(Error::data(format!(
            "{} comparisons have both a gold label and something said about them; `stack` wants at least {FEWEST}: \
             label more, see that ids and texts agree, or take a method without gold",
            known.len()
        )));
    }
    let mut prompts: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for prompt in known.iter().flat_map(|at| &bench.prompts[*at]) {
        if seen.insert(prompt) {
            prompts.push(prompt.clone());
        }
    }
    let folds = stage.folds.unwrap_or(FOLDS);
    let folds = match prompts.len() >= folds as usize {
        true => Folds::deal(prompts, folds, stage.deal.unwrap_or_default(), context.seed),
        false => {
            return Err(Error::data(format!(
                "the gold labels are of {} prompts, too few for {folds} folds by prompt; label more prompts or set \
                 `folds`",
                prompts.len()
            )));
        }
    };
    let mut stack = Stack::new(Evidence::of(stage, bench), &gold, &bench.prompts, &folds);
    let all = stack.prepared(&Default::default())?.clone();
    let mut answers = Answers::default();
    for at in 0..gold.len() {
        let answer = if said(at) {
            let it = stack.of(at)?;
            let (p_hat, log_odds) = (sigmoid(it.log_odds), Some(it.log_odds));
            Some(Answer { p_hat, log_odds, unadjusted: Some(it.unadjusted), fit: Some(it.fit) })
        } else {
            None
        };
        answers.each.push(answer);
    }
    for (left_out, fit) in &stack.made {
        let rows = stack.names().iter().zip(&fit.factors);
        answers.annotators.extend(rows.map(|(name, factor)| AnnotatorRow {
            annotator: name.clone(),
            measure: "weight".to_owned(),
            truth: None,
            vote: None,
            fit: Some(name_of(left_out)),
            value: *factor,
            rows: fit.rows as u64,
        }));
    }
    let loss = |log_odds: &mut dyn Iterator<Item = f64>| {
        let of = |(at, z): (&usize, f64)| cross_entropy(z, gold[*at].expect("it is known"));
        known.iter().zip(log_odds).map(of).sum::<f64>() / known.len() as f64
    };
    let with = known.iter().map(|at| answers.each[*at].as_ref().and_then(|it| it.log_odds).expect("it has an answer"));
    let with = loss(&mut with.collect::<Vec<_>>().into_iter());
    let columns = if bench.sources.len() > 1 { 0..stack.names().len() } else { 0..0 };
    for column in columns {
        let without = loss(&mut stack.without(column)?.into_iter());
        let row = |annotator: &str| AnnotatorRow {
            annotator: annotator.to_owned(),
            measure: "without".to_owned(),
            truth: None,
            vote: None,
            fit: None,
            value: without - with,
            rows: known.len() as u64,
        };
        let name = &stack.names()[column];
        answers.annotators.push(row(name));
        answers.figures.push(SummaryRow {
            metric: format!("without/{name}"),
            value: without - with,
            low: None,
            high: None,
            rows: known.len() as u64,
            note: "log loss where it is left out, less that with it; above 0 it helps; cross-fitted".to_owned(),
        });
    }
    tell(stage, context, &gold, stack.names(), &all);
    Ok(answers)
}

/// Remarks on the fit to all gold labels.
fn tell(stage: &Jury, context: &Context<'_>, gold: &[Option<f64>], names: &[String], all: &crate::logistic::Fit) {
    if !all.converged {
        context.warn(
            "the fit has no optimum within reach: gold follows from the sources (almost) without exception; a `ridge` \
             above 0 gives it one",
        );
    }
    for (name, factor) in names.iter().zip(&all.factors).filter(|(name, _)| !name.starts_with('(')) {
        if *factor < 0.0 {
            context.note(format!(
                "`{name}` has a negative factor, {factor:.3}: beside the others it counts against its side"
            ));
        }
    }
    let position = names.iter().position(|name| name == "(position)");
    if let (Some(Term::Keep), Some(at)) = (stage.position, position) {
        let known: Vec<f64> = gold.iter().flatten().copied().collect();
        let share = known.iter().sum::<f64>() / known.len() as f64;
        context.note(format!(
            "the term of position, {:.3}, is part of the answer: it knows that gold prefers side a in a share of \
             {share:.3} in this file, which other files need not share; `position: remove` takes it out",
            all.factors[at]
        ));
    }
}
