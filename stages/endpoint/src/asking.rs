//! Many questions at once, each answer recorded before it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use kit::{Context, Error, Event, Result};

use crate::batch::{Batch, BatchReply};
use crate::client::{Client, Reply, SERVER_ERROR, Sent, Settled};
use crate::config::Endpoint;
use crate::failing::Failing;
use crate::journal::Journal;
use crate::protocol::{Form, Protocol};
use crate::questions::{Group, Questions, groups};
use crate::usage::{Bill, Usage};
use crate::workers::{Job, WorkerResult, Workers};

/// The answer to a question.
#[derive(Debug, Clone)]
pub enum RequestResult<A> {
    /// The evidence that the stage goes on with.
    Answer(A),
    /// None: reason and detail.
    Nothing(&'static str, String),
}

/// The journal, and who gets answers: worker threads that ask, or the files of a batch.
pub struct Asking<P: Protocol> {
    endpoint: Endpoint,
    protocol: Arc<P>,
    journal: Journal<P::Answer>,
    failing: Failing,
    line: Line<P>,
    /// Requests that were answered in this process.
    pub answered: u64,
    /// Requests that were sent again.
    pub repeated: u64,
}

/// The way of questions to the endpoint.
enum Line<P: Protocol> {
    /// Over HTTP; with the form of requests, once known.
    Live(Workers<P>, Option<Form>),
    /// In files.
    Batch(Box<Batch<P>>),
}

impl<P: Protocol> Asking<P> {
    /// Reads the records; and the key, to start the workers, or the answers of a batch.
    ///
    /// # Errors
    /// When the key, a record or an answer cannot be read.
    pub fn open(endpoint: &Endpoint, protocol: P, context: &Context<'_>) -> Result<Asking<P>> {
        let protocol = Arc::new(protocol);
        let journal = Journal::open(context)?;
        if journal.len() > 0 {
            context.emit(Event::Resumed { what: format!("{} answered requests", journal.len()) });
        }
        let failing = Failing::open(context)?;
        let line = match &endpoint.batch {
            Some(folder) => Line::Batch(Box::new(Batch::open(folder, endpoint, protocol.clone(), context)?)),
            None => {
                let client = Client::new(endpoint, protocol.clone(), journal.usage())?;
                Line::Live(Workers::start(client, endpoint.concurrency)?, None)
            }
        };
        let endpoint = endpoint.clone();
        Ok(Asking { endpoint, protocol, journal, failing, line, answered: 0, repeated: 0 })
    }

    /// The counts of requests, and what they cost so far, to show beside the progress.
    pub fn detail(&self) -> String {
        let counts = format!("{} answers, {} requests repeated", self.answered, self.repeated);
        match &self.endpoint.price {
            Some(price) => format!("{counts}, {}", price.words(price.of(self.journal.usage()))),
            None => counts,
        }
    }

    /// Tokens of all answers of a stage, earlier processes' too, and their cost. `asking` is that of this process.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn bill(asking: Option<&Asking<P>>, endpoint: &Endpoint, context: &Context<'_>) -> Result<Bill> {
        let usage = match asking {
            Some(asking) => asking.journal.answered(),
            None => Journal::<P::Answer>::open(context)?.answered(),
        };
        Ok(Bill::of(usage, endpoint.price.as_ref()))
    }

    /// Any answer that is known; they are all of one make.
    pub fn an_answer(&self) -> Option<&P::Answer> {
        self.journal.any()
    }

    /// The answers to the questions of a shard. Where some are not to be had now, those of the later shards are asked
    /// for before this fails, so that nothing holds them up.
    ///
    /// # Errors
    /// As [`Asking::ask`] and [`Asking::check`].
    pub fn ask_shard(
        &mut self,
        context: &Context<'_>,
        unit: &'static str,
        shards: &[Range<usize>],
        shard: &Range<usize>,
        mut questions: impl FnMut(&Range<usize>) -> Result<Questions<P>>,
    ) -> Result<BTreeMap<String, RequestResult<P::Answer>>> {
        let total = shards.last().map_or(0, |last| last.end) as u64;
        let mut ask = |asking: &mut Asking<P>, shard: &Range<usize>| {
            let questions = questions(shard)?;
            let count = questions.len().max(1);
            asking.ask(context, questions, |asking, results| {
                let done = shard.start + shard.len() * results.min(count) / count;
                context.progress(done as u64, total, unit, asking.detail());
            })
        };
        let results = ask(self, shard)?;
        if self.is_waiting() {
            for later in shards.iter().filter(|later| later.start > shard.start) {
                ask(self, later)?;
            }
        }
        self.check()?;
        Ok(results)
    }

