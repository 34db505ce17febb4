//! Soft labels: certain, undecided, mirrored.

use super::*;

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
        if objective.facts().at_half.starts_with("still pushes") && !objective.reads_p_hat() {
            let pull = edge_at(&objective, 0.0, 0.5).d_policy;
            assert!(pull[0].0.abs().max(pull[1].0.abs()) > 1e-3, "{}", objective.name());
        }
    }
}

/// Each form of rpo with hard labels and with soft ones.
fn relative() -> impl Iterator<Item = [Objective; 2]> {
    let forms = [
        r#""tau": 0.5"#,
        r#""weighting": "uniform""#,
        r#""weighting": "diagonal", "diagonal_weight": 0.8"#,
        r#""tau": 0.5, "form": "unpaired""#,
    ];
    forms.into_iter().map(|form| {
        ["hard", "soft"]
            .map(|labels| objective(&format!(r#"{{"name": "rpo", "beta": 0.3, {form}, "labels": "{labels}"}}"#)))
    })
}

#[test]
fn soft_rpo_of_certain_labels_is_hard_rpo_bit_for_bit() {
    for [hard, soft] in relative() {
        assert!(!hard.reads_p_hat() && soft.reads_p_hat());
        let mut certain = batch(17, 3.0, &hard, [1.0; 3]);
        certain.items.iter_mut().for_each(|item| item.label = f64::from(u8::from(item.label > 0.5)));
        let (a, b) = (hard.evaluate(&certain).unwrap(), soft.evaluate(&certain).unwrap());
        assert!(a == b && a.loss > 0.0, "{a:?} {b:?}");
    }
    // What was written before the knob was there is the same configuration still.
    let hard = serde_json::to_value(objective(r#"{"name": "rpo", "beta": 0.3, "tau": 0.5}"#)).unwrap();
    assert!(hard.get("labels").is_none(), "{hard}");
}

#[test]
fn soft_rpo_of_undecided_labels_pulls_nowhere() {
    for [hard, soft] in relative().filter(|forms| forms[0].reads().pairs()) {
        let undecided = batch(17, 3.0, &soft, [0.5; 3]);
        let evaluation = soft.evaluate(&undecided).unwrap();
        assert!(evaluation.d_policy.iter().all(|d| *d == (0.0, 0.0)), "{evaluation:?}");
        assert!((evaluation.loss - LN_2).abs() < 1e-12, "{}", evaluation.loss);
        assert!(hard.evaluate(&undecided).unwrap().d_policy[0].0 != 0.0);
    }
}

/// Two pairs of two prompts, and joint pairs across them.
fn across(joint: &[(usize, usize, f64)]) -> Batch {
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    let edges = [(0, 1, 0.9), (2, 3, 0.7)].iter().chain(joint);
    let edges = edges.map(|&(chosen, rejected, p_hat)| Edge { chosen, rejected, p_hat, weight: 1.0 }).collect();
    Batch { sequences: sequences(rng, 4, 2.0), edges, ..Batch::default() }
}

#[test]
fn a_joint_pair_says_how_sure_its_cell_is() {
    let soft = objective(r#"{"name": "rpo", "beta": 0.3, "weighting": "uniform", "labels": "soft"}"#);
    let cells = |batch: &Batch| soft.evaluate(batch).unwrap().contrasts.unwrap().weights;
    let close = |got: &[f64], wanted: &[f64]| {
        assert!(got.len() == wanted.len() && got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?}");
    };
    // Own pairs by 2 p_hat - 1, the others by the geometric mean of both.
    let mean = 0.32f64.sqrt();
    close(&cells(&across(&[])), &[0.8, mean, mean, 0.4]);
    // A third pair says of the first row's chosen side and the second's rejected one: 2 0.95 - 1.
    let known = cells(&across(&[(0, 3, 0.95)]));
    close(&[known[1], known[2], known[3], known[5]], &[0.9, 0.9, mean, 0.4]);
    // Two such pairs count by their mean; one that sets the column's response over the row's is not asked.
    let both = cells(&across(&[(0, 3, 0.95), (0, 3, 0.55)]));
    close(&both[1..2], &[0.5]);
    let turned = cells(&across(&[(3, 0, 0.95)]));
    close(&[turned[0], turned[1], turned[4]], &[0.8, mean, 0.4]);
}

#[test]
fn one_soft_pair_alone_is_gdpos_and_mirrors_as_that_does() {
    let soft = objective(r#"{"name": "rpo", "beta": 0.3, "weighting": "uniform", "labels": "soft"}"#);
    let gdpo = objective(r#"{"name": "gdpo", "beta": 0.3}"#);
    for p_hat in [0.5, 0.72, 1.0] {
        let rng = &mut ChaCha8Rng::seed_from_u64(8);
        let edges = vec![Edge { chosen: 0, rejected: 1, p_hat, weight: 1.0 }];
        let one = Batch { sequences: sequences(rng, 2, 3.0), edges, ..Batch::default() };
        let mut turned = one.clone();
        turned.edges[0] = Edge { chosen: 1, rejected: 0, p_hat: 1.0 - p_hat, weight: 1.0 };
        let (a, b) = (soft.evaluate(&one).unwrap(), gdpo.evaluate(&turned).unwrap());
        assert!((a.loss - b.loss).abs() < 1e-12, "{p_hat}");
        assert!(a.d_policy.iter().zip(&b.d_policy).all(|(a, b)| (a.0 - b.0).abs() < 1e-12), "{p_hat}");
        // Under p_hat = 1/2 the rows are refused, as everywhere in rpo.
        assert!(p_hat == 0.5 || matches!(soft.evaluate(&turned), Err(Error::NotOriented { .. })));
    }
}
