//! The expected content of a file, by the tag that the hub gives it, and its check.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use kit::{Error, Result};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A file's content as a tag identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The SHA-256 of a large file.
    Large(String),
    /// The id that git gives to a small one.
    Small(String),
}

impl Content {
    /// Reads an `ETag` or `X-Linked-ETag`; other servers put other things there.
    pub fn of_tag(tag: &str) -> Option<Content> {
        let tag = tag.trim().trim_start_matches("W/").trim_matches('"');
        let hexadecimal = tag.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match tag.len() {
            64 if hexadecimal => Some(Content::Large(tag.to_owned())),
            40 if hexadecimal => Some(Content::Small(tag.to_owned())),
            _ => None,
        }
    }

    /// True where a file has this content.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_of(&self, path: &Path) -> Result<bool> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let mut digest = match self {
            Content::Large(_) => Context::new(&SHA256),
            Content::Small(_) => {
                let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                let size = file.metadata().map_err(Error::io(path))?.len();
                digest.update(format!("blob {size}\0").as_bytes());
                digest
            }
        };
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer).map_err(Error::io(path))? {
                0 => break,
                read => digest.update(&buffer[..read]),
            }
        }
        let found: String = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let (Content::Large(wanted) | Content::Small(wanted)) = self;
        Ok(found == *wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_distinguished_and_hold_a_file_to_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "hello\n").unwrap();
        // `printf 'hello\n' | sha256sum`, and `git hash-object`.
        let large = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let small = "ce013625030ba8dba906f756967f9e9ca394464a";
        for tag in [format!("\"{large}\""), format!("\"{small}\""), format!("W/\"{small}\"")] {
            let content = Content::of_tag(&tag).unwrap();
            std::fs::write(&path, "hello\n").unwrap();
            assert!(content.is_of(&path).unwrap(), "{tag}");
            std::fs::write(&path, "hallo\n").unwrap();
            assert!(!content.is_of(&path).unwrap(), "{tag}");
        }
        // An S3 upload in parts, and a word.
        assert_eq!(Content::of_tag("\"d41d8cd98f00b204e9800998ecf8427e-38\""), None);
        assert_eq!(Content::of_tag("\"abc\""), None);
    }
}
