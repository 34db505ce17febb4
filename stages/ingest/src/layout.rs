//! The columns of a file, found in its head.

use std::collections::{BTreeMap, BTreeSet};

use kit::Table;
use serde_json::{Map, Value};

use crate::advice::{list, meant, no_format, some};
use crate::column::{Column, is_label, is_response};
use crate::columns::{Columns, Places};
use crate::form::Form;
use crate::format::Format;
use crate::head::{Given, Head};
use crate::messages::unread_fields;
use crate::names::{Names, parts};
use crate::stored::{Stored, look, truth_in};

/// The format of a file and where its columns are.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Not `auto`.
    pub format: Format,
    /// Its columns.
    pub columns: Columns,
    /// Columns of the file and fields of its messages that are not read, as far as its head shows.
    pub unread: Vec<String>,
    /// Those of them that hold truth values.
    pub truths: Vec<String>,
    /// Columns that are null or empty throughout its head and are not read.
    pub empty: Vec<String>,
    /// Columns that `columns:` leaves out.
    pub left_out: Vec<String>,
    /// True where prompts or responses of its head are plain strings.
    pub plain: bool,
}

impl Layout {
    /// The names of all columns of the file that are read, and what is read there.
    pub fn reads(&self) -> impl Iterator<Item = (&str, Column)> {
        let columns = self.columns.places.iter().flat_map(|(column, name)| {
            let names = if self.columns.composed.contains(column) { parts(name) } else { vec![name.as_str()] };
            names.into_iter().map(move |name| (name, *column))
        });
        let criteria = self.criteria().map(|name| (name, Column::Score));
        columns.chain(self.columns.votes.iter().map(|name| (name.as_str(), Column::Votes))).chain(criteria)
    }

    /// The columns of the criteria of which a row's score is made.
    pub fn criteria(&self) -> impl Iterator<Item = &str> {
        let rows = self.format == Format::Scored;
        let names = self.columns.scores.iter().filter(move |_| rows).flat_map(|scores| scores.criteria.keys());
        names.map(|name| name.split('.').next().unwrap_or(name))
    }

    /// Columns with labels and weights that the head of the file lacks, with the names that they could have further on,
    /// and prompts and responses that are empty in the head and would be left out where they are not.
    pub(crate) fn late_columns(&self) -> impl Iterator<Item = (Column, &str)> {
        let reads = self.format.known().reads;
        let absent = reads.iter().filter(|column| column.all_or_none() && !self.columns.has(**column));
        let names = absent.flat_map(|column| column.names().iter().map(|name| (*column, *name)));
        let said = |column: &&Column| column.is_said() && **column != Column::Messages && !self.columns.has(**column);
        let empty = self.empty.iter().filter_map(move |name| {
            let column = Column::ALL.iter().filter(said).find(|column| column.names().contains(&name.as_str()))?;
            Some((*column, name.as_str()))
        });
        names.filter(|(_, name)| !self.is_known(name)).chain(empty)
    }

    /// True where the head of the file has a column of this name.
    fn is_known(&self, name: &str) -> bool {
        let mut known = self.unread.iter().chain(&self.left_out).chain(self.columns.places.values());
        known.any(|known| known == name)
    }

    /// The names of [`Layout::late_columns`].
    pub(crate) fn late(&self) -> impl Iterator<Item = &str> {
        self.late_columns().map(|(_, name)| name)
    }

    /// The tables that it fills.
    pub fn tables(&self) -> Vec<Table> {
        (self.format.known().tables)(&self.columns.places)
    }

    /// The columns of the file to read, and those that later rows may have: a label there must not be overlooked.
    pub fn wanted(&self) -> BTreeMap<String, Column> {
        let late = self.late_columns().map(|(column, name)| (name.to_owned(), column));
        self.reads().map(|(name, column)| (name.to_owned(), column)).chain(late).collect()
    }

