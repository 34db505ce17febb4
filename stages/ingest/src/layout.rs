//! Where the columns of a file are, and how its format is found from its head.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::column::Column;
use crate::format::{Form, Format};

/// The format of a file and where its columns are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Not `auto`.
    pub format: Format,
    /// Our columns and the names they have in the file.
    pub columns: BTreeMap<Column, String>,
    /// Columns of the file that are not read, as far as its head shows.
    pub unread: Vec<String>,
    /// Whether prompts or responses of its head are plain strings.
    pub plain: bool,
}

impl Layout {
    /// The name in the file of a column, where it has one.
    pub fn get(&self, column: Column) -> Option<&str> {
        self.columns.get(&column).map(String::as_str)
    }

    /// Whether the file has a column.
    pub fn has(&self, column: Column) -> bool {
        self.columns.contains_key(&column)
    }

    /// Columns with labels and weights that the head of the file lacks, with the names that they could have further on.
    pub(crate) fn late_columns(&self) -> impl Iterator<Item = (Column, &'static str)> {
        let absent = self.format.reads().iter().filter(|column| column.all_or_none() && !self.has(**column));
        let names = absent.flat_map(|column| column.names().iter().map(|name| (*column, *name)));
        names.filter(|(_, name)| !self.unread.iter().any(|unread| unread == name))
    }

    /// The names of [`Layout::late_columns`].
    pub(crate) fn late(&self) -> impl Iterator<Item = &'static str> {
        self.late_columns().map(|(_, name)| name)
    }

    /// Whether rows carry a label, so that a comparison is a verdict too.
    pub fn labelled(&self) -> bool {
        [Column::Feedback, Column::Preference, Column::PHat].into_iter().any(|column| self.has(column))
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.format.name())?;
        for (i, (column, theirs)) in self.columns.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            if column.name() == theirs {
                write!(f, "{comma}{theirs}")?;
            } else {
                write!(f, "{comma}{} from `{theirs}`", column.name())?;
            }
        }
        if self.unread.is_empty() { Ok(()) } else { write!(f, "; not read: {}", self.unread.join(", ")) }
    }
}

