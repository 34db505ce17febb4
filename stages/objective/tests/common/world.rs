//! The bandit of GDPO's section 3.3: a hundred actions, data that prefers a low-reward peak, preferences by
//! Bradley-Terry.

use objective::{Batch, Edge, Objective, SequenceLogps};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub const ACTIONS: usize = 100;
const INSTANCES: usize = 500_000;
const STEPS: i32 = 1000;
const RATE: f64 = 0.01;

/// The reward grows linearly with the action.
pub fn reward(action: usize) -> f64 {
    action as f64 / (ACTIONS - 1) as f64
}

/// 0.8 N(20, 8) + 0.2 N(70, 8) over actions numbered from 1.
pub fn data() -> Vec<f64> {
    let bump = |a: f64, mode: f64| (-0.5 * ((a - mode) / 8.0).powi(2)).exp();
    let normal = |mode: f64| (1..=ACTIONS).map(|a| bump(a as f64, mode)).sum::<f64>();
    let (low, high) = (normal(20.0), normal(70.0));
    (1..=ACTIONS).map(|a| 0.8 * bump(a as f64, 20.0) / low + 0.2 * bump(a as f64, 70.0) / high).collect()
}

/// The instances, equal ones as one edge with their number as weight: the loss is the same. Ties have no gradient.
fn batch(data: &[f64]) -> Batch {
    let rng = &mut ChaCha8Rng::seed_from_u64(0);
    let mut draw = || {
        let mut u = rng.random::<f64>();
        data.iter().position(|share| {
            u -= share;
            u < 0.0
        })
    };
    let mut counts = vec![0u32; ACTIONS * ACTIONS];
    for _ in 0..INSTANCES {
        let (a, b) = (draw().unwrap_or(ACTIONS - 1), draw().unwrap_or(ACTIONS - 1));
        counts[a.max(b) * ACTIONS + a.min(b)] += 1;
    }
    let edges = (0..ACTIONS * ACTIONS)
        .filter(|&cell| counts[cell] > 0)
        .map(|cell| {
            let (chosen, rejected) = (cell / ACTIONS, cell % ACTIONS);
            let p_hat = 1.0 / (1.0 + (reward(rejected) - reward(chosen)).exp());
            Edge { chosen, rejected, p_hat, weight: f64::from(counts[cell]) }
        })
        .collect();
    let zero = SequenceLogps { policy: (0.0, 0.0), reference: Some((0.0, 0.0)), tokens: 1, prompt_tokens: 0 };
    Batch { sequences: vec![zero; ACTIONS], edges, ..Batch::default() }
}

/// The reward that an objective learns for each action: the log-ratio after training with Adam.
pub fn learned(objective: &str) -> Vec<f64> {
    let objective: Objective = serde_json::from_str(objective).unwrap();
    let mut batch = batch(&data());
    let mut moments = [(0.0f64, 0.0f64); ACTIONS];
    for step in 1..=STEPS {
        let gradient = objective.evaluate(&batch).unwrap().d_policy;
        for ((sequence, (m, v)), (g, _)) in batch.sequences.iter_mut().zip(&mut moments).zip(gradient) {
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            let (m, v) = (*m / (1.0 - 0.9f64.powi(step)), *v / (1.0 - 0.999f64.powi(step)));
            sequence.policy.0 -= RATE * m / (v.sqrt() + 1e-8);
        }
    }
    batch.sequences.iter().map(|sequence| sequence.policy.0).collect()
}

/// pi(y) ~ data(y) exp(r(y)).
pub fn policy(learned: &[f64]) -> Vec<f64> {
    let scores: Vec<f64> = data().iter().zip(learned).map(|(data, reward)| data.ln() + reward).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
    scores.iter().map(|score| (score - most).exp() / sum).collect()
}
