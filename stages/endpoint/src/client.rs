//! One request to the endpoint, and when it is worth sending again.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ureq::Agent;

use crate::config::Endpoint;
use crate::json;
use crate::key::Key;
use crate::pause::{pause, random_share, retry_after};
use crate::protocol::{Content, Form, Protocol};
use crate::reply::{self, NoReply};
use crate::usage::Usage;

/// The longest `Retry-After` that is waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// The reason of a reply from which no answer can be read.
pub const BAD_ANSWER: &str = "bad_answer";
/// The reason of a request that the endpoint does not take.
pub const REFUSED: &str = "refused_by_endpoint";
/// The reason of a request to which the endpoint fails while it answers others.
pub const SERVER_ERROR: &str = "server_error";
/// Most characters of an endpoint's error that a message repeats.
const MAX_SAID: usize = 300;

/// The result of a request.
#[derive(Debug)]
pub(crate) enum Reply<A> {
    /// Its questions were answered, each in its place.
    Answered(Vec<A>),
    /// There is no answer in what the endpoint says to it: reason and detail.
    Nothing(&'static str, String),
    /// It failed as often as it may, and another one was answered meanwhile: why.
    Failing(String),
    /// It failed as often as it may; running again may help.
    Unreachable(String),
    /// No request will succeed.
    Hopeless(String),
    /// It was answered with something that cannot be right; the answers that are, in their places.
    Wrong(Vec<Option<A>>, String),
    /// It would cost more than there is left.
    Unaffordable(String),
    /// A stop was requested before the answer.
    Abandoned,
}

impl<A> Reply<A> {
    /// True where no further request makes sense.
    pub(crate) fn ends_all(&self) -> bool {
        matches!(self, Reply::Hopeless(_) | Reply::Unreachable(_) | Reply::Wrong(..) | Reply::Unaffordable(_))
    }
}

/// A reply, with what it took.
pub(crate) struct Sent<A> {
    pub(crate) reply: Reply<A>,
    /// Number of times the request was sent.
    pub(crate) times: u32,
    /// Tokens of all replies to it.
    pub(crate) usage: Usage,
}

/// The findings of the probe.
pub(crate) struct Settled {
    /// The form of requests that is taken.
    pub(crate) form: Form,
    /// What there is to say of it before the first question; empty where nothing is.
    pub(crate) remark: String,
}

/// Tokens and their cost, spent and under way.
#[derive(Default)]
struct Budget {
    spent: f64,
    under_way: f64,
}

/// One try.
enum Try<A> {
    Final(Reply<A>),
    /// It may pass.
    Later {
        after: Option<Duration>,
        why: String,
        failure: Failure,
    },
}

/// The failure of a request that may be sent again.
#[derive(Clone, Copy)]
enum Failure {
    /// The endpoint asks to wait.
    Busy,
    /// The endpoint broke down, or the connection did: 5xx, a timeout, no whole answer.
    Broken,
    /// The endpoint is there and says nothing that helps.
    Nonsense,
}

/// Speaks with one endpoint.
pub(crate) struct Client<P> {
    protocol: Arc<P>,
    agent: Agent,
    endpoint: Endpoint,
    address: String,
    shown: String,
    key: Option<Key>,
    backoff: Duration,
    /// The form of requests that the endpoint takes, once known.
    form: OnceLock<Form>,
    budget: Mutex<Budget>,
    /// True where a reply came without its tokens.
    uncounted: AtomicBool,
    /// The model that a reply was of, where it was another than was asked for.
    other_model: OnceLock<String>,
}

impl<P: Protocol> Client<P> {
    /// # Errors
    /// When the key cannot be read.
    pub(crate) fn new(endpoint: &Endpoint, protocol: Arc<P>, spent: Usage) -> kit::Result<Client<P>> {
        let mut config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(endpoint.timeout_seconds)))
            .http_status_as_error(false)
            // A redirect would take the question, and perhaps the key, somewhere that nobody named.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections_per_host(endpoint.concurrency)
            .accept_encoding("identity")
            .user_agent(concat!("halftone/", env!("CARGO_PKG_VERSION")));
        let address = endpoint.address(P::PATH);
        let host = address.parse::<ureq::http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        if host.is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127.")) {
            config = config.proxy(None);
        }
        Ok(Client {
            agent: config.build().new_agent(),
            endpoint: endpoint.clone(),
            shown: endpoint.shown(P::PATH),
            address,
            key: endpoint.key()?,
            protocol,
            backoff: Duration::from_secs_f64(endpoint.backoff_seconds),
            form: OnceLock::new(),
            budget: Mutex::new(Budget { spent: endpoint.cost(spent), under_way: 0.0 }),
            uncounted: AtomicBool::new(false),
            other_model: OnceLock::new(),
        })
    }

    /// Finds out what the endpoint takes, by a request whose answer is not used; the error is why it takes nothing.
    /// Gives the number of requests sent and their tokens, too.
    pub(crate) fn settle(&self, stop: &AtomicBool) -> (Result<Settled, Reply<P::Answer>>, u32, Usage) {
        let (mut all, mut usage) = (0, Usage::default());
        let mut refusals: Vec<(String, Vec<String>)> = Vec::new();
        for form in self.protocol.forms() {
            let probe = self.protocol.probe(form);
            let sent = self.ask_as(&probe, form, true, stop);
            all += sent.times;
            usage += sent.usage;
            let detail = match sent.reply {
                Reply::Answered(answers) if answers.len() < probe.len() => {
                    format!("it gave {} of {} answers", answers.len(), probe.len())
                }
                Reply::Nothing(reason, detail) if reason != BAD_ANSWER => detail,
                reply @ (Reply::Answered(_) | Reply::Nothing(..)) => {
                    let mut remarks = Vec::new();
                    if form != self.protocol.forms()[0] {
                        remarks.push(format!("it takes requests with {}", self.protocol.name(form)));
                    }
                    if let Reply::Nothing(_, detail) = reply {
                        remarks.push(format!("its first reply is of no use: {detail}"));
                    }
                    if self.uncounted.load(Ordering::Relaxed) {
                        remarks
                            .push("it states no `usage`: the cost is that of the tokens that are expected".to_owned());
                    }
                    if let Some(model) = self.other_model.get() {
                        remarks
                            .push(format!("its reply is of the model `{model}`, asked for `{}`", self.endpoint.model));
                    }
                    self.form.set(form).expect("it is settled once");
                    let remark = if remarks.is_empty() {
                        String::new()
                    } else {
                        format!("{}: {}", self.shown, remarks.join("; "))
                    };
                    return (Ok(Settled { form, remark }), all, usage);
                }
                other => return (Err(other), all, usage),
            };
            match refusals.iter_mut().find(|(known, _)| *known == detail) {
                Some((_, forms)) => forms.push(self.protocol.name(form)),
                None => refusals.push((detail, vec![self.protocol.name(form)])),
            }
        }
        let refusals: Vec<String> =
            refusals.into_iter().map(|(detail, forms)| format!("{}: {detail}", forms.join("; "))).collect();
        let text = format!("{} does not take {}: {}", self.shown, self.protocol.wanted(), refusals.join("; "));
        (Err(Reply::Hopeless(text)), all, usage)
    }

    /// Sends questions in one request until they are answered or hopeless.
    pub(crate) fn ask(&self, questions: &[P::Question], stop: &AtomicBool) -> Sent<P::Answer> {
        self.ask_as(questions, *self.form.get().expect("settled before the first question"), false, stop)
    }

    fn ask_as(&self, questions: &[P::Question], form: Form, is_probe: bool, stop: &AtomicBool) -> Sent<P::Answer> {
        let request = self.endpoint.request(&*self.protocol, questions, form);
        let expected = self.endpoint.cost(Usage::ahead(&request, self.protocol.tokens(questions)));
        if let Err(text) = self.reserve(expected) {
            return Sent { reply: Reply::Unaffordable(text), times: 0, usage: Usage::default() };
        }
        let mut usage = Usage::default();
        let (reply, times) = self.insist(&request, questions, form, is_probe, &mut usage, stop);
        let is_paid = matches!(reply, Reply::Answered(_) | Reply::Wrong(..) | Reply::Nothing(BAD_ANSWER, _));
        if is_paid && usage.is_nothing() && self.endpoint.price.is_some() {
            // A server that counts nothing does not work for nothing.
            usage = Usage::ahead(&request, self.protocol.tokens(questions));
            self.uncounted.store(true, Ordering::Relaxed);
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.under_way -= expected;
        budget.spent += self.endpoint.cost(usage);
        Sent { reply, times, usage }
    }

    /// Sets aside what a request is expected to cost.
    fn reserve(&self, expected: f64) -> Result<(), String> {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(most), Some(price)) = (self.endpoint.max_cost, &self.endpoint.price)
            && budget.spent + budget.under_way + expected > most
        {
            return Err(format!(
                "the next request to {} may cost {}; {} of `max_cost: {most}` are spent and {} are under way. What was \
                 answered is kept: raise `endpoint.max_cost` and run again to go on",
                self.shown,
                price.words(expected),
                price.words(budget.spent),
                price.words(budget.under_way),
            ));
        }
        budget.under_way += expected;
        Ok(())
    }

    /// Sends a request until it is answered or hopeless. Gives the number of times, too.
    fn insist(
        &self,
        request: &str,
        questions: &[P::Question],
        form: Form,
        is_probe: bool,
        usage: &mut Usage,
        stop: &AtomicBool,
    ) -> (Reply<P::Answer>, u32) {
        let mut sent = 0;
        loop {
            if stop.load(Ordering::Relaxed) {
                return (Reply::Abandoned, sent);
            }
            sent += 1;
            let (after, why, failure) = match self.send(request, questions, usage) {
                Try::Final(reply) => return (reply, sent),
                Try::Later { after, why, failure } => (after, why, failure),
            };
            if sent > self.endpoint.retries {
                let mut others_are_answered = || {
                    let probe = self.protocol.probe(form);
                    let request = self.endpoint.request(&*self.protocol, &probe, form);
                    !is_probe
                        && matches!(
                            self.send(&request, &probe, usage),
                            Try::Final(Reply::Answered(_) | Reply::Nothing(BAD_ANSWER, _))
                        )
                };
                // Where another question is answered, this one is at fault and not the endpoint.
                match failure {
                    Failure::Nonsense if others_are_answered() => return (Reply::Nothing(BAD_ANSWER, why), sent),
                    Failure::Broken if others_are_answered() => return (Reply::Failing(why), sent),
                    _ => {}
                }
                let text = format!("{} did not answer after {sent} requests: {why}", self.shown);
                return (Reply::Unreachable(text), sent);
            }
            if let Some(after) = after.filter(|after| *after > MAX_RETRY_AFTER) {
                let text = format!("{} asks to wait {} seconds: {why}", self.shown, after.as_secs());
                return (Reply::Unreachable(text), sent);
            }
            let until = Instant::now() + pause(self.backoff, sent, after, random_share());
            while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())));
            }
        }
    }

    fn send(&self, request: &str, questions: &[P::Question], usage: &mut Usage) -> Try<P::Answer> {
        let mut post = self.agent.post(&self.address).header("content-type", "application/json");
        for (name, value) in &self.endpoint.headers {
            post = post.header(name, value);
        }
        if let Some(key) = &self.key {
            let header = &self.endpoint.api_key_header;
            post = post.header(header, key.in_header(header));
        }
        let mut response = match post.send(request) {
            Ok(response) => response,
            Err(error) => return self.failed(&error),
        };
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (after, location) = (header("retry-after").as_deref().and_then(retry_after), header("location"));
        let packed = header("content-encoding").unwrap_or_default();
        let mut body = Vec::new();
        let read = response.body_mut().as_reader().take(P::LONGEST + 1).read_to_end(&mut body);
        // It is asked for plain; proxies pack it even so.
        let read = read.and_then(|_| unpacked(&packed, &mut body, P::LONGEST));
        let no_answer = |why: String| {
            let (why, failure) = (self.shown(why.as_bytes()), Failure::Nonsense);
            Try::Later { after, why, failure }
        };
        match status {
            200..=299 => match read {
                Err(error) => broken(after, format!("the answer broke off: {error}")),
                Ok(()) if body.len() as u64 > P::LONGEST => no_answer(format!("longer than {} bytes", P::LONGEST)),
                Ok(()) => match self.read(&body, questions, usage) {
                    Ok(Content::Answers(answers)) => Try::Final(Reply::Answered(answers)),
                    Ok(Content::NoEvidence(text)) => {
                        Try::Final(Reply::Nothing(BAD_ANSWER, self.shown(text.as_bytes())))
                    }
                    Ok(Content::Wrong(answers, text)) => {
                        let text = format!("{} {}", self.shown, self.shown(text.as_bytes()));
                        Try::Final(Reply::Wrong(answers, text))
                    }
                    Ok(Content::NoAnswer(text)) | Err(NoReply::Other(text)) => no_answer(text),
                    Err(NoReply::Error(Some(named))) => self.failed_with(named, after, &body),
                    Err(NoReply::Error(None)) => {
                        let why = format!("an error with status {status}: {}", self.shown(&body));
                        Try::Later { after, why, failure: Failure::Busy }
                    }
                },
            },
            300..=399 => {
                let to = location.map_or("elsewhere".to_owned(), |place| self.shown(place.as_bytes()));
                let text = format!("{} redirects to {to} (status {status}); give the final `url`", self.shown);
                Try::Final(Reply::Hopeless(text))
            }
            _ => self.failed_with(status, after, &body),
        }
    }

    /// The content of a body, its tokens counted.
    fn read(&self, body: &[u8], questions: &[P::Question], usage: &mut Usage) -> Result<Content<P::Answer>, NoReply> {
        let reply = reply::read(body)?;
        *usage += Usage::of(&reply);
        if let Some(model) = reply::other_model(&self.endpoint.model, &reply) {
            self.other_model.get_or_init(|| model);
        }
        Ok(self.protocol.read(questions, &reply))
    }

    /// The meaning of a status from 400 on, be it the reply's own or named in its body.
    fn failed_with(&self, status: u16, after: Option<Duration>, body: &[u8]) -> Try<P::Answer> {
        let said = self.shown(body);
        // An endpoint that took the first question knows the key and the model; what it forbids then is the question.
        let settled = self.form.get().is_some();
        match status {
            401 | 403 | 407 if !(status == 403 && settled) => {
                let hint = match &self.key {
                    Some(_) => "the key is not accepted",
                    None => "it wants a key; name it by `api_key_env` or `api_key_file`",
                };
                Try::Final(Reply::Hopeless(format!("{} answered {status}: {hint}: {said}", self.shown)))
            }
            404 | 405 => {
                let hint = "there is no such address or model; `url` usually ends in `/v1`";
                Try::Final(Reply::Hopeless(format!("{} answered {status}: {hint}: {said}", self.shown)))
            }
            408 | 409 | 425 | 429 => {
                Try::Later { after, why: format!("status {status}: {said}"), failure: Failure::Busy }
            }
            500..=599 => broken(after, format!("status {status}: {said}")),
            _ => Try::Final(Reply::Nothing(REFUSED, format!("status {status}: {said}"))),
        }
    }

    fn failed(&self, error: &ureq::Error) -> Try<P::Answer> {
        let text = self.shown(error.to_string().as_bytes());
        match error {
            ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl | ureq::Error::TlsRequired => {
                Try::Final(Reply::Hopeless(format!("{}: {text}", self.shown)))
            }
            _ => broken(None, text),
        }
    }

    /// An excerpt of the endpoint's reply: short, on one line, and without secrets.
    fn shown(&self, said: &[u8]) -> String {
        let value = json::read(said).ok();
        let message = value.as_ref().and_then(|value| {
            let places = ["/error/message", "/choices/0/error/message", "/message", "/detail", "/error"];
            places.iter().find_map(|place| value.pointer(place)?.as_str()).map(str::to_owned)
        });
        let text = kit::redact(&message.unwrap_or_else(|| String::from_utf8_lossy(said).into_owned()));
        let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        let mut short: String = text.trim().chars().take(MAX_SAID).collect();
        if text.trim().chars().count() > MAX_SAID {
            short.push_str("...");
        }
        if short.is_empty() { "(it said nothing)".to_owned() } else { short }
    }
}