    /// True where rows carry a label.
    pub fn labelled(&self) -> bool {
        let label = |column: &Column| column.all_or_none() && !matches!(column, Column::Prompt | Column::Weight);
        self.columns.places.keys().any(label)
    }

    /// Warnings about columns that are left out and probably should not be.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let known = self.format.known();
        let unread = |looks: fn(&str) -> bool| {
            let names = self.unread.iter().map(String::as_str);
            names.filter(|name| looks(name) && !known.aside.contains(name)).collect::<Vec<_>>()
        };
        let mut warnings = Vec::new();
        let mut labels = unread(is_label);
        // Beside responses without a label a column of yes and no says which are good.
        if matches!(self.format, Format::PromptCompletion | Format::Conversations) {
            let truths = self.truths.iter().map(String::as_str).filter(|name| !is_label(name));
            labels.extend(truths);
        }
        if !labels.is_empty() {
            let reads = list(known.reads.iter().filter(|it| is_label(it.name())).map(|column| column.name()));
            let format = self.format.name();
            let way = match reads.as_str() {
                "" => format!("name the responses too, with `columns:`: format `{format}` reads no labels"),
                reads => format!("name it with `columns:` (format `{format}` reads {reads})"),
            };
            let labels = list(labels);
            warnings.push(format!("what looks like labels is not read: {labels}; if it is what you train on, {way}"));
        }
        let responses = unread(is_response);
        if self.format == Format::Prompts && !responses.is_empty() {
            warnings.push(format!(
                "prompts alone are read, and {} look like responses; say what they are with `columns:` and `format:`",
                list(responses)
            ));
        }
        if let Some(name) = self.unread.iter().find(|name| Column::Embedding.names().contains(&name.as_str())) {
            warnings.push(format!(
                "`{name}` is not read beside responses; read it in a stage of its own, with `format: embeddings`"
            ));
        }
        if self.unread.iter().any(|name| name == "tools") {
            warnings.push("`tools` are not read: raw text has none; `form: chat` takes strings as messages".to_owned());
        }
        warnings
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.format.name())?;
        for (i, (column, theirs)) in self.columns.places.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            if *column == Column::Votes && self.columns.votes.len() > 1 {
                write!(f, "{comma}{} from {}", column.name(), list(self.columns.votes.iter().map(String::as_str)))?;
            } else if column.name() == theirs {
                write!(f, "{comma}{theirs}")?;
            } else {
                write!(f, "{comma}{} from `{theirs}`", column.name())?;
            }
        }
        if let Some(scale) = &self.columns.scale {
            write!(f, "; a vote of {scale}")?;
        }
        for (what, names) in [("not read", &self.unread), ("empty", &self.empty), ("left out", &self.left_out)] {
            if !names.is_empty() {
                write!(f, "; {what}: {}", some(names.iter().cloned()))?;
            }
        }
        Ok(())
    }
}

