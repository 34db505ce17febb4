//! Curves from a judge's probability to a better one, fitted to gold labels.
//!
//! `z` is the log-odds of the judge's P(a better), `y` the gold P(a better). Logistic curves are fitted on `z` in units of
//! its root mean square, so that z times any factor gives the scale divided by it and the same labels. Temperature and isotonic curves treat the
//! two sides alike: exchanging a and b in any row turns its p into 1 - p to the last bit. They are fitted to the side
//! that the judge prefers, so `z >= 0` there.

use kit::probability::{self, cross_entropy, sigmoid};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Log-odds are cut here: a probability of exactly 0 or 1 has none.
const FARTHEST: f64 = 1e-12;
/// The scale of log-odds, times their root mean square, stays between these: gold labels that always agree with the judge
/// would take it to infinity, and such that mostly disagree below 0.
pub const SCALES: (f64, f64) = (1e-9, 100.0);
/// The offset of Platt's curve stays within this of 0.
const OFFSET: f64 = 20.0;
/// Newton's method ends when the mean gradient is below this.
pub const TOLERANCE: f64 = 1e-10;
/// Or after so many steps.
pub const MAX_STEPS: u32 = 100;

/// The family of curves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// `sigmoid(scale z)`: one number, good from some tens of labels on. `1 / scale` is the temperature.
    #[default]
    Temperature,
    /// `sigmoid(scale z + offset)`: also takes away a constant preference for side a, as that of a judge who sees a
    /// first every time. The offset belongs to the sides as they stand in the table: where gold prefers one of them more
    /// often it learns that too, which a warning names, and is of no use on other data.
    Platt,
    /// Any non-decreasing curve; wants some hundreds of labels.
    Isotonic,
}

impl Method {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Temperature => "temperature",
            Method::Platt => "platt",
            Method::Isotonic => "isotonic",
        }
    }
}

/// A judge's label beside a gold one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Log-odds of the judge's P(a better), finite.
    pub z: f64,
    /// The gold P(a better): 0, 1 or between.
    pub gold: f64,
}

impl Observation {
    /// Of the side that the judge prefers: its log-odds, at least 0, and its gold probability. A tie says nothing.
    fn preferred(self) -> (f64, f64) {
        if self.z == 0.0 { (0.0, 0.5) } else { (self.z.abs(), if self.z > 0.0 { self.gold } else { 1.0 - self.gold }) }
    }
}

/// A corrected label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// P(a better).
    pub p: f64,
    /// Its log-odds, nothing cut; none of an isotonic curve, which may reach 1.
    pub log_odds: Option<f64>,
}

impl Label {
    /// The label of some log-odds.
    pub fn of(log_odds: f64) -> Label {
        Label { p: sigmoid(log_odds), log_odds: Some(log_odds) }
    }
}

/// A fitted curve.
#[derive(Debug, Clone, PartialEq)]
pub enum Curve {
    /// `sigmoid(scale z + offset)`.
    Logistic {
        /// Factor of the log-odds.
        scale: f64,
        /// Added to them; 0 for [`Method::Temperature`].
        offset: f64,
    },
    /// Linear between knots (z, p) of the preferred side, from (0, 0.5) on; constant after the last.
    Knots(Vec<(f64, f64)>),
}

/// A curve and how it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The curve.
    pub curve: Curve,
    /// Observations it rests on.
    pub rows: u64,
    /// Newton's steps; 0 for isotonic curves, which are exact.
    pub steps: u32,
    /// True where the optimum was found inside the bounds.
    pub converged: bool,
}

impl Fit {
    /// Fits a curve by maximum likelihood (cross-entropy with the gold probabilities; for isotonic least squares, which
    /// has the same optimum).
    pub fn new(method: Method, observations: &[Observation]) -> Fit {
        let rows = observations.len() as u64;
        match method {
            Method::Temperature => {
                let points: Vec<_> = observations.iter().map(|it| it.preferred()).collect();
                let (scale, steps, converged) = newton_scale(&points);
                Fit { curve: Curve::Logistic { scale, offset: 0.0 }, rows, steps, converged }
            }
            Method::Platt => {
                let points: Vec<_> = observations.iter().map(|it| (it.z, it.gold)).collect();
                let (scale, offset, steps, converged) = newton_line(&points);
                Fit { curve: Curve::Logistic { scale, offset }, rows, steps, converged }
            }
            Method::Isotonic => {
                let points = observations.iter().map(|it| it.preferred()).collect();
                Fit { curve: Curve::Knots(pool_adjacent_violators(points)), rows, steps: 0, converged: true }
            }
        }
    }

