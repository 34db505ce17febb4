//! Soft labels: certain, undecided, mirrored.

use crate::*;

#[test]
fn a_certain_label_gives_the_hard_objective() {
    for (soft, hard) in [
        (r#"{"name": "gdpo", "beta": 0.3}"#, r#"{"name": "dpo", "beta": 0.3}"#),
        (r#"{"name": "cdpo", "beta": 0.3}"#, r#"{"name": "dpo", "beta": 0.3}"#),
        (r#"{"name": "gdpo_norm", "beta": 0.3}"#, r#"{"name": "dpo_norm", "beta": 0.3}"#),
        (r#"{"name": "cdpo_norm", "beta": 0.3}"#, r#"{"name": "dpo_norm", "beta": 0.3}"#),
        (r#"{"name": "gipo", "beta": 0.3}"#, r#"{"name": "ipo", "beta": 0.3}"#),
        (r#"{"name": "cipo", "beta": 0.3}"#, r#"{"name": "ipo", "beta": 0.3}"#),
        (r#"{"name": "gjpo", "beta": 0.3}"#, r#"{"name": "jpo", "beta": 0.3}"#),
        (r#"{"name": "cjpo", "beta": 0.3}"#, r#"{"name": "jpo", "beta": 0.3}"#),
        (
            r#"{"name": "gropo", "beta": 0.3, "alpha": 2, "gamma": 0.1}"#,
            r#"{"name": "ropo", "beta": 0.3, "alpha": 2, "gamma": 0.1}"#,
        ),
        (r#"{"name": "dpo", "beta": 0.3}"#, r#"{"name": "robust", "beta": 0.3, "epsilon": 0.0}"#),
    ] {
        for margin in MARGINS {
            assert!(same(at(&objective(soft), margin, 1.0), at(&objective(hard), margin, 1.0)), "{soft} at {margin}");
        }
    }
}

#[test]
fn swapped_edges_mirror_the_soft_label() {
    for objective in catalogue().filter(Objective::swap_symmetric).filter(|objective| objective.reads().pairs()) {
        for p_hat in [0.0, 0.28, 0.5, 0.9] {
            let batch = batch(17, 3.0, &objective, [p_hat, 0.8, 1.0]);
            let mut swapped = batch.clone();
            for edge in &mut swapped.edges {
                (edge.chosen, edge.rejected, edge.p_hat) = (edge.rejected, edge.chosen, 1.0 - edge.p_hat);
            }
            let (a, b) = (objective.evaluate(&batch).unwrap(), objective.evaluate(&swapped).unwrap());
            assert!((a.loss - b.loss).abs() < 1e-10 * a.loss.abs().max(1.0), "{}", objective.name());
            for (a, b) in a.d_policy.iter().zip(&b.d_policy) {
                assert!((a.0 - b.0).abs() < 1e-9, "{}", objective.name());
            }
        }
    }
}

#[test]
fn the_others_refuse_edges_against_their_orientation() {
    for objective in catalogue().filter(|objective| objective.reads().pairs() && !objective.swap_symmetric()) {
        let batch = batch(17, 3.0, &objective, [0.3, 0.8, 1.0]);
        let error = objective.evaluate(&batch).unwrap_err();
        assert!(matches!(error, Error::NotOriented { edge: 0, p_hat: 0.3, .. }), "{error}");
    }
}

#[test]
fn an_undecided_label_does_what_the_card_says() {
    for name in ["gdpo", "gdpo_norm", "gipo", "gjpo"] {
        let objective = objective(&format!(r#"{{"name": "{name}", "beta": 0.3}}"#));
        for margin in MARGINS {
            let (loss, slope) = at(&objective, margin, 0.5);
            assert_eq!(slope, 0.0, "{name}");
            assert_eq!(loss, if name == "gipo" { 0.0 } else { LN_2 });
        }
    }
    let gropo = objective(r#"{"name": "gropo", "beta": 0.3, "alpha": 2.0, "gamma": 0.1}"#);
    assert!(same(at(&gropo, 7.0, 0.5), (1.0 + 0.1 * LN_2, 0.0)));
    for name in ["cdpo", "cdpo_norm", "cipo", "exo", "cjpo"] {
        let objective = objective(&format!(r#"{{"name": "{name}", "beta": 0.3}}"#));
        assert!(at(&objective, 3.0, 0.5).1 > 0.0 && at(&objective, -3.0, 0.5).1 < 0.0, "{name} pulls to 0");
        assert!(at(&objective, 0.0, 0.5).1.abs() < 1e-15);
    }
    for objective in catalogue().filter(|objective| objective.reads() == objective::Reads::Pairs) {
        if objective.facts().at_half.starts_with("still pushes") {
            let pull = edge_at(&objective, 0.0, 0.5).d_policy;
            assert!(pull[0].0.abs().max(pull[1].0.abs()) > 1e-3, "{}", objective.name());
        }
    }
}
