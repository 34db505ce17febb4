//! The text around the rows of a JSON file.

use crate::column::is_known;

/// The text around the objects of a file that is no JSON Lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// A list.
    List,
    /// A list under a key of an object.
    Key,
    /// Nothing: objects over several lines each, as `jq` prints them.
    Nothing,
}

/// The text around the objects of a file whose text begins with `{`; none where it is JSON Lines.
///
/// # Errors
/// When it is JSON whose rows are no objects one after another: what it is, and how to write it instead.
pub fn begun(start: &[u8]) -> Result<Option<Around>, String> {
    let mut scan = Scan { text: start, at: 0 };
    let (mut keys, mut lists, mut objects) = (Vec::new(), Vec::new(), Vec::new());
    let mut columns = 0;
    // True where the first object ends within the bytes that were read.
    let complete = scan.members(|scan, key| {
        match scan.peek() {
            Some(b'[') if scan.after(b'[') == Some(b'{') => lists.push(key.clone()),
            Some(b'[') => columns += 1,
            Some(b'{') => objects.push(scan.inner_key()),
            _ => {}
        }
        keys.push(key);
    });
    let has = |name: &str| keys.iter().any(|key| key == name);
    if has("columns") && has("data") && keys.iter().all(|key| ["columns", "index", "data"].contains(&key.as_str())) {
        return Err("an object of columns and data, as pandas writes with orient=\"split\"; write rows instead: \
                    to_json(orient=\"records\", lines=True)"
            .to_owned());
    }
    let known = keys.iter().any(|key| is_known(key));
    if !objects.is_empty() && objects.len() == keys.len() {
        let every = |holds: fn(&str) -> bool| objects.iter().all(|key| key.as_deref().is_some_and(holds));
        if known && every(|key| key == "0") {
            return Err("an object with a column under each key, as pandas writes by default; write rows instead: \
                        to_json(orient=\"records\", lines=True)"
                .to_owned());
        }
        if !known && every(is_known) {
            return Err("an object with a row under each key; write the rows alone, one a line: jq -c '.[]'".to_owned());
        }
    }
    let rest = start[scan.at..].trim_ascii();
    if known && complete && rest.is_empty() && columns > 1 && columns == keys.len() {
        return Err(
            "one object with a list for each column; write rows instead: to_json(orient=\"records\", lines=True)"
                .to_owned(),
        );
    }
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let over_lines = if complete { start[..scan.at].contains(&b'\n') } else { first.trim_ascii() == b"{" };
    Ok(if !lists.is_empty() && !known && rest.is_empty() {
        Some(Around::Key)
    } else {
        over_lines.then_some(Around::Nothing)
    })
}

/// A place in the beginning of a text.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// The byte behind this one.
    fn after(&mut self, byte: u8) -> Option<u8> {
        let mut scan = Scan { text: self.text, at: self.at };
        scan.take(byte)?;
        scan.peek()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek() == Some(wanted)).then(|| self.at += 1)
    }

    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            match self.text.get(self.at)? {
                b'\\' => self.at += 2,
                b'"' => break,
                // No string goes on behind a line's end: the line is torn.
                b'\n' => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(String::from_utf8_lossy(&self.text[start..self.at - 1]).into_owned())
    }

    /// The first key of the object that begins here.
    fn inner_key(&mut self) -> Option<String> {
        let mut scan = Scan { text: self.text, at: self.at };
        scan.take(b'{')?;
        scan.string()
    }

    /// Hands over the keys of an object, each at its value; true where it ends, with `at` behind it.
    fn members(&mut self, mut each: impl FnMut(&mut Self, String)) -> bool {
        let mut walk = || -> Option<()> {
            self.take(b'{')?;
            loop {
                let key = self.string()?;
                self.take(b':')?;
                self.peek();
                each(self, key);
                self.skip()?;
                if self.take(b',').is_none() {
                    return self.take(b'}');
                }
            }
        };
        let complete = walk().is_some();
        if !complete {
            self.at = self.text.len();
        }
        complete
    }

    /// Skips a value.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => _ = self.string()?,
                b'{' | b'[' => (depth, self.at) = (depth + 1, self.at + 1),
                b'}' | b']' => (depth, self.at) = (depth.checked_sub(1)?, self.at + 1),
                b',' | b':' if depth > 0 => self.at += 1,
                _ => {
                    let rest = &self.text[self.at..];
                    let end = |byte: &u8| b",:]}\"{[".contains(byte) || byte.is_ascii_whitespace();
                    match rest.iter().position(end)? {
                        0 => return None,
                        length => self.at += length,
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_stands_around_the_objects() {
        let check = |text: &str, expected: Option<Around>| assert_eq!(begun(text.as_bytes()), Ok(expected), "{text}");
        check("{\"prompt\":\"p\"}\n{\"prompt\":\"q\"}\n", None);
        check("{\"messages\":[{\"role\":\"user\"}]}", None);
        check("{\"x\":[{\"a\":1}]}\n{\"x\":[{\"a\":1}]}\n", None);
        check("{\"x\":[{\"a\":1}],\"winner\":\"model_a\"}", None);
        check("{\"prompt\":\"p\",\"cho\n{\"prompt\":\"q\"}\n", None);
        check("{\"data\":[{\"prompt\":\"p\"}]}", Some(Around::Key));
        check("{\n \"version\": 1,\n \"data\": [\n  {\n   \"prompt\": \"p", Some(Around::Key));
        check("{\n \"prompt\": \"p\"\n}\n{\n \"prompt\": \"q\"\n}\n", Some(Around::Nothing));
        check(&format!("{{\n \"prompt\": \"{}", "x".repeat(99)), Some(Around::Nothing));
        let error = |text: &str| begun(text.as_bytes()).unwrap_err();
        assert!(
            error("{\"prompt\":{\"0\":\"p\",\"1\":\"q\"},\"chosen\":{\"0\":\"a\"}}").contains("orient=\"records\"")
        );
        assert!(error("{\"prompt\":[\"p\",\"q\"],\"chosen\":[\"a\",\"b\"]}").contains("a list for each column"));
        assert!(error("{\"q17\":{\"prompt\":\"p\"},\"q18\":{\"prompt\":\"q\"}}").contains("a row under each key"));
    }
}