    /// The corrected label of some log-odds.
    pub fn apply(&self, z: f64) -> Label {
        match &self.curve {
            Curve::Logistic { scale, offset } => Label::of(scale * z + offset),
            Curve::Knots(_) if z == 0.0 => Label { p: 0.5, log_odds: None },
            Curve::Knots(knots) => {
                let upper = between(knots, z.abs());
                Label { p: if z > 0.0 { upper } else { 1.0 - upper }, log_odds: None }
            }
        }
    }

    /// The standard error of Platt's offset, from the curvature of the likelihood; none where that has no width.
    pub fn offset_error(&self, observations: &[Observation]) -> Option<f64> {
        let Curve::Logistic { scale, offset } = self.curve else { return None };
        let (mut aa, mut ab, mut bb) = (0.0, 0.0, 0.0);
        for it in observations {
            let p = sigmoid(scale * it.z + offset);
            let weight = p * (1.0 - p);
            aa += weight * it.z * it.z;
            ab += weight * it.z;
            bb += weight;
        }
        let error = (aa / (aa * bb - ab * ab)).sqrt();
        error.is_finite().then_some(error)
    }
}

/// Log-odds, cut [`FARTHEST`] from 0 and 1.
pub fn logit(p: f64) -> f64 {
    probability::logit(p, FARTHEST)
}

/// The points with z in units of its root mean square, and that; 1 where all z are 0.
fn in_units(points: &[(f64, f64)]) -> (Vec<(f64, f64)>, f64) {
    // The largest is taken out first: squares of large scores overflow.
    let largest = points.iter().map(|point| point.0.abs()).fold(0.0, f64::max);
    if largest == 0.0 {
        return (points.to_vec(), 1.0);
    }
    let squares: f64 = points.iter().map(|point| (point.0 / largest).powi(2)).sum();
    let unit = largest * (squares / points.len() as f64).sqrt();
    (points.iter().map(|&(z, y)| (z / unit, y)).collect(), unit)
}

/// The scale of the least cross-entropy: Newton's method, kept inside a bracket. The objective is convex in the scale.
fn newton_scale(points: &[(f64, f64)]) -> (f64, u32, bool) {
    let (points, unit) = in_units(points);
    let (scale, steps, converged) = scale_in_units(&points);
    (scale / unit, steps, converged)
}

fn scale_in_units(points: &[(f64, f64)]) -> (f64, u32, bool) {
    let n = points.len() as f64;
    let slope = |scale: f64| {
        points.iter().fold((0.0, 0.0), |(gradient, curvature), &(z, y)| {
            let p = sigmoid(scale * z);
            (gradient + z * (p - y) / n, curvature + z * z * p * (1.0 - p) / n)
        })
    };
    let (mut low, mut high) = SCALES;
    if slope(low).0 >= 0.0 {
        return (low, 0, false);
    }
    if slope(high).0 <= 0.0 {
        return (high, 0, false);
    }
    let mut scale = 1.0;
    for step in 1..=MAX_STEPS {
        let (gradient, curvature) = slope(scale);
        if gradient.abs() < TOLERANCE {
            return (scale, step, true);
        }
        if gradient > 0.0 {
            high = scale;
        } else {
            low = scale;
        }
        let next = scale - gradient / curvature;
        scale = if next > low && next < high { next } else { 0.5 * (low + high) };
    }
    (scale, MAX_STEPS, false)
}

/// Scale and offset of the least cross-entropy: Newton's method with halved steps where a whole one does not descend.
fn newton_line(points: &[(f64, f64)]) -> (f64, f64, u32, bool) {
    let (points, unit) = in_units(points);
    let (scale, offset, steps, converged) = line_in_units(&points);
    (scale / unit, offset, steps, converged)
}

fn line_in_units(points: &[(f64, f64)]) -> (f64, f64, u32, bool) {
    let n = points.len() as f64;
    let loss = |(a, b): (f64, f64)| points.iter().map(|&(z, y)| cross_entropy(a * z + b, y)).sum::<f64>() / n;
    let inside = |(a, b): (f64, f64)| (a.clamp(SCALES.0, SCALES.1), b.clamp(-OFFSET, OFFSET));
    let mut at = (1.0, 0.0);
    for step in 1..=MAX_STEPS {
        // Gradient and Hessian by scale a and offset b.
        let mut gradient = (0.0, 0.0);
        let (mut aa, mut ab, mut bb) = (1e-12, 0.0, 1e-12);
        for &(z, y) in points {
            let p = sigmoid(at.0 * z + at.1);
            let (residual, weight) = ((p - y) / n, p * (1.0 - p) / n);
            gradient = (gradient.0 + z * residual, gradient.1 + residual);
            aa += weight * z * z;
            ab += weight * z;
            bb += weight;
        }
        if gradient.0.abs().max(gradient.1.abs()) < TOLERANCE {
            return (at.0, at.1, step, true);
        }
        let determinant = aa * bb - ab * ab;
        let direction = if determinant > 1e-18 {
            ((bb * gradient.0 - ab * gradient.1) / determinant, (aa * gradient.1 - ab * gradient.0) / determinant)
        } else {
            gradient
        };
        let here = loss(at);
        let halves = (0..40).map(|halvings| 0.5f64.powi(halvings));
        let mut tried = halves.map(|share| inside((at.0 - share * direction.0, at.1 - share * direction.1)));
        match tried.find(|&next| loss(next) < here) {
            Some(next) => at = next,
            // No descent is left in the numbers: at the optimum, or at a bound.
            None => {
                let bounded = at.0 <= SCALES.0 || at.0 >= SCALES.1 || at.1.abs() >= OFFSET;
                return (at.0, at.1, step, !bounded);
            }
        }
    }
    (at.0, at.1, MAX_STEPS, false)
}

