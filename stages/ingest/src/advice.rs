//! Advice where the columns of a file do not decide its form.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::column::{Column, words};
use crate::head::Head;
use crate::stored::{is_messages, list_in};

/// Names that a message shows, at most.
const SHOWN: usize = 40;

/// Names in a row, as messages show them.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    some(names.into_iter().map(|name| format!("`{name}`")))
}

/// Names in a row; of very many the first ones, and how many more there are.
pub fn some(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    if names.len() > SHOWN {
        let more = names.len() - SHOWN;
        names.truncate(SHOWN);
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

/// True where a column lists several responses to each prompt.
pub fn several(head: &Head<'_>) -> bool {
    head.all(Column::Responses, |value| list_in(value).is_some())
}

/// Message where no format fits.
pub fn no_format(head: &Head<'_>) -> String {
    if several(head) {
        let name = head.find(Column::Responses).unwrap_or_default();
        return format!(
            "column `{name}` lists several responses to each prompt without scores or ranks, which no format reads: write \
             a row for each of them, {{\"prompt\": ..., \"completion\": ...}}, or take the prompts alone with `format: \
             prompts`"
        );
    }
    let names = head.all_names();
    let mark = [";", "\t", "|"].into_iter().find(|mark| names.iter().all(|name| name.contains(mark)));
    if let (1, Some(mark)) = (names.len(), mark) {
        let names = list(names.iter().copied());
        return format!("its only column is {names}: values seem to be parted by {mark:?}, wanted commas");
    }
    format!(
        "the columns {} fit no known format; say what they are, such as `columns: {{prompt: {}}}`, and `format:` where it is \
         not clear then",
        list(names.iter().copied()),
        meant(head, Column::Prompt, &BTreeSet::new()).unwrap_or("THEIRS"),
    )
}

/// The name in the file that is likeliest meant by a column: of its kind, with a word of its name, else the longest
/// text.
pub fn meant<'a>(head: &Head<'a>, column: Column, taken: &BTreeSet<&str>) -> Option<&'a str> {
    let is_text = |value: &Value| value.is_string() || is_messages(value);
    let fits = |name: &&str| {
        let mut values = head.values_of((*name).to_owned()).peekable();
        values.peek().is_some()
            && values.all(|value| match column {
                column if column.is_number() => value.is_number() || value.is_boolean(),
                column if column.is_id() => value.is_string() || value.is_i64() || value.is_u64(),
                _ => is_text(value),
            })
    };
    let ours: BTreeSet<String> = column.names().iter().flat_map(|name| words(name)).filter(|it| it.len() > 1).collect();
    let likely = |name: &&str| {
        let shared = words(name).filter(|word| ours.contains(word)).count();
        let length = head.values_of((*name).to_owned()).map(|value| value.to_string().len()).sum::<usize>();
        (shared, if column.is_said() { length } else { 0 })
    };
    let candidates = head.names.iter().copied().filter(|name| !taken.contains(name) && fits(name));
    candidates.max_by_key(likely)
}
