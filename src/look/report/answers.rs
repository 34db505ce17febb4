//! The answers at the top of a report: did it learn, can the labels be trusted, what next. Deciding is pure: from what
//! the tables say to sentences.

use serde::Serialize;

use super::advice::advice;
use super::evidence::STILL;
use super::evidence::{Evidence, Figure, Training};
use super::view::{four, grouped};

/// The rating of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Nothing measures it.
    Unknown,
    /// As it should be.
    Good,
    /// Unknown, or in need of a look.
    Unsure,
    /// Not as it should be.
    Bad,
}

/// A question with its answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub question: &'static str,
    /// Its rating.
    pub mark: Mark,
    /// The answer, a sentence.
    pub answer: String,
    /// The facts that it rests on, one sentence each.
    pub facts: Vec<String>,
}

/// Limits of a share of labels, a gap or an error: the first for a good rating, the second for a bad one.
const MASS: [f64; 2] = [0.5, 0.1];
const GAP: [f64; 2] = [0.05, 0.15];
const FLIPS: [f64; 2] = [0.1, 0.25];
const ERROR: [f64; 2] = [0.1, 0.2];
const CALIBRATION: [f64; 2] = [0.05, 0.1];

/// The three answers.
pub fn answers(evidence: &Evidence) -> Vec<Answer> {
    vec![learned(evidence), trusted(evidence), next(evidence)]
}

/// Did it learn?
fn learned(evidence: &Evidence) -> Answer {
    let question = "Did it learn?";
    let mut measured: Vec<(Mark, String)> = Vec::new();
    let differences = evidence.figures.iter().filter(|figure| {
        let names = figure.metric.strip_prefix("utility/").filter(|_| figure.kind == "evaluate");
        names.is_some_and(|names| names.contains('-'))
    });
    measured.extend(of_all(differences.collect(), "utility changed by", 0.0, "prompts"));
    let win_rates = evidence.named("evaluate", "win_rate").collect();
    measured.extend(of_all(win_rates, "the policy wins a share of", 0.5, "comparisons"));
    let accuracies = evidence.named("evaluate", "accuracy").collect();
    measured.extend(of_all(accuracies, "accuracy on held-out pairs is", 0.5, "pairs"));
    let mut facts: Vec<String> = Vec::new();
    for training in &evidence.trainings {
        facts.extend(summary(training));
    }
    if let Some((mark, answer)) = measured.first().cloned() {
        facts.splice(0..0, measured.into_iter().skip(1).map(|(_, text)| sentence(&text)));
        let word = match mark {
            Mark::Good => "Yes",
            Mark::Bad => "No",
            _ => "Unknown",
        };
        return Answer { question, mark, answer: format!("{word}: {answer}."), facts };
    }
    let preference = evidence.trainings.iter().find_map(|training| Some((training, training.margin?)));
    if let Some((training, (first, last))) = preference {
        let (mark, word) = match last - first {
            change if change > STILL => (Mark::Unsure, "On its training pairs"),
            change if change < -STILL => (Mark::Bad, "No"),
            _ => (Mark::Bad, "Hardly"),
        };
        let answer = format!(
            "{word}: `{}` moved the mean margin from {} to {}. Nothing measures it on pairs that it has not seen.",
            training.stage,
            four(first),
            four(last)
        );
        return Answer { question, mark, answer, facts };
    }
    let imitation = evidence.trainings.iter().find_map(|training| Some((training, training.loss?)));
    match imitation {
        Some((training, (first, last))) => Answer {
            question,
            mark: if last < first { Mark::Unsure } else { Mark::Bad },
            answer: format!(
                "`{}` brought the loss from {} to {}. Nothing was trained on preferences.",
                training.stage,
                four(first),
                four(last)
            ),
            facts,
        },
        None => Answer { question, mark: Mark::Unknown, answer: "Nothing was trained in this run.".to_owned(), facts },
    }
}

/// Figures of a name: the one, or of a matrix the best, against the value at which nothing was learned.
fn of_all(mut figures: Vec<&Figure>, what: &str, none: f64, rows: &str) -> Option<(Mark, String)> {
    figures.sort_by(|a, b| b.value.total_cmp(&a.value));
    let best = figures.first()?;
    let mark = match best.interval {
        Some((low, _)) if low > none => Mark::Good,
        Some((_, high)) if high < none => Mark::Bad,
        _ => Mark::Unsure,
    };
    let of = if figures.len() > 1 {
        let least = figures.last().expect("there are several");
        format!(" (`{}`, the best of {}; the least is {})", best.stage, figures.len(), four(least.value))
    } else {
        String::new()
    };
    Some((mark, format!("{what} {}{of}, over {} {rows}", with_interval(best), grouped(best.rows))))
}

fn with_interval(figure: &Figure) -> String {
    match figure.interval {
        Some((low, high)) => format!("{} ({} to {})", four(figure.value), four(low), four(high)),
        None => format!("{}, without an interval", four(figure.value)),
    }
}

