//! Files of decisions as JPO's evaluation writes them: one JSON object with an object for each run, in which a key
//! joins prompt, reference answer and the run's answer by four `<SEP>`, and the value says who won: `model`, `gold` or
//! `equal`.

use std::io::Read;
use std::path::Path;

use kit::{Error, Result};
use serde_json::Value;

use super::bytes::{failed, open};
use super::values::Wanted;
use super::{Fields, SourceRow};
use crate::bad_row::BadRow;

/// The separator of a key's parts.
const BETWEEN: &str = "<SEP><SEP><SEP><SEP>";

/// True where a file that begins like this is one of decisions.
pub fn is_begun(start: &[u8]) -> bool {
    let mut text = Scanner { text: start, at: 0, line: 1 };
    let mut first_key = || -> std::result::Result<&[u8], String> {
        text.take(b'{')?;
        text.string()?;
        text.take(b':')?;
        text.take(b'{')?;
        text.take(b'"')?;
        Ok(&start[text.at..])
    };
    first_key().is_ok_and(|key| key.windows(BETWEEN.len()).any(|part| part == BETWEEN.as_bytes()))
}

/// The decisions of a file as rows of a labelled comparison, the run's answer first.
///
/// # Errors
/// When the file cannot be read or is not of this form.
pub fn rows(path: &Path, wanted: &Wanted) -> Result<Vec<SourceRow>> {
    let mut bytes = Vec::new();
    open(path)?.0.read_to_end(&mut bytes).map_err(failed(path))?;
    let mut text = Scanner { text: &bytes, at: 0, line: 1 };
    let mut rows = Vec::new();
    match text.runs(wanted, &mut rows) {
        Ok(()) => Ok(rows),
        Err(why) => Err(Error::data(format!("{}:{}: {why}", path.display(), text.line))),
    }
}

/// A place in the text, and its line.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl Scanner<'_> {
    fn runs(&mut self, wanted: &Wanted, rows: &mut Vec<SourceRow>) -> std::result::Result<(), String> {
        self.members(|text, run| text.members(|text, key| text.decision(&run, &key, wanted, rows)))?;
        match self.peek() {
            None => Ok(()),
            Some(byte) => Err(format!("`{}` after the end of the object", byte.escape_ascii())),
        }
    }

    fn decision(
        &mut self,
        run: &str,
        key: &str,
        wanted: &Wanted,
        rows: &mut Vec<SourceRow>,
    ) -> std::result::Result<(), String> {
        let (line, bytes) = (self.line, key.len() as u64);
        let winner = self.string()?;
        let feedback = match winner.as_str() {
            "model" => Ok(0),
            "gold" => Ok(1),
            "equal" => Ok(2),
            _ => Err(BadRow::value("decision", format!("`{winner}`"), "`model`, `gold` or `equal`")),
        };
        let fields = feedback.and_then(|feedback| match key.split(BETWEEN).collect::<Vec<_>>()[..] {
            [prompt, gold, answer] => {
                let text = |text: &str| Value::from(text);
                let all = [
                    ("prompt", text(prompt)),
                    ("response_0", text(answer)),
                    ("response_1", text(gold)),
                    ("feedback", Value::from(feedback)),
                    ("model_0", text(run)),
                    ("model_1", text("gold")),
                ];
                let keep = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted.contains(name));
                Ok(Fields::from_iter(all.into_iter().filter(|(name, _)| keep(name)).map(|(n, v)| (n.to_owned(), v))))
            }
            ref parts => {
                let detail = format!("the key has {} parts, wanted prompt, gold and answer", parts.len());
                Err(BadRow::new("bad_key", detail))
            }
        });
        rows.push(SourceRow { line, bytes, length: bytes, fields });
        Ok(())
    }

    /// An object, `each` reading the value of a name.
    fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, String) -> std::result::Result<(), String>,
    ) -> std::result::Result<(), String> {
        self.take(b'{')?;
        if self.peek() == Some(b'}') {
            return self.take(b'}');
        }
        loop {
            let name = self.string()?;
            self.take(b':')?;
            each(self, name)?;
            match self.peek() {
                Some(b',') => self.take(b',')?,
                _ => return self.take(b'}'),
            }
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at).filter(|byte| byte.is_ascii_whitespace()) {
            self.line += u64::from(*byte == b'\n');
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> std::result::Result<(), String> {
        match self.peek() {
            Some(byte) if byte == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(byte) => Err(format!("`{}` where `{}` was wanted", byte.escape_ascii(), wanted.escape_ascii())),
            None => Err(format!("the file ends where `{}` was wanted", wanted.escape_ascii())),
        }
    }

    fn string(&mut self) -> std::result::Result<String, String> {
        self.take(b'"')?;
        let start = self.at - 1;
        let mut escaped = false;
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return serde_json::from_slice(&self.text[start..self.at]).map_err(|error| error.to_string()),
                _ => {}
            }
        }
        Err("the file ends inside a string".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<SourceRow>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        rows(file.path(), &None)
    }

    #[test]
    fn a_key_becomes_a_comparison_and_a_bad_one_costs_itself() {
        let text = "{\n \"dove\": {\n  \"q\\n<SEP><SEP><SEP><SEP>g<SEP><SEP><SEP><SEP>m\": \"model\",\n  \"q<SEP><SEP><SEP><SEP>g\": \"gold\",\n  \"q<SEP><SEP><SEP><SEP>g<SEP><SEP><SEP><SEP>n\": \"both\"}\n}\n";
        assert!(is_begun(text.as_bytes()));
        let rows = read(text).unwrap();
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 4, 5]);
        let fields = rows[0].fields.as_ref().unwrap();
        let values = ["prompt", "response_0", "response_1", "model_0"].map(|name| fields[name].as_str().unwrap());
        assert_eq!((values, &fields["feedback"]), (["q\n", "m", "g", "dove"], &Value::from(0)));
        let reason = |row: &SourceRow| row.fields.as_ref().unwrap_err().to_string();
        assert!(reason(&rows[1]).contains("the key has 2 parts"), "{}", reason(&rows[1]));
        assert!(reason(&rows[2]).contains("wanted `model`, `gold` or `equal`"), "{}", reason(&rows[2]));
    }

    #[test]
    fn other_objects_are_none_and_a_torn_file_is_told_with_its_line() {
        for text in ["{\"prompt\": \"<SEP><SEP><SEP><SEP>\"}", "{\"a\": {\"b\": 1}}", "{", "[1]", ""] {
            assert!(!is_begun(text.as_bytes()), "{text}");
        }
        let torn = read("{\"run\": {\n\"q<SEP><SEP><SEP><SEP>g<SEP><SEP><SEP><SEP>m\": \"model\",\n");
        let message = torn.err().unwrap().to_string();
        assert!(message.contains(":3: the file ends where `\\\"` was wanted"), "{message}");
    }
}
