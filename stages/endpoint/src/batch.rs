//! Requests in files, and answers from files: OpenAI's batch format, which `vllm run-batch` takes too.
//!
//! A request file has a line for each request with its `custom_id`, the digest of the request and of the questions in
//! it. The answers lie in the same folder, in files of any other name that end in `.jsonl`. So does the record of what
//! was asked: another run with the same questions, of other settings or another work folder, finds their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kit::commit::{Sealed, commit_bytes, commit_sealed, read_sealed};
use kit::{Context, Error, Result, id_of};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer_files::{self, Line, REQUESTS, said};
use crate::client::{BAD_ANSWER, REFUSED};
use crate::config::Endpoint;
use crate::protocol::{Content, Protocol};
use crate::questions::{Questions, groups};
use crate::reply;
use crate::usage::Usage;

/// The name of the record in the folder.
const RECORD: &str = ".asked.json";
/// The most questions in a file.
const MOST_QUESTIONS: usize = 50_000;
/// The most bytes in a file.
const MOST_BYTES: usize = 200_000_000;

/// The requests that were written into a folder, and the form they have.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// The place of the form among those of the protocol.
    form: usize,
    /// The digests of the questions of each request, by the request's digest; with the request's form.
    requests: BTreeMap<String, (usize, Vec<String>)>,
}

/// The folder of a batch, with what is known of it.
pub(crate) struct Batch<P: Protocol> {
    folder: PathBuf,
    endpoint: Endpoint,
    protocol: Arc<P>,
    record: Record,
    /// The answers by the digests of their requests.
    lines: BTreeMap<String, Line>,
    /// Questions without an answer, and those of them that are to be asked alone.
    open: Questions<P>,
    alone: Questions<P>,
}

/// An answer of a batch.
pub(crate) enum BatchReply<P: Protocol> {
    Answered(Questions<P>, Vec<Option<P::Answer>>, Usage),
    Nothing(String, &'static str, String),
}

impl<P: Protocol> Batch<P> {
    /// Reads the record, and the answers that lie in the folder.
    ///
    /// # Errors
    /// When they cannot be read, and where an answer is of another run.
    pub(crate) fn open(
        folder: &Path,
        endpoint: &Endpoint,
        protocol: Arc<P>,
        context: &Context<'_>,
    ) -> Result<Batch<P>> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let path = folder.join(RECORD);
        let record: Record = match read_sealed(&path)? {
            Sealed::Whole(record) => record,
            Sealed::Missing => Record::default(),
            Sealed::Damaged(damage) => {
                context.warn(format!("{}: {damage}; it is written anew", path.display()));
                Record::default()
            }
        };
        let lines = answer_files::read(folder, context, |request| record.requests.contains_key(request))?;
        let mut batch = Batch {
            folder: folder.to_owned(),
            endpoint: endpoint.clone(),
            protocol,
            record,
            lines,
            open: Vec::new(),
            alone: Vec::new(),
        };
        batch.tell_errors(context);
        batch.next_form(context)?;
        Ok(batch)
    }

    /// Says why requests were not answered, where the files have a reason, and where another model answered.
    fn tell_errors(&self, context: &Context<'_>) {
        let other = |line: &Line| {
            let (_, body) = line.response.as_ref().filter(|_| line.is_good())?;
            Some((line.place.clone(), reply::other_model(&self.endpoint.model, body)?))
        };
        if let Some((place, model)) = self.lines.values().find_map(other) {
            let asked = &self.endpoint.model;
            context.warn(format!("{place}: the answer is of the model `{model}`, asked for `{asked}`"));
        }
        let mut unanswered = self.lines.values().filter_map(|line| Some((&line.place, line.asks_again()?)));
        let Some((place, why)) = unanswered.next() else { return };
        let count = 1 + unanswered.count();
        context.warn(format!("{place}: {why}; {count} requests without an answer are asked again"));
    }

