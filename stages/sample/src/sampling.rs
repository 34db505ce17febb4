//! Answering the work list, shard by shard.

use std::ops::Range;

use kit::rows::{Message, Reject, Response};
use kit::{Context, Outcome, Result, ShardOutput, Sharded, complete_port, ids, shard_ranges};
use lm::{Decoder, GenerateRequest, Generation};
use tokens::{lm_error, load_decoder};

use crate::config::Sample;
use crate::repetition::is_loop;
use crate::work::{PromptTokens, WorkList};

/// The distinct prompts, and the model once a shard needs it.
pub(crate) struct Sampling<'a> {
    stage: &'a Sample,
    context: &'a Context<'a>,
    work: WorkList,
    decoder: Option<Decoder>,
}

impl<'a> Sampling<'a> {
    /// Reads and tokenises the prompts.
    ///
    /// # Errors
    /// When they cannot be read, or when the stage would stop at one.
    pub(crate) fn new(stage: &'a Sample, context: &'a Context<'a>) -> Result<Sampling<'a>> {
        Ok(Sampling { stage, context, work: WorkList::read(stage, context)?, decoder: None })
    }
}

impl Sharded for Sampling<'_> {
    fn unit(&self) -> &'static str {
        "prompts"
    }

    /// The refused rows go with the first shard, which is there even where every prompt was refused.
    fn shards(&self) -> Vec<Range<usize>> {
        let shards = shard_ranges(std::iter::repeat_n(1, self.work.prompts.len()), self.stage.shard_rows);
        if shards.is_empty() { std::iter::once(0..0).collect() } else { shards }
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        if self.decoder.is_none() && !shard.is_empty() {
            self.decoder = Some(load_decoder(self.context, "model", self.stage.precision())?);
        }
        let Sampling { stage, context, work, decoder } = self;
        if shard.start == 0 {
            work.refused.iter().for_each(|reject| output.reject(reject.clone()));
        }
        let (model, rules) = (context.model("model")?.digest.short(16), stage.sampling_rules());
        let mut rows = Vec::new();
        let mut done = shard.start;
        for prompts in batches(&work.prompts[shard], stage) {
            let generated: Vec<Vec<Generation>> = output.batch(|| {
                let requests: Vec<_> = prompts.iter().map(|prompt| request(stage, context, prompt)).collect();
                let decoder = decoder.as_ref().expect("loaded for a shard with prompts");
                decoder.generate(&work.text, &requests, &rules, stage.tokens_per_batch).map_err(lm_error)
            })?;
            for (prompt, generations) in prompts.iter().zip(generated) {
                let texts = generations.into_iter().map(Text::of).enumerate().collect();
                let (responses, empty) = responses((&prompt.id, &prompt.messages), texts, &model);
                rows.extend(responses);
                empty.into_iter().for_each(|reject| output.reject(reject));
            }
            done += prompts.len();
            context.progress(done as u64, work.prompts.len() as u64, "prompts", String::new());
        }
        output.write("responses", &rows)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        let work = &self.work;
        complete_port::<Response>(self.context, "responses")?;
        let counts = (work.rows, work.refused.len() as u64, work.prompts.len() as u64);
        let figures = Figures::read(self.context)?;
        figures.warnings(self.stage).into_iter().for_each(|text| self.context.warn(text));
        Ok(figures.outcome(self.stage, counts, rejected))
    }
}

/// Cuts the prompts of a shard into batches; a kill costs the one in work.
fn batches<'a>(prompts: &'a [PromptTokens], stage: &Sample) -> Vec<&'a [PromptTokens]> {
    let (mut batches, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (index, prompt) in prompts.iter().enumerate() {
        tokens += prompt.sequence.ids.len() + stage.k * stage.max_tokens;
        if tokens >= stage.tokens_per_batch || index + 1 == prompts.len() {
            batches.push(&prompts[start..=index]);
            (start, tokens) = (index + 1, 0);
        }
    }
    batches
}

