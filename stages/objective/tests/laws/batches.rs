//! The content of a batch, and the measures on it.

use super::*;

#[test]
fn weights_repeat_rows_and_zero_drops_them() {
    for objective in catalogue().filter(|objective| objective.separable() || objective.name() == "kto") {
        let mut batch = batch(29, 3.0, &objective, [0.6, 0.8, 1.0]);
        let weights = [1.0, 3.0, 0.0, 2.0, 1.0];
        batch.edges.iter_mut().zip(weights).for_each(|(edge, weight)| edge.weight = weight);
        batch.items.iter_mut().zip(weights).for_each(|(item, weight)| item.weight = weight);
        let mut repeated = Batch { edges: Vec::new(), items: Vec::new(), ..batch.clone() };
        for edge in &batch.edges {
            repeated.edges.extend(vec![Edge { weight: 1.0, ..*edge }; edge.weight as usize]);
        }
        for item in &batch.items {
            repeated.items.extend(vec![Item { weight: 1.0, ..*item }; item.weight as usize]);
        }
        let (a, b) = (objective.evaluate(&batch).unwrap(), objective.evaluate(&repeated).unwrap());
        assert!((a.loss - b.loss).abs() < 1e-10 * a.loss.abs().max(1.0), "{}", objective.name());
    }
}

#[test]
fn a_batch_without_weight_or_without_a_class_makes_no_step() {
    for objective in catalogue() {
        let mut batch = batch(31, 3.0, &objective, [0.6, 0.8, 1.0]);
        batch.edges.iter_mut().for_each(|edge| edge.weight = 0.0);
        batch.items.iter_mut().for_each(|item| item.weight = 0.0);
        assert_eq!(objective.no_step(&batch), Some(NoStep::ZeroWeight), "{}", objective.name());
        let evaluation = objective.evaluate(&batch).unwrap();
        assert_eq!(evaluation.no_step, Some(NoStep::ZeroWeight), "{}", objective.name());
        assert!(evaluation.loss == 0.0 && evaluation.d_policy.iter().all(|d| *d == (0.0, 0.0)));
    }
    let unpaired = objective(r#"{"name": "rpo", "beta": 0.3, "tau": 0.5, "form": "unpaired"}"#);
    let mut batch = items(&oracle());
    batch.items.retain(|item| item.label > 0.5);
    batch.similarities = Some(Similarities { rows: 12, columns: 0, values: Vec::new() });
    assert_eq!(unpaired.evaluate(&batch).unwrap().no_step, Some(NoStep::OneClass));
}

#[test]
fn what_is_missing_is_named() {
    let whole = rows(&oracle(), false);
    let mut batch = whole.clone();
    batch.sequences[3].reference = None;
    let dpo = objective(r#"{"name": "dpo", "beta": 0.3}"#);
    assert!(matches!(dpo.evaluate(&batch), Err(Error::NoReference { sequence: 3, .. })));
    let simpo = objective(r#"{"name": "simpo", "beta": 2, "gamma": 1}"#);
    assert!(simpo.evaluate(&batch).is_ok());
    batch = Batch { similarities: None, ..whole.clone() };
    let rpo = objective(r#"{"name": "rpo", "beta": 0.3, "tau": 0.5}"#);
    assert!(matches!(rpo.evaluate(&batch), Err(Error::Similarities { rows: 12, .. })));
    assert!(matches!(objective(r#"{"name": "kto", "beta": 0.3}"#).evaluate(&whole), Err(Error::NoKl)));
    batch = rows(&oracle(), true);
    assert!(matches!(objective(r#"{"name": "aot", "beta": 0.3}"#).evaluate(&batch), Err(Error::UnequalWeights { .. })));
    let mut batch = items(&oracle());
    assert!(matches!(objective(r#"{"name": "sft"}"#).evaluate(&batch), Err(Error::Label { item: 1, .. })));
    batch.items.retain(|item| item.label > 0.5);
    assert!(objective(r#"{"name": "sft"}"#).evaluate(&batch).is_ok());
    let mut batch = whole;
    batch.edges[2].p_hat = f64::NAN;
    assert!(matches!(dpo.evaluate(&batch), Err(Error::OutOfRange { .. })));
}

#[test]
fn forms_are_checked() {
    let of = |text: &str| objective(text);
    let (same, joint) = (Forms { same: 4, joint: 0 }, Forms { same: 4, joint: 2 });
    let dpo = of(r#"{"name": "dpo", "beta": 0.3}"#);
    assert!(dpo.check_forms(same, false).is_ok());
    assert!(dpo.check_forms(joint, true).unwrap_err().contains("`jpo`"));
    let gdpo = of(r#"{"name": "gdpo", "beta": 0.3}"#);
    assert!(gdpo.check_forms(joint, false).unwrap_err().contains("`gjpo`"));
    let jpo = of(r#"{"name": "jpo", "beta": 0.3}"#);
    assert!(jpo.check_forms(joint, false).is_ok() && jpo.check_forms(same, true).is_ok());
    let refused = jpo.check_forms(same, false).unwrap_err();
    assert!(refused.contains("`joint: {random: 1}`") && refused.contains("allow_same_prompt: true"), "{refused}");
    assert!(of(r#"{"name": "rpo", "beta": 0.3, "tau": 0.5}"#).check_forms(joint, false).is_ok());
    assert!(of(r#"{"name": "simpo", "beta": 0.3, "gamma": 1}"#).check_forms(joint, false).is_err());
}

#[test]
fn measures_have_trls_meaning() {
    let batch = rows(&oracle(), true);
    let dpo = objective(r#"{"name": "dpo", "beta": 0.3}"#);
    let measures = dpo.measure(&batch);
    let ratio = |i: usize| batch.sequences[i].policy.0 - batch.sequences[i].reference.unwrap().0;
    let chosen = (0..12).map(|i| 0.3 * ratio(2 * i)).sum::<f64>() / 12.0;
    let won = (0..12).filter(|i| ratio(2 * i) > ratio(2 * i + 1)).count() as f64 / 12.0;
    assert!((measures.rewards_chosen.unwrap() - chosen).abs() < 1e-12);
    assert_eq!(measures.rewards_accuracies, Some(won));
    assert_eq!(measures.rewards_margins, Some(measures.rewards_chosen.unwrap() - measures.rewards_rejected.unwrap()));
    let (w, squares) = batch.edges.iter().fold((0.0, 0.0), |sum, e| (sum.0 + e.weight, sum.1 + e.weight * e.weight));
    assert!((measures.weight_ess.unwrap() - w * w / squares).abs() < 1e-12);
    // SimPO with a reference at hand shows the reference's rewards, without one its own comparison.
    let simpo = objective(r#"{"name": "simpo", "beta": 0.3, "gamma": 1}"#);
    assert_eq!(simpo.measure(&batch).rewards_margins, measures.rewards_margins);
    let mut bare = batch.clone();
    bare.sequences.iter_mut().for_each(|sequence| sequence.reference = None);
    let per_token = |i: usize| 0.3 * bare.sequences[i].policy.0 / bare.sequences[i].tokens as f64;
    let wanted = (0..12).map(|i| per_token(2 * i)).sum::<f64>() / 12.0;
    assert!((simpo.measure(&bare).rewards_chosen.unwrap() - wanted).abs() < 1e-12);
    // Items: no pair, so no accuracy.
    let kto = objective(r#"{"name": "kto", "beta": 0.3}"#).measure(&items(&oracle()));
    assert!(kto.rewards_accuracies.is_none() && (kto.rewards_chosen.unwrap() - chosen).abs() < 1e-12);
    assert_eq!(kto.p_mean, Some(0.5));
}
