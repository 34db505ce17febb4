//! Win rates of a policy's responses against a baseline, from verdicts.

use std::collections::HashMap;

use kit::rows::{Reject, Verdict};
use kit::{Context, Error, Outcome, Result};

use crate::config::{Evaluate, TieWhen, Ties};
use crate::interval::clustered_mean;
use crate::sides::{Sides, policys, reject};
use crate::summary::{Summary, by_form};

/// One verdict's answer about the policy.
struct Answer {
    /// The number of its form.
    form: u32,
    /// The number of its prompt; 0 where nothing is drawn by prompt.
    prompt: u32,
    /// P(the policy's response better); one half where the judge gave no verdict.
    p: f64,
    /// True where the two orders of presentation disagreed.
    flipped: Option<bool>,
    tie: bool,
    /// The judge gave no verdict.
    undecided: bool,
}

pub(crate) fn summarise(
    stage: &Evaluate,
    context: &Context<'_>,
    ties: Ties,
    summary: &mut Summary,
    rejects: &mut Vec<Reject>,
    outcome: Outcome,
) -> Result<Outcome> {
    let sides = Sides::read(context, stage.policy_side)?;
    let (mut forms, mut prompts) = (Numbers::default(), Numbers::default());
    let mut prompt_of = |id: &str| stage.bootstrap.map_or(0, |_| prompts.of(id));
    let mut answers = Vec::new();
    let mut rejected = 0;
    for row in context.rows::<Verdict>("verdicts")? {
        let row = row?;
        let p = match sides.of(&row) {
            Ok(side) => policys(&row, side)?,
            Err(why) => {
                rejected += 1;
                rejects.push(reject(row, "side_unclear", why));
                continue;
            }
        };
        let flipped = row.ab_p.zip(row.ba_p).map(|(ab, ba)| (ab > 0.5 && ba < 0.5) || (ab < 0.5 && ba > 0.5));
        if stage.tie_when == TieWhen::OrdersDisagree && flipped.is_none() && p != 0.5 {
            return Err(Error::data(format!(
                "verdict `{}` has no probabilities of both orders, so `tie_when: orders_disagree` cannot decide whether \
                 it is a tie: let the judge ask in both orders, or leave `tie_when` out",
                row.comparison_id
            )));
        }
        let tie = p == 0.5 || (stage.tie_when == TieWhen::OrdersDisagree && flipped == Some(true));
        let (form, prompt) = (forms.of(&row.form), prompt_of(&row.a_prompt_id));
        answers.push(Answer { form, prompt, p, flipped, tie, undecided: false });
    }
    let undecided = undecided(context, &mut prompt_of)?;
    let (forms, clusters) = (forms.names(), prompts.ranks());
    if answers.is_empty() && undecided.is_empty() {
        context.warn("there is no verdict to count, so there are no win rates");
    }
    for (ending, mut answers) in by_form(&answers, |answer| &forms[answer.form as usize]) {
        if ending.is_empty() {
            answers.extend(&undecided);
        }
        let mut measure = |metric: &str, yes_or_no: bool, of: &dyn Fn(&Answer) -> Option<f64>, note: &str| {
            let metric = format!("{metric}{ending}");
            let values = || answers.iter().filter_map(|answer| of(answer));
            if let Some(resamples) = stage.bootstrap {
                let cluster = |answer: &Answer| clusters[answer.prompt as usize];
                let rows: Vec<(u32, f64)> =
                    answers.iter().filter_map(|answer| Some((cluster(answer), of(answer)?))).collect();
                let mut rng = context.seed.generator("evaluate/bootstrap", &metric, 0);
                summary.bootstrapped(&metric, clustered_mean(&rows, resamples, &mut rng), note);
            } else if yes_or_no {
                summary.share(&metric, values().map(|value| value == 1.0), note);
            } else {
                summary.mean(&metric, values(), note);
            }
        };
        let share = |yes: bool| Some(f64::from(u8::from(yes)));
        measure("win_rate", ties != Ties::Half, &|answer| Some(ties.points(answer.p, answer.tie)), ties.note());
        measure("win_rate/decisive", true, &|answer| share(answer.p > 0.5).filter(|_| !answer.tie), "ties left out");
        let without =
            |note: &str| if undecided.is_empty() { note.to_owned() } else { format!("{note}, or no verdict") };
        measure("win_rate/ties", true, &|answer| share(answer.tie), &without(stage.tie_when.note()));
        if !undecided.is_empty() && ending.is_empty() {
            measure("win_rate/undecided", true, &|answer| share(answer.undecided), "the judge gave no verdict");
        }
        let note = "mean probability that the policy's response is better";
        measure("win_rate/soft", false, &|answer| Some(answer.p).filter(|_| !answer.undecided), note);
        let note = "the judge changed its mind with the order";
        measure("win_rate/orders_disagree", true, &|answer| answer.flipped.and_then(share), note);
    }
    let kept = answers.len() as u64;
    Ok(outcome.balance("verdicts", kept + rejected, kept, rejected))
}

