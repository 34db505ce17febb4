//! The stage: read ids, choose, gather texts, count.

use std::sync::Arc;

use arrow_array::StringArray;
use kit::rows::{Comparison, Response};
use kit::{
    Amount, Context, Finding, Forecast, ForecastInputs, InputPort, Job, Outcome, Outlook, OutputPort, Result, Stage,
    Table, write_gathered,
};

use rayon::prelude::*;

use crate::config::{Against, Compare, Joint, Within};
use crate::forecast;
use crate::responses::Responses;
use crate::search::{Nearest, Search, searched};
use crate::selection::{Reason, select};

/// The inputs whose rows may meet, in order.
const INPUTS: [&str; 2] = ["from", "baseline"];

impl Compare {
    /// Makes the comparisons.
    pub(crate) fn meet(&self, context: &Context<'_>, responses: Responses, nearest: &Nearest) -> Result<Outcome> {
        let Nearest { neighbours, recall } = nearest;
        let selection = select(self, context.seed, &responses, neighbours);
        if selection.meetings.is_empty() {
            context.note("no two responses meet, so the table of comparisons is empty");
        }
        let mut reasons: Vec<Option<Reason>> = vec![None; responses.ids.len()];
        for (response, reason) in responses.list.iter().zip(&selection.reasons) {
            reasons[response.row as usize] = *reason;
        }
        let rejected = context.reject_rows::<Response>(&INPUTS, |row| {
            let id = || responses.ids.get(row).to_owned();
            if let Some(earlier) = responses.duplicate_of.get(&row) {
                return Some((id(), "duplicate", format!("the same response as in row {} of the input", earlier + 1)));
            }
            reasons[row as usize].map(|reason| (id(), reason.word(), reason.text().to_owned()))
        })?;

        let place = |at: u32| &responses.list[at as usize];
        let mut joint = 0_u64;
        let mut comparisons = Vec::with_capacity(selection.meetings.len());
        for meeting in &selection.meetings {
            let [one, other] = [meeting.one, meeting.other].map(place);
            let ids =
                [one, other].map(|response| (responses.prompts.get(response.prompt), responses.ids.get(response.row)));
            let id = kit::ids::comparison_bits(ids[0], ids[1]);
            // The coin is for the smaller key, so that neither the order of the input nor `k` decides.
            let coin = context.seed.derive("compare/side", &kit::id_text(id), 0) >> 63 == 1;
            let (a, b) = if coin == (one.key < other.key) { (one.row, other.row) } else { (other.row, one.row) };
            joint += u64::from(one.prompt != other.prompt);
            comparisons.push(Chosen { id, a, b, joint: one.prompt != other.prompt });
        }
        let beyond = selection.possible - selection.meetings.len() as u64;
        let equal_texts = selection.equal_texts;
        let prompts = responses.prompts.len();
        drop((selection, responses, reasons));
        comparisons.par_sort_unstable_by_key(|chosen| chosen.id);
        write(context, &comparisons)?;

        let mut outcome = Outcome::default();
        for (key, rejected) in INPUTS.into_iter().zip(rejected) {
            let read = context.count_rows_of(&[key])?;
            if key == "from" || read > 0 {
                outcome = outcome.balance(key, read, read - rejected, rejected);
            }
        }
        let missing = neighbours.iter().filter(|neighbours| neighbours.is_none()).count();
        if self.needs_embeddings() {
            outcome = outcome.figure("prompts without embedding", missing);
        }
        if let Some(recall) = recall {
            outcome = outcome.figure("recall of nearest prompts", (recall * 1e6).round() / 1e6);
        }
        Ok(outcome
            .figure("prompts", prompts)
            .figure("comparisons", comparisons.len())
            .figure("comparisons same", comparisons.len() as u64 - joint)
            .figure("comparisons joint", joint)
            .figure("pairs of equal text", equal_texts)
            .figure("pairs beyond cap or budget", beyond))
    }
}

impl Compare {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, context: &Context<'_>) -> Result<Forecast> {
        let mut forecast = Forecast::of_rows(Amount::exact(context.count_rows_of(&INPUTS)?));
        if self.needs_embeddings() {
            let rows = context.count_rows_of(&["embeddings"])?;
            forecast.notes.push(match self.lists(rows) {
                Some(lists) => searched(lists),
                None => {
                    let products = rows.saturating_mul(rows.saturating_sub(1)) / 2;
                    format!("nearest prompts: {products} products of embeddings, exact")
                }
            });
        }
        Ok(forecast)
    }
}

