//! Selection of comparisons: a pure function of the responses, their prompts' neighbours, the settings and the seed.

use std::collections::{BinaryHeap, HashSet};
use std::ops::Range;

use kit::Seed;

use crate::config::{Against, Compare, EqualTexts, Joint, Within};
use crate::responses::{Response, Responses};

/// Two responses that meet, by their places in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Meeting {
    /// The lowest draws stay where there are limits.
    draw: u64,
    /// The one that comes first in the list.
    pub one: u32,
    /// The other.
    pub other: u32,
}

/// The reason why a response is in no comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There is nothing to set it against.
    Alone,
    /// Its prompt has no response that the others are set against.
    NoBaseline,
    /// It is to be set against the responses of `from`, and they do not have its prompt.
    NoCandidate,
    /// Its prompt has no embedding.
    NoEmbedding,
    /// All it could be set against says the same.
    EqualText,
    /// None of its comparisons was drawn.
    NotDrawn,
}

impl Reason {
    /// The word in the table of rejects.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Reason::Alone => "alone",
            Reason::NoBaseline => "no_baseline",
            Reason::NoCandidate => "no_candidate",
            Reason::NoEmbedding => "no_embedding",
            Reason::EqualText => "equal_text",
            Reason::NotDrawn => "not_drawn",
        }
    }

    /// A sentence for it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::Alone => "no other response to set it against",
            Reason::NoBaseline => "its prompt has no response that the others are set against",
            Reason::NoCandidate => "no response in `from` has its prompt",
            Reason::NoEmbedding => "its prompt has no embedding",
            Reason::EqualText => "every response it could be set against says the same",
            Reason::NotDrawn => "none of its comparisons was drawn",
        }
    }
}

/// The chosen comparisons, and the reason for each response that is in none.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// The comparisons, in no particular order.
    pub meetings: Vec<Meeting>,
    /// For each response of the list: why it is in none.
    pub reasons: Vec<Option<Reason>>,
    /// Pairs of one prompt that say the same; left out unless they are to be kept.
    pub equal_texts: u64,
    /// Pairs that were possible by `within` and `joint`, before cap and budget.
    pub possible: u64,
}

/// The prompts that each prompt is set against by their embeddings; nothing for prompts without one.
pub(crate) type Neighbours = Vec<Option<Vec<u32>>>;

/// Chooses the comparisons.
pub(crate) fn select(settings: &Compare, seed: Seed, responses: &Responses, neighbours: &Neighbours) -> Selection {
    let mut selector = Selector {
        responses,
        word: seed.derive("compare/draw", "", 0),
        cap: settings.cap_per_prompt.map(|cap| cap as usize),
        keep_equal: settings.equal_texts == EqualTexts::Keep,
        proposals: Proposals { limit: settings.limit_of_proposals(), heap: BinaryHeap::new() },
        selection: Selection { reasons: vec![Some(Reason::Alone); responses.list.len()], ..Selection::default() },
    };
    if let Some(within) = &settings.within {
        responses.ranges.iter().for_each(|range| selector.within(within, range.clone()));
    }
    match settings.joint {
        Some(Joint::Random(count)) => selector.joint_random(seed, count),
        Some(Joint::Nearest(_)) => selector.joint_nearest(neighbours),
        None => {}
    }
    selector.finish(settings)
}

impl Compare {
    /// Number of proposals to keep, where only the budget limits the choice: those with the lowest draws.
    fn limit_of_proposals(&self) -> Option<usize> {
        if self.cap_per_prompt.is_some() { None } else { self.budget.and_then(|budget| usize::try_from(budget).ok()) }
    }
}

/// The proposals with the lowest draws.
struct Proposals {
    limit: Option<usize>,
    heap: BinaryHeap<Meeting>,
}

impl Proposals {
    fn push(&mut self, meeting: Meeting) {
        self.heap.push(meeting);
        if self.limit.is_some_and(|limit| self.heap.len() > limit) {
            self.heap.pop();
        }
    }
}

struct Selector<'a> {
    responses: &'a Responses,
    word: u64,
    cap: Option<usize>,
    keep_equal: bool,
    proposals: Proposals,
    selection: Selection,
}