/// The comparisons that the judge left without a verdict.
fn undecided(context: &Context<'_>, prompt_of: &mut impl FnMut(&str) -> u32) -> Result<Vec<Answer>> {
    let mut undecided = Vec::new();
    if context.sources("undecided").is_empty() {
        return Ok(undecided);
    }
    for row in context.rows::<Reject>("undecided")? {
        let row = row?;
        // The same comparison once more has its verdict elsewhere.
        if row.input == "comparisons" && row.reason != "duplicate" {
            let prompt = prompt_of(&row.row_id);
            undecided.push(Answer { form: 0, prompt, p: 0.5, flipped: None, tie: true, undecided: true });
        }
    }
    Ok(undecided)
}

/// Numbers of names, from 0 as they come.
#[derive(Default)]
struct Numbers(HashMap<String, u32>);

impl Numbers {
    fn of(&mut self, name: &str) -> u32 {
        let next = self.0.len() as u32;
        self.0.get(name).copied().unwrap_or_else(|| *self.0.entry(name.to_owned()).or_insert(next))
    }

    /// The names by their numbers.
    fn names(self) -> Vec<String> {
        let mut names: Vec<(String, u32)> = self.0.into_iter().collect();
        names.sort_unstable_by_key(|name| name.1);
        names.into_iter().map(|name| name.0).collect()
    }

    /// For each number the place of its name in their order.
    fn ranks(self) -> Vec<u32> {
        let mut names: Vec<(String, u32)> = self.0.into_iter().collect();
        names.sort_unstable();
        let mut ranks = vec![0; names.len()];
        names.iter().zip(0..).for_each(|((_, number), rank)| ranks[*number as usize] = rank);
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_three_rules_for_ties() {
        for (ties, points) in
            [(Ties::Win, [1.0, 1.0, 0.0]), (Ties::Half, [1.0, 0.5, 0.0]), (Ties::Loss, [1.0, 0.0, 0.0])]
        {
            assert_eq!([0.500_1, 0.5, 0.499_9].map(|p| ties.points(p, false)), points, "{ties:?}");
            assert_eq!(ties.points(0.9, true), points[1], "{ties:?}");
        }
    }

    #[test]
    fn the_published_win_rates_of_jpo() {
        // Wins, losses and ties of the released runs on TL;DR and Anthropic Helpful.
        for (wins, losses, ties, rate) in [(293, 61, 146, 0.732), (305, 60, 135, 0.745)] {
            let verdicts = [(1.0, wins), (0.0, losses), (0.5, ties)];
            let points =
                verdicts.iter().flat_map(|&(p, count)| std::iter::repeat_n(Ties::Half.points(p, false), count));
            let mut summary = Summary::default();
            summary.mean("win_rate", points, "");
            let row = &summary.rows[0];
            assert!((row.value - rate).abs() < 1e-12, "{row:?}");
            // Standard error 1.6 points.
            assert!(((row.high.unwrap() - row.low.unwrap()) / (2.0 * 1.96) - 0.016).abs() < 5e-4, "{row:?}");
        }
    }
}
