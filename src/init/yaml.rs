//! The text of a first pipeline.

use super::{Holds, Wish};

/// Column at which comments begin.
const COMMENTS: usize = 44;

/// The pipeline as YAML with comments.
pub fn text(wish: &Wish) -> String {
    let mut text = head(wish);
    text.push_str("\nstages:\n");
    let objective = &wish.objective;
    let judged = wish.judge.is_some() && !wish.holds.items();
    let contest = wish.judge.is_some() && !judged || wish.holds == Holds::Prompts;
    let holdout = contest || !wish.holds.items();
    text.push_str(&data(wish, holdout));
    if wish.holds == Holds::Prompts {
        text.push_str(&sampling());
    }
    let mut from = if wish.holds.items() { "data.items" } else { "data.pairs" };
    if wish.holds == Holds::Responses {
        text.push_str("\n  # Every two responses to a prompt.\n");
        text.push_str("  comparisons: {kind: compare, from: data.responses, within: all}\n");
    }
    let mut labels = wish.votes.map(|_| "people");
    if labels.is_some() {
        text.push_str(&votes());
    }
    if judged {
        let compared = matches!(wish.holds, Holds::Prompts | Holds::Responses);
        let comparisons = if compared { "comparisons" } else { "data.comparisons" };
        text.push_str("\n  # A judge reads both responses in both orders; what it thinks becomes the soft label.\n");
        text.push_str(&judge(wish, "verdicts", comparisons, true));
        labels = Some("verdicts");
        if wish.calibrates() {
            text.push_str(&calibration());
            labels = Some("calibrated");
        }
    }
    if let Some(labels) = labels {
        text.push_str(&lines(&[
            ("", ""),
            ("  pairs:", ""),
            ("    kind: pairs", ""),
            (&format!("    from: {labels}"), ""),
            ("    ties: drop", "a label of exactly 1/2 says nothing"),
        ]));
        from = "pairs";
    }
    if objective.needs_kl() || !objective.reads().pairs() && from != "data.items" {
        text.push_str("\n  # Each side by itself; rows of a group share the responses that estimate the KL term.\n");
        text.push_str(&format!("  items: {{kind: pairs, from: {from}, write: items, kl_group: 16}}\n"));
        from = "items";
    }
    if objective.needs_reference() {
        text.push_str("\n  # The model before training scores every row once; training reads the table.\n");
        let part = if objective.needs_prompt_part() { ", prompt_part: true" } else { "" };
        let reference =
            format!("kind: reference, from: {from}, model: \"${{vars.policy}}\"{part}, tokens: \"${{vars.tokens}}\"");
        text.push_str(&format!("  reference: {{{reference}}}\n"));
    }
    if objective.needs_similarities() {
        text.push_str(&format!("  embeddings: {{kind: embed, from: {from}, model: \"${{vars.encoder}}\"}}\n"));
    }
    text.push_str(&training(wish, from));
    if contest {
        text.push_str(&compared_with_before(wish));
    } else if holdout {
        text.push_str(&on_held_out_pairs(wish));
    }
    text
}