/// Finds the layout from the first rows of a file.
///
/// # Errors
/// Why no format fits, or what the asked one lacks.
pub fn layout(
    head: &[Map<String, Value>],
    asked: Format,
    given: &BTreeMap<Column, String>,
    form: Form,
) -> Result<Layout, String> {
    let mut names: BTreeSet<&str> = head.iter().flat_map(|row| row.keys().map(String::as_str)).collect();
    // Parquet rows of the hub carry columns that are null throughout.
    let filled: BTreeSet<&str> =
        head.iter().flat_map(|row| row.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k.as_str())).collect();
    if names.is_empty() {
        return Err("it holds no rows".to_owned());
    }
    if let Some((column, theirs)) = given.iter().find(|(_, theirs)| !names.contains(theirs.as_str())) {
        let found = list(names.iter().copied());
        return Err(format!("`columns: {}`: there is no column `{theirs}`; found {found}", column.name()));
    }
    // What `columns:` names is taken as it says and serves as nothing else.
    given.values().for_each(|theirs| _ = names.remove(theirs.as_str()));
    let find = |column: Column| match given.get(&column) {
        Some(theirs) => Some(theirs.clone()),
        None => {
            let found = || column.names().iter().filter(|name| names.contains(**name));
            // Of several, one that holds something.
            found().find(|name| filled.contains(**name)).or_else(|| found().next()).map(|name| (*name).to_owned())
        }
    };
    let format = if asked == Format::Auto { detect(head, &find)? } else { asked };
    let (mut columns, mut empty) = (BTreeMap::new(), BTreeSet::new());
    for &column in format.reads() {
        // A system message has no place in raw text.
        if column == Column::System && form == Form::Text && !given.contains_key(&column) {
            continue;
        }
        // `input` is part of the prompt beside Alpaca's `instruction`; elsewhere it can be anything.
        if column == Column::Input
            && !given.contains_key(&column)
            && find(Column::Prompt).as_deref() != Some("instruction")
        {
            continue;
        }
        if let Some(theirs) = find(column) {
            // A column of nulls is as good as absent; if it holds something further on, that row is refused.
            let hollow = !filled.is_empty() && !filled.contains(theirs.as_str());
            if hollow && column.all_or_none() && !format.needs().contains(&column) {
                empty.insert(theirs);
            } else {
                columns.insert(column, theirs);
            }
        }
    }
    // Where a row is a prompt, its id is the prompt's.
    let of_prompts = matches!(format, Format::Prompts | Format::Embeddings);
    if of_prompts && !columns.contains_key(&Column::PromptId) && names.contains("id") {
        columns.insert(Column::PromptId, "id".to_owned());
    }
    if columns.contains_key(&Column::Prompt) && format == Format::Prompts {
        columns.remove(&Column::Messages);
    }
    // LLaMA-Factory: a conversation, and two messages that could go on with it.
    let one_message = |value: &Value| match value {
        Value::Array(items) => items.len() == 1,
        other => other.is_object(),
    };
    let goes_on = columns.get(&Column::Chosen).is_some_and(|chosen| {
        let mut values = head.iter().filter_map(|row| row.get(chosen));
        values.next().is_some_and(one_message) && values.all(one_message)
    });
    if format == Format::Preference
        && (columns.contains_key(&Column::Prompt) || !goes_on)
        && !given.contains_key(&Column::Messages)
    {
        columns.remove(&Column::Messages);
    }
    // Of several labels the finest is taken.
    let labels =
        [Column::PHat, Column::Preference, Column::Feedback].into_iter().filter(|label| columns.contains_key(label));
    labels.skip(1).collect::<Vec<_>>().iter().for_each(|label| _ = columns.remove(label));
    let has = |column: Column| columns.contains_key(&column);
    let mut missing: Vec<&str> = format.needs().iter().filter(|c| !has(**c)).map(|c| c.name()).collect();
    match format {
        Format::Prompts if !has(Column::Prompt) && !has(Column::Messages) => missing.push("prompt"),
        Format::JpoJudge if has(Column::Prompt) || (has(Column::Prompt0) && has(Column::Prompt1)) => {}
        Format::JpoJudge => missing.push("prompt"),
        Format::Embeddings if !has(Column::Prompt) && !has(Column::PromptId) => missing.push("prompt_id"),
        _ => {}
    }
    if !missing.is_empty() {
        return Err(format!(
            "format `{}` needs {}; found {}; name them with `columns:`, such as `columns: {{{}: {}}}`",
            format.name(),
            list(missing.iter().copied()),
            list(head.iter().flat_map(|row| row.keys().map(String::as_str)).collect::<BTreeSet<_>>()),
            missing[0],
            names.iter().next().unwrap_or(&"THEIRS"),
        ));
    }
    if let Some(column) = given.keys().find(|column| !format.reads().contains(column)) {
        return Err(format!("`columns: {}` has no effect: format `{}` does not read it", column.name(), format.name()));
    }
    let read: BTreeSet<&str> = columns.values().map(String::as_str).collect();
    let unread = names
        .iter()
        .filter(|name| !read.contains(**name) && !empty.contains(**name))
        .map(|name| (*name).to_owned())
        .collect();
    let said = |(column, _): &(&Column, &String)| column.is_said();
    let mut texts = columns.iter().filter(said).flat_map(|(_, name)| head.iter().filter_map(|row| row.get(name)));
    let plain = texts.any(Value::is_string);
    Ok(Layout { format, columns, unread, plain })
}