    /// Goes on to the next form of requests, where the endpoint refused every request in the present one.
    fn next_form(&mut self, context: &Context<'_>) -> Result<()> {
        let (form, forms) = (self.record.form, self.protocol.forms());
        let mut refused = None;
        for line in self.lines.values().filter(|line| self.record.requests[&line.request].0 == form) {
            match &line.response {
                Some((400 | 422, body)) => refused = Some((line.place.clone(), said(body))),
                Some((200..300, _)) => return Ok(()),
                _ => {}
            }
        }
        let Some((place, why)) = refused else { return Ok(()) };
        let Some(next) = forms.get(form + 1) else { return Ok(()) };
        self.record.form += 1;
        context
            .warn(format!("{place}: {why}; no request was taken with {}, they are written with {next}", forms[form]));
        self.write_record()
    }

    fn write_record(&self) -> Result<()> {
        commit_sealed(&self.folder.join(RECORD), &self.record)
    }

    /// The answers to questions; those without one wait.
    ///
    /// # Errors
    /// Where an answer cannot be right.
    pub(crate) fn take(&mut self, open: Questions<P>) -> Result<Vec<BatchReply<P>>> {
        let mut replies = Vec::new();
        let mut open: BTreeMap<String, (usize, P::Question)> =
            open.into_iter().enumerate().map(|(at, (id, question))| (id, (at, question))).collect();
        let mut alone = BTreeSet::new();
        // Requests for one question after those for several: they are the later ones.
        let mut requests: Vec<(&String, &Vec<String>)> = self
            .record
            .requests
            .iter()
            .filter(|(_, (form, _))| *form == self.record.form)
            .map(|(id, (_, ids))| (id, ids))
            .collect();
        requests.sort_by_key(|(id, ids)| (std::cmp::Reverse(ids.len()), *id));
        let mut nothing: BTreeMap<String, (&'static str, String)> = BTreeMap::new();
        for (request, ids) in requests {
            let Some(line) = self.lines.get(request) else { continue };
            // What is answered already is not taken twice.
            let group: Questions<P> = ids.iter().filter_map(|id| Some((id.clone(), open.get(id)?.1.clone()))).collect();
            if group.is_empty() {
                continue;
            }
            let Some((status, body)) = &line.response else { continue };
            let whole = group.len() == ids.len();
            let (reason, detail) = match status {
                200..300 if whole => {
                    let plain: Vec<P::Question> = group.iter().map(|(_, question)| question.clone()).collect();
                    let usage = Usage::of(body);
                    match self.protocol.read(&plain, body) {
                        Content::Answers(answers) => {
                            group.iter().zip(&answers).for_each(|((id, _), _)| _ = open.remove(id));
                            alone.extend(group.iter().skip(answers.len()).map(|(id, _)| id.clone()));
                            let answers = answers.into_iter().map(Some).collect();
                            replies.push(BatchReply::Answered(group, answers, usage));
                            continue;
                        }
                        Content::Wrong(_, text) => return Err(Error::data(format!("{}: {text}", line.place))),
                        Content::NoEvidence(text) | Content::NoAnswer(text) => (BAD_ANSWER, text),
                    }
                }
                400 | 403 | 413 | 422 => (REFUSED, format!("status {status}: {}", said(body))),
                // It may pass, or a part of its answers is known: it is asked again.
                _ => continue,
            };
            if ids.len() > 1 {
                alone.extend(group.into_iter().map(|(id, _)| id));
            } else {
                let detail = format!("{}: {}", line.place, kit::redact(&detail));
                nothing.extend(group.into_iter().map(|(id, _)| (id, (reason, detail.clone()))));
            }
        }
        for (id, (reason, detail)) in nothing {
            if open.remove(&id).is_some() {
                replies.push(BatchReply::Nothing(id, reason, detail));
            }
        }
        let mut rest: Vec<(usize, String, P::Question)> =
            open.into_iter().map(|(id, (at, question))| (at, id, question)).collect();
        rest.sort_by_key(|(at, ..)| *at);
        for (_, id, question) in rest {
            let waiting = if alone.contains(&id) { &mut self.alone } else { &mut self.open };
            waiting.push((id, question));
        }
        Ok(replies)
    }

    /// True where questions wait for an answer.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.open.is_empty() || !self.alone.is_empty()
    }