/// Unpacks a body as its `Content-Encoding` says, up to `longest` bytes and one. Gzip is known by its beginning,
/// whatever that says; a body that does not begin so was unpacked on the way.
fn unpacked(encodings: &str, body: &mut Vec<u8>, longest: u64) -> std::io::Result<()> {
    for encoding in encodings.split(',').rev().map(|name| name.trim().to_ascii_lowercase()) {
        let packed = std::mem::take(body);
        let mut plain = |reader: &mut dyn Read| reader.take(longest + 1).read_to_end(body).map(drop);
        match (encoding.as_str(), &packed[..]) {
            (_, [0x1f, 0x8b, ..]) => plain(&mut flate2::read::MultiGzDecoder::new(&packed[..]))?,
            ("deflate", [first, ..]) if first & 15 == 8 => plain(&mut flate2::read::ZlibDecoder::new(&packed[..]))?,
            ("" | "identity" | "gzip" | "x-gzip" | "deflate", _) => *body = packed,
            (other, _) => {
                let text = format!("it is packed as `{other}`, which was not asked for and is not read");
                return Err(std::io::Error::other(text));
            }
        }
    }
    Ok(())
}

fn broken<A>(after: Option<Duration>, why: String) -> Try<A> {
    Try::Later { after, why, failure: Failure::Broken }
}
