//! The search for nearest prompts, in shards that any process can compute, and the comparisons made of what it found.
//!
//! Which shards there are follows from the prompts alone, and a shard keeps the neighbours of its prompts. Each process
//! parts the prompts into lists itself. An exact search is one shard: in parts, it would make each product twice.

use std::ops::Range;

use kit::{Context, Outcome, Result, ShardOutput, Sharded, kept, shard_ranges};

use crate::config::Compare;
use crate::ivf::{Lists, Parted, Recall, Rows};
use crate::nearest::nearest;
use crate::responses::{Embedded, Responses, Vectors};
use crate::selection::Neighbours;

/// Prompts of a shard, at least: with few of them the rows of a list are copied for few products.
const LEAST: usize = 8192;
/// Shards, at most. Each process reads the vectors and parts the prompts, which costs more than the search of a shard,
/// so that more processes than this would do little else.
const MOST: usize = 32;
/// The part of the exact neighbours below which a search is warned of.
const LOW_RECALL: f64 = 0.9;

/// The nearest prompts.
#[derive(Debug, Default)]
pub(crate) struct Nearest {
    /// Those of each prompt.
    pub neighbours: Neighbours,
    /// The part of the exact ones that was found, where not all were compared.
    pub recall: Option<f64>,
}

/// Search for the nearest prompts.
pub(crate) struct Search<'a> {
    settings: &'a Compare,
    context: &'a Context<'a>,
    /// Neighbours of a prompt.
    count: usize,
    responses: Responses,
    /// True for prompts with responses that can meet those of other prompts.
    wanted: Vec<bool>,
    embedded: Embedded,
    /// None where the search is exact.
    lists: Option<Lists>,
    vectors: Option<Vectors>,
    parted: Option<Parted>,
}

impl<'a> Search<'a> {
    /// Reads the responses and the ids of the embeddings.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn new(settings: &'a Compare, context: &'a Context<'a>, count: u32) -> Result<Search<'a>> {
        let responses = Responses::read(settings, context)?;
        let inside = |range: &Range<usize>| responses.list[range.clone()].iter().any(|response| !response.outside);
        let wanted: Vec<bool> = responses.ranges.iter().map(inside).collect();
        let embedded = Embedded::read(context, &responses.prompts, &wanted)?;
        let lists = settings.lists(embedded.prompts.len() as u64);
        let (vectors, parted) = (None, None);
        Ok(Search { settings, context, count: count as usize, responses, wanted, embedded, lists, vectors, parted })
    }

    fn nearest(&mut self) -> Result<Nearest> {
        let mut found: Vec<Vec<u32>> = Vec::with_capacity(self.embedded.prompts.len());
        for shard in 0..self.shards().len() {
            found.extend(kept::<Vec<Vec<u32>>>(self.context, shard)?);
        }
        self.parted = None;
        let mut recall = None;
        if let Some(lists) = self.lists {
            let Vectors { matrix, width } = read_once(&mut self.vectors, || self.embedded.vectors(self.context))?;
            let rows = Rows::new(matrix, *width, &self.context.interrupt);
            let found = rows.recall(self.count, &found, self.context.seed)?;
            tell(self.context, lists, &found);
            recall = found.part;
        }
        self.vectors = None;
        let prompts = &self.embedded.prompts;
        let mut neighbours = vec![None; self.wanted.len()];
        for (&prompt, others) in prompts.iter().zip(found) {
            let others = others.into_iter().map(|other| prompts[other as usize]).collect();
            neighbours[prompt as usize] = Some(others);
        }
        let missing = self.wanted.iter().zip(&neighbours).filter(|(wanted, found)| **wanted && found.is_none()).count();
        if missing > 0 {
            self.context.warn(format!("{missing} prompts have no embedding and are left out of joint comparisons"));
        }
        Ok(Nearest { neighbours, recall })
    }
}

impl Sharded for Search<'_> {
    fn unit(&self) -> &'static str {
        "prompts"
    }

    fn shards(&self) -> Vec<Range<usize>> {
        let prompts = self.embedded.prompts.len();
        shard_ranges(std::iter::repeat_n(1, prompts), shard_size(prompts, self.lists.is_some()))
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        let interrupt = &self.context.interrupt;
        let Vectors { matrix, width } = read_once(&mut self.vectors, || self.embedded.vectors(self.context))?;
        let found = match self.lists {
            None => nearest(matrix, *width, self.count, interrupt)?,
            Some(lists) => {
                let rows = Rows::new(matrix, *width, interrupt);
                let parted = read_once(&mut self.parted, || rows.part(lists, self.context.seed))?;
                rows.nearest_in_lists(self.count, parted, shard)?
            }
        };
        output.keep(&found)
    }

    fn finish(&mut self, _rejected: u64) -> Result<Outcome> {
        let nearest = self.nearest()?;
        self.settings.meet(self.context, std::mem::take(&mut self.responses), &nearest)
    }
}

/// Shards of a search of so many prompts.
pub(crate) fn shards(prompts: u64, in_lists: bool) -> u64 {
    prompts.div_ceil(shard_size(prompts as usize, in_lists) as u64)
}

fn shard_size(prompts: usize, in_lists: bool) -> usize {
    if in_lists { prompts.div_ceil(MOST).max(LEAST) } else { prompts.max(1) }
}

/// The value, made where it is not there yet.
fn read_once<T>(value: &mut Option<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    Ok(match value {
        Some(value) => value,
        None => value.insert(make()?),
    })
}

