//! Verdicts as answers about the policy, in few bytes each.

use kit::rows::{Reject, VerdictLabels};
use kit::{Context, Error, Result};
use rayon::prelude::*;

use crate::config::{Evaluate, TieWhen};
use crate::sides::{Sides, policys, reject};

/// One verdict's answer about the policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// P(the policy's response better); one half where the judge gave no verdict.
    pub(crate) p: f64,
    /// The number of its form; none has the answer without a verdict.
    pub(crate) form: u32,
    /// True where the two orders of presentation disagreed.
    pub(crate) flipped: Option<bool>,
    pub(crate) tie: bool,
    /// The judge gave no verdict.
    pub(crate) undecided: bool,
}

/// The answers in the order of the verdicts, behind them those without a verdict.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) list: Vec<Answer>,
    /// How many of them have no verdict.
    pub(crate) undecided: u64,
    /// The forms by their numbers.
    pub(crate) forms: Vec<String>,
    pub(crate) rejected: u64,
    /// The digest of the prompt of each answer, where prompts are drawn.
    prompts: Vec<[u8; 12]>,
}

impl Answers {
    /// Reads the verdicts, and the comparisons that the judge left without one.
    pub(crate) fn read(stage: &Evaluate, context: &Context<'_>, rejects: &mut Vec<Reject>) -> Result<Answers> {
        let sides = Sides::read(context, stage.policy_side)?;
        let mut answers = Answers::default();
        for row in context.rows::<VerdictLabels>("verdicts")? {
            let row = row?;
            let p = match sides.of(&row) {
                Ok(side) => policys(&row, side)?,
                Err(why) => {
                    answers.rejected += 1;
                    rejects.push(reject(row, "side_unclear", why));
                    continue;
                }
            };
            let flipped = row.ab_p.zip(row.ba_p).map(|(ab, ba)| (ab > 0.5 && ba < 0.5) || (ab < 0.5 && ba > 0.5));
            if stage.tie_when == TieWhen::OrdersDisagree && flipped.is_none() && p != 0.5 {
                return Err(Error::data(format!(
                    "verdict `{}` has no probabilities of both orders, so `tie_when: orders_disagree` cannot decide \
                     whether it is a tie: let the judge ask in both orders, or leave `tie_when` out",
                    row.comparison_id
                )));
            }
            let tie = p == 0.5 || (stage.tie_when == TieWhen::OrdersDisagree && flipped == Some(true));
            let form = answers.form(&row.form);
            answers.add(stage, &row.a_prompt_id, Answer { p, form, flipped, tie, undecided: false });
        }
        if !context.sources("undecided").is_empty() {
            for row in context.rows::<Reject>("undecided")? {
                let row = row?;
                // The same comparison once more has its verdict elsewhere.
                if row.input == "comparisons" && row.reason != "duplicate" {
                    answers.undecided += 1;
                    let answer = Answer { p: 0.5, form: u32::MAX, flipped: None, tie: true, undecided: true };
                    answers.add(stage, &row.row_id, answer);
                }
            }
        }
        Ok(answers)
    }

    fn add(&mut self, stage: &Evaluate, prompt: &str, answer: Answer) {
        self.list.push(answer);
        if stage.bootstrap.is_some() {
            self.prompts.push(kit::id_bits(&[prompt]));
        }
    }

    fn form(&mut self, name: &str) -> u32 {
        let known = self.forms.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.forms.push(name.to_owned());
            self.forms.len() - 1
        }) as u32
    }

    /// The number of the prompt of each answer, from 0 in the order of their digests, and how many there are. The
    /// digests are given up.
    pub(crate) fn prompts(&mut self) -> (Vec<u32>, usize) {
        let mut sorted: Vec<([u8; 12], u32)> = std::mem::take(&mut self.prompts).into_iter().zip(0..).collect();
        sorted.par_sort_unstable();
        let (mut numbers, mut prompts) = (vec![0; sorted.len()], 0);
        for of_prompt in sorted.chunk_by(|one, other| one.0 == other.0) {
            of_prompt.iter().for_each(|(_, answer)| numbers[*answer as usize] = prompts);
            prompts += 1;
        }
        (numbers, prompts as usize)
    }
}