    /// The answer to each question, from the journal or from the endpoint; none to those that fail while others are
    /// answered, or that wait in a batch, which [`Asking::check`] reports. `progress` gets the number of finished ones.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when a request failed too often, [`Error::Pipeline`] when none can succeed,
    /// [`Error::Data`] for an answer that cannot be right, [`Error::Waiting`] when the money is spent,
    /// [`Error::Interrupted`]. Answers that came are in the journal.
    pub fn ask(
        &mut self,
        context: &Context<'_>,
        questions: Questions<P>,
        mut progress: impl FnMut(&Asking<P>, usize),
    ) -> Result<BTreeMap<String, RequestResult<P::Answer>>> {
        let (mut results, mut seen) = (BTreeMap::new(), BTreeSet::new());
        let mut open: Questions<P> = Vec::new();
        for (id, question) in questions {
            match self.journal.get(&id) {
                Some(known) => _ = results.insert(id, RequestResult::Answer(known.clone())),
                None if seen.insert(id.clone()) => open.push((id, question)),
                None => {}
            }
        }
        if matches!(self.line, Line::Batch(_)) {
            self.take_batch(open, &mut results)?;
        } else {
            let mut alone = false;
            while !open.is_empty() {
                open = self.ask_now(context, open, alone, &mut results, &mut progress)?;
                alone = true;
            }
        }
        self.journal.sync()?;
        Ok(results)
    }

    /// # Errors
    /// [`Error::Unreachable`] when requests failed while others were answered, and are to be asked again;
    /// [`Error::Waiting`] when there is no answer yet to requests of a batch.
    pub fn check(&mut self) -> Result<()> {
        if let Line::Batch(batch) = &mut self.line {
            batch.check()?;
        }
        self.failing.check(&self.endpoint, &self.endpoint.shown(P::PATH), self.protocol.unit())
    }

    /// True where [`Asking::check`] has something to report.
    pub fn is_waiting(&self) -> bool {
        let batch_waits = if let Line::Batch(batch) = &self.line { batch.is_waiting() } else { false };
        batch_waits || self.failing.is_waiting()
    }

    /// Asks the endpoint, and gives the questions that are to be asked again alone.
    fn ask_now(
        &mut self,
        context: &Context<'_>,
        open: Questions<P>,
        alone: bool,
        results: &mut BTreeMap<String, RequestResult<P::Answer>>,
        progress: &mut impl FnMut(&Asking<P>, usize),
    ) -> Result<Questions<P>> {
        let form = self.form(context)?;
        let together = if alone { 1 } else { self.protocol.together(form) };
        let groups = groups(&*self.protocol, open, together);
        let mut again = Vec::new();
        self.work(context, groups.into_iter().map(Job::Ask).collect(), |asking, group, sent| {
            let several = group.len() > 1;
            match sent.reply {
                Reply::Answered(answers) => {
                    asking.answered += 1;
                    let rest = asking.keep(group, answers.into_iter().map(Some).collect(), sent.usage, results)?;
                    again.extend(rest);
                }
                Reply::Wrong(answers, _) => _ = asking.keep(group, answers, sent.usage, results)?,
                other => {
                    asking.journal.spend(sent.usage)?;
                    match other {
                        // One of them may be at fault.
                        Reply::Nothing(..) | Reply::Failing(_) if several => again.extend(group),
                        // Not recorded: another day the endpoint may answer it.
                        Reply::Nothing(reason, detail) => {
                            results.extend(
                                group.into_iter().map(|(id, _)| (id, RequestResult::Nothing(reason, detail.clone()))),
                            );
                        }
                        Reply::Failing(why) => {
                            let [(id, _)] = &group[..] else { return Ok(()) };
                            let Some(runs) = asking.failing.note(id, &why, asking.endpoint.give_up_after)? else {
                                return Ok(());
                            };
                            let detail = format!("in {runs} runs, while other questions were answered: {why}");
                            results.insert(id.clone(), RequestResult::Nothing(SERVER_ERROR, detail));
                        }
                        _ => return Ok(()),
                    }
                }
            }
            progress(asking, results.len());
            Ok(())
        })?;
        Ok(again)
    }