fn head(wish: &Wish) -> String {
    let judge = if wish.judge.is_some() { ", judged by a model" } else { "" };
    let (name, file) = (&wish.name, in_line(&wish.file));
    let mut text = format!("# {name}: {}{judge}, then {}.\n#\n", wish.holds_words(), wish.objective.name());
    text.push_str(&format!("#     halftone plan {file}    # what would run: rows, tokens, what is too long\n"));
    text.push_str(&format!("#     halftone run {file}\n#\n"));
    match &wish.found {
        Some(found) => text.push_str(&format!("# {}: {}.\n", in_line(&wish.data), in_line(found))),
        None => text.push_str("# Put your own data and models under `vars`.\n"),
    }
    text.push_str(&format!("\nname: {}\n", word(name)));
    text.push_str(&lines(&[("seed: 17", "everything random follows from it"), ("", ""), ("vars:", "")]));
    let entry = |key: &str, value: &str| format!("  {key}: {}", scalar(value));
    let data = "JSON Lines, CSV or Parquet";
    let mut vars = vec![(entry("data", &wish.data), data)];
    vars.push((entry("policy", &wish.policy), "the model to train: a folder, or a name on the hub"));
    if let Some(judge) = &wish.judge {
        vars.push((entry("judge", judge), "an instruct model; better judges make better labels"));
    }
    if wish.objective.needs_similarities() {
        vars.push((entry("encoder", &wish.encoder), "a sentence encoder such as all-MiniLM-L6-v2"));
    }
    let tokens = "or `cut_left`, and `max_tokens: N`; the same in every stage that scores these rows";
    vars.push(("  tokens: {too_long: reject}".to_owned(), tokens));
    text.push_str(&lines(&vars.iter().map(|(line, comment)| (line.as_str(), *comment)).collect::<Vec<_>>()));
    text
}

fn data(wish: &Wish, holdout: bool) -> String {
    let (form, about) = match wish.chat {
        true => ("    form: chat", "strings are messages, seen through the model's chat template; or `text`"),
        false => ("    form: text", "strings are raw text, without a chat template; or `chat`"),
    };
    let mut all = vec![("  data:", ""), ("    kind: ingest", ""), ("    files: \"${vars.data}\"", "")];
    if wish.prompts_only {
        all.push(("    format: prompts", "only prompts are read, whatever else the file holds"));
    }
    if wish.scored {
        all.push(("    format: scored", "the responses to a prompt are compared by their scores"));
        all.push(("    scores: {scale: 1}", "P(first better) = sigmoid(scale times the difference of the scores)"));
    }
    all.push((form, about));
    all.push(("    on_bad_row: fail", "or `reject`: set broken rows aside and go on"));
    if holdout {
        all.push(("    holdout: 0.1", "so much of the prompts to evaluate on"));
    }
    lines(&all)
}

fn sampling() -> String {
    lines(&[
        ("", ""),
        ("  samples:", ""),
        ("    kind: sample", ""),
        ("    from: data.prompts", ""),
        ("    model: \"${vars.policy}\"", ""),
        ("    k: 4", "answers to each prompt"),
        ("    temperature: 1.0", ""),
        ("    top_p: 0.95", ""),
        ("    max_tokens: 256", ""),
        ("    tokens: {too_long: reject}", ""),
        ("", ""),
        ("  comparisons: {kind: compare, from: samples, within: all}", ""),
    ])
}

/// People's votes as soft labels.
fn votes() -> String {
    let mut text =
        "\n  # The votes on each pair become its soft label: their share, with half a vote added to either side.\n"
            .to_owned();
    text.push_str(&lines(&[
        ("  people:", ""),
        ("    kind: jury", ""),
        ("    votes: data.votes", ""),
        ("    comparisons: data.comparisons", ""),
        ("    method: beta", "or `share`; `dawid_skene` learns from many votes who is right how often"),
        ("    a: 0.5", "Jeffreys' prior; with `dawid_skene`: `smoothing: 1`"),
    ]));
    text
}

/// The judge's labels held against people's.
fn calibration() -> String {
    let mut text =
        "\n  # How far the judge is right is learnt from people's votes; the table `summary` has it before and \
                    after.\n"
            .to_owned();
    text.push_str(&lines(&[
        ("  calibrated:", ""),
        ("    kind: calibrate", ""),
        ("    verdicts: verdicts", ""),
        ("    gold: people", ""),
        ("    method: temperature", "one factor of the log-odds, fitted in folds by prompt"),
    ]));
    text
}

