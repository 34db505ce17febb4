//! The request for one token, and the log-probs of the levels of a scale in its reply.

use endpoint::{Content, Endpoint, Form, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::labels::{Labels, log_sum};
use crate::modes::Rating;
use crate::protocol::OneToken;
use crate::reply::{TOKEN, alternatives, known};

/// As [`OneToken`], for any number of labels.
pub(crate) struct LevelTokens {
    one: OneToken,
    levels: Vec<Vec<String>>,
}

/// The alternatives to the first token, as far as they matter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LevelAnswer {
    /// The log-prob of each level, its spellings summed; none where it was not returned.
    pub(crate) levels: Vec<Option<f64>>,
    /// The log-prob of a level that was not returned is at most this.
    pub(crate) bound: f64,
    /// The likeliest token and its log-prob.
    pub(crate) likeliest: (String, f64),
    /// Number of alternatives with a log-prob.
    pub(crate) alternatives: usize,
}

impl LevelTokens {
    pub(crate) fn new(endpoint: &Endpoint, rating: &Rating) -> LevelTokens {
        LevelTokens { one: OneToken::new(endpoint, &Labels::default()), levels: rating.levels.clone() }
    }

    /// The questions that find out how the endpoint's tokenizer spells each level.
    pub(crate) fn probes(&self) -> Vec<String> {
        let first = self.levels.iter().filter_map(|level| level.first());
        first.map(|level| format!("Answer with this word or number alone: {}", level.trim())).collect()
    }

    /// The fault of a level, by the answer to its probe: it is not one token.
    pub(crate) fn fault(&self, level: usize, answer: &LevelAnswer) -> Option<String> {
        let token = answer.likeliest.0.trim();
        let begins = |spelling: &String| {
            let spelling = spelling.trim();
            spelling.len() > token.len() && spelling.starts_with(token)
        };
        let cut = answer.levels[level].is_none() && !token.is_empty();
        let spelling = self.levels[level].iter().find(|spelling| cut && begins(spelling))?;
        Some(format!(
            "the level {spelling:?} is more than one token there: it begins with {token:?}, and an endpoint shows the \
             first token alone; choose other spellings in `rating.levels`, such as digits"
        ))
    }
}

impl Protocol for LevelTokens {
    type Question = String;
    type Answer = LevelAnswer;

    const PATH: &'static str = OneToken::PATH;
    const LONGEST: u64 = OneToken::LONGEST;
    const OURS: &'static [(&'static str, &'static str)] = OneToken::OURS;

    fn unit(&self) -> &'static str {
        "rating"
    }

    fn tokens(&self, questions: &[String]) -> u64 {
        questions.len() as u64
    }

    fn forms(&self) -> Vec<Form> {
        self.one.forms()
    }

    fn probe(&self, form: Form) -> Vec<String> {
        self.one.probe(form)
    }

    fn fields(&self, questions: &[String], form: Form) -> Map<String, Value> {
        self.one.fields(questions, form)
    }

    fn read(&self, _questions: &[String], reply: &Value) -> Content<LevelAnswer> {
        match alternatives(reply) {
            Ok(all) => of_alternatives(&all, &self.levels),
            Err(content) => content,
        }
    }

    fn wanted(&self) -> String {
        self.one.wanted()
    }
}

/// The levels' share of the returned alternatives; those without a log-prob are as if they were not returned.
fn of_alternatives(all: &[(String, Option<f64>)], levels: &[Vec<String>]) -> Content<LevelAnswer> {
    let top: Vec<(&str, f64)> =
        all.iter().filter_map(|(token, logp)| Some((token.as_str(), logp.filter(known)?))).collect();
    let logps: Vec<f64> = top.iter().map(|(_, logp)| *logp).collect();
    let Some(likeliest) = top.iter().max_by(|one, other| one.1.total_cmp(&other.1)) else {
        return Content::NoEvidence(format!("none of {} alternatives has a log-prob", all.len()));
    };
    let sum: f64 = logps.iter().map(|logp| logp.exp()).sum();
    if sum > 1.0 + crate::reply::EXCESS {
        return Content::NoEvidence(format!("{} alternatives with {sum:.4} of probability", top.len()));
    }
    let of = |spellings: &Vec<String>| {
        let found = (0..top.len()).filter(|&at| spellings.iter().any(|spelling| spelling == top[at].0));
        let found: Vec<usize> = found.collect();
        (!found.is_empty()).then(|| log_sum(&logps, &found))
    };
    let found: Vec<Option<f64>> = levels.iter().map(of).collect();
    let missing = found.iter().filter(|level| level.is_none()).count().max(1) as f64;
    let smallest = logps.iter().copied().fold(f64::INFINITY, f64::min);
    // What the alternatives leave is shared; where rounding leaves nothing, so little that no double shows it.
    let bound = smallest.min(((1.0 - sum).max(f64::EPSILON) / missing).ln());
    let likeliest = (kit::redact(&likeliest.0.chars().take(TOKEN).collect::<String>()), likeliest.1);
    Content::Answers(vec![LevelAnswer { levels: found, bound, likeliest, alternatives: top.len() }])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn levels() -> Vec<Vec<String>> {
        ["1", "2", "3"].map(|level| vec![level.to_owned(), format!(" {level}")]).into()
    }

    fn of(top: &[(&str, f64)]) -> LevelAnswer {
        let all: Vec<_> = top.iter().map(|(token, p)| ((*token).to_owned(), Some(p.ln()))).collect();
        match of_alternatives(&all, &levels()) {
            Content::Answers(answers) => answers[0].clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn spellings_are_summed_and_missing_levels_share_what_is_left() {
        let answer = of(&[("2", 0.5), (" 2", 0.2), ("The", 0.1)]);
        assert!((answer.levels[1].unwrap() - 0.7f64.ln()).abs() < 1e-12);
        assert_eq!((answer.levels[0], answer.levels[2], answer.alternatives), (None, None, 3));
        // 0.2 is left for two levels; each is no likelier than the least likely token.
        assert!((answer.bound - 0.1f64.ln()).abs() < 1e-12);
        assert!((of(&[("2", 0.9), ("The", 0.09)]).bound - 0.005f64.ln()).abs() < 1e-9);
        assert_eq!(of(&[("2", 1.0)]).bound, (f64::EPSILON / 2.0).ln());
    }

    #[test]
    fn a_level_of_several_tokens_is_found_by_its_probe() {
        let rating: Rating =
            serde_json::from_value(json!({"levels": [["poor"], ["excellent", " excellent"]]})).unwrap();
        let endpoint: Endpoint = serde_json::from_value(json!({"url": "http://h/v1", "model": "m"})).unwrap();
        let tokens = LevelTokens::new(&endpoint, &rating);
        assert_eq!(tokens.probes().len(), 2);
        let answer = |token: &str, level: Option<f64>| LevelAnswer {
            levels: vec![None, level],
            bound: -9.0,
            likeliest: (token.to_owned(), -0.1),
            alternatives: 5,
        };
        let fault = tokens.fault(1, &answer("excell", None)).unwrap();
        assert!(fault.contains("begins with \"excell\""), "{fault}");
        assert_eq!(tokens.fault(1, &answer("excellent", Some(-0.1))), None);
        // A judge that says something else is not at fault here.
        assert_eq!(tokens.fault(1, &answer("<think>", None)), None);
    }
}