/// The non-decreasing curve of least squares (PAVA), at least 1/2, as the knots where each level begins and ends.
fn pool_adjacent_violators(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    struct Block {
        first: f64,
        last: f64,
        sum: f64,
        count: f64,
    }
    let mut blocks: Vec<Block> = Vec::new();
    for (z, y) in points {
        match blocks.last_mut() {
            // Equal probabilities of the judge get one level.
            Some(block) if block.first == z && block.last == z => {
                block.sum += y;
                block.count += 1.0;
            }
            _ => blocks.push(Block { first: z, last: z, sum: y, count: 1.0 }),
        }
    }
    let mut pooled: Vec<Block> = Vec::new();
    for block in blocks {
        pooled.push(block);
        while let [.., before, last] = &mut pooled[..]
            && before.sum * last.count >= last.sum * before.count
        {
            before.last = last.last;
            before.sum += last.sum;
            before.count += last.count;
            pooled.pop();
        }
    }
    let mut knots = Vec::new();
    for block in &pooled {
        let level = (block.sum / block.count).clamp(0.5, 1.0);
        knots.push((block.first, level));
        if block.last > block.first {
            knots.push((block.last, level));
        }
    }
    knots
}

fn between(knots: &[(f64, f64)], z: f64) -> f64 {
    let after = knots.partition_point(|knot| knot.0 < z);
    let before = if after == 0 { (0.0, 0.5) } else { knots[after - 1] };
    match knots.get(after) {
        None => before.1,
        Some(&(at, level)) if at - before.0 > 0.0 => before.1 + (level - before.1) * ((z - before.0) / (at - before.0)),
        Some(&(_, level)) => level,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges whose probabilities come out of the truth by a known change of log-odds.
    fn judged(change: impl Fn(f64) -> f64) -> Vec<Observation> {
        let truth = (0..400).map(|index| sigmoid(-4.0 + 8.0 * f64::from(index) / 399.0));
        truth.map(|gold| Observation { z: change(logit(gold)), gold }).collect()
    }

    fn curve(fit: &Fit) -> (f64, f64) {
        match fit.curve {
            Curve::Logistic { scale, offset } => (scale, offset),
            Curve::Knots(_) => panic!("knots"),
        }
    }

    #[test]
    fn a_known_temperature_is_recovered() {
        for temperature in [0.25, 0.7, 1.0, 3.0] {
            let fit = Fit::new(Method::Temperature, &judged(|z| z / temperature));
            assert!(fit.converged && (curve(&fit).0 - temperature).abs() < 1e-8, "{fit:?}");
        }
    }

    #[test]
    fn platt_recovers_scale_and_offset() {
        let fit = Fit::new(Method::Platt, &judged(|z| (z - 0.8) / 0.5));
        let (scale, offset) = curve(&fit);
        assert!(fit.converged && (scale - 0.5).abs() < 1e-7 && (offset - 0.8).abs() < 1e-7, "{fit:?}");
    }

    #[test]
    fn isotonic_by_hand() {
        // Levels by z: 0.9 at 1, then 0.6 and 0.6 violate it: mean 0.7; then 0.95.
        let knots = pool_adjacent_violators(vec![(3.0, 0.6), (1.0, 0.9), (2.0, 0.6), (4.0, 0.95)]);
        assert_eq!(knots.len(), 3);
        for (knot, wanted) in knots.iter().zip([(1.0, 0.7), (3.0, 0.7), (4.0, 0.95)]) {
            assert!(knot.0 == wanted.0 && (knot.1 - wanted.1).abs() < 1e-12, "{knots:?}");
        }
        let fit = Fit { curve: Curve::Knots(knots), rows: 4, steps: 0, converged: true };
        for (z, p) in [(0.0, 0.5), (0.5, 0.6), (2.0, 0.7), (3.5, 0.825), (9.0, 0.95), (-3.5, 0.175)] {
            assert!((fit.apply(z).p - p).abs() < 1e-9, "{z}: {:?}", fit.apply(z));
        }
        // A judge who is wrong more often than right, where it is unsure, is worth 1/2 there and no less.
        assert_eq!(pool_adjacent_violators(vec![(1.0, 0.2)]), [(1.0, 0.5)]);
    }

    #[test]
    fn curves_mirror_and_never_fall() {
        for method in [Method::Temperature, Method::Platt, Method::Isotonic] {
            let observations = judged(|z| 2.0 * z + z.sin());
            let fit = Fit::new(method, &observations);
            let mirrored: Vec<_> =
                observations.iter().map(|it| Observation { z: -it.z, gold: 1.0 - it.gold }).collect();
            let mirror = Fit::new(method, &mirrored);
            let mut last = 0.0;
            for step in -500..=500 {
                let z = f64::from(step) / 25.0;
                let calibrated = fit.apply(z).p;
                assert!((calibrated - (1.0 - mirror.apply(-z).p)).abs() < 1e-6, "{method:?} {z}");
                if method != Method::Platt {
                    assert_eq!(calibrated, 1.0 - fit.apply(-z).p, "{method:?} {z}");
                }
                assert!(calibrated >= last && (0.0..=1.0).contains(&calibrated), "{method:?} {z}");
                last = calibrated;
            }
        }
    }

    #[test]
    fn scaled_scores_give_the_scale_divided_and_the_same_labels() {
        for method in [Method::Temperature, Method::Platt] {
            let observations = judged(|z| 2.0 * z + z.sin() + 0.3);
            let fit = Fit::new(method, &observations);
            for factor in [1e-6, 7.0, 1e9, 1e200] {
                let scaled: Vec<_> = observations.iter().map(|it| Observation { z: factor * it.z, ..*it }).collect();
                let other = Fit::new(method, &scaled);
                let (ratio, offset) = (curve(&other).0 * factor / curve(&fit).0, curve(&other).1 - curve(&fit).1);
                assert!((ratio - 1.0).abs() < 1e-9 && offset.abs() < 1e-9, "{method:?} {factor}: {ratio} {offset}");
            }
        }
    }

    #[test]
    fn a_temperature_and_platts_line_as_numpy_finds_them() {
        // z, y = np.array([2, 1, -1, 3, -2, .5]), np.array([1, 0, 0, 1, 1, 1]); sigma = lambda x: 1/(1 + np.exp(-x))
        // Newton's method until it stands: p = sigma(s*z); s -= np.sum((p - y)*z)/np.sum(p*(1-p)*z*z)
        // X = np.stack([z, np.ones(6)], 1); p = sigma(X@v); v -= np.linalg.solve(X.T@(X*(p*(1-p))[:, None]), X.T@(p-y))
        let points = [(2.0, 1.0), (1.0, 0.0), (-1.0, 0.0), (3.0, 1.0), (-2.0, 1.0), (0.5, 1.0)];
        let rows = points.map(|(z, gold)| Observation { z, gold });
        let fit = Fit::new(Method::Temperature, &rows);
        assert!((curve(&fit).0 - 0.390_252).abs() < 1e-6, "{fit:?}");
        let fit = Fit::new(Method::Platt, &rows);
        assert!((curve(&fit).0 - 0.314_312).abs() < 1e-5 && (curve(&fit).1 - 0.555_135).abs() < 1e-5, "{fit:?}");
        // np.sqrt(np.linalg.inv(X.T@(X*(p*(1-p))[:, None]))[1, 1])
        assert!((fit.offset_error(&rows).unwrap() - 0.907_821).abs() < 1e-4, "{fit:?}");
    }

    #[test]
    fn labels_that_always_agree_or_never_do_end_at_a_bound() {
        for method in [Method::Temperature, Method::Platt] {
            let agree = |z: f64, gold| Observation { z, gold };
            let always: Vec<_> =
                (1..50).flat_map(|z| [agree(f64::from(z) / 10.0, 1.0), agree(-f64::from(z) / 10.0, 0.0)]).collect();
            let fit = Fit::new(method, &always);
            assert!(!fit.converged && curve(&fit).0 > 5.0, "{method:?} {fit:?}");
            let never: Vec<_> = always.iter().map(|it| Observation { gold: 1.0 - it.gold, ..*it }).collect();
            let fit = Fit::new(method, &never);
            assert!(!fit.converged && curve(&fit).0 < 1e-8, "{method:?} {fit:?}");
        }
    }
}