fn judge(wish: &Wish, name: &str, comparisons: &str, explained: bool) -> String {
    let (name, comparisons) = (format!("  {name}:"), format!("    comparisons: {comparisons}"));
    let form = if wish.judge_chat { "    form: chat" } else { "    form: text" };
    let mut all = vec![
        (name.as_str(), ""),
        ("    kind: judge", ""),
        (comparisons.as_str(), ""),
        ("    model: \"${vars.judge}\"", "or an OpenAI-compatible server: `endpoint:`, without `tokens`"),
        ("    template: helpful", "or `harmless`, `summary`, or a file of your own"),
        (form, "`chat` asks through the judge's chat template, `text` without one"),
        ("    debias: probability", "the mean of both orders"),
        ("    tokens: {too_long: reject}", ""),
    ];
    if !explained {
        all.iter_mut().for_each(|line| line.1 = "");
    }
    lines(&all)
}

fn training(wish: &Wish, from: &str) -> String {
    let from = format!("    from: {from}");
    let yaml = format!("    objective: {}", wish.objective_yaml());
    let of_items = wish.holds.items() || !wish.objective.reads().pairs();
    let batch =
        if of_items { "    batch: {items: 16, shuffle: true}" } else { "    batch: {pairs: 16, shuffle: true}" };
    let mut all = vec![("", ""), ("  policy:", ""), ("    kind: train", ""), (from.as_str(), "")];
    if wish.objective.needs_reference() {
        all.push(("    reference: reference", ""));
    }
    if wish.objective.needs_similarities() {
        all.push(("    embeddings: embeddings", ""));
    }
    all.push(("    model: \"${vars.policy}\"", ""));
    all.push((yaml.as_str(), wish.objective.facts().remark));
    if wish.objective.needs_prompt_part() && !wish.holds.joint() {
        all.push(("    allow_same_prompt: true", "under one prompt the prompts' log-probs cancel"));
    }
    all.push(("    # An adapter in place of all weights; it takes a learning rate about ten times as high:", ""));
    all.push(("    # adapter: {rank: 16, alpha: 32, targets: [all-linear]}", ""));
    all.push(("    optimizer: {lr: 1.0e-5, schedule: cosine, warmup_steps: 5, weight_decay: 0.0, clip_norm: 1.0}", ""));
    all.push((batch, ""));
    all.push(("    epochs: 1", ""));
    all.push(("    tokens: \"${vars.tokens}\"", ""));
    lines(&all)
}

fn on_held_out_pairs(wish: &Wish) -> String {
    let mut text = String::new();
    let mut pairs = "data.holdout_pairs";
    if wish.votes.is_some() {
        text.push_str("\n  # Against people's votes, on prompts that were held out.\n");
        let votes = "votes: data.holdout_votes, comparisons: data.holdout_comparisons, method: beta, a: 0.5";
        text.push_str(&format!("  holdout_people: {{kind: jury, {votes}}}\n"));
        text.push_str("  holdout_pairs: {kind: pairs, from: holdout_people, ties: drop}\n");
        pairs = "holdout_pairs";
    } else if !wish.holds.labelled() {
        text.push_str("\n  # The judge's labels of held-out prompts.\n");
        let mut comparisons = "data.holdout_comparisons";
        if wish.holds == Holds::Responses {
            comparisons = "holdout_comparisons";
            let compare = "kind: compare, from: data.holdout_responses, within: all";
            text.push_str(&format!("  {comparisons}: {{{compare}}}\n"));
        }
        text.push_str(&judge(wish, "holdout_verdicts", comparisons, false));
        text.push_str("  holdout_pairs: {kind: pairs, from: holdout_verdicts, ties: drop}\n");
        pairs = "holdout_pairs";
    } else if wish.judge.is_some() {
        text.push_str("\n  # Against the labels of the file, on prompts that were held out.\n");
    } else {
        text.push_str("\n  # On prompts that were held out.\n");
    }
    text.push_str(&format!("  evaluation:\n    kind: evaluate\n    pairs: {pairs}\n    model: policy\n"));
    text.push_str("    reference: \"${vars.policy}\"\n");
    // A function of a whole batch has no loss for a pair.
    if wish.objective.reads().pairs() && wish.objective.separable() {
        text.push_str(&format!("    objective: {}\n", wish.objective_yaml()));
    }
    text.push_str("    tokens: \"${vars.tokens}\"\n");
    text
}

