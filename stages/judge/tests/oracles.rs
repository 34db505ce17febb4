//! Rationales, labels and levels as transformers has them: `oracle/make.py`.

use harness::Place;
use judge::Judge;
use kit::rows::{JudgeAnswer, Rating, Verdict};
use serde_json::{Value, json};

use crate::material;

/// f32 here, f64 there.
const TOLERANCE: f64 = 1e-3;

fn oracle() -> Vec<Value> {
    serde_json::from_str(include_str!("oracle/judges.json")).unwrap()
}

fn place(settings: Value) -> Place {
    let common = json!({"comparisons": "data", "model": "models/llama", "least_mass": 0.0});
    let stage: Judge = serde_json::from_value(harness::with(common, &settings)).unwrap();
    let place = Place::new().table("comparisons", material::comparisons("same")).model("model", "llama");
    place.stage("out", &stage).unwrap();
    place
}

fn close(got: Option<f64>, wanted: &Value) {
    let (got, wanted) = (got.unwrap(), wanted.as_f64().unwrap());
    assert!((got - wanted).abs() < TOLERANCE, "{got} {wanted}");
}

#[test]
fn greedy_rationales_and_the_labels_behind_them_are_those_of_transformers() {
    let place = place(json!({"template": "helpful-rationale", "debias": "probability",
        "rationale": {"temperature": 0.0, "max_tokens": 12, "ending": "\nThe better one is"}}));
    let (verdicts, answers): (Vec<Verdict>, Vec<JudgeAnswer>) = (place.rows("out/verdicts"), place.rows("out/answers"));
    let wanted = oracle();
    assert_eq!((verdicts.len(), answers.len()), (6, 12));
    for (row, wanted) in material::comparisons("same").iter().zip(&wanted) {
        let verdict = verdicts.iter().find(|it| it.comparison_id == row.comparison_id).unwrap();
        for order in ["ab", "ba"] {
            let of = |it: &&JudgeAnswer| it.comparison_id == row.comparison_id && it.order == order;
            let answer = answers.iter().find(of).unwrap();
            assert_eq!(answer.text, wanted[order]["rationale"].as_str().unwrap());
        }
        let (ab, ba) = (&wanted["ab"]["labels"], &wanted["ba"]["labels"]);
        close(verdict.ab_logp_a, &ab[0]);
        close(verdict.ab_logp_b, &ab[1]);
        close(verdict.ba_logp_b, &ba[0]);
        close(verdict.ba_logp_a, &ba[1]);
        let p =
            |first: &Value, second: &Value| 1.0 / (1.0 + (second.as_f64().unwrap() - first.as_f64().unwrap()).exp());
        let p_hat = 0.5 * (p(&ab[0], &ab[1]) + p(&ba[1], &ba[0]));
        assert!((verdict.p_hat - p_hat).abs() < TOLERANCE);
    }
}

#[test]
fn levels_are_those_of_transformers() {
    let place = place(json!({"template": "helpful-rating",
        "rating": {"levels": [["1", " 1"], ["2", " 2"], ["3", " 3"], ["4", " 4"]]}}));
    let ratings: Vec<Rating> = place.rows("out/ratings");
    for (row, wanted) in material::comparisons("same").iter().zip(&oracle()) {
        for (id, wanted) in [(&row.a_response_id, &wanted["a_levels"]), (&row.b_response_id, &wanted["b_levels"])] {
            let rating = ratings.iter().find(|it| it.response_id == *id).unwrap();
            assert_eq!(rating.levels.len(), 4);
            for (level, wanted) in rating.levels.iter().zip(wanted.as_array().unwrap()) {
                close(Some((level * rating.mass.unwrap()).ln()), wanted);
            }
        }
    }
}