fn detect(head: &[Map<String, Value>], find: &impl Fn(Column) -> Option<String>) -> Result<Format, String> {
    use Column::*;
    let has = |columns: &[Column]| columns.iter().all(|column| find(*column).is_some());
    let values = |column: Column| {
        let name = find(column);
        head.iter().filter_map(move |row| row.get(name.as_deref()?))
    };
    Ok(if has(&[Embedding]) {
        Format::Embeddings
    } else if has(&[ChosenPrompt, Chosen, RejectedPrompt, Rejected]) {
        Format::JpoPairs
    } else if has(&[Response0, Response1]) {
        Format::JpoJudge
    } else if has(&[Chosen, Rejected]) {
        let transcript = |value: &Value| value.as_str().is_some_and(crate::messages::is_transcript);
        let hh = !has(&[Prompt]) && values(Chosen).next().is_some() && values(Chosen).all(transcript);
        if hh { Format::Hh } else { Format::Preference }
    } else if has(&[Prompt, Completion, Label]) {
        Format::Unpaired
    } else if has(&[Prompt, Completion]) {
        Format::PromptCompletion
    } else if has(&[Messages]) {
        let answered = |value: &Value| crate::messages::last_role(value).is_some_and(|role| role == "assistant");
        if values(Messages).any(answered) { Format::Conversations } else { Format::Prompts }
    } else if let Some(name) = several(head) {
        return Err(format!(
            "column `{name}` lists several responses to each prompt, which no format reads: write a row for each of them, \
             {{\"prompt\": ..., \"completion\": ..., \"score\": ...}}, or take the prompts alone with `format: prompts`"
        ));
    } else if has(&[Prompt]) {
        Format::Prompts
    } else {
        let names: BTreeSet<&str> = head.iter().flat_map(|row| row.keys().map(String::as_str)).collect();
        let mark = [";", "\t", "|"].into_iter().find(|mark| names.iter().all(|name| name.contains(mark)));
        if let (1, Some(mark)) = (names.len(), mark) {
            return Err(format!(
                "its only column is {}: values seem to be parted by {mark:?}, wanted commas",
                list(names.iter().copied())
            ));
        }
        return Err(format!(
            "the columns {} fit no known format; say what they are, such as `columns: {{prompt: {}}}`, and `format:` \
             where it is not clear then",
            list(names.iter().copied()),
            names.iter().next().unwrap_or(&"THEIRS"),
        ));
    })
}

