//! The one-dimensional bandit of GDPO's section 3.3 (figure 1, right): conservative DPO fits the preferences and stays
//! in the peak that the data prefers; DPO and GDPO leave it. `examples/bandit.rs` draws it.

use crate::common::world;

use world::{ACTIONS, learned, policy, reward};

/// The mode (from 1) of the policy and the slope of the learned reward on the true one.
fn train(objective: &str) -> (usize, f64) {
    let learned = learned(objective);
    let policy = policy(&learned);
    let mode = (0..ACTIONS).max_by(|a, b| policy[*a].total_cmp(&policy[*b])).unwrap();
    let mean = |values: &dyn Fn(usize) -> f64| (0..ACTIONS).map(values).sum::<f64>() / ACTIONS as f64;
    let (x, y) = (mean(&reward), mean(&|a| learned[a]));
    let slope = mean(&|a| (reward(a) - x) * (learned[a] - y)) / mean(&|a| (reward(a) - x).powi(2));
    (mode + 1, slope)
}

#[test]
fn cdpo_recovers_the_reward_and_stays_in_the_low_peak() {
    let (mode, slope) = train(r#"{"name": "cdpo", "beta": 1.0}"#);
    assert!((slope - 1.0).abs() < 0.02, "slope {slope}");
    assert!(mode <= 25, "mode {mode}");
}

#[test]
fn dpo_and_gdpo_move_to_the_high_peak() {
    let (dpo, dpo_slope) = train(r#"{"name": "dpo", "beta": 1.0}"#);
    let (gdpo, gdpo_slope) = train(r#"{"name": "gdpo", "beta": 1.0}"#);
    assert!(dpo >= 65 && gdpo >= 65, "modes {dpo} {gdpo}");
    assert!(dpo_slope > 5.0 && gdpo_slope > 5.0, "slopes {dpo_slope} {gdpo_slope}");
}

#[test]
fn the_policy_is_a_distribution() {
    assert!((policy(&[0.0; ACTIONS]).iter().sum::<f64>() - 1.0).abs() < 1e-12);
    // Where nothing is learned it is the data's.
    assert!(policy(&[0.0; ACTIONS]).iter().zip(world::data()).all(|(a, b)| (a - b).abs() < 1e-12));
}
