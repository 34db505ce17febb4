//! Mixtures of objectives.

use super::*;

fn mixture(text: &str) -> Mixture {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_mixture_of_one_is_that_objective() {
    for objective in catalogue() {
        let batch = batch(5, 2.0, &objective, [0.6, 0.8, 1.0]);
        let mixture = Mixture::from(objective);
        let want = objective.evaluate(&batch).unwrap();
        assert_eq!(mixture.evaluate(&batch).unwrap(), (want.clone(), vec![want.loss]), "{}", objective.name());
        assert_eq!(mixture.measure(&batch), objective.measure(&batch));
        assert_eq!(mixture.no_step(&batch), objective.no_step(&batch));
    }
}

#[test]
fn the_weights_of_a_mixture_add_linearly() {
    for (other, weight) in [(r#"{"name": "sft"}"#, 0.2), (r#"{"name": "gjpo", "beta": 0.1}"#, 1.5)] {
        let other = objective(other);
        for first in catalogue().filter(|first| first.reads_weights() && first.name() != other.name()) {
            if !(first.reads().pairs() && other.reads().pairs() || first.reads().items() && other.reads().items()) {
                continue;
            }
            let batch = batch(6, 2.0, &first, [0.6, 0.8, 1.0]);
            let parts = vec![Part { objective: first, weight: 0.7 }, Part { objective: other, weight }];
            let mixture = Mixture { parts };
            let (sum, losses) = mixture.evaluate(&batch).unwrap();
            // In a mixture sft leaves the items alone that it would refuse.
            let mut of_other = batch.clone();
            of_other.items.retain(|item| other.accepts_label(item.label).is_ok());
            let (one, two) = (first.evaluate(&batch).unwrap(), other.evaluate(&of_other).unwrap());
            assert_eq!(losses, [one.loss, two.loss], "{}", mixture.name());
            assert_eq!(sum.loss, 0.7 * one.loss + weight * two.loss, "{}", mixture.name());
            for ((sum, one), two) in sum.d_policy.iter().zip(&one.d_policy).zip(&two.d_policy) {
                assert_eq!(*sum, (0.7 * one.0 + weight * two.0, 0.7 * one.1 + weight * two.1), "{}", mixture.name());
            }
            assert_eq!(sum.contrasts, one.contrasts);
        }
    }
}

#[test]
fn the_parts_of_a_batch_add_up_in_a_mixture_too() {
    let mixture = mixture(
        r#"[{"name": "gdpo", "beta": 0.3}, {"name": "sft", "weight": 0.2}, {"name": "jpo", "beta": 0.1, "weight": 3}]"#,
    );
    let batch = batch(9, 2.0, &mixture.parts[0].objective, [0.6, 0.8, 1.0]);
    let (whole, losses) = mixture.evaluate(&batch).unwrap();
    let denominators = mixture.denominators(&batch);
    let (mut loss, mut each) = (0.0, [0.0; 3]);
    let mut d_policy = vec![(0.0, 0.0); batch.sequences.len()];
    for edge in &batch.edges {
        let part = Batch { edges: vec![*edge], ..batch.clone() };
        let (share, losses) = mixture.evaluate_part(&part, &denominators).unwrap();
        loss += share.loss;
        each.iter_mut().zip(losses).for_each(|(each, loss)| *each += loss);
        d_policy.iter_mut().zip(share.d_policy).for_each(|(sum, d)| *sum = (sum.0 + d.0, sum.1 + d.1));
    }
    assert!((loss - whole.loss).abs() < 1e-12);
    assert!(each.iter().zip(losses).all(|(each, whole)| (each - whole).abs() < 1e-12));
    assert!(d_policy.iter().zip(&whole.d_policy).all(|(a, b)| (a.0 - b.0).abs() < 1e-14 && (a.1 - b.1).abs() < 1e-14));
    assert_eq!(whole.terms.len(), batch.edges.len());
}

#[test]
fn a_part_without_weight_does_not_stop_the_others() {
    let objective = objective(r#"{"name": "rpo", "beta": 0.3, "weighting": "uniform", "form": "unpaired"}"#);
    let mut batch = batch(3, 2.0, &objective, [0.6, 0.8, 1.0]);
    batch.items.retain(|item| item.label > 0.5); // unpaired rpo has one class alone
    let mixture = Mixture {
        parts: vec![
            Part { objective, weight: 1.0 },
            Part { objective: self::objective(r#"{"name": "sft"}"#), weight: 0.1 },
        ],
    };
    assert_eq!((objective.no_step(&batch), mixture.no_step(&batch)), (Some(NoStep::OneClass), None));
    let (evaluation, losses) = mixture.evaluate(&batch).unwrap();
    assert_eq!((evaluation.no_step, losses[0]), (None, 0.0));
    assert!(losses[1] > 0.0 && evaluation.d_policy.iter().any(|d| d.0 != 0.0));
    batch.items.iter_mut().for_each(|item| item.weight = 0.0);
    assert!(mixture.no_step(&batch).is_some());
}