/// The column that holds lists of responses, as UltraFeedback's raw files and NeMo-RL's have it.
fn several(head: &[Map<String, Value>]) -> Option<&'static str> {
    let lists = |name: &&str| {
        let mut values = head.iter().filter_map(|row| row.get(*name)?.as_array()?.first());
        values.next().is_some_and(Value::is_object)
    };
    ["completions", "responses"].into_iter().find(lists)
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row: &str, expected: &str) {
        let row: Map<String, Value> = serde_json::from_str(row).unwrap();
        let found = layout(&[row], Format::Auto, &BTreeMap::new(), Form::Chat);
        assert_eq!(found.map_or_else(|error| error, |layout| layout.to_string()), expected);
    }

    #[test]
    fn formats_are_found_by_their_columns() {
        check(r#"{"prompt":"p","chosen":"a","rejected":"b"}"#, "preference: prompt, chosen, rejected");
        check(r#"{"chosen":"pa","rejected":"pb","p_hat":0.7}"#, "preference: chosen, rejected, p_hat");
        check(
            r#"{"prompt":"p","prompt_id":"1","chosen":[],"rejected":[],"messages":[],"score_chosen":8,"score_rejected":2}"#,
            "preference: prompt, chosen, rejected, chosen_score from `score_chosen`, \
             rejected_score from `score_rejected`, prompt_id; not read: messages",
        );
        check(
            r#"{"chosen":"\n\nHuman: q\n\nAssistant: a","rejected":"\n\nHuman: q\n\nAssistant: b"}"#,
            "hh: chosen, rejected",
        );
        check(
            r#"{"i_chosen":"p","r_chosen":"a","i_reject":"p","r_reject":"b"}"#,
            "jpo_pairs: chosen from `r_chosen`, rejected from `r_reject`, chosen_prompt from `i_chosen`, \
             rejected_prompt from `i_reject`",
        );
        check(
            r#"{"instruction":"p","response_0":"a","response_1":"b","feedback":1}"#,
            "jpo_judge: prompt from `instruction`, response_0, response_1, feedback",
        );
        check(
            r#"{"instruction_0":"p","response_0":"a","instruction_1":"q","response_1":"b"}"#,
            "jpo_judge: prompt_0 from `instruction_0`, prompt_1 from `instruction_1`, response_0, response_1",
        );
        check(
            r#"{"instruction":"p","output_1":"a","output_2":"b","preference":1.5}"#,
            "jpo_judge: prompt from `instruction`, response_0 from `output_1`, response_1 from `output_2`, preference",
        );
        check(r#"{"prompt":"p","completion":"a","label":true}"#, "unpaired: prompt, completion, label");
        check(
            r#"{"instruction":"p","gold_response":"a","subreddit":"x","instruction_id":"t3"}"#,
            "prompt_completion: prompt from `instruction`, completion from `gold_response`, \
             prompt_id from `instruction_id`; not read: subreddit",
        );
        check(
            r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#,
            "conversations: messages",
        );
        check(r#"{"messages":[{"role":"user","content":"q"}]}"#, "prompts: messages");
        check(
            r#"{"conversations":[{"from":"human","value":"q"}],"chosen":{"from":"gpt","value":"a"},"rejected":{"from":"gpt","value":"b"}}"#,
            "preference: chosen, rejected, messages from `conversations`",
        );
        check(
            r#"{"instruction":"q","models":["m"],"completions":[{"model":"m","response":"a","overall_score":7.5}]}"#,
            "column `completions` lists several responses to each prompt, which no format reads: write a row for each of \
             them, {\"prompt\": ..., \"completion\": ..., \"score\": ...}, or take the prompts alone with `format: prompts`",
        );
        check(
            r#"{"prompt;chosen;rejected":"q;a;b"}"#,
            "its only column is `prompt;chosen;rejected`: values seem to be parted by \";\", wanted commas",
        );
        check(r#"{"id":"x","instruction":"p"}"#, "prompts: prompt from `instruction`, prompt_id from `id`");
        check(r#"{"prompt_id":"p","embedding":[1.0]}"#, "embeddings: embedding, prompt_id");
        check(
            r#"{"a":1,"b":2}"#,
            "the columns `a`, `b` fit no known format; say what they are, such as `columns: {prompt: a}`, and \
             `format:` where it is not clear then",
        );
    }

    #[test]
    fn given_columns_override_what_is_found() {
        let row: Map<String, Value> =
            serde_json::from_str(r#"{"prompt":"not this","text":"p","good":"a","bad":"b"}"#).unwrap();
        let given = [(Column::Prompt, "text"), (Column::Chosen, "good"), (Column::Rejected, "bad")]
            .map(|(c, n)| (c, n.to_owned()));
        let found = layout(std::slice::from_ref(&row), Format::Auto, &given.clone().into(), Form::Text).unwrap();
        assert_eq!(
            found.to_string(),
            "preference: prompt from `text`, chosen from `good`, rejected from `bad`; not read: prompt"
        );
        let error = layout(std::slice::from_ref(&row), Format::Prompts, &given.into(), Form::Text).unwrap_err();
        assert_eq!(error, "`columns: chosen` has no effect: format `prompts` does not read it");
        let error = layout(&[row], Format::Unpaired, &BTreeMap::new(), Form::Text).unwrap_err();
        assert!(error.starts_with("format `unpaired` needs `completion`, `label`; found `bad`, `good`"), "{error}");
    }
}
