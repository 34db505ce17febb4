//! Sampling responses from a decoder.

use std::collections::VecDeque;

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use crate::model::cache::{KvCache, Slot};
use crate::sample::sampling::{Choice, Logits};
use crate::{Decoder, Error, Result, SamplingRules, Text};

/// A prompt, and one seed for each response wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateRequest<'a> {
    /// The tokens of the prompt, generation prompt included.
    pub ids: &'a [u32],
    /// A response depends on its own seed alone: not on the other responses, nor on how many run at a time.
    pub seeds: Vec<u64>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Its tokens, with the one that ended it where it ended by itself.
    pub ids: Vec<u32>,
    /// Its text: no special tokens, and nothing from a stop text on.
    pub text: String,
    /// Sum of the log-probabilities of all of `ids` under the model at temperature 1.
    pub logp: f64,
    /// The end of the response.
    pub finish: Finish,
}

/// The end of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finish {
    /// The model gave an EOS token.
    Eos,
    /// A stop text appeared.
    Stop,
    /// The limit of tokens or the model's positions were reached.
    Length,
}

impl Finish {
    /// The word for it in tables: `eos`, `stop` or `length`.
    pub fn name(self) -> &'static str {
        match self {
            Finish::Eos => "eos",
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// Logits held at a time: 256 MiB in f32.
pub(crate) const LOGITS: usize = 64 << 20;

impl Decoder {
    /// Samples responses, one list per request, one response per seed.
    ///
    /// A prompt is computed once for all its responses, and so is what prompts of a group have in common; where a
    /// response ends, the next one takes its place. `budget_tokens` bounds the tokens whose keys and values are held,
    /// counting the most that a running response may grow to; it is exceeded only where one prompt with one response
    /// needs more. Which responses run together changes log-probabilities by rounding at most.
    ///
    /// Where long texts are rotated in another way, a text is computed again as a whole when it becomes long: each token
    /// is drawn as after a text of that length.
    ///
    /// # Errors
    /// Rules out of range, an empty prompt, a prompt that leaves no position for a response, a token outside the
    /// vocabulary, logits that are not finite.
    pub fn generate(
        &self,
        text: &Text,
        requests: &[GenerateRequest],
        rules: &SamplingRules,
        budget_tokens: usize,
    ) -> Result<Vec<Vec<Generation>>> {
        rules.validate()?;
        let limit = self.max_positions();
        if let Some((index, request)) = requests.iter().enumerate().find(|(_, request)| request.ids.len() >= limit) {
            return Err(Error::input(format!(
                "prompt {index} has {} tokens; the model has {limit} positions, which leaves none for a response",
                request.ids.len()
            )));
        }
        let mut done = requests.iter().map(|request| vec![None; request.seeds.len()]).collect::<Vec<_>>();
        let fresh = |(request, one): (usize, &GenerateRequest)| {
            let room = rules.max_tokens.min(limit - one.ids.len());
            let start = move |(seed, number): (usize, &u64)| {
                let random = ChaCha12Rng::seed_from_u64(*number);
                Growing { request, seed, text: 0, slot: None, random, ids: Vec::new(), logp: 0.0, room }
            };
            one.seeds.iter().enumerate().map(start).collect::<Vec<_>>()
        };
        let mut waiting = requests.iter().enumerate().flat_map(fresh).collect::<Vec<_>>();
        while !waiting.is_empty() {
            let mut grown = Vec::new();
            for group in self.groups(requests, waiting, budget_tokens) {
                let run = Run { decoder: self, text, rules, requests, long: group.long };
                let (finished, long) = run.all(&group.texts, group.waiting, budget_tokens)?;
                for Finished { request, seed, generation } in finished {
                    done[request][seed] = Some(generation);
                }
                grown.extend(long);
            }
            waiting = grown;
        }
        let whole = |list: Vec<Option<Generation>>| list.into_iter().collect::<Option<Vec<_>>>();
        let whole = done.into_iter().map(whole).collect::<Option<Vec<_>>>();
        whole.ok_or_else(|| Error::internal("a response was never sampled"))
    }

    /// The length above which a text is rotated as a long one.
    fn beyond(&self) -> usize {
        self.config().long_beyond().unwrap_or(usize::MAX)
    }

    /// Cuts responses, in their order, into groups whose texts so far take at most half of the budget: the other half is
    /// for what is added to them. Responses of one request that follow one
    /// another share a text where they have the same.
    fn groups(&self, requests: &[GenerateRequest], waiting: Vec<Growing>, budget_tokens: usize) -> Vec<Group> {
        let most_texts = (LOGITS / self.config().vocab_size).max(1);
        let mut groups: Vec<Group> = Vec::new();
        let mut rows = 0;
        for one in waiting {
            let text = [requests[one.request].ids, &one.ids].concat();
            let long = text.len() > self.beyond();
            match groups.last_mut() {
                Some(group)
                    if group.waiting.last().is_some_and(|last| last.request == one.request)
                        && group.texts.last() == Some(&text) =>
                {
                    group.waiting.push(Growing { text: group.texts.len() - 1, ..one });
                }
                Some(group)
                    if rows + text.len() <= budget_tokens / 2
                        && group.texts.len() < most_texts
                        && group.long == long =>
                {
                    rows += text.len();
                    group.waiting.push(Growing { text: group.texts.len(), ..one });
                    group.texts.push(text);
                }
                _ => {
                    rows = text.len();
                    groups.push(Group { texts: vec![text], waiting: vec![Growing { text: 0, ..one }], long });
                }
            }
        }
        groups
    }
}

/// Responses that are sampled together.
struct Group {
    /// What they go on from.
    texts: Vec<Vec<u32>>,
    waiting: Vec<Growing>,
    /// True where these texts are rotated as long ones.
    long: bool,
}

/// One group on its way.
struct Run<'a> {
    decoder: &'a Decoder,
    text: &'a Text,
    rules: &'a SamplingRules,
    requests: &'a [GenerateRequest<'a>],
    long: bool,
}