fn compared_with_before(wish: &Wish) -> String {
    let sample = |name: &str, model: &str| {
        format!(
            "  {name}: {{kind: sample, from: data.holdout_prompts, model: {model}, k: 1, temperature: 1.0, top_p: 0.95, \
             max_tokens: 256, tokens: {{too_long: reject}}}}\n"
        )
    };
    let mut text =
        "\n  # Held-out prompts, answered before and after training; the judge says how often the later answer \
                    wins.\n"
            .to_owned();
    text.push_str(&sample("before", "\"${vars.policy}\""));
    text.push_str(&sample("after", "policy"));
    text.push_str(
        "  contest: {kind: compare, from: after, baseline: before, within: {against: baseline}, equal_texts: keep}\n",
    );
    text.push_str(&judge(wish, "contest_verdicts", "contest", wish.holds != Holds::Prompts));
    text.push_str(&lines(&[
        ("  evaluation:", ""),
        ("    kind: evaluate", ""),
        ("    verdicts: contest_verdicts", ""),
        ("    baseline: before", "the other side of each comparison is the policy's"),
        ("    ties: half", "a label of exactly 1/2 counts half a win"),
    ]));
    text
}

/// Lines with their comments in one column.
fn lines(all: &[(&str, &str)]) -> String {
    let line = |(text, comment): &(&str, &str)| match *comment {
        "" => format!("{text}\n"),
        comment => format!("{text:COMMENTS$} # {comment}\n"),
    };
    all.iter().map(line).collect()
}

/// A text as a YAML value that stands for itself: `${` begins a reference, and YAML 1.1 ends a line at more letters
/// than JSON does.
fn scalar(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_./@-".contains(letter);
    let path = text.contains('/') && text.chars().all(plain) && !text.starts_with(['@', '-']);
    if path {
        return text.to_owned();
    }
    let json = serde_json::to_string(&text.replace("${", "$${")).expect("text can be written as JSON");
    in_line(&json)
}

/// A name as a YAML value: a word of letters, digits, `-` and `_` that is no number and no other word of YAML.
fn word(name: &str) -> String {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain =
        name.starts_with(|first: char| first.is_ascii_alphabetic()) && !words.contains(&name.to_lowercase().as_str());
    if plain { name.to_owned() } else { scalar(name) }
}

/// A text as a part of a comment or of a quoted value: what ends a line, or is no letter, as `\u000a` and the like.
pub fn in_line(text: &str) -> String {
    let code = |letter: char| {
        let mut units = [0; 2];
        letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>()
    };
    let unseen = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || matches!(u32::from(letter) & 0xffff, 0xfffe | 0xffff)
    };
    text.chars().map(|letter| if unseen(letter) { code(letter) } else { letter.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stands_for_itself_in_a_value_and_in_a_comment() {
        let check =
            |text: &str, value: &str, comment: &str| assert_eq!([scalar(text), in_line(text)], [value, comment]);
        check("./data/x.jsonl", "./data/x.jsonl", "./data/x.jsonl");
        check("org/model", "org/model", "org/model");
        check("a\nb: {c}", r#""a\nb: {c}""#, r"a\u000ab: {c}");
        check("a${x}$${y}", r#""a$${x}$$${y}""#, "a${x}$${y}");
        check("a\u{85}\u{2028}\u{1b}[2J", r#""a\u0085\u2028\u001b[2J""#, r"a\u0085\u2028\u001b[2J");
        assert_eq!(["x-1", "no", "1e3", "-"].map(word), ["x-1", r#""no""#, r#""1e3""#, r#""-""#]);
    }
}