    /// Writes the requests that wait for an answer.
    ///
    /// # Errors
    /// [`Error::Waiting`] where there are some, with what is to be done.
    pub(crate) fn check(&mut self) -> Result<()> {
        if !self.is_waiting() {
            return Ok(());
        }
        let form = self.protocol.forms()[self.record.form];
        let mut all = groups(&*self.protocol, std::mem::take(&mut self.open), self.protocol.together(form));
        all.extend(groups(&*self.protocol, std::mem::take(&mut self.alone), 1));
        let mut lines = Vec::new();
        for group in all {
            let (ids, plain): (Vec<String>, Vec<P::Question>) = group.into_iter().unzip();
            let body = self.endpoint.request(&*self.protocol, &plain, form);
            // Questions with other seeds have one body where the endpoint takes no seed.
            let address = self.endpoint.address(P::PATH);
            let parts: Vec<&str> = [&address, &body].into_iter().chain(&ids).map(String::as_str).collect();
            let request = id_of(&parts);
            let body: Value = serde_json::from_str(&body).expect("a request is JSON");
            let line = json!({"custom_id": request, "method": "POST", "url": format!("/v1{}", P::PATH), "body": body});
            lines.push((ids.len(), format!("{line}\n")));
            self.record.requests.insert(request, (self.record.form, ids));
        }
        // The record comes first: an answer is of this run where it names the request.
        self.write_record()?;
        let mut names = Vec::new();
        for file in files(&lines, MOST_QUESTIONS, MOST_BYTES) {
            let text: String = lines[file.clone()].iter().map(|(_, line)| line.as_str()).collect();
            if lines[file].iter().any(|(_, line)| kit::redact(line) != *line) {
                return Err(Error::Pipeline(
                    "a request file of the batch would hold a secret: take it out of `endpoint.body` and `endpoint.model`, \
                     or ask without `endpoint.batch`"
                        .to_owned(),
                ));
            }
            let path = self.folder.join(format!("{REQUESTS}{}.jsonl", id_of(&[&text])));
            commit_bytes(&path, text.as_bytes())?;
            names.push(path.display().to_string());
        }
        Err(Error::Waiting(format!(
            "{} requests wait for answers: {} (OpenAI's batch format). Have them answered, such as by `vllm run-batch \
             -i REQUESTS -o ANSWERS --model {}`, put the output and error files into {} under any other name that ends \
             in `.jsonl`, and run again; what was answered is kept",
            lines.len(),
            names.join(", "),
            self.endpoint.model,
            self.folder.display()
        )))
    }
}

/// Ranges of lines that fit in a file each; a line has a number of questions.
fn files(lines: &[(usize, String)], most_questions: usize, most_bytes: usize) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut questions, mut bytes) = (0, 0, 0);
    for (at, (count, line)) in lines.iter().enumerate() {
        if at > start && (questions + count > most_questions || bytes + line.len() > most_bytes) {
            ranges.push(start..at);
            (start, questions, bytes) = (at, 0, 0);
        }
        questions += count;
        bytes += line.len();
    }
    if start < lines.len() {
        ranges.push(start..lines.len());
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_by_questions_and_by_bytes() {
        let line = |questions: usize, bytes: usize| (questions, "x".repeat(bytes));
        let lines = [line(1, 10), line(2, 10), line(1, 10), line(5, 10), line(1, 90), line(1, 20)];
        assert_eq!(files(&lines, 3, 1000), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(files(&lines, 100, 100), [0..4, 4..5, 5..6]);
        assert_eq!(files(&[], 1, 1), []);
    }
}
