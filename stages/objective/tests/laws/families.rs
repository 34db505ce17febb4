//! Objectives that are others in a limit, or by a factor.

use super::*;

/// Worked out by hand: log-ratios 3 over 6 tokens and -2 over 4 tokens, so that D = 0.5 + 0.5; and as the objectives that
/// do not normalise see log-ratios which are divided already.
#[test]
fn length_normalised_forms_divide_each_log_ratio_by_its_tokens() {
    let sequence = |ratio: f64, tokens| SequenceLogps {
        policy: (ratio - 20.0, 0.0),
        reference: Some((-20.0, 0.0)),
        tokens,
        prompt_tokens: 1,
    };
    let edge = |p_hat| vec![Edge { chosen: 0, rejected: 1, p_hat, weight: 1.0 }];
    let long =
        |p_hat| Batch { sequences: vec![sequence(3.0, 6), sequence(-2.0, 4)], edges: edge(p_hat), ..Batch::default() };
    let short =
        |p_hat| Batch { sequences: vec![sequence(0.5, 1), sequence(-0.5, 1)], edges: edge(p_hat), ..Batch::default() };
    let dpo_norm = objective(r#"{"name": "dpo_norm", "beta": 2.0}"#).evaluate(&long(1.0)).unwrap();
    // -log sigmoid(2) and -2 sigmoid(-2) / 6.
    assert!((dpo_norm.loss - 0.126_928_011_042_972_5).abs() < 1e-15, "{}", dpo_norm.loss);
    assert!((dpo_norm.d_policy[0].0 + 2.0 * 0.119_202_922_022_117_55 / 6.0).abs() < 1e-15);
    for name in ["dpo", "cdpo", "gdpo"] {
        for p_hat in [0.5, 0.72, 1.0] {
            let norm = objective(&format!(r#"{{"name": "{name}_norm", "beta": 2.0}}"#)).evaluate(&long(p_hat)).unwrap();
            let plain = objective(&format!(r#"{{"name": "{name}", "beta": 2.0}}"#)).evaluate(&short(p_hat)).unwrap();
            assert!((norm.loss - plain.loss).abs() < 1e-15, "{name} {p_hat}");
            for (i, tokens) in [6.0, 4.0].into_iter().enumerate() {
                let apart = norm.d_policy[i].0 * tokens - plain.d_policy[i].0;
                assert!(apart.abs() < 1e-15, "{name} {p_hat}, side {i}");
            }
        }
    }
    // Rewards and margins are those of the loss.
    let measures = objective(r#"{"name": "dpo_norm", "beta": 2.0}"#).measure(&long(1.0));
    assert_eq!(measures.rewards_margins, Some(2.0));
}

#[test]
fn identities_of_the_family() {
    let (beta, p_hat) = (0.3, 0.72f64);
    let of = |text: &str| objective(text);
    let (dpo, cdpo, gdpo) = (
        of(r#"{"name": "dpo", "beta": 0.3}"#),
        of(r#"{"name": "cdpo", "beta": 0.3}"#),
        of(r#"{"name": "gdpo", "beta": 0.3}"#),
    );
    let scaled = of(&format!(r#"{{"name": "dpo", "beta": {}}}"#, beta * (2.0 * p_hat - 1.0)));
    let (ipo, cipo) = (of(r#"{"name": "ipo", "beta": 0.3}"#), of(r#"{"name": "cipo", "beta": 0.3}"#));
    let constant = at(&cipo, 0.0, p_hat).0 - (p_hat * at(&ipo, 0.0, 1.0).0 + (1.0 - p_hat) * at(&ipo, 0.0, 1.0).0);
    for margin in MARGINS {
        // DPO on labels drawn with p_hat is cDPO in expectation.
        let (up, down) = (at(&dpo, margin, 1.0), at(&dpo, -margin, 1.0));
        let drawn = (p_hat * up.0 + (1.0 - p_hat) * down.0, p_hat * up.1 - (1.0 - p_hat) * down.1);
        assert!(same(drawn, at(&cdpo, margin, p_hat)));
        // GDPO is DPO with its own beta for each edge, and is not cDPO.
        assert!(same(at(&scaled, margin, 1.0), at(&gdpo, margin, p_hat)));
        assert!(margin == 0.0 || (at(&gdpo, margin, p_hat).0 - at(&cdpo, margin, p_hat).0).abs() > 1e-4);
        // cIPO is IPO in expectation, up to a constant.
        let (up, down) = (at(&ipo, margin, 1.0), at(&ipo, -margin, 1.0));
        let drawn = (p_hat * up.0 + (1.0 - p_hat) * down.0 + constant, p_hat * up.1 - (1.0 - p_hat) * down.1);
        assert!(same(drawn, at(&cipo, margin, p_hat)));
    }
    // Minima: beta Delta = logit(p_hat); Delta = (2 p_hat - 1) c; Delta = c.
    let logit = (p_hat / (1.0 - p_hat)).ln();
    assert!(at(&cdpo, logit / beta, p_hat).1.abs() < 1e-12);
    assert!(at(&of(r#"{"name": "exo", "beta": 0.3}"#), logit / beta, p_hat).1.abs() < 1e-12);
    assert!(at(&cipo, (2.0 * p_hat - 1.0) * 0.5 / beta, p_hat).1.abs() < 1e-12);
    assert!(at(&of(r#"{"name": "gipo", "beta": 0.3}"#), 0.5 / beta, p_hat).1.abs() < 1e-12);
}

#[test]
fn margin_zero_has_the_stated_value() {
    for objective in catalogue() {
        let mut still = batch(19, 3.0, &objective, [0.8; 3]);
        still.edges.iter_mut().for_each(|edge| edge.p_hat = 0.8);
        still.sequences.iter_mut().for_each(|sequence| sequence.policy = sequence.reference.unwrap());
        let loss = objective.evaluate(&still).unwrap().loss;
        match objective.value_at_zero(0.8) {
            Some(value) => assert!((loss - value).abs() < 1e-12, "{}: {loss}, stated {value}", objective.name()),
            None => assert!(!objective.needs_reference(), "{}", objective.name()),
        }
    }
    assert_eq!(objective(r#"{"name": "gdpo", "beta": 0.3}"#).value_at_zero(0.6), Some(LN_2));
}

#[test]
fn jpo_is_dpo_under_one_prompt_and_is_not_across_prompts() {
    for (joint, response) in [("jpo", "dpo"), ("cjpo", "cdpo"), ("gjpo", "gdpo")] {
        let of = |name: &str| objective(&format!(r#"{{"name": "{name}", "beta": 0.3}}"#));
        let mut pairs = batch(23, 3.0, &of("dpo"), [0.6, 0.8, 1.0]);
        pairs.edges.truncate(3);
        let across = of(joint).evaluate(&pairs).unwrap();
        let plain = of(response).evaluate(&pairs).unwrap();
        assert!((across.loss - plain.loss).abs() > 1e-3, "the prompt part counts across prompts");
        assert!(across.d_policy.iter().all(|d| d.0 == d.1), "the margin is prompt part + response part");
        for i in 0..3 {
            let prompt = pairs.sequences[2 * i];
            let rejected = &mut pairs.sequences[2 * i + 1];
            rejected.policy.1 = prompt.policy.1;
            rejected.reference = rejected.reference.map(|reference| (reference.0, prompt.reference.unwrap().1));
        }
        let same = of(joint).evaluate(&pairs).unwrap();
        assert!((same.loss - plain.loss).abs() < 1e-12);
        for (i, (a, b)) in same.d_policy.iter().zip(&plain.d_policy).enumerate() {
            assert!((a.0 - b.0).abs() < 1e-12, "{i}");
        }
        // What reaches a shared prompt is the sum over its two responses: nothing.
        assert!((0..3).all(|i| same.d_policy[2 * i].1 + same.d_policy[2 * i + 1].1 == 0.0));
    }
}

#[test]
fn rpo_in_its_limits() {
    let oracle = oracle();
    let whole = rows(&oracle, false);
    let dpo = objective(r#"{"name": "dpo", "beta": 0.3}"#);
    let rpo = |tau: f64| objective(&format!(r#"{{"name": "rpo", "beta": 0.3, "tau": {tau}}}"#));
    // One pair: DPO.
    for i in 0..12 {
        let one = Batch {
            edges: vec![whole.edges[i]],
            similarities: Some(similarities(&oracle, i..i + 1, i..i + 1)),
            ..whole.clone()
        };
        let (a, b) = (rpo(0.5).evaluate(&one).unwrap(), dpo.evaluate(&one).unwrap());
        assert!((a.loss - b.loss).abs() < 1e-9 && a.d_policy == b.d_policy);
    }
    // tau to 0, every prompt once: each row sees its own prompt alone, the rest is log 2. DPO, scaled by 1/N.
    let values = (0..144).map(|k| if k % 13 == 0 { 1.0 } else { 0.1 }).collect();
    let distinct = Some(Similarities { rows: 12, columns: 12, values });
    let whole = Batch { similarities: distinct, ..whole };
    let (a, b) = (rpo(1e-4).evaluate(&whole).unwrap(), dpo.evaluate(&whole).unwrap());
    assert!((a.loss - (b.loss + 11.0 * LN_2) / 12.0).abs() < 1e-9);
    for (a, b) in a.d_policy.iter().zip(&b.d_policy) {
        assert!((a.0 - b.0 / 12.0).abs() < 1e-9);
    }
    // tau to infinity: 1/N everywhere. Rows always sum to 1.
    assert!(
        rpo(1e12).evaluate(&whole).unwrap().contrasts.unwrap().weights.iter().all(|w| (w - 1.0 / 12.0).abs() < 1e-9)
    );
    let weights = rpo(0.5).evaluate(&whole).unwrap().contrasts.unwrap().weights;
    assert!(weights.chunks(12).all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-12));
    assert!(weights.chunks(12).enumerate().all(|(i, row)| row.iter().all(|w| *w <= row[i])), "the diagonal is largest");
    // Duplicates are kept: the same rows twice are 24 x 24 cells, with half the weight for each copy.
    let mut twice = whole.clone();
    twice.edges.extend(whole.edges.clone());
    let half = whole.similarities.as_ref().unwrap();
    let values = (0..24 * 24).map(|k| half.values[(k / 24) % 12 * 12 + (k % 24) % 12]).collect();
    twice.similarities = Some(Similarities { rows: 24, columns: 24, values });
    let contrasts = rpo(0.5).evaluate(&twice).unwrap().contrasts.unwrap();
    assert_eq!((contrasts.rows, contrasts.columns), (24, 24));
    assert!((contrasts.weights[0] - weights[0] / 2.0).abs() < 1e-12);
}
