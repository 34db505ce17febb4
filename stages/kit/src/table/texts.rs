//! Many short texts in two allocations.

/// Texts, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    /// Adds a text.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// Adds others behind the last.
    pub fn append(&mut self, more: &Texts) {
        let before = self.text.len();
        self.text.push_str(&more.text);
        self.ends.extend(more.ends.iter().map(|end| before + end));
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A text by its number, from 0.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn get(&self, number: u32) -> &str {
        let number = number as usize;
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.text[start..self.ends[number]]
    }

    /// The number of a text, where they are sorted and it is one of them.
    pub fn find(&self, text: &str) -> Option<u32> {
        let (mut from, mut until) = (0, self.ends.len() as u32);
        while from < until {
            let middle = from + (until - from) / 2;
            match self.get(middle).cmp(text) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => until = middle,
            }
        }
        None
    }
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Texts {
        let mut all = Texts::default();
        texts.into_iter().for_each(|text| all.push(text.as_ref()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_are_found() {
        let mut texts: Texts = ["", "a", "ab"].into_iter().collect();
        texts.append(&["b", "é"].into_iter().collect());
        assert_eq!(texts.len(), 5);
        for (number, text) in (0..).zip(["", "a", "ab", "b", "é"]) {
            assert_eq!((texts.get(number), texts.find(text)), (text, Some(number)));
        }
        assert_eq!(["aa", "c", "z", "ê"].map(|text| texts.find(text)), [None; 4]);
        assert_eq!((Texts::default().find(""), Texts::default().is_empty()), (None, true));
    }
}
