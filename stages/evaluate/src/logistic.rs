//! A logistic fit of win probabilities to a constant and one term.

use kit::probability::{cross_entropy, sigmoid};

/// Newton's method ends when no entry of the mean gradient is above this.
const TOLERANCE: f64 = 1e-12;
/// Or after so many steps.
const MAX_STEPS: u32 = 100;

/// log-odds = constant + slope x, with the variance of the constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The log-odds at x = 0.
    pub constant: f64,
    /// Its standard error, from the rows' own residuals (Huber's sandwich), so that it is right for probabilities too.
    pub error: f64,
    /// The factor of x.
    pub slope: f64,
}

/// The fit of least sum of cross-entropies + ridge / 2 slope^2 to rows of x and of a probability. Newton's method from
/// 0, steps halved where a whole one does not descend. None where it has no optimum: without a finite constant because
/// all is won or all is lost, or x says it all.
pub fn fit(rows: &[(f64, f64)], ridge: f64) -> Option<Fit> {
    let n = rows.len() as f64;
    let loss = |constant: f64, slope: f64| {
        let of = |(x, y): &(f64, f64)| {
            let z = constant + slope * x;
            cross_entropy(z, *y)
        };
        (rows.iter().map(of).sum::<f64>() + 0.5 * ridge * slope * slope) / n
    };
    // A term that is 0 everywhere keeps the slope 0.
    let flat = rows.iter().all(|(x, _)| *x == 0.0);
    let (mut constant, mut slope) = (0.0, 0.0);
    for _ in 0..MAX_STEPS {
        let mut gradient = [0.0, ridge * slope / n];
        // [1 1], [1 x], [x x]
        let mut curvature = [0.0, 0.0, ridge / n + f64::from(u8::from(flat))];
        let mut scores = [0.0; 3];
        for (x, y) in rows {
            let p = sigmoid(constant + slope * x);
            let (residual, weight) = (p - y, p * (1.0 - p) / n);
            gradient[0] += residual / n;
            gradient[1] += residual * x / n;
            for (at, product) in [1.0, *x, x * x].into_iter().enumerate() {
                curvature[at] += weight * product;
                scores[at] += residual * residual * product / n;
            }
        }
        let determinant = curvature[0] * curvature[2] - curvature[1] * curvature[1];
        if !(curvature[0] > 1e-9 && determinant > 1e-12 * curvature[0]) {
            return None;
        }
        // The first row of the inverse curvature.
        let inverse = [curvature[2] / determinant, -curvature[1] / determinant];
        if gradient.iter().all(|it| it.abs() < TOLERANCE) {
            let [a, b] = inverse;
            let variance = (a * a * scores[0] + 2.0 * a * b * scores[1] + b * b * scores[2]) / n;
            return Some(Fit { constant, error: variance.max(0.0).sqrt(), slope });
        }
        let step = [
            inverse[0] * gradient[0] + inverse[1] * gradient[1],
            (curvature[0] * gradient[1] - curvature[1] * gradient[0]) / determinant,
        ];
        let here = loss(constant, slope);
        let tried = (0..40).map(|halvings| 0.5f64.powi(halvings));
        let mut tried = tried.map(|share| (constant - share * step[0], slope - share * step[1]));
        // Near the optimum the loss no longer shows a descent, and whole steps are right.
        let next = tried.find(|next| loss(next.0, next.1) < here);
        (constant, slope) = next.unwrap_or((constant - step[0], slope - step[1]));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_factors_are_recovered_and_the_ridge_pulls_the_slope_alone() {
        let rows: Vec<(f64, f64)> = (0..50)
            .map(|at| {
                let x = (f64::from(at) * 0.7).sin();
                (x, sigmoid(0.4 - 1.2 * x))
            })
            .collect();
        let found = fit(&rows, 0.0).unwrap();
        assert!((found.constant - 0.4).abs() < 1e-9 && (found.slope + 1.2).abs() < 1e-9, "{found:?}");
        // The probabilities are on the curve, so nothing is uncertain.
        assert!(found.error < 1e-9, "{found:?}");
        let pulled = fit(&rows, 5.0).unwrap();
        assert!(pulled.slope > -1.2 && pulled.slope < -0.4, "{pulled:?}");
        let gradient: f64 = rows.iter().map(|(x, y)| (sigmoid(pulled.constant + pulled.slope * x) - y) * x).sum();
        assert!((gradient + 5.0 * pulled.slope).abs() < 1e-9, "{gradient}");
        let free: f64 = rows.iter().map(|(x, y)| sigmoid(pulled.constant + pulled.slope * x) - y).sum();
        assert!(free.abs() < 1e-9, "{free}");
    }

    #[test]
    fn without_a_term_it_is_the_share_and_its_standard_error() {
        // 12 won of 40, x 0: log(0.3 / 0.7), error 1 / sqrt(40 0.3 0.7).
        let rows: Vec<(f64, f64)> = (0..40).map(|at| (0.0, f64::from(u8::from(at < 12)))).collect();
        let found = fit(&rows, 0.0).unwrap();
        assert!((found.constant - (0.3f64 / 0.7).ln()).abs() < 1e-9 && found.slope == 0.0, "{found:?}");
        assert!((found.error - (1.0 / (40.0f64 * 0.21)).sqrt()).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn what_has_no_optimum_has_no_fit() {
        let won: Vec<(f64, f64)> = (0..9).map(|at| (f64::from(at) - 4.0, 1.0)).collect();
        assert_eq!(fit(&won, 1.0), None);
        let split: Vec<(f64, f64)> = (0..10).map(|at| (f64::from(at) - 4.5, f64::from(u8::from(at > 4)))).collect();
        assert_eq!(fit(&split, 0.0), None);
        assert!(fit(&split, 1.0).is_some());
    }
}
