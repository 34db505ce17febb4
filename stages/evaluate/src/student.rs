//! Student's t for the test of one mean.

use std::f64::consts::FRAC_2_PI;

/// The p-value of a mean below `bound`: P(T <= t) with n - 1 degrees of freedom, t of the sample. Values that are all
/// equal decide alone: 0 below the bound, 1 at or above it.
///
/// # Panics
/// For fewer than two values.
pub fn below(values: &[f64], bound: f64) -> f64 {
    assert!(values.len() > 1, "a test of {} values", values.len());
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / (n - 1.0) / n).sqrt();
    match error > 0.0 {
        true => cumulative((mean - bound) / error, values.len() - 1),
        false => f64::from(u8::from(mean >= bound)),
    }
}

/// P(T <= t) for whole degrees of freedom, at least 1 (Abramowitz and Stegun, 26.7.3 and 26.7.4): with
/// angle = atan(t / sqrt(freedom)) a finite sum of powers of its cosine.
pub fn cumulative(t: f64, freedom: usize) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let square = angle.cos().powi(2);
    // 1 + 1/2 c^2 + 1/2 3/4 c^4 + ... for even freedom, c + 2/3 c^3 + 2/3 4/5 c^5 + ... for odd.
    let odd = freedom % 2;
    let (mut term, mut sum) = (if odd == 1 { angle.cos() } else { 1.0 }, 0.0);
    for power in (odd..freedom.saturating_sub(1)).step_by(2) {
        sum += term;
        term *= (power + 1) as f64 / (power + 2) as f64 * square;
    }
    let within = match odd {
        1 => FRAC_2_PI * (angle + angle.sin() * sum),
        _ => angle.sin() * sum,
    };
    0.5 + 0.5 * within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_by_its_closed_forms() {
        use std::f64::consts::PI;
        for t in [-3.0f64, -0.4, 0.0, 1.7] {
            let three = t / 3f64.sqrt();
            let four = t * t / (4.0 + t * t);
            let closed = [
                0.5 + t.atan() / PI,
                0.5 + 0.5 * t / (2.0 + t * t).sqrt(),
                0.5 + (three / (1.0 + three * three) + three.atan()) / PI,
                0.5 + t.signum() * 0.5 * four.sqrt() * (1.0 + 0.5 * (1.0 - four)),
            ];
            for (freedom, closed) in (1..).zip(closed) {
                assert!((cumulative(t, freedom) - closed).abs() < 1e-14, "{t} {freedom}");
            }
        }
    }

    #[test]
    fn a_test_of_a_mean() {
        // scipy.stats.ttest_1samp(values, bound, alternative="less") of 16 ones, 59 zeros and 9 minus ones.
        let values: Vec<f64> = [(1.0, 16), (0.0, 59), (-1.0, 9)]
            .into_iter()
            .flat_map(|(value, times)| std::iter::repeat_n(value, times))
            .collect();
        for (bound, p) in [(0.1, 0.389_462_781_635), (0.2, 0.026_002_982_435_1), (0.3, 0.000_220_192_957_52)] {
            assert!((below(&values, bound) - p).abs() < 1e-12, "{bound}: {}", below(&values, bound));
        }
        assert_eq!((below(&[0.0; 3], 0.25), below(&[0.25; 3], 0.25)), (0.0, 1.0));
    }
}