/// Finds the layout from the first rows of a file.
///
/// # Errors The reason why no format fits, or the columns that the given one lacks.
pub fn layout(rows: &[Map<String, Value>], asked: Format, given: &Given, form: Form) -> Result<Layout, String> {
    let head = Head::new(rows, given);
    let all = head.all_names();
    if all.is_empty() {
        return Err("it holds no rows".to_owned());
    }
    let several = |(_, theirs): &(&Column, &Option<Names>)| theirs.as_ref().is_some_and(|names| names.all().len() > 1);
    if let Some((column, _)) = given.iter().filter(|(column, _)| **column != Column::Votes).find(several) {
        return Err(format!("`columns: {}` is a list; only `votes` can stand in several columns", column.name()));
    }
    let absent = |(column, theirs): (&Column, &Option<Names>)| {
        let names = theirs.iter().flat_map(Names::all);
        let read = names.flat_map(|name| match head.is_composed(*column, name) {
            true => parts(name),
            false => vec![name.as_str()],
        });
        let absent = read.filter(|name| !all.contains(name));
        absent.map(|name| format!("`columns: {}`: there is no column `{name}`", column.name())).collect::<Vec<_>>()
    };
    let absent: Vec<String> = given.iter().flat_map(absent).collect();
    if !absent.is_empty() {
        return Err(format!("{}; found {}", absent.join("; "), list(all.iter().copied())));
    }
    let format = match asked {
        Format::Auto => {
            let told = Head::new(rows, given).told();
            let fits = |format: &&Format| (format.known().detect)(&told);
            *Format::ALL.iter().find(fits).ok_or_else(|| no_format(&told))?
        }
        asked => asked,
    };
    let given = with_row_id(given, format)?;
    let head = Head::new(rows, &given);
    let mut columns = places(&head, format, form);
    let known = format.known();
    let votes = if known.reads.contains(&Column::Votes) { head.votes() } else { Vec::new() };
    match votes.first() {
        Some(first) => _ = columns.insert(Column::Votes, first.clone()),
        None => _ = columns.remove(&Column::Votes),
    }
    let has = |column: &Column| columns.contains_key(column);
    let mut missing: Vec<Column> = known.needs.iter().copied().filter(|column| !has(column)).collect();
    if !known.needs_one_of.is_empty() && !known.needs_one_of.iter().any(|group| group.iter().all(has)) {
        missing.push(known.needs_one_of[0][0]);
    }
    let voted = [[Column::VotesA, Column::VotesB], [Column::Score0, Column::Score1]];
    let voted = !votes.is_empty() || voted.iter().any(|columns| columns.iter().all(has));
    if known.reads.contains(&Column::Votes) && !voted {
        missing.push(Column::Votes);
    }
    if let Some(first) = missing.first() {
        let taken: BTreeSet<&str> = columns.values().map(String::as_str).collect();
        return Err(format!(
            "format `{}` needs {}; found {}; name them with `columns:`, such as `columns: {{{}: {}}}`",
            format.name(),
            list(missing.iter().map(|column| column.name())),
            list(all.iter().copied()),
            first.name(),
            meant(&head, *first, &taken).unwrap_or("THEIRS"),
        ));
    }
    if let Some((column, _)) = given.iter().find(|(column, theirs)| theirs.is_some() && !known.reads.contains(column)) {
        return Err(format!("`columns: {}` has no effect: format `{}` does not read it", column.name(), format.name()));
    }
    for column in [Column::PHat, Column::Weight].iter().filter(|column| known.reads.contains(column) && !has(column)) {
        let name = head.find(*column).filter(|name| head.is_hollow(name) && !given.contains_key(column));
        if let Some(name) = name {
            let ours = column.name();
            return Err(format!(
                "column `{name}` is empty (null, NaN) in the first rows, and what it should say is not guessed; mend it, \
                 or leave it out with `columns: {{{ours}: null}}`"
            ));
        }
    }
    let composed: BTreeSet<Column> =
        columns.iter().filter(|(column, name)| head.is_composed(**column, name)).map(|(column, _)| *column).collect();
    let of_ids = columns.iter().filter(|(column, _)| composed.contains(column)).flat_map(|(_, name)| parts(name));
    let read = columns.values().map(String::as_str).chain(of_ids).chain(votes.iter().map(String::as_str));
    let read: BTreeSet<&str> = read.collect();
    let ours = given.iter().filter(|(_, theirs)| theirs.is_none()).flat_map(|(column, _)| column.names());
    let ours: BTreeSet<&str> = ours.copied().collect();
    let rest = head.names.iter().filter(|name| !read.contains(**name)).map(|name| (*name).to_owned());
    let (left_out, rest): (Vec<String>, Vec<String>) = rest.partition(|name| ours.contains(name.as_str()));
    let (empty, mut unread): (Vec<String>, Vec<String>) = rest.into_iter().partition(|name| head.is_hollow(name));
    let said: Vec<&String> = columns.iter().filter(|(column, _)| column.is_said()).map(|(_, name)| name).collect();
    let values = || said.iter().flat_map(|name| head.values_of((*name).clone()).map(move |value| (name, value)));
    let fields: BTreeSet<String> = values()
        .flat_map(|(name, value)| unread_fields(value).into_iter().map(move |field| format!("{name}[].{field}")))
        .collect();
    let is_truth = |name: &&String| head.values_of((*name).clone()).all(|value| truth_in(value).is_some());
    let truths = unread.iter().filter(is_truth).cloned().collect();
    unread.extend(fields);
    let plain = values().any(|(_, value)| value.as_str().is_some_and(|text| look(text) == Stored::Text));
    let columns = Columns { places: columns, composed, votes, scale: None, scores: None };
    Ok(Layout { format, columns, unread, truths, empty, left_out, plain })
}