impl Stage for Compare {
    fn version(&self) -> String {
        // Of many prompts the nearest were exact in version 2.
        if self.needs_embeddings() { "3" } else { "2" }.to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        let from = InputPort::new("from", &self.from, Table::Responses);
        let mut inputs = vec![match &self.within {
            Some(Within::Against(Against::Best)) => {
                from.needs("score").fixed_by("`against: best` goes by scores; `within: all` does not")
            }
            Some(Within::Against(Against::Model(_))) => {
                from.needs("model").fixed_by("`against: {model: ...}` goes by who wrote a response")
            }
            _ => from,
        }];
        if let Some(baseline) = &self.baseline {
            let port = InputPort::new("baseline", baseline, Table::Responses);
            let idle = "only `within: {against: baseline}` reads it";
            inputs.push(if self.has_baseline() { port } else { port.idle(idle) });
        }
        if let Some(embeddings) = &self.embeddings {
            let port = InputPort::new("embeddings", embeddings, Table::Embeddings);
            let idle = "only `joint: {nearest: k}` reads it";
            inputs.push(if self.needs_embeddings() { port } else { port.idle(idle) });
        }
        inputs
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort::new(Table::Comparisons), OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        self.findings()
    }

    fn idle_keys(&self) -> Vec<Finding> {
        self.without_effect()
    }

    fn draws(&self) -> bool {
        true
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(Ok(forecast::estimate(self, ahead)), |context| self.count(context))
    }

    fn is_row_wise(&self) -> bool {
        self.needs_embeddings()
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(match self.joint {
            Some(Joint::Nearest(count)) => Job::sharded(Search::new(self, context, count)?),
            _ => Job::whole(move || self.meet(context, Responses::read(self, context)?, &Nearest::default())),
        })
    }
}

/// A comparison before it is written: its id, and the rows of its sides.
struct Chosen {
    id: [u8; 12],
    a: u32,
    b: u32,
    joint: bool,
}