/// Says how the neighbours were looked for, and how many of the exact ones that found.
fn tell(context: &Context<'_>, lists: Lists, recall: &Recall) {
    context.note(searched(lists));
    let Some(part) = recall.part else { return };
    let (percent, asked) = (100.0 * part, recall.asked);
    context
        .note(format!("{percent:.1} % of the nearest prompts were found, by the exact ones of {asked} prompts drawn"));
    if part < LOW_RECALL {
        context.warn("many of the nearest prompts were not found: raise `probes` of `neighbours: {ivf: ...}`");
    }
}

/// A sentence on what is compared.
pub(crate) fn searched(Lists { lists, probes }: Lists) -> String {
    format!("nearest prompts: those of {probes} of {lists} lists for each prompt; `neighbours: exact` compares all")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use harness::Place;
    use kit::rows::{Comparison, Embedding, Message, Response};
    use kit::{Error, Event, Job, Stage, compute_shards, finish_shards};
    use serde_json::{Value, json};

    use super::*;

    fn stage(neighbours: Value) -> Box<dyn Stage> {
        let yaml = json!({"from": "x", "embeddings": "z", "joint": {"nearest": 2}, "neighbours": neighbours});
        (crate::KIND.configure)(yaml).unwrap().0
    }

    fn place(prompts: usize) -> Place {
        let responses = (0..prompts).map(|at| Response {
            response_id: "1".to_owned(),
            prompt_id: format!("p{at:05}"),
            prompt: vec![Message::new("user", "x")],
            messages: vec![Message::new("assistant", "y")],
            text: "y".to_owned(),
            k: 0,
            count: 1,
            logp: None,
            tokens: None,
            finish: None,
            score: None,
            model: None,
            source_file: None,
            source_line: None,
        });
        let embeddings = (0..prompts).map(|at| Embedding {
            prompt_id: format!("p{at:05}"),
            embedding: (0..4).map(|value| ((at * 4 + value) as f32).powi(2).sin()).collect(),
            source_file: None,
            source_line: None,
        });
        Place::new().seeded(3).table("from", responses.collect()).table("embeddings", embeddings.collect())
    }

    /// Computes some shards as a process of its own does.
    fn worker(place: &Place, stage: &dyn Stage, which: Range<usize>) {
        place
            .run("out", |context| {
                let Job::Sharded(mut work) = stage.job(context)? else { panic!("a search is work in shards") };
                compute_shards(context, &mut *work, which.clone()).map(drop)
            })
            .unwrap();
    }

    /// The shards that were computed, in order.
    fn committed(place: &Place) -> Vec<u64> {
        let number = |event: &Event| if let Event::ShardCommitted { shard, .. } = event { Some(*shard) } else { None };
        place.events.lock().unwrap().iter().filter_map(number).collect()
    }

    /// The files of the result, and the outcome.
    fn result(place: &Place, outcome: &Outcome) -> (BTreeMap<String, Vec<u8>>, Value) {
        let mut files = place.bytes("out/comparisons");
        files.extend(place.bytes("out/rejects").into_iter().map(|(name, bytes)| (format!("rejects/{name}"), bytes)));
        (files, serde_json::to_value(outcome).unwrap())
    }

    #[test]
    fn shards_of_many_processes_are_the_search_of_one() {
        let stage = stage(json!({"ivf": {"lists": 60, "probes": 4}}));
        let alone = place(20_000);
        let outcome = alone.stage("out", &*stage).unwrap();
        assert!(outcome.figures["recall of nearest prompts"].as_f64().unwrap() > 0.9, "{outcome:?}");
        let wanted = result(&alone, &outcome);
        let parts = place(20_000);
        for which in [2..3, 0..1, 0..2] {
            worker(&parts, &*stage, which);
        }
        let ended = parts.run("out", |context| {
            let Job::Sharded(mut work) = stage.job(context)? else { panic!("a search is work in shards") };
            assert_eq!(work.shards(), [0..8192, 8192..16_384, 16_384..20_000]);
            let rejected = compute_shards(context, &mut *work, 0..3)?;
            finish_shards(context, &mut *work, rejected)
        });
        assert_eq!(committed(&parts), [2, 0, 1]);
        assert!(result(&parts, &ended.unwrap()) == wanted, "shards of others give other bytes");

        let mut killed = place(20_000);
        for shard in 1..=3 {
            *killed.stop_after.lock().unwrap() = Some(shard);
            assert!(matches!(killed.stage("out", &*stage), Err(Error::Interrupted)));
            killed = killed.restarted();
        }
        let outcome = killed.stage("out", &*stage).unwrap();
        assert_eq!(committed(&killed), [0, 1, 2]);
        assert!(result(&killed, &outcome) == wanted, "killed after each shard it gives other bytes");
    }

    #[test]
    fn an_exact_search_is_one_shard() {
        let stage = stage(json!("exact"));
        let place = place(600);
        worker(&place, &*stage, 0..1);
        let outcome = place.stage("out", &*stage).unwrap();
        assert_eq!((committed(&place), outcome.figures["prompts"].clone()), (vec![0], json!(600)));
        assert!(!place.rows::<Comparison>("out/comparisons").is_empty());
    }

    #[test]
    fn shards_are_as_many_as_are_worth_it() {
        let of = |prompts| shards(prompts, true);
        assert_eq!([0, 1, 8192, 8193, 100_000, 1_000_000, 1_000_000_000].map(of), [0, 1, 1, 2, 13, 32, 32]);
        assert_eq!([0, 1, 99_999].map(|prompts| shards(prompts, false)), [0, 1, 1]);
    }
}