/// The given names, with `id` as the format's column for it.
fn with_row_id(given: &Given, format: Format) -> Result<Given, String> {
    let mut given = given.clone();
    let Some(theirs) = given.remove(&Column::Id) else { return Ok(given) };
    match format.known().row_id {
        Some(column) if given.contains_key(&column) => {
            Err(format!("`columns: id` and `columns: {}` are the same column; give one of them", column.name()))
        }
        Some(column) => {
            given.insert(column, theirs);
            Ok(given)
        }
        None if theirs.is_some() => {
            Err(format!("`columns: id` has no effect: format `{}` reads no id of a row", format.name()))
        }
        None => Ok(given),
    }
}

/// The places of a format's columns.
fn places(head: &Head<'_>, format: Format, form: Form) -> Places {
    let known = format.known();
    let mut columns = Places::new();
    let is_text = |value: &Value| value.as_str().is_some_and(|text| look(text) == Stored::Text);
    let messages = known.reads.iter().filter(|column| column.is_said()).any(|column| {
        let mut values = head.values(*column);
        values.any(|value| !is_text(value))
    });
    for &column in known.reads {
        // A system message and tools have no place in raw text.
        let of_chat = column == Column::System || (column == Column::Tools && !messages);
        if of_chat && form == Form::Text && !head.is_given(column) {
            continue;
        }
        // `input` is part of the prompt beside Alpaca's `instruction`; elsewhere it can be anything.
        if column == Column::Input
            && !head.is_given(column)
            && head.find(Column::Prompt).as_deref() != Some("instruction")
        {
            continue;
        }
        if let Some(theirs) = head.find(column) {
            // An empty column is as good as absent; if it holds something further on, that row is refused.
            let hollow = head.is_hollow(&theirs) && !head.is_given(column);
            if !(hollow && column.all_or_none() && !known.needs.contains(&column)) {
                columns.insert(column, theirs);
            }
        }
    }
    // Where a row is a prompt, its id is the prompt's.
    let id = Column::PromptId;
    if known.row_id == Some(id) && !columns.contains_key(&id) && !head.is_given(id) && head.names.contains("id") {
        columns.insert(id, "id".to_owned());
    }
    (known.settle)(head, &mut columns);
    columns
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(row: &str, expected: &str) {
        let row: Map<String, Value> = serde_json::from_str(row).unwrap();
        let found = layout(&[row], Format::Auto, &Given::new(), Form::Chat);
        assert_eq!(found.map_or_else(|error| error, |layout| layout.to_string()), expected);
    }

    #[test]
    fn formats_are_found_by_their_columns() {
        check(r#"{"prompt":"p","chosen":"a","rejected":"b"}"#, "preference: prompt, chosen, rejected");
        check(r#"{"chosen":"pa","rejected":"pb","p_hat":0.7}"#, "preference: chosen, rejected, p_hat");
        check(
            r#"{"prompt":"p","prompt_id":"1","chosen":[1],"rejected":[1],"messages":[1],"score_chosen":8,"score_rejected":2}"#,
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
            r#"{"instruction":"q","completions":[{"model":"m","response":"a"}]}"#,
            "column `completions` lists several responses to each prompt without scores or ranks, which no format reads: \
             write a row for each of them, {\"prompt\": ..., \"completion\": ...}, or take the prompts alone with `format: \
             prompts`",
        );
        check(
            r#"{"prompt;chosen;rejected":"q;a;b"}"#,
            "its only column is `prompt;chosen;rejected`: values seem to be parted by \";\", wanted commas",
        );
        check(r#"{"id":"x","instruction":"p"}"#, "prompts: prompt from `instruction`, prompt_id from `id`");
        check(r#"{"prompt_id":"p","embedding":[1.0]}"#, "embeddings: embedding, prompt_id");
        check(
            r#"{"a":1,"b":2}"#,
            "the columns `a`, `b` fit no known format; say what they are, such as `columns: {prompt: THEIRS}`, and \
             `format:` where it is not clear then",
        );
    }

    #[test]
    fn of_very_many_columns_some_are_shown() {
        let names: Map<String, Value> = (0..50_000).map(|i| (format!("c{i:05}"), json!(1))).collect();
        let mut row = json!({"prompt": "p", "chosen": "a", "rejected": "b"}).as_object().unwrap().clone();
        row.extend(names.clone());
        let told = layout(&[row], Format::Auto, &Given::new(), Form::Chat).unwrap().to_string();
        assert!(told.ends_with("c00038, c00039, and 49960 more") && told.len() < 1000, "{told}");
        let error = layout(&[names], Format::Auto, &Given::new(), Form::Chat).unwrap_err();
        assert!(error.contains("and 49960 more fit no known format") && error.len() < 1000, "{error}");
    }

    #[test]
    fn known_sets_are_found_by_their_columns() {
        let check = |row: Value, expected: &str, warnings: usize| {
            let layout = layout(&[row.as_object().unwrap().clone()], Format::Auto, &Given::new(), Form::Chat).unwrap();
            assert_eq!(
                (layout.format.name(), layout.warnings().len()),
                (expected, warnings),
                "{layout}: {:?}",
                layout.warnings()
            );
        };
        let said = |role: &str| json!([{"role": role, "content": "x"}]);
        let talk = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
        check(
            json!({"domain": "general", "context": said("user"), "response1": "a", "response2": "b",
            "overall_preference": -2, "individual_preference": []}),
            "jpo_judge",
            0,
        );
        check(json!({"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": 1}), "jpo_judge", 0);
        check(json!({"prompt": "p", "response": "a", "helpfulness": 3, "correctness": 4}), "help_steer", 0);
        check(
            json!({"prompt": "p", "response_0": "a", "response_1": "b", "is_response_0_safe": true,
            "better_response_id": 1, "safer_response_id": 0}),
            "jpo_judge",
            1,
        );
        check(
            json!({"post_id": "x", "history": "p", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_A": 3,
            "score_B": 2, "score_ratio": 1.5}),
            "jpo_judge",
            0,
        );
        check(
            json!({"question_id": "x", "model_a": "m", "model_b": "n", "winner": "model_a", "judge": "j",
            "conversation_a": talk, "conversation_b": talk, "turn": 1}),
            "arena",
            0,
        );
        check(json!({"id": 1, "prompt": "[\"q\"]", "response_a": "[\"a\"]", "response_b": "[null]"}), "arena", 0);
        check(
            json!({"source": "s", "instruction": "q", "models": ["m"], "correct_answers": [],
            "completions": [{"model": "m", "response": "a", "overall_score": 7.5}]}),
            "ranked",
            0,
        );
        check(json!({"prompt": "q", "answers": [{"answer": "a", "model": "m", "rank": 1.0}], "turns": 1}), "ranked", 0);
        check(
            json!({"instruction": "q", "generations": ["a", "b"], "ratings": [1, 2], "rationales": ["x", "y"]}),
            "ranked",
            0,
        );
        check(
            json!({"id": "x", "source": "s", "prompt": "q", "chosen": talk, "rejected": talk, "chosen_rating": 4.5,
            "rejected_rating": 2, "chosen_model": "m", "rejected_model": "n"}),
            "preference",
            0,
        );
        check(
            json!({"system": "", "input": "q", "chosen": "a", "rejected": "b", "generations": ["a", "b"],
            "rating": [1, 2], "order": ["chosen", "rejected"]}),
            "preference",
            1,
        );
        check(
            json!({"message_tree_id": "t", "prompt": {"text": "q", "role": "prompter", "replies": []}}),
            "open_assistant",
            0,
        );
        check(json!({"conversation_id": "x", "model": "m", "conversation": talk, "turn": 1}), "conversations", 0);
        check(json!({"prompt": "q", "label_text": "good", "my_answer": "a"}), "prompts", 2);
        check(
            json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]}),
            "conversations",
            1,
        );
    }

    #[test]
    fn what_is_left_out_is_no_column_and_no_surprise() {
        let row: Map<String, Value> =
            serde_json::from_str(r#"{"id":"x","prompt":"p","chosen":"a","rejected":"b","p_hat":0.5}"#).unwrap();
        for id in [Column::Id, Column::PairId] {
            let given = Given::from([(id, None), (Column::PHat, None)]);
            let found = layout(std::slice::from_ref(&row), Format::Auto, &given, Form::Text).unwrap();
            assert_eq!(found.to_string(), "preference: prompt, chosen, rejected; left out: id, p_hat");
            let late = ["agreement", "pair_agreement", "annotator_agreement", "weight"];
            assert_eq!(found.late().collect::<Vec<_>>(), late);
        }
        let given = Given::from([(Column::Id, Some("p_hat".into()))]);
        let found = layout(std::slice::from_ref(&row), Format::Auto, &given, Form::Text).unwrap();
        assert_eq!(found.columns.get(Column::PairId), Some("p_hat"));
        let both = Given::from([(Column::Id, None), (Column::PairId, Some("id".into()))]);
        let error = layout(&[row], Format::Auto, &both, Form::Text).unwrap_err();
        assert_eq!(error, "`columns: id` and `columns: pair_id` are the same column; give one of them");
    }

    #[test]
    fn the_example_names_a_column_that_could_be_meant() {
        let row: Map<String, Value> = serde_json::from_str(
            r#"{"domain":"general","number":4,"frage":"What is one plus two?","my_response":"It is three."}"#,
        )
        .unwrap();
        let error = layout(&[row], Format::JpoJudge, &Given::new(), Form::Text).unwrap_err();
        assert!(error.ends_with("such as `columns: {response_0: my_response}`"), "{error}");
    }

    #[test]
    fn given_columns_override_what_is_found() {
        let row: Map<String, Value> =
            serde_json::from_str(r#"{"prompt":"not this","text":"p","good":"a","bad":"b"}"#).unwrap();
        let given = [(Column::Prompt, "text"), (Column::Chosen, "good"), (Column::Rejected, "bad")]
            .map(|(c, n)| (c, Some(n.into())));
        let found = layout(std::slice::from_ref(&row), Format::Auto, &given.clone().into(), Form::Text).unwrap();
        assert_eq!(
            found.to_string(),
            "preference: prompt from `text`, chosen from `good`, rejected from `bad`; not read: prompt"
        );
        let error = layout(std::slice::from_ref(&row), Format::Prompts, &given.into(), Form::Text).unwrap_err();
        assert_eq!(error, "`columns: chosen` has no effect: format `prompts` does not read it");
        let error = layout(&[row], Format::Unpaired, &Given::new(), Form::Text).unwrap_err();
        assert!(error.starts_with("format `unpaired` needs `completion`, `label`; found `bad`, `good`"), "{error}");
    }
}
