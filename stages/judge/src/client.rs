//! One request to the endpoint, and when it is worth sending again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kit::Result;
use ureq::Agent;

use crate::endpoint::{Endpoint, Key};
use crate::labels::Labels;
use crate::reply::Heard;

/// The longest answer that is read; a completion of one token with its alternatives has a few kilobytes.
const MAX_BODY: u64 = 1 << 20;
/// The longest pause of our own choosing.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// How much of what an endpoint says about an error is repeated.
const MAX_SAID: usize = 300;

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It was answered.
    Answered(Heard),
    /// The endpoint does not take this request: reason and detail. It cost nothing.
    Refused(String, String),
    /// It failed as often as it may; running again may help.
    Unreachable(String),
    /// No request will succeed.
    Hopeless(String),
    /// A stop was asked for before it was answered.
    Abandoned,
}

/// One try.
enum Try {
    Final(Reply),
    Later {
        after: Option<Duration>,
        why: String,
    },
    /// The limit of tokens goes by another name there.
    OtherLimit,
}

/// Speaks with one endpoint.
pub(crate) struct Client {
    agent: Agent,
    address: String,
    key: Option<Key>,
    labels: Labels,
    retries: u32,
    backoff: Duration,
    /// The endpoint has refused `max_tokens` and named `max_completion_tokens` in its place.
    newer_limit: AtomicBool,
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
            address,
            key: endpoint.key()?,
            labels: labels.clone(),
            retries: endpoint.retries,
            backoff: Duration::from_secs_f64(endpoint.backoff_seconds),
            newer_limit: AtomicBool::new(false),
        })
    }

    /// Sends a request until it is answered or hopeless. Gives the number of times it was sent, too.
    pub(crate) fn ask(&self, request: &str, stop: &AtomicBool) -> (Reply, u32) {
        let mut sent = 0;
        loop {
            if stop.load(Ordering::Relaxed) {
                return (Reply::Abandoned, sent);
            }
            sent += 1;
            let (after, why) = match self.send(request) {
                Try::Final(reply) => return (reply, sent),
                Try::Later { after, why } => (after, why),
                Try::OtherLimit => unreachable!("`send` tries the other name"),
            };
            if sent > self.retries {
                let text = format!("{} did not answer after {sent} requests: {why}", self.address);
                return (Reply::Unreachable(text), sent);
            }
            if let Some(after) = after.filter(|after| *after > MAX_RETRY_AFTER) {
                let text = format!("{} asks to wait {} seconds: {why}", self.address, after.as_secs());
                return (Reply::Unreachable(text), sent);
            }
            let until = Instant::now() + pause(self.backoff, sent, after, random_share());
            while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Sends a request under the name of the limit that the endpoint takes.
    fn send(&self, request: &str) -> Try {
        if !self.newer_limit.load(Ordering::Relaxed) {
            match self.send_as_it_is(request) {
                Try::OtherLimit => self.newer_limit.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        let newer = Endpoint::with_newer_limit(request).expect("a request is an object with a limit");
        match self.send_as_it_is(&newer) {
            Try::OtherLimit => {
                let text = format!("{} takes neither `max_tokens` nor `max_completion_tokens`", self.address);
                Try::Final(Reply::Hopeless(text))
            }
            other => other,
        }
    }

    fn send_as_it_is(&self, request: &str) -> Try {
        let mut post = self.agent.post(&self.address).header("content-type", "application/json");
        if let Some(key) = &self.key {
            post = post.header("authorization", key.bearer());
        }
        let mut response = match post.send(request) {
            Ok(response) => response,
            Err(error) => return self.failed(&error),
        };
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (after, location) = (header("retry-after").as_deref().and_then(retry_after), header("location"));
        let mut body = Vec::new();
        let read = response.body_mut().as_reader().take(MAX_BODY + 1).read_to_end(&mut body);
        let later = |why: String| Try::Later { after, why };
        match status {
            200..=299 => match read {
                Err(error) => later(format!("the answer broke off: {error}")),
                Ok(_) if body.len() as u64 > MAX_BODY => {
                    let detail = format!("longer than {MAX_BODY} bytes");
                    Try::Final(Reply::Answered(Heard::Nothing("bad_answer".to_owned(), detail)))
                }
                Ok(_) => Try::Final(Reply::Answered(self.without_key(Heard::read(&body, &self.labels)))),
            },
            300..=399 => {
                let to = location.map_or("elsewhere".to_owned(), |place| self.shown(place.as_bytes()));
                let text = format!("{} redirects to {to} (status {status}); give the final `url`", self.address);
                Try::Final(Reply::Hopeless(text))
            }
            401 | 403 | 407 => {
                let hint = match &self.key {
                    Some(_) => "the key is not accepted",
                    None => "it wants a key; name it by `api_key_env` or `api_key_file`",
                };
                let text = format!("{} answered {status}: {hint}: {}", self.address, self.shown(&body));
                Try::Final(Reply::Hopeless(text))
            }
            404 | 405 => {
                let text = format!(
                    "{} answered {status}: there is no such address or model; `url` usually ends in `/v1`: {}",
                    self.address,
                    self.shown(&body)
                );
                Try::Final(Reply::Hopeless(text))
            }
            // OpenAI: "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'".
            400 if String::from_utf8_lossy(&body).contains("max_completion_tokens") => Try::OtherLimit,
            408 | 409 | 425 | 429 | 500..=599 => later(format!("status {status}: {}", self.shown(&body))),
            _ => {
                let detail = format!("status {status}: {}", self.shown(&body));
                Try::Final(Reply::Refused("refused_by_endpoint".to_owned(), detail))
            }
        }
    }

    fn failed(&self, error: &ureq::Error) -> Try {
        let text = self.shown(error.to_string().as_bytes());
        match error {
            ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl | ureq::Error::TlsRequired => {
                Try::Final(Reply::Hopeless(format!("{}: {text}", self.address)))
            }
            _ => Try::Later { after: None, why: text },
        }
    }

    fn without_key(&self, heard: Heard) -> Heard {
        match heard {
            Heard::Nothing(reason, detail) => Heard::Nothing(reason, self.shown(detail.as_bytes())),
            labels => labels,
        }
    }

    /// What an endpoint said, short, on one line, and without the key.
    fn shown(&self, said: &[u8]) -> String {
        let value: Option<serde_json::Value> = serde_json::from_slice(said).ok();
        let message = value.as_ref().and_then(|value| {
            value
                .pointer("/error/message")
                .or(value.get("message"))
                .or(value.get("detail"))?
                .as_str()
                .map(str::to_owned)
        });
        let text = message.unwrap_or_else(|| String::from_utf8_lossy(said).into_owned());
        let text = self.key.as_ref().map_or(text.clone(), |key| key.redact(&text));
        let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        let mut short: String = text.trim().chars().take(MAX_SAID).collect();
        if text.trim().chars().count() > MAX_SAID {
            short.push_str("...");
        }
        if short.is_empty() { "(it said nothing)".to_owned() } else { short }
    }
}

/// How long to wait before sending again for the `sent`th time. `share` is drawn from [0, 1).
///
/// Without `Retry-After` half of the pause is certain; with it, the random part is added, so that nobody comes early.
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
