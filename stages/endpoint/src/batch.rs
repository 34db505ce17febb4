//! Requests in files, and answers from files: OpenAI's batch format, which `vllm run-batch` takes too.
//!
//! A request file has a line for each request with its `custom_id`, the digest of the request. The answers lie in the
//! same folder, in files of any other name that end in `.jsonl`: output and error files, in any order, whole or not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kit::commit::{Sealed, commit_bytes, commit_sealed, read_sealed};
use kit::{Context, Error, Result, id_of};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::asking::{Questions, groups};
use crate::client::{BAD_ANSWER, REFUSED};
use crate::config::Endpoint;
use crate::json;
use crate::protocol::{Content, Protocol};
use crate::reply::{self, words};
use crate::usage::Usage;

/// The name of the record among a stage's records.
const NAME: &str = ".work/batch.json";
/// The beginning of the names of request files.
const REQUESTS: &str = "requests-";
/// The most questions in a file.
const MOST_QUESTIONS: usize = 50_000;
/// The most bytes in a file.
const MOST_BYTES: usize = 200_000_000;

/// The requests of a stage that were written, and the form they have.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// The place of the form among those of the protocol.
    form: usize,
    /// The digests of the questions of each request, by the request's digest; with the request's form.
    requests: BTreeMap<String, (usize, Vec<String>)>,
}

/// A line of an answer file.
struct Line {
    request: String,
    /// Status and body, where the request was answered.
    response: Option<(u16, Value)>,
    place: String,
}

/// The folder of a batch, with what is known of it.
pub(crate) struct Batch<P: Protocol> {
    folder: PathBuf,
    record_path: PathBuf,
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
        let record_path = context.folder.join(NAME);
        let record: Record = match read_sealed(&record_path)? {
            Sealed::Whole(record) => record,
            Sealed::Missing => Record::default(),
            Sealed::Damaged(damage) => {
                context.set_aside(NAME, &damage)?;
                Record::default()
            }
        };
        let mut batch = Batch {
            folder: folder.to_owned(),
            record_path,
            endpoint: endpoint.clone(),
            protocol,
            record,
            lines: BTreeMap::new(),
            open: Vec::new(),
            alone: Vec::new(),
        };
        for path in answer_files(folder)? {
            batch.read(&path, context)?;
        }
        batch.next_form(context)?;
        Ok(batch)
    }

    fn read(&mut self, path: &Path, context: &Context<'_>) -> Result<()> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let mut damaged = Vec::new();
        for (number, text) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if text.trim_ascii().is_empty() {
                continue;
            }
            let place = format!("{}, line {}", path.display(), number + 1);
            let value = json::read(text).ok().filter(Value::is_object);
            let Some((value, id)) = value.and_then(|value| {
                let id = value.get("custom_id")?.as_str()?.to_owned();
                Some((value, id))
            }) else {
                damaged.push(number + 1);
                continue;
            };
            if !self.record.requests.contains_key(&id) {
                return Err(Error::data(format!(
                    "{place}: the answer to `{}` (`custom_id`), which is no request of this stage: the file is of \
                     another run, or the stage's settings or inputs changed since; take it out of the folder",
                    words(&id)
                )));
            }
            let response = value.get("response").and_then(|response| {
                let status = response.get("status_code").and_then(Value::as_u64).unwrap_or(200);
                Some((u16::try_from(status).ok()?, response.get("body")?.clone()))
            });
            let good = |line: &Line| line.response.as_ref().is_some_and(|(status, _)| (200..300).contains(status));
            let line = Line { request: id.clone(), response, place };
            if good(&line) || self.lines.get(&id).is_none_or(|known| !good(known)) {
                self.lines.insert(id, line);
            }
        }
        if let Some(first) = damaged.first() {
            context.warn(format!(
                "{}: {} lines are no answers of a batch, the first of them line {first}; the other lines are taken, \
                 what is missing is asked again",
                path.display(),
                damaged.len()
            ));
        }
        Ok(())
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
        commit_sealed(&self.record_path, &self.record)
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
            let (reason, detail) = match (status, reply::of(body.clone())) {
                (200..300, Ok(body)) if whole => {
                    let plain: Vec<P::Question> = group.iter().map(|(_, question)| question.clone()).collect();
                    let usage = Usage::of(&body);
                    match self.protocol.read(&plain, &body) {
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
                (400 | 403 | 413 | 422, _) => (REFUSED, format!("status {status}: {}", said(body))),
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
            let request = id_of(&[&self.endpoint.address(P::PATH), &body]);
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

/// The answer files of a folder, by name.
fn answer_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".jsonl") && !name.starts_with(REQUESTS) && !name.starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
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

/// What an error says, for a message.
fn said(body: &Value) -> String {
    let places = ["/error/message", "/message", "/detail", "/error"];
    let message = places.iter().find_map(|place| body.pointer(place)?.as_str()).map(str::to_owned);
    kit::redact(&words(&message.unwrap_or_else(|| body.to_string())))
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
