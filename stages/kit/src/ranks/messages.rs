//! What ranks tell each other, as bytes: numbers, or an error.

use std::io;

use crate::error::{Error, Result};

/// A message: a word for its kind, its length, and numbers or the text of an error.
pub(super) fn encoded(own: Result<Vec<f64>>) -> Vec<u8> {
    let (kind, body) = match own {
        Ok(numbers) => (b'n', numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Err(Error::Data(text)) => (b'd', text.into_bytes()),
        Err(Error::Pipeline(text)) => (b'p', text.into_bytes()),
        Err(Error::Unreachable(text)) => (b'u', text.into_bytes()),
        Err(Error::Waiting(text)) => (b'w', text.into_bytes()),
        Err(Error::Interrupted) => (b'i', Vec::new()),
        Err(Error::Io { path, source }) => (b'o', format!("{}\0{source}", path.display()).into_bytes()),
        Err(Error::Internal(text)) => (b'b', text.into_bytes()),
    };
    [&[kind][..], &(body.len() as u64).to_le_bytes(), &body].concat()
}

/// The first of several messages; nothing where there is none.
pub(super) fn decoded(rest: &mut &[u8]) -> Option<Result<Vec<f64>>> {
    let (head, tail) = rest.split_first_chunk::<9>()?;
    let length = u64::from_le_bytes(head[1..].try_into().ok()?);
    let (body, tail) = tail.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = tail;
    let text = || String::from_utf8_lossy(body).into_owned();
    Some(Err(match head[0] {
        b'n' => {
            let number = |eight: &[u8]| f64::from_le_bytes(eight.try_into().expect("eight bytes"));
            return Some(Ok(body.chunks_exact(8).map(number).collect()));
        }
        b'd' => Error::Data(text()),
        b'p' => Error::Pipeline(text()),
        b'u' => Error::Unreachable(text()),
        b'w' => Error::Waiting(text()),
        b'i' => Error::Interrupted,
        b'o' => {
            let text = text();
            let (path, source) = text.split_once('\0')?;
            Error::Io { path: path.into(), source: io::Error::other(source) }
        }
        b'b' => Error::Internal(text()),
        _ => return None,
    }))
}