    /// Keeps answers, those of a request in their places, and gives the questions without one.
    fn keep(
        &mut self,
        group: Group<P>,
        answers: Vec<Option<P::Answer>>,
        usage: Usage,
        results: &mut BTreeMap<String, RequestResult<P::Answer>>,
    ) -> Result<Questions<P>> {
        let mut answers = answers.into_iter();
        let (mut rest, mut usage) = (Vec::new(), Some(usage));
        for (id, question) in group {
            match answers.next().flatten() {
                Some(answer) => {
                    self.journal.add(id.clone(), answer.clone(), usage.take().unwrap_or_default())?;
                    results.insert(id, RequestResult::Answer(answer));
                }
                None => rest.push((id, question)),
            }
        }
        self.journal.spend(usage.unwrap_or_default())?;
        Ok(rest)
    }

    /// Takes the answers that a batch has, and notes the questions without one.
    fn take_batch(
        &mut self,
        open: Questions<P>,
        results: &mut BTreeMap<String, RequestResult<P::Answer>>,
    ) -> Result<()> {
        let Line::Batch(batch) = &mut self.line else { return Ok(()) };
        for reply in batch.take(open)? {
            match reply {
                BatchReply::Answered(group, answers, usage) => {
                    self.answered += 1;
                    self.keep(group, answers, usage, results)?;
                }
                BatchReply::Nothing(id, reason, detail) => {
                    results.insert(id, RequestResult::Nothing(reason, detail));
                }
            }
        }
        Ok(())
    }

    /// The form of requests that the endpoint takes; the first time it is found out.
    fn form(&mut self, context: &Context<'_>) -> Result<Form> {
        if let Line::Live(_, Some(form)) = &self.line {
            return Ok(*form);
        }
        let mut settled: Option<Settled> = None;
        self.work_on(context, vec![Job::Settle], |_, done| {
            if let WorkerResult::Settled(result, ..) = done {
                settled = result.ok();
            }
            Ok(())
        })?;
        let settled = settled.ok_or_else(|| Error::internal("the probe came to no end"))?;
        if !settled.remark.is_empty() {
            context.warn(settled.remark);
        }
        if let Line::Live(_, form) = &mut self.line {
            *form = Some(settled.form);
        }
        Ok(settled.form)
    }

    fn work(
        &mut self,
        context: &Context<'_>,
        jobs: Vec<Job<P>>,
        mut take: impl FnMut(&mut Asking<P>, Group<P>, Sent<P::Answer>) -> Result<()>,
    ) -> Result<()> {
        self.work_on(context, jobs, |asking, done| match done {
            WorkerResult::Asked(group, sent) => take(asking, group, sent),
            WorkerResult::Settled(..) => Ok(()),
        })
    }

    /// Has jobs done and takes what comes of them, until all are done or it makes no sense to go on.
    fn work_on(
        &mut self,
        context: &Context<'_>,
        jobs: Vec<Job<P>>,
        mut take: impl FnMut(&mut Asking<P>, WorkerResult<P>) -> Result<()>,
    ) -> Result<()> {
        let mut open = jobs.len();
        let Line::Live(workers, _) = &self.line else { return Err(Error::internal("a batch asks nobody")) };
        workers.send(jobs)?;
        let mut failure: Option<Error> = None;
        let mut stopped = None;
        while open > 0 {
            if failure.is_none() && context.interrupt.raised() {
                failure = Some(Error::Interrupted);
            }
            let Line::Live(workers, _) = &self.line else { break };
            if failure.is_some() && workers.stop(&mut stopped) {
                break;
            }
            let Some(done) = workers.receive()? else { continue };
            open -= 1;
            let (reply, sent) = match &done {
                WorkerResult::Asked(_, sent) => (Some(&sent.reply), sent.times),
                WorkerResult::Settled(Err(reply), sent, _) => (Some(reply), *sent),
                WorkerResult::Settled(Ok(_), ..) => (None, 0),
            };
            self.repeated += u64::from(sent.saturating_sub(1));
            match reply {
                Some(Reply::Hopeless(text)) if !matches!(failure, Some(Error::Pipeline(_))) => {
                    failure = Some(Error::Pipeline(text.clone()));
                }
                Some(Reply::Wrong(_, text)) if !matches!(failure, Some(Error::Pipeline(_))) => {
                    failure = Some(Error::Data(text.clone()));
                }
                Some(Reply::Unreachable(text)) => {
                    let text = format!("{text}; what was answered is kept: run again to go on");
                    failure.get_or_insert(Error::Unreachable(text));
                }
                Some(Reply::Unaffordable(text)) => _ = failure.get_or_insert(Error::Waiting(text.clone())),
                _ => {}
            }
            if let WorkerResult::Settled(_, _, usage) = &done {
                self.journal.spend(*usage)?;
            }
            take(self, done)?;
        }
        if failure.is_some() {
            self.journal.sync()?;
        }
        failure.map_or(Ok(()), Err)
    }
}
