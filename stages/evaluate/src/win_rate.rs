//! Win rates of a policy's responses against a baseline, from verdicts.

use std::ops::AddAssign;

use kit::rows::Reject;
use kit::{Context, Outcome, Result};

use crate::answers::{Answer, Answers};
use crate::bootstrap::{percentiles, resampled};
use crate::config::{Evaluate, Ties};
use crate::interval::Estimate;
use crate::summary::Summary;

/// Sums over some answers, which all win rates are made of. Of a prompt the counts are of 32 bits: a draw reads half a
/// cache line.
#[derive(Debug, Clone, Copy, Default)]
struct Tally<N> {
    answers: N,
    ties: N,
    /// Wins that are no ties.
    wins: N,
    undecided: N,
    /// Judged in both orders.
    both_orders: N,
    /// The orders disagree.
    flipped: N,
    /// Sum of P(the policy's response better) where the judge gave a verdict.
    p: f64,
}

impl Tally<u32> {
    fn of(answer: &Answer) -> Tally<u32> {
        Tally {
            answers: 1,
            ties: u32::from(answer.tie),
            wins: u32::from(!answer.tie && answer.p > 0.5),
            undecided: u32::from(answer.undecided),
            both_orders: u32::from(answer.flipped.is_some()),
            flipped: u32::from(answer.flipped == Some(true)),
            p: if answer.undecided { 0.0 } else { answer.p },
        }
    }
}

impl<N: AddAssign> Tally<N> {
    #[inline(always)]
    fn add<M: Copy>(&mut self, other: &Tally<M>)
    where
        N: From<M>,
    {
        self.answers += N::from(other.answers);
        self.ties += N::from(other.ties);
        self.wins += N::from(other.wins);
        self.undecided += N::from(other.undecided);
        self.both_orders += N::from(other.both_orders);
        self.flipped += N::from(other.flipped);
        self.p += other.p;
    }
}

/// The sum and the number of values that a mean is of.
type Sums = dyn Fn(&Tally<u64>) -> (f64, u64);

/// A win rate: a mean over some of the answers.
struct Rate {
    metric: &'static str,
    /// Each of them counts 0 or 1.
    yes_or_no: bool,
    note: String,
    of: Box<Sums>,
}

impl Rate {
    /// Its value of one answer, where it has one.
    fn value(&self, answer: &Answer) -> Option<f64> {
        let (sum, count) = self.sums([Tally::of(answer)]);
        (count > 0).then_some(sum)
    }

    fn sums(&self, tallies: impl IntoIterator<Item = Tally<u32>>) -> (f64, u64) {
        let mut total = Tally::default();
        tallies.into_iter().for_each(|tally| total.add(&tally));
        (self.of)(&total)
    }
}

/// The win rates in the order in which a person reads them.
fn rates(stage: &Evaluate, ties: Ties, undecided: bool) -> Vec<Rate> {
    let rate = |metric, yes_or_no, note: &str, of: fn(&Tally<u64>) -> (u64, u64)| Rate {
        metric,
        yes_or_no,
        note: note.to_owned(),
        of: Box::new(move |tally| (of(tally).0 as f64, of(tally).1)),
    };
    let points = ties.points();
    let tied = stage.tie_when.note();
    let tied = if undecided { format!("{tied}, or no verdict") } else { tied.to_owned() };
    let mut rates = vec![
        Rate {
            metric: "win_rate",
            yes_or_no: ties != Ties::Half,
            note: ties.note().to_owned(),
            of: Box::new(move |tally| (tally.wins as f64 + points * tally.ties as f64, tally.answers)),
        },
        rate("win_rate/decisive", true, "ties left out", |tally| (tally.wins, tally.answers - tally.ties)),
        rate("win_rate/ties", true, &tied, |tally| (tally.ties, tally.answers)),
    ];
    if undecided {
        let note = "the judge gave no verdict";
        rates.push(rate("win_rate/undecided", true, note, |tally| (tally.undecided, tally.answers)));
    }
    rates.push(Rate {
        metric: "win_rate/soft",
        yes_or_no: false,
        note: "mean probability that the policy's response is better".to_owned(),
        of: Box::new(|tally| (tally.p, tally.answers - tally.undecided)),
    });
    let note = "the judge changed its mind with the order";
    rates.push(rate("win_rate/orders_disagree", true, note, |tally| (tally.flipped, tally.both_orders)));
    rates
}