impl Selector<'_> {
    fn response(&self, at: u32) -> &Response {
        &self.responses.list[at as usize]
    }

    fn meeting(&self, one: u32, other: u32) -> Meeting {
        let (one, other) = (one.min(other), one.max(other));
        // By the keys and not by the places, so that other prompts in the data change nothing for these two.
        let keys = [self.response(one).key, self.response(other).key];
        let (low, high) = (keys[0].min(keys[1]), keys[0].max(keys[1]));
        let draw = [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64];
        Meeting { draw: draw.into_iter().fold(self.word, |word, part| mixed(word ^ part)), one, other }
    }

    fn propose(&mut self, meeting: Meeting) {
        self.selection.possible += 1;
        for at in [meeting.one, meeting.other] {
            self.selection.reasons[at as usize] = Some(Reason::NotDrawn);
        }
        self.proposals.push(meeting);
    }

    /// Comparisons of one prompt.
    fn within(&mut self, within: &Within, range: Range<usize>) {
        let all: Vec<u32> = (range.start as u32..range.end as u32).collect();
        let mut meetings = Vec::new();
        match within {
            Within::All | Within::Random(_) => {
                for (at, &one) in all.iter().enumerate() {
                    meetings.extend(all[at + 1..].iter().map(|&other| (one, other)));
                }
            }
            Within::Against(against) => {
                let given: Vec<u32> = match against {
                    Against::Best => self.best(&all).into_iter().collect(),
                    Against::Baseline | Against::Model(_) => {
                        all.iter().copied().filter(|&at| self.response(at).given).collect()
                    }
                };
                let others: Vec<u32> = all.iter().copied().filter(|at| !given.contains(at)).collect();
                let (lonely, reason) =
                    if given.is_empty() { (&others, Reason::NoBaseline) } else { (&given, Reason::NoCandidate) };
                if given.is_empty() || others.is_empty() && matches!(against, Against::Baseline) {
                    lonely.iter().for_each(|&at| self.selection.reasons[at as usize] = Some(reason));
                }
                meetings.extend(others.iter().flat_map(|&one| given.iter().map(move |&other| (one, other))));
            }
        }
        let (equal, different): (Vec<_>, Vec<_>) =
            meetings.iter().partition(|(one, other)| self.response(*one).text == self.response(*other).text);
        self.selection.equal_texts += equal.len() as u64;
        if !self.keep_equal {
            for at in equal.into_iter().flat_map(|(one, other)| [one, other]) {
                self.selection.reasons[at as usize] = Some(Reason::EqualText);
            }
            meetings = different;
        }
        let mut meetings: Vec<Meeting> = meetings.iter().map(|&(one, other)| self.meeting(one, other)).collect();
        // The responses of these are not alone, drawn or not.
        for at in meetings.iter().flat_map(|meeting| [meeting.one, meeting.other]) {
            self.selection.reasons[at as usize] = Some(Reason::NotDrawn);
        }
        if let Within::Random(count) = within {
            lowest(&mut meetings, *count as usize);
        }
        if let Some(cap) = self.cap {
            // No prompt keeps more than the cap, so the others cannot be among those that stay.
            let possible = meetings.len();
            lowest(&mut meetings, cap);
            self.selection.possible += (possible - meetings.len()) as u64;
        }
        meetings.into_iter().for_each(|meeting| self.propose(meeting));
    }

    fn best(&self, all: &[u32]) -> Option<u32> {
        let scored = all.iter().filter_map(|&at| self.response(at).score.map(|score| (score, at)));
        scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).map(|(_, at)| at)
    }

    /// Each prompt with some others, drawn.
    fn joint_random(&mut self, seed: Seed, count: u32) {
        let all = 0..self.responses.prompts.len() as u32;
        let prompts: Vec<u32> = all.filter(|&prompt| self.responses.inside(prompt).next().is_some()).collect();
        if prompts.len() < 2 {
            return;
        }
        let mut met = HashSet::new();
        for (place, &prompt) in prompts.iter().enumerate() {
            let mut others = HashSet::new();
            let wanted = (count as usize).min(prompts.len() - 1);
            for draw in 0.. {
                if others.len() == wanted {
                    break;
                }
                let step = seed.derive("compare/joint", self.responses.prompts.get(prompt), draw);
                let step = 1 + (step % (prompts.len() as u64 - 1)) as usize;
                let other = prompts[(place + step) % prompts.len()];
                if others.insert(other) && met.insert((prompt.min(other), prompt.max(other))) {
                    self.join(prompt, other);
                }
            }
        }
    }

    /// Each prompt with its neighbours.
    fn joint_nearest(&mut self, neighbours: &Neighbours) {
        let mut met = HashSet::new();
        for (prompt, others) in neighbours.iter().enumerate() {
            match others {
                Some(others) => {
                    for &other in others {
                        let prompt = prompt as u32;
                        if met.insert((prompt.min(other), prompt.max(other))) {
                            self.join(prompt, other);
                        }
                    }
                }
                None => {
                    for at in self.responses.inside(prompt as u32) {
                        let reason = &mut self.selection.reasons[at as usize];
                        if *reason == Some(Reason::Alone) {
                            *reason = Some(Reason::NoEmbedding);
                        }
                    }
                }
            }
        }
    }

    /// One response of each prompt, drawn from those of `from`.
    fn join(&mut self, prompt: u32, other: u32) {
        let responses = self.responses;
        // The lowest draw of all pairs would need all pairs; the lowest of each side against the other prompt will do.
        let side = |prompt: u32, other: u32| {
            let first = responses.inside(other).next().expect("prompts that meet have responses");
            let salt = self.response(first).key as u64;
            let draw = |at: &u32| {
                let key = self.response(*at).key;
                (mixed(mixed(self.word ^ salt ^ key as u64) ^ (key >> 64) as u64), *at)
            };
            responses.inside(prompt).min_by_key(draw).expect("prompts that meet have responses")
        };
        let (one, two) = (side(prompt, other), side(other, prompt));
        for at in responses.inside(prompt).chain(responses.inside(other)) {
            self.selection.reasons[at as usize] = Some(Reason::NotDrawn);
        }
        self.propose(self.meeting(one, two));
    }

    /// Applies cap and budget.
    fn finish(self, settings: &Compare) -> Selection {
        let Selector { responses, mut selection, proposals, .. } = self;
        let budget = settings.budget.and_then(|budget| usize::try_from(budget).ok()).unwrap_or(usize::MAX);
        let mut meetings = proposals.heap.into_sorted_vec();
        if let Some(cap) = settings.cap_per_prompt {
            let mut taken = vec![0; responses.prompts.len()];
            meetings.retain(|meeting| {
                let [one, other] = [meeting.one, meeting.other].map(|at| responses.list[at as usize].prompt as usize);
                let room = taken[one] < cap && taken[other] < cap;
                if room {
                    taken[one] += 1;
                    taken[other] += u32::from(other != one);
                }
                room
            });
        }
        meetings.truncate(budget);
        for at in meetings.iter().flat_map(|meeting| [meeting.one, meeting.other]) {
            selection.reasons[at as usize] = None;
        }
        Selection { meetings, ..selection }
    }
}