fn write(context: &Context<'_>, comparisons: &[Chosen]) -> Result<()> {
    let needs = |chosen: &Chosen| [Some(chosen.a), Some(chosen.b)];
    write_gathered::<Response, Comparison, _>(context, &INPUTS, "comparisons", comparisons, needs, |held, chosen| {
        let ids: StringArray = chosen.iter().map(|chosen| Some(kit::id_text(chosen.id))).collect();
        let forms: StringArray =
            chosen.iter().map(|chosen| Some(if chosen.joint { "joint" } else { "same" })).collect();
        let mut columns: Vec<arrow_array::ArrayRef> = vec![Arc::new(ids), Arc::new(forms)];
        let a = held.places(chosen.iter().map(|chosen| chosen.a));
        let b = held.places(chosen.iter().map(|chosen| chosen.b));
        for side in [&a, &b] {
            for column in ["prompt_id", "response_id", "prompt", "messages"] {
                columns.push(held.gather(column, side)?);
            }
        }
        columns.extend([held.gather("source_file", &a)?, held.gather("source_line", &a)?]);
        Ok(columns)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use harness::Place;
    use kit::rows::{Embedding, Message, Reject};
    use kit::{Digest, Error};
    use serde_json::{Value, json};

    use super::*;
    use crate::ivf::Lists;

    fn response(prompt: &str, id: &str, text: &str) -> Response {
        Response {
            response_id: id.to_owned(),
            prompt_id: prompt.to_owned(),
            prompt: vec![Message::new("user", format!("prompt {prompt}"))],
            messages: vec![Message::new("assistant", text)],
            text: text.to_owned(),
            k: 0,
            count: 1,
            logp: None,
            tokens: None,
            finish: None,
            score: None,
            model: None,
            source_file: Some("d.jsonl".to_owned()),
            source_line: Some(1),
        }
    }

    fn many() -> Vec<Response> {
        (0..400)
            .map(|at| response(&format!("p{:02}", at % 40), &format!("r{}", at / 40), &format!("text {}", at / 50)))
            .collect()
    }

    struct Run {
        place: Place,
        outcome: Result<Outcome>,
    }

    impl Run {
        fn comparisons(&self) -> Vec<Comparison> {
            self.place.rows("out/comparisons")
        }

        fn rejects(&self) -> Vec<(String, String, String)> {
            let rejects: Vec<Reject> = self.place.rows("out/rejects");
            rejects.into_iter().map(|reject| (reject.input, reject.row_id, reject.reason)).collect()
        }
    }

    fn run(yaml: Value, seed: u64, from: &[Response], baseline: &[Response], embeddings: &[Embedding]) -> Run {
        let settings = json!({"from": "x", "baseline": "y", "embeddings": "z"});
        let (stage, _) = (crate::KIND.configure)(harness::with(settings, &yaml)).unwrap();
        let mut place = Place::new().seeded(seed);
        for port in stage.inputs().iter().filter(|port| port.idle.is_none()) {
            place = match port.key {
                "from" => place.table("from", from.to_vec()),
                "baseline" => place.table("baseline", baseline.to_vec()),
                _ => place.table("embeddings", embeddings.to_vec()),
            };
        }
        let outcome = place.stage("out", &*stage);
        Run { place, outcome }
    }

    #[test]
    fn comparisons_carry_both_sides_and_are_sorted() {
        let rows = many();
        let run = run(json!({"within": "all", "joint": {"random": 2}}), 3, &rows, &[], &[]);
        let comparisons = run.comparisons();
        assert!(comparisons.is_sorted_by(|x, y| x.comparison_id < y.comparison_id));
        let find =
            |prompt: &str, id: &str| rows.iter().find(|row| row.prompt_id == prompt && row.response_id == id).unwrap();
        let mut a_first = 0;
        for row in &comparisons {
            let a = find(&row.a_prompt_id, &row.a_response_id);
            let b = find(&row.b_prompt_id, &row.b_response_id);
            assert_eq!((&row.a_prompt, &row.a_response), (&a.prompt, &a.messages));
            assert_eq!((&row.b_prompt, &row.b_response), (&b.prompt, &b.messages));
            assert_eq!(row.form == "joint", a.prompt_id != b.prompt_id);
            assert!(row.form == "joint" || a.text != b.text);
            let (x, y) = ((&*row.a_prompt_id, &*row.a_response_id), (&*row.b_prompt_id, &*row.b_response_id));
            assert_eq!(row.comparison_id, kit::ids::comparison_id(x, y));
            a_first += usize::from(x < y);
        }
        // Position carries no information: about half of the smaller ids stand first.
        let share = a_first as f64 / comparisons.len() as f64;
        assert!((0.46..0.54).contains(&share), "{share} of {}", comparisons.len());
        let outcome = run.outcome.unwrap();
        assert_eq!(outcome.figures["comparisons"], json!(comparisons.len()));
        let same = comparisons.iter().filter(|row| row.form == "same").count();
        assert_eq!(same as u64 + outcome.figures["pairs of equal text"].as_u64().unwrap(), 40 * 45);
    }

    #[test]
    fn the_order_of_the_input_does_not_matter() {
        let rows = many();
        let mut turned = rows.clone();
        turned.reverse();
        let yaml = json!({"within": {"random": 4}, "joint": {"random": 2}, "cap_per_prompt": 5, "budget": 60});
        let digest =
            |run: &Run| kit::read_port(&run.place.port("out/comparisons"), Table::Comparisons).unwrap().digest();
        let one = run(yaml.clone(), 3, &rows, &[], &[]);
        assert_eq!(one.comparisons().len(), 60);
        assert_eq!(digest(&one), digest(&run(yaml.clone(), 3, &turned, &[], &[])));
        assert_ne!(digest(&one), digest(&run(yaml, 4, &rows, &[], &[])));
        let balance = &one.outcome.unwrap().balance;
        assert_eq!((balance.len(), balance[0].read), (1, 400));
        let rejects = kit::rows_of(&one.place.port("out/rejects")).unwrap();
        assert_eq!((balance[0].rejected, balance[0].kept), (rejects, 400 - rejects));
    }

    /// Raise [`Stage::version`] when this changes: results in people's stores were made by the version before.
    #[test]
    fn the_version_stands_for_these_rows() {
        let yaml = json!({"within": {"random": 4}, "joint": {"random": 2}, "cap_per_prompt": 5, "budget": 60});
        let rows = run(yaml, 3, &many(), &[], &[]).comparisons();
        let at = |prompt: usize| embedding(&format!("p{prompt:02}"), &[(prompt as f32).cos(), (prompt as f32).sin()]);
        let embeddings: Vec<_> = (0..40).map(at).collect();
        let near = run(json!({"joint": {"nearest": 2}}), 3, &many(), &[], &embeddings).comparisons();
        let digest = Digest::of(format!("{rows:?}{near:?}").as_bytes()).short(16);
        let version =
            |yaml: Value| (crate::KIND.configure)(harness::with(json!({"from": "x"}), &yaml)).unwrap().0.version();
        assert_eq!([version(json!({})), version(json!({"joint": {"nearest": 2}}))], ["2", "3"]);
        assert_eq!(digest, "f3472616095c1e3a");
    }

    #[test]
    fn equal_texts_are_within_a_prompt() {
        let found = |more: Value| {
            harness::keys_found(&crate::KIND, &harness::with(json!({"from": "x", "equal_texts": "drop"}), &more))
        };
        assert_eq!(found(json!({"within": "all"})), [""; 0]);
        assert_eq!(found(json!({"joint": {"random": 2}})), ["equal_texts"]);
    }

    #[test]
    fn what_responses_are_set_against_has_to_be_known() {
        let needs = |within: Value| {
            let (stage, _) = (crate::KIND.configure)(json!({"from": "x", "within": within})).unwrap();
            stage.inputs().remove(0).columns
        };
        assert_eq!(needs(json!("all")), [""; 0]);
        assert_eq!(needs(json!({"against": "best"})), ["score"]);
        assert_eq!(needs(json!({"against": {"model": "m"}})), ["model"]);
    }

    #[test]
    fn a_baseline_of_another_table() {
        let from = [response("p", "1", "x"), response("p", "2", "y"), response("q", "1", "z"), response("p", "2", "y")];
        // The baseline says the same as one response, under the same id.
        let baseline = [response("p", "1", "x"), response("r", "1", "w")];
        // In a contest what says the same is a tie and not nothing.
        let contest = json!({"within": {"against": "baseline"}, "equal_texts": "keep"});
        let kept = run(contest, 0, &from, &baseline, &[]).comparisons();
        assert!(kept.iter().any(|row| row.a_response_id == row.b_response_id), "{kept:?}");
        let run = run(json!({"within": {"against": "baseline"}}), 0, &from, &baseline, &[]);
        let comparisons = run.comparisons();
        assert_eq!(comparisons.len(), 1);
        let sides = BTreeSet::from([&*comparisons[0].a_response_id, &*comparisons[0].b_response_id]);
        assert_eq!(sides, BTreeSet::from(["1", "2"]));
        let name = |input: &str, id: &str, reason: &str| (input.to_owned(), id.to_owned(), reason.to_owned());
        assert_eq!(
            run.rejects(),
            [
                name("from", "1", "equal_text"),
                name("from", "1", "no_baseline"),
                name("from", "2", "duplicate"),
                name("baseline", "1", "no_candidate"),
            ]
        );
        let balance = run.outcome.unwrap().balance;
        assert_eq!((balance[0].read, balance[0].kept), (4, 1));
        assert_eq!((balance[1].read, balance[1].kept), (2, 1));
    }

    fn embedding(prompt: &str, embedding: &[f32]) -> Embedding {
        Embedding { prompt_id: prompt.to_owned(), embedding: embedding.to_vec(), source_file: None, source_line: None }
    }

    #[test]
    fn nearest_prompts_meet() {
        let from = ["a", "b", "c", "d", "e"].map(|prompt| response(prompt, "1", prompt));
        let at = |prompt: &str, angle: f32| embedding(prompt, &[3.0 * angle.cos(), 3.0 * angle.sin()]);
        let embeddings = [at("d", 1.3), at("c", 1.2), at("z", 0.05), at("a", 0.0), at("b", 0.1)];
        let run = run(json!({"joint": {"nearest": 1}}), 0, &from, &[], &embeddings);
        let met: BTreeSet<_> = run
            .comparisons()
            .into_iter()
            .map(|row| BTreeSet::from([row.a_prompt_id, row.b_prompt_id]).into_iter().collect::<Vec<_>>().join("-"))
            .collect();
        assert_eq!(met, BTreeSet::from(["a-b".to_owned(), "c-d".to_owned()]));
        assert_eq!(run.rejects(), [("from".to_owned(), "1".to_owned(), "no_embedding".to_owned())]);
        assert_eq!(run.outcome.unwrap().figures["prompts without embedding"], json!(1));
    }

    #[test]
    fn lists_find_what_is_near_and_say_how_much() {
        let rows = many();
        let at = |prompt: usize| {
            let values: Vec<f32> = (0..8).map(|at| ((prompt * 8 + at) as f32).powi(2).sin()).collect();
            embedding(&format!("p{prompt:02}"), &values)
        };
        let embeddings: Vec<_> = (0..40).map(at).collect();
        let near = |neighbours: Value| {
            let yaml = harness::with(json!({"joint": {"nearest": 3}}), &neighbours);
            let Run { place, outcome } = run(yaml, 3, &rows, &[], &embeddings);
            let recall = outcome.unwrap().figures.get("recall of nearest prompts").cloned();
            (place.rows::<Comparison>("out/comparisons"), recall, place.notes())
        };
        let (exact, none, _) = near(json!({}));
        assert_eq!(none, None);
        // The embeddings are of 40 prompts, so that nothing but `ivf` asks for lists.
        let (all, recall, _) = near(json!({"neighbours": {"ivf": {"lists": 6, "probes": 6}}}));
        assert_eq!((all, recall), (exact.clone(), Some(json!(1.0))));
        let (some, recall, notes) = near(json!({"neighbours": {"ivf": {"probes": 1}}}));
        let recall = recall.unwrap().as_f64().unwrap();
        assert!(some != exact && (0.1..1.0).contains(&recall), "{recall}");
        assert_eq!(
            notes[0],
            "nearest prompts: those of 1 of 6 lists for each prompt; `neighbours: exact` compares all"
        );
        let text =
            format!("{:.1} % of the nearest prompts were found, by the exact ones of 40 prompts drawn", 100.0 * recall);
        assert!(notes[1].starts_with(&text), "{notes:?}");
    }

    #[test]
    fn from_many_prompts_on_the_search_is_in_lists() {
        let lists = |neighbours: Value, prompts: u64| {
            let yaml = harness::with(json!({"from": "r", "joint": {"nearest": 3}, "embeddings": "e"}), &neighbours);
            serde_json::from_value::<Compare>(yaml).unwrap().lists(prompts)
        };
        let of = |lists, probes| Some(Lists { lists, probes });
        assert_eq!(lists(json!({}), 99_999), None);
        assert_eq!(lists(json!({}), 100_000), of(316, 16));
        assert_eq!(lists(json!({"neighbours": "exact"}), 1_000_000), None);
        assert_eq!(lists(json!({"neighbours": {"ivf": {}}}), 100), of(10, 10));
        assert_eq!(lists(json!({"neighbours": {"ivf": {"lists": 50, "probes": 3}}}), 7), of(7, 3));
        assert_eq!(lists(json!({"neighbours": {"ivf": {}}}), 0), None);
    }

    #[test]
    fn embeddings_without_direction_are_named() {
        let from = ["a", "b"].map(|prompt| response(prompt, "1", prompt));
        let check = |second: &[f32], text: &str| {
            let rows = [embedding("a", &[1.0, 0.0]), embedding("b", second)];
            let error = run(json!({"joint": {"nearest": 1}}), 0, &from, &[], &rows).outcome.unwrap_err();
            assert!(matches!(error, Error::Data(_)) && error.to_string().contains(text), "{error}");
        };
        check(&[0.0, 0.0], "row 2, column `embedding`: a vector without direction");
        check(&[f32::NAN, 0.0], "row 2, column `embedding`: a vector without direction");
        check(&[1.0], "row 2, column `embedding`: 1 numbers, wanted 2");
    }

    #[test]
    fn nothing_in_nothing_out() {
        for yaml in [json!({"within": "all", "joint": {"random": 1}}), json!({"joint": {"nearest": 2}})] {
            let run = run(yaml, 0, &[], &[], &[]);
            assert_eq!(run.outcome.as_ref().unwrap().balance[0].read, 0);
            assert!(run.comparisons().is_empty() && run.rejects().is_empty());
        }
    }

    #[test]
    fn settings_that_cannot_be_are_found() {
        let check = |yaml: Value, path: &[&str]| {
            let (stage, _) = (crate::KIND.configure)(yaml).unwrap();
            let findings = stage.check();
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(findings[0].path, path);
        };
        check(json!({"from": "r"}), &[]);
        check(json!({"from": "r", "within": {"against": "baseline"}}), &["within"]);
        check(json!({"from": "r", "joint": {"nearest": 3}}), &["joint"]);
        check(json!({"from": "r", "within": {"random": 0}}), &["within", "random"]);
        check(json!({"from": "r", "within": "all", "budget": 0}), &["budget"]);
        check(json!({"from": "r", "within": "all", "neighbours": "exact"}), &["neighbours"]);
        let near =
            |ivf: Value| json!({"from": "r", "joint": {"nearest": 2}, "embeddings": "e", "neighbours": {"ivf": ivf}});
        check(near(json!({"probes": 0})), &["neighbours", "ivf", "probes"]);
        check(near(json!({"lists": 4, "probes": 5})), &["neighbours", "ivf", "probes"]);
        let wrong = (crate::KIND.configure)(json!({"from": "r", "within": "some"})).err().unwrap();
        assert!(wrong.path == ["within"] && wrong.text.contains("unknown variant `some`"), "{wrong:?}");
    }
}