pub(crate) fn summarise(
    stage: &Evaluate,
    context: &Context<'_>,
    ties: Ties,
    summary: &mut Summary,
    rejects: &mut Vec<Reject>,
    outcome: Outcome,
) -> Result<Outcome> {
    let mut answers = Answers::read(stage, context, rejects)?;
    if answers.list.is_empty() {
        context.warn("there is no verdict to count, so there are no win rates");
    }
    let prompts = stage.bootstrap.map(|resamples| (resamples, answers.prompts()));
    let mut forms: Vec<(u32, &str)> = (0..).zip(answers.forms.iter().map(String::as_str)).collect();
    forms.sort_unstable_by_key(|form| form.1);
    // Each form apart where there are several.
    let apart = forms.iter().filter(|_| forms.len() > 1).map(|(form, name)| (format!("/{name}"), Some(*form)));
    for (ending, form) in std::iter::once((String::new(), None)).chain(apart) {
        let of_form = |answer: &Answer| form.is_none_or(|form| !answer.undecided && answer.form == form);
        let rates = rates(stage, ties, form.is_none() && answers.undecided > 0);
        let drawn = prompts.as_ref().map(|(resamples, (numbers, prompts))| {
            let mut tallies = vec![Tally::<u32>::default(); *prompts];
            let of_prompts = answers.list.iter().zip(numbers).filter(|(answer, _)| of_form(answer));
            of_prompts.for_each(|(answer, prompt)| tallies[*prompt as usize].add(&Tally::of(answer)));
            tallies.retain(|tally| tally.answers > 0);
            Drawn::of(context, tallies, *resamples, &ending)
        });
        let drawn = drawn.transpose()?;
        for rate in rates {
            let (metric, note) = (format!("{}{ending}", rate.metric), &rate.note);
            let of_form = || answers.list.iter().filter(|answer| of_form(answer));
            let values = of_form().filter_map(|answer| rate.value(answer));
            if let Some(drawn) = &drawn {
                let (sum, rows) = rate.sums(of_form().map(Tally::of));
                let estimate = Estimate { value: sum / rows as f64, interval: drawn.interval(&rate), rows };
                summary.bootstrapped(&metric, (rows > 0).then_some(estimate), note);
            } else if rate.yes_or_no {
                summary.share(&metric, values.map(|value| value == 1.0), note);
            } else {
                summary.mean(&metric, values, note);
            }
        }
    }
    let kept = answers.list.len() as u64 - answers.undecided;
    Ok(outcome.balance("verdicts", kept + answers.rejected, kept, answers.rejected))
}

/// Prompts and their resamples, which all rates share.
struct Drawn {
    prompts: Vec<Tally<u32>>,
    resamples: Vec<Tally<u64>>,
}

impl Drawn {
    fn of(context: &Context<'_>, prompts: Vec<Tally<u32>>, resamples: u32, ending: &str) -> Result<Drawn> {
        let seed = |number: u32| context.seed.derive("evaluate/bootstrap", ending, number.into());
        let seeds: Vec<u64> = (0..resamples).map(seed).collect();
        let resamples = resampled(&prompts, &seeds, Tally::<u64>::add, || context.interrupt.check())?;
        Ok(Drawn { prompts, resamples })
    }

    /// The interval of a rate; none where it is of one prompt alone. A resample without an answer that the rate counts
    /// says nothing of it.
    fn interval(&self, rate: &Rate) -> Option<(f64, f64)> {
        let counted = |prompt: &&Tally<u32>| rate.sums([**prompt]).1 > 0;
        self.prompts.iter().filter(counted).nth(1)?;
        let sums = self.resamples.iter().map(|resample| (rate.of)(resample));
        percentiles(sums.filter(|(_, count)| *count > 0).map(|(sum, count)| sum / count as f64).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(ties: Ties, p: f64, tie: bool) -> f64 {
        let stage = serde_json::from_value(serde_json::json!({})).unwrap();
        let answer = Answer { p, form: 0, flipped: None, tie: tie || p == 0.5, undecided: false };
        rates(&stage, ties, false)[0].value(&answer).unwrap()
    }

    #[test]
    fn the_papers_three_rules_for_ties() {
        for (ties, of_three) in
            [(Ties::Win, [1.0, 1.0, 0.0]), (Ties::Half, [1.0, 0.5, 0.0]), (Ties::Loss, [1.0, 0.0, 0.0])]
        {
            assert_eq!([0.500_1, 0.5, 0.499_9].map(|p| points(ties, p, false)), of_three, "{ties:?}");
            assert_eq!(points(ties, 0.9, true), of_three[1], "{ties:?}");
        }
    }

    #[test]
    fn the_published_win_rates_of_jpo() {
        // Wins, losses and ties of the released runs on TL;DR and Anthropic Helpful.
        for (wins, losses, ties, rate) in [(293, 61, 146, 0.732), (305, 60, 135, 0.745)] {
            let verdicts = [(1.0, wins), (0.0, losses), (0.5, ties)];
            let points =
                verdicts.iter().flat_map(|&(p, count)| std::iter::repeat_n(points(Ties::Half, p, false), count));
            let mut summary = Summary::default();
            summary.mean("win_rate", points, "");
            let row = &summary.rows[0];
            assert!((row.value - rate).abs() < 1e-12, "{row:?}");
            // Standard error 1.6 points.
            assert!(((row.high.unwrap() - row.low.unwrap()) / (2.0 * 1.96) - 0.016).abs() < 5e-4, "{row:?}");
        }
    }
}
