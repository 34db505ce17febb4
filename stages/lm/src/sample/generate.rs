//! Sampling responses from a decoder.

use std::collections::VecDeque;

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use crate::model::cache::{KvCache, LONG, Slot};
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
        let long = |request: &GenerateRequest| self.config().long_beyond().map(|beyond| request.ids.len() > beyond);
        if let Some(beyond) = self.config().long_beyond() {
            // The last token of a response needs no row.
            let most = |request: &GenerateRequest| (request.ids.len() + rules.max_tokens - 1).min(limit - 1);
            let crosses = |request: &&GenerateRequest| long(request) == Some(false) && most(request) > beyond;
            if let Some(index) = requests.iter().position(|request| crosses(&request)) {
                let (tokens, most) = (requests[index].ids.len(), rules.max_tokens);
                return Err(Error::input(format!(
                    "prompt {index} has {tokens} tokens and its response up to {most}: together they may grow beyond \
                     {beyond} tokens, {LONG}; lower `max_tokens`, or leave such prompts out"
                )));
            }
        }
        let mut done = requests.iter().map(|request| vec![None; request.seeds.len()]).collect::<Vec<_>>();
        for group in self.groups(requests, budget_tokens) {
            let requests = group.iter().map(|index| &requests[*index]).collect::<Vec<_>>();
            let run = Run { decoder: self, text, rules, requests: &requests };
            for finished in run.all(budget_tokens)? {
                done[group[finished.request]][finished.seed] = Some(finished.generation);
            }
        }
        let whole = |list: Vec<Option<Generation>>| list.into_iter().collect::<Option<Vec<_>>>();
        let whole = done.into_iter().map(whole).collect::<Option<Vec<_>>>();
        whole.ok_or_else(|| Error::internal("a response was never sampled"))
    }

    /// Cuts the requests with seeds, in their order, into groups whose prompts take at most half of the budget: the
    /// other half is for responses.
    fn groups(&self, requests: &[GenerateRequest], budget_tokens: usize) -> Vec<Vec<usize>> {
        let most_prompts = (LOGITS / self.config().vocab_size).max(1);
        let beyond = self.config().long_beyond().unwrap_or(usize::MAX);
        let long = |index: usize| requests[index].ids.len() > beyond;
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut rows = 0;
        for (index, request) in requests.iter().enumerate().filter(|(_, request)| !request.seeds.is_empty()) {
            let fits = rows + request.ids.len() <= budget_tokens / 2;
            match groups.last_mut() {
                Some(group) if fits && group.len() < most_prompts && long(group[0]) == long(index) => {
                    group.push(index);
                    rows += request.ids.len();
                }
                _ => {
                    groups.push(vec![index]);
                    rows = request.ids.len();
                }
            }
        }
        groups
    }
}

/// One group of requests on its way.
struct Run<'a> {
    decoder: &'a Decoder,
    text: &'a Text,
    rules: &'a SamplingRules,
    requests: &'a [&'a GenerateRequest<'a>],
}

/// A response that is growing.
struct Growing {
    request: usize,
    seed: usize,
    slot: Option<Slot>,
    random: ChaCha12Rng,
    ids: Vec<u32>,
    logp: f64,
    room: usize,
}

/// A response that ended.
struct Finished {
    request: usize,
    seed: usize,
    generation: Generation,
}

impl Run<'_> {
    fn all(&self, budget_tokens: usize) -> Result<Vec<Finished>> {
        let prompts = self.requests.iter().map(|request| request.ids).collect::<Vec<_>>();
        let prompt_rows = prompts.iter().map(|ids| ids.len()).sum::<usize>();
        // The last token of a response needs no row of its own: nothing follows it.
        let room = |request: usize| self.rules.max_tokens.min(self.decoder.max_positions() - prompts[request].len());
        let seeds = |(request, one): (usize, &&GenerateRequest)| (0..one.seeds.len()).map(move |seed| (request, seed));
        let mut waiting = self.requests.iter().enumerate().flat_map(seeds).collect::<VecDeque<_>>();
        let all_rows = waiting.iter().map(|(request, _)| room(*request) - 1).sum::<usize>();
        let largest = waiting.iter().map(|(request, _)| room(*request) - 1).max().unwrap_or(0);
        let sample_rows = all_rows.min(budget_tokens.saturating_sub(prompt_rows)).max(largest);
        let (mut cache, first_logits) = self.decoder.prefill(&prompts, sample_rows)?;
        let first_logits = Logits::new(&first_logits)?;
        let most = (LOGITS / self.decoder.config().vocab_size).max(1);

        let mut growing: Vec<Growing> = Vec::new();
        let mut finished = Vec::new();
        while !waiting.is_empty() || !growing.is_empty() {
            // Let in as many as there is room for. Their first token comes from the logits of the prompt.
            let mut fresh = Vec::new();
            while let Some(&(request, seed)) = waiting.front()
                && growing.len() + fresh.len() < most
            {
                let room = room(request);
                // A response of one token at most never looks back at itself.
                let slot = if room > 1 { cache.fork(request, room - 1) } else { None };
                if slot.is_none() && room > 1 {
                    break;
                }
                waiting.pop_front();
                let random = ChaCha12Rng::seed_from_u64(self.requests[request].seeds[seed]);
                fresh.push(Growing { request, seed, slot, random, ids: Vec::new(), logp: 0.0, room });
            }
            let rows = fresh.iter().map(|new| new.request).collect::<Vec<_>>();
            self.choose(&mut fresh, &first_logits, &rows)?;
            self.settle(fresh, &mut growing, &mut finished, &mut cache)?;
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
            self.settle(stepped, &mut growing, &mut finished, &mut cache)?;
        }
        Ok(finished)
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

    /// Sorts responses into those that go on and those that ended, whose rows are free again.
    fn settle(
        &self,
        stepped: Vec<Growing>,
        growing: &mut Vec<Growing>,
        finished: &mut Vec<Finished>,
        cache: &mut KvCache,
    ) -> Result<()> {
        for one in stepped {
            match self.ending(&one)? {
                None => growing.push(one),
                Some((finish, text)) => {
                    if let Some(slot) = one.slot {
                        cache.release(slot);
                    }
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