/// Keeps the lowest draws.
fn lowest(meetings: &mut Vec<Meeting>, count: usize) {
    if meetings.len() > count {
        meetings.sort_unstable();
        meetings.truncate(count);
    }
}

/// The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of the word decides on every bit of the draw.
fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::responses::tests::responses;

    fn settings(yaml: serde_json::Value) -> Compare {
        serde_json::from_value(harness::with(serde_json::json!({"from": "responses"}), &yaml)).unwrap()
    }

    /// The comparisons as `prompt/id-prompt/id`, sorted, and the reasons of the other responses.
    fn check(yaml: serde_json::Value, list: &[&str], expected: &[&str], reasons: &[&str]) {
        let responses = responses(list).unwrap();
        let name = |at: u32| {
            let response = &responses.list[at as usize];
            format!("{}/{}", responses.prompts.get(response.prompt), responses.ids.get(response.row))
        };
        let selection = select(&settings(yaml.clone()), Seed(1), &responses, &vec![]);
        let mut found: Vec<_> =
            selection.meetings.iter().map(|meeting| format!("{}-{}", name(meeting.one), name(meeting.other))).collect();
        found.sort();
        assert_eq!(found, expected, "{yaml}");
        let found: Vec<_> = (0..responses.list.len())
            .filter_map(|at| selection.reasons[at].map(|reason| format!("{} {}", name(at as u32), reason.word())))
            .collect();
        assert_eq!(found, reasons, "{yaml}");
    }

    #[test]
    fn ways_to_meet() {
        use serde_json::json;
        let list = ["p/1/x", "!p/2/y", "p/3/x", "q/1/z", "r/1/v", "r/2/v"];
        check(
            json!({"within": "all"}),
            &list,
            &["p/1-p/2", "p/2-p/3"],
            &["q/1 alone", "r/1 equal_text", "r/2 equal_text"],
        );
        check(
            json!({"within": "all", "equal_texts": "keep"}),
            &list,
            &["p/1-p/2", "p/1-p/3", "p/2-p/3", "r/1-r/2"],
            &["q/1 alone"],
        );
        check(
            json!({"within": {"against": {"model": "m"}}}),
            &list,
            &["p/1-p/2", "p/2-p/3"],
            &["q/1 no_baseline", "r/1 no_baseline", "r/2 no_baseline"],
        );
        // Scores rise along the list.
        check(json!({"within": {"against": "best"}}), &["p/1/a", "p/2/b", "p/3/c"], &["p/1-p/3", "p/2-p/3"], &[]);
        check(json!({"joint": {"random": 5}}), &["p/1/x", "q/1/x", "r/1/x"], &["p/1-q/1", "p/1-r/1", "q/1-r/1"], &[]);
        check(json!({"joint": {"random": 5}}), &["p/1/x"], &[], &["p/1 alone"]);
        check(json!({"within": "all", "joint": {"random": 1}}), &[], &[], &[]);
    }

    #[test]
    fn neighbours_meet_once() {
        let responses = responses(&["p/1/x", "p/2/y", "q/1/x", "r/1/x", "s/1/x"]).unwrap();
        let neighbours = vec![Some(vec![1]), Some(vec![0]), Some(vec![0]), None];
        let selection =
            select(&settings(serde_json::json!({"joint": {"nearest": 1}})), Seed(1), &responses, &neighbours);
        let mut met: Vec<_> = selection
            .meetings
            .iter()
            .map(|meeting| [meeting.one, meeting.other].map(|at| responses.list[at as usize].prompt))
            .collect();
        met.sort();
        assert_eq!(met, [[0, 1], [0, 2]]);
        assert_eq!(selection.reasons[4], Some(Reason::NoEmbedding));
    }

    fn any_responses() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::btree_set((0..6_u8, 0..8_u8), 0..40)
            .prop_map(|set| set.into_iter().map(|(p, r)| format!("p{p}/r{r}/{}", r % 5)).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn limits_are_exact(
            list in any_responses(),
            random in proptest::option::of(1..5_u32),
            joint in proptest::option::of(1..4_u32),
            cap in proptest::option::of(1..5_u32),
            budget in proptest::option::of(1..20_u64),
        ) {
            let list: Vec<&str> = list.iter().map(String::as_str).collect();
            let responses = responses(&list).unwrap();
            let mut settings = settings(serde_json::json!({"within": "all"}));
            settings.within = Some(random.map_or(Within::All, Within::Random));
            settings.joint = joint.map(Joint::Random);
            let free = select(&settings, Seed(3), &responses, &vec![]);
            settings.cap_per_prompt = cap;
            settings.budget = budget;
            let bound = select(&settings, Seed(3), &responses, &vec![]);
            prop_assert_eq!(free.possible, free.meetings.len() as u64);
            let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
            let prompts = |meeting: &Meeting| {
                let mut prompts = [meeting.one, meeting.other].map(|at| responses.list[at as usize].prompt).to_vec();
                prompts.dedup();
                prompts
            };
            for prompt in bound.meetings.iter().flat_map(prompts) {
                *counts.entry(prompt).or_insert(0) += 1;
            }
            prop_assert!(cap.is_none_or(|cap| counts.values().all(|&count| count <= cap)));
            let distinct: HashSet<_> = bound.meetings.iter().map(|meeting| (meeting.one, meeting.other)).collect();
            prop_assert_eq!(distinct.len(), bound.meetings.len());
            prop_assert!(bound.meetings.iter().all(|meeting| free.meetings.contains(meeting)));
            match (cap, budget) {
                // Nothing could be added: what was left out finds a full prompt.
                (Some(cap), None) => for left in free.meetings.iter().filter(|meeting| !bound.meetings.contains(meeting)) {
                    prop_assert!(prompts(left).iter().any(|prompt| counts.get(prompt) == Some(&cap)));
                },
                (None, Some(budget)) => {
                    prop_assert_eq!(bound.meetings.len() as u64, budget.min(free.meetings.len() as u64));
                }
                (Some(_), Some(budget)) => prop_assert!(bound.meetings.len() as u64 <= budget),
                (None, None) => prop_assert_eq!(&bound.meetings, &free.meetings),
            }
            let used: HashSet<u32> = bound.meetings.iter().flat_map(|meeting| [meeting.one, meeting.other]).collect();
            for (at, reason) in bound.reasons.iter().enumerate() {
                prop_assert_eq!(reason.is_none(), used.contains(&(at as u32)));
            }
        }
    }

    #[test]
    fn every_prompt_gets_its_random_comparisons() {
        let list: Vec<String> = (0..30).map(|at| format!("p{}/r{}/{at}", at / 5, at % 5)).collect();
        let responses = responses(&list.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let selection = select(&settings(serde_json::json!({"within": {"random": 3}})), Seed(1), &responses, &vec![]);
        let mut counts = [0; 6];
        selection.meetings.iter().for_each(|meeting| counts[responses.list[meeting.one as usize].prompt as usize] += 1);
        assert_eq!(counts, [3; 6]);
        let other = select(&settings(serde_json::json!({"within": {"random": 3}})), Seed(2), &responses, &vec![]);
        assert_ne!(selection.meetings, other.meetings);
    }
}