/// A response that is growing.
struct Growing {
    request: usize,
    seed: usize,
    /// The text of its group that it goes on from.
    text: usize,
    slot: Option<Slot>,
    random: ChaCha12Rng,
    ids: Vec<u32>,
    logp: f64,
    /// Tokens that it may have in all.
    room: usize,
}

/// A response that ended.
struct Finished {
    request: usize,
    seed: usize,
    generation: Generation,
}

impl Run<'_> {
    /// The responses that ended, and those that have become long: all of such a text is rotated in another way.
    fn all(
        &self,
        texts: &[Vec<u32>],
        waiting: Vec<Growing>,
        budget_tokens: usize,
    ) -> Result<(Vec<Finished>, Vec<Growing>)> {
        let text_rows = texts.iter().map(Vec::len).sum::<usize>();
        let rows = |one: &Growing| self.rows(one, texts[one.text].len());
        let all_rows = waiting.iter().map(rows).sum::<usize>();
        let largest = waiting.iter().map(rows).max().unwrap_or(0);
        let sample_rows = all_rows.min(budget_tokens.saturating_sub(text_rows)).max(largest);
        let texts = texts.iter().map(Vec::as_slice).collect::<Vec<_>>();
        let (mut cache, first_logits) = self.decoder.prefill(&texts, sample_rows)?;
        let first_logits = Logits::new(&first_logits)?;
        let most = (LOGITS / self.decoder.config().vocab_size).max(1);

        let mut waiting = VecDeque::from(waiting);
        let mut growing: Vec<Growing> = Vec::new();
        let mut ended = (Vec::new(), Vec::new());
        while !waiting.is_empty() || !growing.is_empty() {
            // Let in as many as there is room for. Their first token comes from the logits of the text.
            let mut fresh = Vec::new();
            while let Some(mut one) = waiting.pop_front() {
                let rows = self.rows(&one, texts[one.text].len());
                one.slot = if rows > 0 { cache.fork(one.text, rows) } else { None };
                if (one.slot.is_none() && rows > 0) || growing.len() + fresh.len() == most {
                    one.slot.take().into_iter().for_each(|slot| cache.release(slot));
                    waiting.push_front(one);
                    break;
                }
                fresh.push(one);
            }
            let rows = fresh.iter().map(|new| new.text).collect::<Vec<_>>();
            self.choose(&mut fresh, &first_logits, &rows)?;
            self.settle(fresh, &mut growing, &mut ended, &mut cache)?;
            if growing.is_empty() {
                // Everything is released, so the next one fits: the cache was made for the largest.
                continue;
            }
            let tokens = growing.iter().map(|one| Ok((slot_of(one)?, *one.ids.last().expect("it has begun"))));
            let tokens = tokens.collect::<Result<Vec<_>>>()?;
            let logits = Logits::new(&self.decoder.extend(&mut cache, &tokens)?)?;
            let rows = (0..growing.len()).collect::<Vec<_>>();
            self.choose(&mut growing, &logits, &rows)?;
            let stepped = std::mem::take(&mut growing);
            self.settle(stepped, &mut growing, &mut ended, &mut cache)?;
        }
        Ok(ended)
    }

    /// Rows of the cache for what may be added to a response's text of so many tokens, until it has become long. The
    /// last token of a response needs none: nothing follows it.
    fn rows(&self, one: &Growing, tokens: usize) -> usize {
        let grown = tokens - self.requests[one.request].ids.len();
        let until = if self.long { usize::MAX } else { self.decoder.beyond() - tokens };
        (one.room - grown - 1).min(until)
    }

    /// Adds a token to each, from its row of the logits.
    fn choose(&self, growing: &mut [Growing], logits: &Logits, rows: &[usize]) -> Result<()> {
        if growing.is_empty() {
            return Ok(());
        }
        let random = growing.iter_mut().map(|one| &mut one.random).collect();
        let choices = self.rules.choose_from(logits, rows, random)?;
        for (one, Choice { token, logp }) in growing.iter_mut().zip(choices) {
            if !logp.is_finite() {
                return Err(Error::NotFinite(format!(
                    "the logits after token {} of prompt {} are not finite; the model's weights may be damaged or have diverged",
                    one.ids.len(),
                    one.request
                )));
            }
            one.ids.push(token);
            one.logp += logp;
        }
        Ok(())
    }

    /// Sorts responses into those that go on, and those that ended or have become long, whose rows are free again.
    fn settle(
        &self,
        stepped: Vec<Growing>,
        growing: &mut Vec<Growing>,
        (finished, long): &mut (Vec<Finished>, Vec<Growing>),
        cache: &mut KvCache,
    ) -> Result<()> {
        for mut one in stepped {
            let tokens = self.requests[one.request].ids.len() + one.ids.len();
            let ending = self.ending(&one)?;
            if ending.is_none() && (self.long || tokens <= self.decoder.beyond()) {
                growing.push(one);
                continue;
            }
            one.slot.take().into_iter().for_each(|slot| cache.release(slot));
            match ending {
                None => long.push(one),
                Some((finish, text)) => {
                    let generation = Generation { ids: one.ids, text, logp: one.logp, finish };
                    finished.push(Finished { request: one.request, seed: one.seed, generation });
                }
            }
        }
        Ok(())
    }

    /// The end of a response that ends here, with its text; none where it continues.
    fn ending(&self, one: &Growing) -> Result<Option<(Finish, String)>> {
        let (last, before) = one.ids.split_last().expect("a token was added");
        if self.text.eos_ids().contains(last) {
            return Ok(Some((Finish::Eos, self.text.decode(before)?)));
        }
        if !self.rules.stop.is_empty() {
            let text = self.text.decode(&one.ids)?;
            if let Some(at) = self.rules.stop.iter().filter_map(|stop| text.find(stop.as_str())).min() {
                return Ok(Some((Finish::Stop, text[..at].to_owned())));
            }
        }
        if one.ids.len() == one.room {
            return Ok(Some((Finish::Length, self.text.decode(&one.ids)?)));
        }
        Ok(None)
    }
}

fn slot_of(one: &Growing) -> Result<Slot> {
    one.slot.ok_or_else(|| Error::internal("a response of one token went on"))
}