/// The result of a training, in a sentence.
fn summary(training: &Training) -> Option<String> {
    let (first, last) = training.loss?;
    let mut words = vec![format!("loss {} to {}", four(first), four(last))];
    // Where the policy is its reference, rounding alone makes a margin.
    let first = |value: f64| four(if value.abs() < 1e-6 { 0.0 } else { value });
    words.extend(training.margin.map(|(from, last)| format!("margin {} to {}", first(from), four(last))));
    words.extend(training.accuracy.map(|accuracy| format!("accuracy {}", four(accuracy))));
    Some(format!(
        "Training `{}`: {}; the end is the mean of the last {} of {} steps.",
        training.stage,
        words.join(", "),
        grouped(training.window as u64),
        grouped(training.steps as u64)
    ))
}

/// Can the labels be trusted?
fn trusted(evidence: &Evidence) -> Answer {
    let question = "Can the labels be trusted?";
    let mut seen: Vec<(Mark, String)> = Vec::new();
    // Of each figure the stage that stands worst.
    let mut look = |kind: &str, metric: &str, bounds: [f64; 2], text: &dyn Fn(&Figure) -> String| {
        let mut all: Vec<&Figure> = evidence.named(kind, metric).collect();
        let worse_high = bounds[0] < bounds[1];
        all.sort_by(|a, b| a.value.abs().total_cmp(&b.value.abs()));
        let worst = if worse_high { all.last() } else { all.first() };
        if let Some(worst) = worst {
            let of = if all.len() > 1 { format!(", the worst of {}", all.len()) } else { String::new() };
            seen.push((marked(worst.value.abs(), bounds), text(worst) + &of));
        }
    };
    look("judge", "label_mass", MASS, &|it| {
        format!("`{}` puts {} of its probability on the two labels", it.stage, with_interval(it))
    });
    look("judge", "position/gap", GAP, &|it| {
        let first = if it.value > 0.0 { "favours what it sees first" } else { "favours what it sees second" };
        let what =
            if marked(it.value.abs(), GAP) == Mark::Good { "has no strong preference for a place" } else { first };
        format!("`{}` {what}: gap between the orders {}", it.stage, with_interval(it))
    });
    look("judge", "position/flip_rate", FLIPS, &|it| {
        format!("`{}` changes the winner with the order in a share of {}", it.stage, with_interval(it))
    });
    look("evaluate", "truth/mean_abs_error", ERROR, &|it| {
        format!("labels miss the true probabilities by {} on average", with_interval(it))
    });
    look("calibrate", "ece/after", CALIBRATION, &|it| {
        format!("after calibration labels miss gold by {} on average (`{}`)", with_interval(it), it.stage)
    });
    let agreement: Vec<&Figure> = evidence.named("evaluate", "truth/agreement").collect();
    let measured = seen.iter().any(|(_, text)| text.contains("miss")) || !agreement.is_empty();
    let mut facts: Vec<String> = seen.iter().map(|(_, text)| sentence(text)).collect();
    facts.extend(agreement.iter().map(|it| {
        sentence(&format!("the side that labels prefer is the truly better one in a share of {}", with_interval(it)))
    }));
    for labels in &evidence.labels {
        facts.push(format!(
            "`{}`: {} pairs, a share of {} within 0.1 of one half and of {} beyond 0.99.",
            labels.table,
            grouped(labels.pairs),
            four(labels.near_half),
            four(labels.certain)
        ));
    }
    // Soft labels near one half change their winner with little; measured against the truth, that is no fault.
    let right = seen.iter().any(|(mark, text)| *mark == Mark::Good && text.contains("miss"));
    let counts =
        |(mark, text): &&(Mark, String)| !(right && *mark == Mark::Unsure && text.contains("changes the winner"));
    let worst = seen.iter().filter(counts).max_by_key(|(mark, _)| *mark);
    let (mark, answer) = match (worst, evidence.judged) {
        (Some((Mark::Good, _)), _) if measured => {
            (Mark::Good, "Yes, by what was measured: the judge answers the question, and its labels agree with the truth \
                          or with gold labels.".to_owned())
        }
        (Some((Mark::Good, _)), _) => (
            Mark::Unsure,
            "The judge answers the question and minds the order little. Whether its labels are right was not measured: \
             there is no gold."
                .to_owned(),
        ),
        (Some((mark, text)), _) => {
            let word = if *mark == Mark::Bad { "No" } else { "With care" };
            (*mark, format!("{word}: {text}."))
        }
        (None, true) => (Mark::Unknown, "The judge's summary is not in this run.".to_owned()),
        (None, false) => (Mark::Unknown, "No judge was asked: labels came with the data.".to_owned()),
    };
    Answer { question, mark, answer, facts }
}

