//! Addresses of shared stores.

use std::fmt;
use std::str::FromStr;

/// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `file:///folder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The word before `://`.
    pub scheme: Scheme,
    /// The bucket; empty for a folder.
    pub bucket: String,
    /// What all keys begin with, without `/` at its ends; may be empty. Of a folder its path without the first `/`.
    pub prefix: String,
}

/// The kind of place that an address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Amazon S3, and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// A folder that all machines see.
    File,
}

const SCHEMES: [(&str, Scheme); 4] =
    [("s3", Scheme::S3), ("gs", Scheme::Gs), ("az", Scheme::Az), ("file", Scheme::File)];

impl Scheme {
    /// The word for it.
    pub fn word(self) -> &'static str {
        SCHEMES.iter().find(|(_, scheme)| *scheme == self).expect("every scheme is in the list").0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.word(), self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl FromStr for Address {
    type Err = String;

    /// The text of an error is a fragment that begins with what was wanted.
    fn from_str(text: &str) -> Result<Address, String> {
        let wanted = "wanted `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `file:///folder`";
        let (word, rest) = text.split_once("://").ok_or_else(|| wanted.to_owned())?;
        let scheme = SCHEMES.iter().find(|(known, _)| *known == word).ok_or_else(|| wanted.to_owned())?.1;
        if rest.contains(['@', '?', '#', '\\']) || rest.chars().any(|letter| letter.is_control() || letter == ' ') {
            return Err(format!("{wanted}, without `@`, `?`, `#` and spaces: keys come from the environment alone"));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if prefix.split('/').any(|part| [".", ".."].contains(&part) || (part.is_empty() && !prefix.is_empty())) {
            return Err(format!("{wanted}, without empty parts, `.` and `..`"));
        }
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
        };
        match (scheme, bucket) {
            (Scheme::File, "") if !prefix.is_empty() => {}
            (Scheme::File, _) => return Err("wanted `file:///folder`: three slashes and the whole path".to_owned()),
            (_, bucket) if is_name(bucket) => {}
            _ => return Err(wanted.to_owned()),
        }
        Ok(Address { scheme, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, bucket, prefix) in [
            ("s3://b/p/q", "b", "p/q"),
            ("s3://b.c-d/", "b.c-d", ""),
            ("gs://b", "b", ""),
            ("az://c/p", "c", "p"),
            ("file:///mnt/share", "", "mnt/share"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.bucket.as_str(), address.prefix.as_str()), (bucket, prefix), "{text}");
            assert_eq!(address.to_string(), text.trim_end_matches('/'));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "s3", "s3://", "s3:///p", "ftp://b", "file://relative", "file://", "file:///", "s3://b//p"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        for text in ["s3://key:secret@b/p", "s3://b/p?key=secret", "s3://b/../p", "file:///a/./b"] {
            let said = text.parse::<Address>().unwrap_err();
            assert!(said.contains("without") && !said.contains("secret"), "{said}");
        }
    }
}
