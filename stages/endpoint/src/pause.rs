//! Pauses between two tries of a request.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest pause of our own choosing.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Pause before a request is sent for the `sent`th time again. `share` is drawn from [0, 1).
///
/// Without `Retry-After` half of the pause is certain; with it, the random part is added, so that no request comes
/// early.
pub(crate) fn pause(backoff: Duration, sent: u32, after: Option<Duration>, share: f64) -> Duration {
    let whole = backoff.saturating_mul(1 << (sent - 1).min(16)).min(MAX_PAUSE);
    match after {
        Some(after) => after + whole.mul_f64(share),
        None => whole.mul_f64(0.5 + 0.5 * share),
    }
}

/// A number in [0, 1) that differs from process to process; no result depends on it.
pub(crate) fn random_share() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A `Retry-After`: seconds, or a date.
pub(crate) fn retry_after(text: &str) -> Option<Duration> {
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