/// A size against where it is good (at most, or for masses at least) and where it is bad.
fn marked(size: f64, [good, bad]: [f64; 2]) -> Mark {
    let better = |a: f64, b: f64| if good < bad { a <= b } else { a >= b };
    match (better(size, good), better(size, bad)) {
        (true, _) => Mark::Good,
        (false, true) => Mark::Unsure,
        (false, false) => Mark::Bad,
    }
}

/// Answer to "What next?".
fn next(evidence: &Evidence) -> Answer {
    let question = "What next?";
    let mut advice = advice(evidence);
    if advice.is_empty() {
        let answer = "Nothing stands out. Compare with another objective, data or seed: run the pipeline with another \
                      `--set`, then `halftone report --compare` on both runs.";
        return Answer { question, mark: Mark::Good, answer: answer.to_owned(), facts: Vec::new() };
    }
    let answer = advice.remove(0);
    Answer { question, mark: Mark::Unsure, answer, facts: advice }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().map(|letter| letter.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::evidence::Labels;
    use super::*;

    fn figure(kind: &str, metric: &str, value: f64, half: f64) -> Figure {
        Figure {
            stage: kind.to_owned(),
            kind: kind.to_owned(),
            metric: metric.to_owned(),
            value,
            interval: Some((value - half, value + half)),
            rows: 300,
        }
    }

    fn answers_to(figures: Vec<Figure>) -> Vec<(Mark, String)> {
        let evidence = Evidence { figures, judged: true, ..Evidence::default() };
        answers(&evidence).into_iter().map(|answer| (answer.mark, answer.answer)).collect()
    }

    #[test]
    fn the_learned_preference_is_shown_with_its_interval() {
        let better = answers_to(vec![figure("evaluate", "utility/after-before", 0.174, 0.01)]);
        assert_eq!(better[0].0, Mark::Good);
        assert_eq!(better[0].1, "Yes: utility changed by 0.1740 (0.1640 to 0.1840), over 300 prompts.");
        let unclear = answers_to(vec![figure("evaluate", "win_rate", 0.52, 0.05)]);
        assert_eq!(unclear[0].0, Mark::Unsure);
        assert!(unclear[0].1.starts_with("Unknown: the policy wins a share of 0.5200"), "{unclear:?}");
        let worse =
            answers_to(vec![figure("evaluate", "accuracy", 0.4, 0.05), figure("evaluate", "accuracy", 0.3, 0.05)]);
        assert_eq!(worse[0].0, Mark::Bad);
        assert!(worse[0].1.contains("the best of 2; the least is 0.3000"), "{worse:?}");
    }

    #[test]
    fn a_training_without_measurement_is_no_success() {
        let training = Training {
            stage: "policy".to_owned(),
            steps: 73,
            window: 10,
            loss: Some((0.69, 0.5)),
            margin: Some((0.0, 0.8)),
            ..Training::default()
        };
        let evidence = Evidence { trainings: vec![training.clone()], ..Evidence::default() };
        let answer = learned(&evidence);
        assert_eq!(answer.mark, Mark::Unsure);
        assert!(answer.answer.contains("Nothing measures it on pairs that it has not seen"), "{}", answer.answer);
        assert!(answer.facts[0].contains("the mean of the last 10 of 73 steps"), "{:?}", answer.facts);
        let still = Evidence { trainings: vec![Training { margin: Some((0.0, 0.001)), ..training }], ..evidence };
        assert!(learned(&still).answer.starts_with("Hardly"));
        assert_eq!(learned(&Evidence::default()).mark, Mark::Unknown);
    }

    #[test]
    fn labels_are_as_good_as_their_worst_figure() {
        let good = [("label_mass", 0.97), ("position/gap", -0.01), ("position/flip_rate", 0.03)];
        let judge = |figures: &[(&str, f64)]| -> Vec<Figure> {
            figures.iter().map(|(metric, value)| figure("judge", metric, *value, 0.001)).collect()
        };
        let all = answers_to(judge(&good));
        assert_eq!(all[1].0, Mark::Unsure);
        assert!(all[1].1.contains("Whether its labels are right was not measured"), "{all:?}");
        let mut figures = judge(&good);
        figures.push(figure("evaluate", "truth/mean_abs_error", 0.06, 0.003));
        assert_eq!(answers_to(figures)[1].0, Mark::Good);
        let all = answers_to(judge(&[("label_mass", 0.04), ("position/gap", 0.3)]));
        assert_eq!(all[1].0, Mark::Bad);
        assert!(all[1].1.starts_with("No: `judge`"), "{all:?}");
        let own = Evidence {
            labels: vec![Labels { table: "pairs".to_owned(), pairs: 2311, near_half: 0.25, certain: 0.0 }],
            ..Evidence::default()
        };
        assert_eq!(trusted(&own).answer, "No judge was asked: labels came with the data.");
        assert!(trusted(&own).facts[0].contains("2\u{202f}311 pairs, a share of 0.2500 within 0.1"));
    }
}
