//! The origin of an address, and the target of a redirect.

use ureq::http::Uri;

/// Scheme, host and port: who is meant by an address.
#[derive(Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Of an address with a scheme that is known.
    pub fn of(url: &str) -> Option<Origin> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_lowercase();
        let usual = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        Some(Origin { host: uri.host()?.to_lowercase(), port: uri.port_u16().unwrap_or(usual), scheme })
    }
}

/// The address that `to`, the value of `Location`, means at `url`.
pub fn leads_to(url: &str, to: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let path = rest.split(['?', '#']).next()?;
    let (host, path) = path.split_once('/').unwrap_or((path, ""));
    let to = to.split('#').next()?;
    if to.contains("://") && !to.starts_with(['/', '?', '.']) {
        return Some(to.to_owned());
    }
    Some(match to.strip_prefix("//") {
        Some(elsewhere) => format!("{scheme}://{elsewhere}"),
        None if to.starts_with('/') => format!("{scheme}://{host}{to}"),
        None if to.starts_with('?') => format!("{scheme}://{host}/{path}{to}"),
        None => {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let slash = if folder.is_empty() { "" } else { "/" };
            format!("{scheme}://{host}/{folder}{slash}{to}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_and_scheme_count() {
        let same = |one: &str, other: &str| Origin::of(one).is_some() && Origin::of(one) == Origin::of(other);
        assert!(same("https://hub.co/a", "HTTPS://Hub.co:443/b?c"));
        assert!(same("http://127.0.0.1:8000", "http://127.0.0.1:8000/x"));
        for other in ["http://hub.co/a", "https://hub.co:444/a", "https://hub.co.evil/a", "https://cdn.hub.co/a"] {
            assert!(!same("https://hub.co/a", other), "{other}");
        }
        assert!(!same("https://hub.co/a", "https://hub.co@evil.co/a"));
        assert!(!same("file:///a", "file:///a"));
    }

    #[test]
    fn a_location_is_read_from_where_it_was_found() {
        for (to, wanted) in [
            ("https://cdn.co/x?y", "https://cdn.co/x?y"),
            ("//cdn.co/x", "http://cdn.co/x"),
            ("/other/name#part", "http://hub.co:80/other/name"),
            ("sibling", "http://hub.co:80/org/sibling"),
            ("?again", "http://hub.co:80/org/name?again"),
        ] {
            assert_eq!(leads_to("http://hub.co:80/org/name?x=/y", to).as_deref(), Some(wanted), "{to}");
        }
        assert_eq!(leads_to("http://hub.co", "x").as_deref(), Some("http://hub.co/x"));
    }
}