fn request<'a>(stage: &Sample, context: &Context<'_>, prompt: &'a PromptTokens) -> GenerateRequest<'a> {
    let seeds = (0..stage.k as u64).map(|k| context.seed.derive("sample", &prompt.id, k)).collect();
    GenerateRequest { ids: &prompt.sequence.ids, seeds }
}

/// What a model said to a prompt.
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) finish: String,
    pub(crate) logp: Option<f64>,
    pub(crate) tokens: Option<u32>,
}

impl Text {
    fn of(generation: Generation) -> Text {
        Text {
            finish: generation.finish.name().to_owned(),
            logp: Some(generation.logp),
            tokens: Some(generation.ids.len() as u32),
            text: generation.text,
        }
    }
}

/// The distinct responses among the numbered texts to a prompt, by id and messages, and the empty ones.
pub(crate) fn responses(
    (prompt_id, prompt): (&str, &[Message]),
    texts: Vec<(usize, Text)>,
    model: &str,
) -> (Vec<Response>, Vec<Reject>) {
    // Raw text continues as raw text.
    let raw = prompt.iter().all(|message| message.role == "text");
    let role = if raw { "text" } else { "assistant" };
    let mut responses: Vec<Response> = Vec::new();
    let mut empty = Vec::new();
    for (k, text) in texts {
        if text.text.trim().is_empty() {
            let tokens = text.tokens.map(|tokens| format!("{tokens} tokens and ")).unwrap_or_default();
            empty.push(Reject {
                input: "samples".to_owned(),
                row_id: format!("{prompt_id}#{k}"),
                reason: "empty_response".to_owned(),
                detail: format!("{tokens}no text, ended by {}", text.finish),
                source_file: None,
                source_line: None,
            });
        } else if let Some(equal) = responses.iter_mut().find(|response| response.text == text.text) {
            equal.count += 1;
        } else {
            let messages = vec![Message::new(role, text.text.as_str())];
            responses.push(Response {
                response_id: ids::response_id(prompt_id, &messages),
                prompt_id: prompt_id.to_owned(),
                prompt: prompt.to_vec(),
                messages,
                text: text.text,
                k: k as u32,
                count: 1,
                logp: text.logp,
                tokens: text.tokens,
                finish: Some(text.finish),
                score: None,
                model: Some(model.to_owned()),
                source_file: None,
                source_line: None,
            });
        }
    }
    (responses, empty)
}

/// Counts over the finished table, so that resumed shards count too.
#[derive(Default)]
pub(crate) struct Figures {
    distinct: u64,
    samples: u64,
    /// Those whose tokens are known, and their tokens.
    counted: u64,
    tokens: u64,
    cut: u64,
    loops: u64,
}

/// A share of samples above which the run says what is wrong with them.
const MANY: f64 = 0.5;

impl Figures {
    pub(crate) fn read(context: &Context<'_>) -> Result<Figures> {
        let mut figures = Figures::default();
        for row in kit::RowReader::<Response>::open(&[&context.port("responses")])? {
            let row = row?;
            let count = u64::from(row.count);
            figures.distinct += 1;
            figures.samples += count;
            figures.counted += if row.tokens.is_some() { count } else { 0 };
            figures.tokens += count * u64::from(row.tokens.unwrap_or(0));
            figures.cut += if row.finish.as_deref() == Some("length") { count } else { 0 };
            figures.loops += if is_loop(&row.text) { count } else { 0 };
        }
        Ok(figures)
    }

