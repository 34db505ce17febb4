//! One request to the endpoint, and when it is worth sending again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kit::Result;
use ureq::Agent;

use crate::endpoint::{Endpoint, Key, Parameters};
use crate::json;
use crate::labels::Labels;
use crate::reply::{Answer, ReplyBody};

/// The longest answer that is read; a completion of one token with its alternatives has a few kilobytes.
const MAX_BODY: u64 = 1 << 20;
/// The longest pause of our own choosing.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// The reason of a completion from which no verdict can be read.
pub(crate) const BAD_ANSWER: &str = "bad_answer";
/// The reason of a request that the endpoint does not take.
pub(crate) const REFUSED: &str = "refused_by_endpoint";
/// The reason of a request to which the endpoint fails while it answers others.
pub(crate) const SERVER_ERROR: &str = "server_error";
/// Most characters of an endpoint's error that a message repeats.
const MAX_SAID: usize = 300;

/// The result of a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It was answered.
    Answered(Answer),
    /// There is no verdict in what the endpoint says to it: reason and detail.
    Nothing(&'static str, String),
    /// It failed as often as it may, and another one was answered meanwhile: why.
    Failing(String),
    /// It failed as often as it may; running again may help.
    Unreachable(String),
    /// No request will succeed.
    Hopeless(String),
    /// A stop was requested before the answer.
    Abandoned,
}

