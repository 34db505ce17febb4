//! The rows read so far, as digests: so that one id with two texts, and one pair twice, are found in memory that does
//! not grow with the length of texts.

use std::collections::HashMap;

use kit::{Digest, id_of};

/// Place of a row: the number of its file, and its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Among the files that are read.
    pub file: u32,
    /// From 1.
    pub line: u64,
}

/// A digest of an id or of what it stands for.
pub type Key = [u64; 2];

/// The key of an id. Ids that we make are digests already.
pub fn key(id: &str) -> Key {
    let ours = id.len() == 24 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if ours { halves(id) } else { halves(&id_of(&["given", id])) }
}

fn halves(digest: &str) -> Key {
    let half = |digits: &str| u64::from_str_radix(digits, 16).expect("12 hexadecimal digits");
    [half(&digest[..12]), half(&digest[12..])]
}

/// The key of several keys in order.
pub fn joined(keys: &[Key]) -> Key {
    let bytes: Vec<u8> = keys.iter().flatten().flat_map(|half| half.to_le_bytes()).collect();
    let digest = Digest::of(&bytes);
    let half = |at: usize| u64::from_le_bytes(digest.bytes()[at..at + 8].try_into().expect("8 bytes"));
    [half(0), half(8)]
}

/// The content and the place of an id when it was first seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    content: Key,
    place: Place,
    /// For prompts: how many responses they have. For responses: how many rows gave them.
    count: u32,
}

/// Ids with what they stand for.
#[derive(Debug, Default)]
pub struct Ids(HashMap<Key, Seen>);

impl Ids {
    /// True where an id is new, false where it was seen with the same content; where its content was another, the place
    /// of that.
    pub fn check(&self, id: Key, content: Key) -> Result<bool, Place> {
        match self.0.get(&id) {
            None => Ok(true),
            Some(seen) if seen.content == content => Ok(false),
            Some(seen) => Err(seen.place),
        }
    }

    /// Takes note of an id; nothing changes where it is known.
    pub fn note(&mut self, id: Key, content: Key, place: Place) {
        self.0.entry(id).or_insert(Seen { content, place, count: 0 });
    }

    /// Counts one more for an id that is known, and gives the number before.
    pub fn count(&mut self, id: Key) -> u32 {
        let seen = self.0.get_mut(&id).expect("counted ids are known");
        seen.count += 1;
        seen.count - 1
    }

    /// Number counted for an id.
    pub fn counted(&self, id: Key) -> u32 {
        self.0.get(&id).map_or(0, |seen| seen.count)
    }

    /// Place at which an id was first seen.
    pub fn place(&self, id: Key) -> Option<Place> {
        self.0.get(&id).map(|seen| seen.place)
    }

    /// True where some id was counted more than once.
    pub fn any_counted_twice(&self) -> bool {
        self.0.values().any(|seen| seen.count > 1)
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// A label that was given to two sides, or to one response.
#[derive(Debug, Clone, Copy)]
pub struct Labelled {
    /// The first side's key; the same again where there is one response.
    pub first: Key,
    /// P(first side better), or the label.
    pub label: Option<f64>,
    /// Place of its row.
    pub place: Place,
}

/// Pairs and items with their labels, by what they are about.
#[derive(Debug, Default)]
pub struct Labels(HashMap<Key, Labelled>);

impl Labels {
    /// The earlier label of these two sides, in either order.
    pub fn about(&self, a: Key, b: Key) -> Option<Labelled> {
        self.0.get(&unordered(a, b)).copied()
    }

    /// Takes note of a label.
    pub fn note(&mut self, a: Key, b: Key, label: Option<f64>, place: Place) {
        self.0.insert(unordered(a, b), Labelled { first: a, label, place });
    }
}

/// The key of two things in any order.
pub fn unordered(a: Key, b: Key) -> Key {
    if a <= b { joined(&[a, b]) } else { joined(&[b, a]) }
}