    /// The outcome; `counts` are the rows, the refused ones, and the prompts that were asked.
    pub(crate) fn outcome(&self, stage: &Sample, counts: (u64, u64, u64), rejected: u64) -> Outcome {
        let (rows, refused, prompts) = counts;
        let (drawn, empty) = (prompts * stage.k as u64, rejected - refused);
        let mut outcome = Outcome::default()
            .balance("from", rows, rows - refused, refused)
            .balance("samples", drawn, drawn - empty, empty)
            .figure("prompts", prompts)
            .figure("distinct responses", self.distinct);
        let share = |part: u64, of: u64| (ratio(part, of) * 1e6).round() / 1e6;
        if self.counted > 0 {
            outcome = outcome.figure("mean tokens", share(self.tokens, self.counted));
        }
        if self.samples > 0 {
            outcome = outcome
                .figure("share cut by max_tokens", share(self.cut, self.samples))
                .figure("share equal to an earlier one", share(self.samples - self.distinct, self.samples))
                .figure("share of loops", share(self.loops, self.samples));
        }
        outcome
    }

    /// The faults that most samples have.
    pub(crate) fn warnings(&self, stage: &Sample) -> Vec<String> {
        let mut all = Vec::new();
        if ratio(self.cut, self.samples) > MANY {
            all.push(format!(
                "{} of {} responses were cut at `max_tokens: {}`: the model did not end them; a larger `max_tokens`, or \
                 `stop` texts where a model has no end of its own",
                self.cut, self.samples, stage.max_tokens
            ));
        }
        if ratio(self.loops, self.samples) > MANY {
            all.push(format!(
                "{} of {} responses say the same again and again: a higher `temperature`, or a model that was trained less",
                self.loops, self.samples
            ));
        }
        all
    }
}

/// A part of a number; 0 of none.
fn ratio(part: u64, of: u64) -> f64 {
    part as f64 / of.max(1) as f64
}

#[cfg(test)]
mod tests {
    use lm::Finish;

    use super::*;

    fn of(role: &str, texts: &[&str]) -> (Vec<Response>, Vec<Reject>) {
        let text =
            |text: &&str| Generation { ids: vec![7; 3], text: (*text).to_owned(), logp: -1.5, finish: Finish::Length };
        let texts = texts.iter().map(text).map(Text::of).enumerate().collect();
        responses(("p0", &[Message::new(role, "Hello")]), texts, "model")
    }

    #[test]
    fn equal_texts_are_one_response_with_a_count_and_empty_ones_are_rejected() {
        let (responses, empty) = of("user", &["a", "b", " \n", "a", "a"]);
        let seen: Vec<_> = responses.iter().map(|row| (row.text.as_str(), row.k, row.count)).collect();
        assert_eq!(seen, [("a", 0, 3), ("b", 1, 1)]);
        assert_eq!(responses[0].messages, [Message::new("assistant", "a")]);
        assert_eq!(responses[0].response_id, ids::response_id("p0", &responses[0].messages));
        assert_eq!((empty.len(), empty[0].row_id.as_str(), empty[0].reason.as_str()), (1, "p0#2", "empty_response"));
    }

    #[test]
    fn faults_of_most_samples_are_warnings() {
        let settings = serde_json::json!({"from": "x", "model": "m/x", "k": 1, "temperature": 1.0, "max_tokens": 9});
        let stage: Sample = serde_json::from_value(settings).unwrap();
        let warnings = |cut, loops| Figures { samples: 10, cut, loops, ..Figures::default() }.warnings(&stage);
        assert_eq!(warnings(5, 5), [""; 0]);
        let [cut] = &warnings(6, 0)[..] else { panic!("one warning") };
        assert!(cut.starts_with("6 of 10 responses were cut at `max_tokens: 9`"), "{cut}");
        let [loops] = &warnings(0, 6)[..] else { panic!("one warning") };
        assert!(loops.starts_with("6 of 10 responses say the same again and again"), "{loops}");
        assert_eq!(Figures::default().warnings(&stage), [""; 0]);
    }

    #[test]
    fn raw_text_is_continued_as_raw_text() {
        let (responses, _) = of("text", &[" world"]);
        assert_eq!(responses[0].messages, [Message::new("text", " world")]);
    }
}