/// One try.
enum Try {
    Final(Reply),
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
pub(crate) struct Client {
    agent: Agent,
    endpoint: Endpoint,
    address: String,
    shown: String,
    key: Option<Key>,
    labels: Labels,
    backoff: Duration,
    /// The parameters that the endpoint accepts, once known.
    parameters: OnceLock<Parameters>,
}

impl Client {
    /// # Errors
    /// When the key cannot be read.
    pub(crate) fn new(endpoint: &Endpoint, labels: &Labels) -> Result<Client> {
        let mut config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(endpoint.timeout_seconds)))
            .http_status_as_error(false)
            // A redirect would take the question, and perhaps the key, somewhere that nobody named.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections_per_host(endpoint.concurrency)
            .accept_encoding("identity")
            .user_agent(concat!("halftone/", env!("CARGO_PKG_VERSION")));
        let address = endpoint.address();
        let host = address.parse::<ureq::http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        if host.is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127.")) {
            config = config.proxy(None);
        }
        Ok(Client {
            agent: config.build().new_agent(),
            endpoint: endpoint.clone(),
            shown: endpoint.shown(),
            address,
            key: endpoint.key()?,
            labels: labels.clone(),
            backoff: Duration::from_secs_f64(endpoint.backoff_seconds),
            parameters: OnceLock::new(),
        })
    }

    /// Finds out what the endpoint takes, by a request whose answer is not used. Gives why it takes nothing, and the
    /// number of requests sent.
    pub(crate) fn settle(&self, stop: &AtomicBool) -> (Option<Reply>, u32) {
        let mut all = 0;
        let mut refusals = Vec::new();
        for parameters in Parameters::ALL {
            let (reply, sent) = self.ask_as(Endpoint::PROBE, parameters, stop);
            all += sent;
            match reply {
                Reply::Answered(_) | Reply::Nothing(BAD_ANSWER, _) => {
                    self.parameters.set(parameters).expect("it is settled once");
                    return (None, all);
                }
                Reply::Nothing(_, detail) => refusals.push(format!("{parameters}: {detail}")),
                other => return (Some(other), all),
            }
        }
        let text = format!(
            "{} does not take a request for one token with `logprobs` and `top_logprobs: {}`: {}",
            self.shown,
            self.endpoint.top_logprobs,
            refusals.join("; ")
        );
        (Some(Reply::Hopeless(text)), all)
    }

    /// Sends a question until it is answered or hopeless. Gives the number of times it was sent, too.
    pub(crate) fn ask(&self, question: &str, stop: &AtomicBool) -> (Reply, u32) {
        self.ask_as(question, *self.parameters.get().expect("settled before the first question"), stop)
    }

    fn ask_as(&self, question: &str, parameters: Parameters, stop: &AtomicBool) -> (Reply, u32) {
        let request = self.endpoint.request_as(question, parameters);
        let mut sent = 0;
        loop {
            if stop.load(Ordering::Relaxed) {
                return (Reply::Abandoned, sent);
            }
            sent += 1;
            let (after, why, failure) = match self.send(&request) {
                Try::Final(reply) => return (reply, sent),
                Try::Later { after, why, failure } => (after, why, failure),
            };
            if sent > self.endpoint.retries {
                let others_are_answered = || {
                    let probe = self.endpoint.request_as(Endpoint::PROBE, parameters);
                    question != Endpoint::PROBE
                        && matches!(self.send(&probe), Try::Final(Reply::Answered(_) | Reply::Nothing(BAD_ANSWER, _)))
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

    fn send(&self, request: &str) -> Try {
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
        let read = response.body_mut().as_reader().take(MAX_BODY + 1).read_to_end(&mut body);
        // It is asked for plain; proxies pack it even so.
        let read = read.and_then(|_| unpacked(&packed, &mut body));
        let no_answer = |why: String| {
            let (why, failure) = (self.shown(why.as_bytes()), Failure::Nonsense);
            Try::Later { after, why, failure }
        };
        match status {
            200..=299 => match read {
                Err(error) => broken(after, format!("the answer broke off: {error}")),
                Ok(()) if body.len() as u64 > MAX_BODY => no_answer(format!("longer than {MAX_BODY} bytes")),
                Ok(()) => match ReplyBody::read(&body, &self.labels) {
                    ReplyBody::Answer(answer) => Try::Final(Reply::Answered(answer)),
                    ReplyBody::NoEvidence(text) => Try::Final(Reply::Nothing(BAD_ANSWER, self.shown(text.as_bytes()))),
                    ReplyBody::NoAnswer(text) => no_answer(text),
                    ReplyBody::Error(Some(named)) => self.failed_with(named, after, &body),
                    ReplyBody::Error(None) => {
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

    /// The meaning of a status from 400 on, be it the reply's own or named in its body.
    fn failed_with(&self, status: u16, after: Option<Duration>, body: &[u8]) -> Try {
        let said = self.shown(body);
        // An endpoint that took the first question knows the key and the model; what it forbids then is the question.
        let settled = self.parameters.get().is_some();
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

    fn failed(&self, error: &ureq::Error) -> Try {
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

/// Unpacks a body as its `Content-Encoding` says, up to [`MAX_BODY`]. Gzip is known by its beginning, whatever that says;
/// a body that does not begin so was unpacked on the way.
fn unpacked(encodings: &str, body: &mut Vec<u8>) -> std::io::Result<()> {
    for encoding in encodings.split(',').rev().map(|name| name.trim().to_ascii_lowercase()) {
        let packed = std::mem::take(body);
        let mut plain = |reader: &mut dyn Read| reader.take(MAX_BODY + 1).read_to_end(body).map(drop);
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

fn broken(after: Option<Duration>, why: String) -> Try {
    Try::Later { after, why, failure: Failure::Broken }
}

/// Pause before a request is sent for the `sent`th time again. `share` is drawn from [0, 1).
///
/// Without `Retry-After` half of the pause is certain; with it, the random part is added, so that no request comes
/// early.
fn pause(backoff: Duration, sent: u32, after: Option<Duration>, share: f64) -> Duration {
    let whole = backoff.saturating_mul(1 << (sent - 1).min(16)).min(MAX_PAUSE);
    match after {
        Some(after) => after + whole.mul_f64(share),
        None => whole.mul_f64(0.5 + 0.5 * share),
    }
}

/// A number in [0, 1) that differs from process to process; no result depends on it.
fn random_share() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A `Retry-After`: seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let then = UNIX_EPOCH + Duration::from_secs(seconds_of_date(text)?);
    Some(then.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn seconds_of_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split([' ', ',', ':']).filter(|part| !part.is_empty()).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = parts[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let number = |text: &str| text.parse::<u64>().ok();
    let (day, year) = (number(day)?, number(year).filter(|year| (1970..10_000).contains(year))?);
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 0000-03-01, so that leap days come last in a year.
    let (shifted, place) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + (153 * place + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(seconds_of_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds_of_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds_of_date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        assert_eq!(seconds_of_date("tomorrow"), None);
        assert_eq!(retry_after("3"), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("-3"), None);
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
    }

    #[test]
    fn nobody_comes_before_retry_after() {
        let backoff = Duration::from_millis(500);
        for sent in 1..40 {
            for share in [0.0, 0.3, 0.999] {
                let after = Duration::from_secs(7);
                assert!(pause(backoff, sent, Some(after), share) >= after);
                let own = pause(backoff, sent, None, share);
                assert!(own >= backoff / 2 && own <= MAX_PAUSE);
            }
        }
        assert!(pause(backoff, 2, Some(Duration::from_secs(1)), 0.5) > Duration::from_secs(1));
        assert!((0..100).map(|_| random_share()).all(|share| (0.0..1.0).contains(&share)));
    }
}
