//! The sandbox's vocabulary: ten categories of ten words, and the phrasings of a request for some of them.

use rand::Rng;

/// A category and the words that belong to it. No word belongs to two.
#[derive(Debug, PartialEq, Eq)]
pub struct Category {
    /// Name of one of them.
    pub one: &'static str,
    /// Name of several of them.
    pub several: &'static str,
    /// The words.
    pub words: [&'static str; 10],
}

/// The categories.
pub const CATEGORIES: [Category; 10] = [
    Category {
        one: "fruit",
        several: "fruits",
        words: ["apple", "pear", "plum", "cherry", "peach", "mango", "lemon", "grape", "melon", "fig"],
    },
    Category {
        one: "tool",
        several: "tools",
        words: ["hammer", "saw", "drill", "wrench", "pliers", "chisel", "shovel", "axe", "rake", "file"],
    },
    Category {
        one: "animal",
        several: "animals",
        words: ["dog", "cat", "horse", "cow", "sheep", "goat", "lion", "tiger", "bear", "wolf"],
    },
    Category {
        one: "color",
        several: "colors",
        words: ["red", "blue", "green", "yellow", "purple", "white", "black", "brown", "pink", "grey"],
    },
    Category {
        one: "metal",
        several: "metals",
        words: ["iron", "gold", "silver", "copper", "tin", "zinc", "nickel", "steel", "bronze", "brass"],
    },
    Category {
        one: "instrument",
        several: "instruments",
        words: ["violin", "piano", "flute", "drum", "guitar", "trumpet", "harp", "cello", "oboe", "banjo"],
    },
    Category {
        one: "garment",
        several: "garments",
        words: ["shirt", "coat", "hat", "scarf", "sock", "glove", "dress", "belt", "boot", "skirt"],
    },
    Category {
        one: "vehicle",
        several: "vehicles",
        words: ["car", "bus", "train", "plane", "boat", "bicycle", "truck", "tram", "ship", "van"],
    },
    Category {
        one: "tree",
        several: "trees",
        words: ["oak", "pine", "birch", "maple", "willow", "elm", "ash", "cedar", "beech", "fir"],
    },
    Category {
        one: "drink",
        several: "drinks",
        words: ["tea", "coffee", "water", "milk", "juice", "beer", "wine", "cider", "cocoa", "lemonade"],
    },
];

/// Numbers of words that a prompt can ask for: one to four.
pub const COUNTS: [&str; 4] = ["one", "two", "three", "four"];
/// Beginnings of a request.
pub const VERBS: [&str; 6] = ["name", "list", "give", "write", "find", "pick"];
/// Endings of a request, which change nothing.
pub const TAILS: [&str; 5] = ["", "please", "now", "today", "quickly"];

/// A request such as `name three fruits please:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    verb: usize,
    count: usize,
    category: usize,
    tail: usize,
}

impl Request {
    /// Every request there is, each once.
    pub fn all() -> Vec<Request> {
        let mut requests = Vec::new();
        for category in 0..CATEGORIES.len() {
            for count in 1..=COUNTS.len() {
                for verb in 0..VERBS.len() {
                    requests.extend((0..TAILS.len()).map(|tail| Request { verb, count, category, tail }));
                }
            }
        }
        requests
    }

    /// Its text: what the policy reads.
    pub fn text(&self) -> String {
        let category = self.category();
        let noun = if self.count == 1 { category.one } else { category.several };
        let tail = TAILS[self.tail];
        let gap = if tail.is_empty() { "" } else { " " };
        format!("{} {} {noun}{gap}{tail}:", VERBS[self.verb], COUNTS[self.count - 1])
    }

    /// Reads a request; nothing where the text is none.
    pub fn parse(text: &str) -> Option<Request> {
        let words: Vec<&str> = text.strip_suffix(':')?.split(' ').collect();
        let (verb, count, noun, tail) = match words[..] {
            [verb, count, noun] => (verb, count, noun, ""),
            [verb, count, noun, tail] => (verb, count, noun, tail),
            _ => return None,
        };
        let request = Request {
            verb: VERBS.iter().position(|&word| word == verb)?,
            count: COUNTS.iter().position(|&word| word == count)? + 1,
            category: CATEGORIES.iter().position(|category| category.one == noun || category.several == noun)?,
            tail: TAILS.iter().position(|&word| word == tail)?,
        };
        (request.text() == text).then_some(request)
    }

    /// Number of words that are wanted.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Of which category.
    pub fn category(&self) -> &'static Category {
        &CATEGORIES[self.category]
    }

    /// An answer of some quality in [0, 1]: at 1 it is right, at 0 the count is off half of the time and most words
    /// are of any category, some of them said twice.
    pub fn answer(&self, quality: f64, rng: &mut impl Rng) -> Vec<&'static str> {
        let carelessness = 1.0 - quality;
        let mut length = self.count;
        if rng.random_bool(0.5 * carelessness) {
            length = if rng.random_bool(0.5) { length + 1 } else { (length - 1).max(1) };
        }
        let mut words: Vec<&'static str> = Vec::with_capacity(length);
        for _ in 0..length {
            let astray = rng.random_bool(0.7 * carelessness);
            let category = if astray { &CATEGORIES[rng.random_range(0..CATEGORIES.len())] } else { self.category() };
            let word = category.words[rng.random_range(0..category.words.len())];
            let again = words.last().copied().filter(|_| rng.random_bool(0.2 * carelessness));
            words.push(again.unwrap_or(word));
        }
        words
    }
}

/// An answer's text: a space before each word, so that it follows its request without more ado.
pub fn answer_text(words: &[&str]) -> String {
    words.iter().map(|word| format!(" {word}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn no_word_belongs_to_two_categories() {
        let words: HashSet<_> = CATEGORIES.iter().flat_map(|category| category.words).collect();
        assert_eq!(words.len(), 100);
    }

    #[test]
    fn requests_are_distinct_and_read_back() {
        let all = Request::all();
        assert_eq!(all.len(), 10 * 4 * 6 * 5);
        let texts: HashSet<_> = all.iter().map(Request::text).collect();
        assert_eq!(texts.len(), all.len());
        for request in all {
            assert_eq!(Request::parse(&request.text()), Some(request));
        }
    }

    #[test]
    fn other_texts_are_no_requests() {
        for text in ["", ":", "name three fruits", "name one fruits:", "name three fruits  please:", "name five tools:"]
        {
            assert_eq!(Request::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_perfect_answer_is_right() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for request in Request::all() {
            let words = request.answer(1.0, &mut rng);
            assert_eq!(words.len(), request.count());
            assert!(words.iter().all(|word| request.category().words.contains(word)));
        }
    }
}
