//! Means of few values with Student's t.

/// An estimate from some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The ends of its 95 % interval, where there are at least two values.
    pub interval: Option<(f64, f64)>,
    /// Two-sided p-value of a true mean of 0, where there are at least two values that differ.
    pub p_value: Option<f64>,
}

/// The mean of some values, with the t interval and test.
///
/// # Panics
/// For no values.
pub fn estimate(values: &[f64]) -> Estimate {
    assert!(!values.is_empty(), "a mean of no values");
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return Estimate { mean, interval: None, p_value: None };
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / (n - 1.0) / n).sqrt();
    let half = quantile(n - 1.0) * error;
    let p_value = (error > 0.0).then(|| two_sided(mean / error, n - 1.0));
    Estimate { mean, interval: Some((mean - half, mean + half)), p_value }
}

/// P(|T| > |t|) with so many degrees of freedom.
pub fn two_sided(t: f64, freedom: f64) -> f64 {
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The 97.5 % point: P(|T| > t) = 0.05, by bisection.
pub fn quantile(freedom: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1e3);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if two_sided(middle, freedom) > 0.05 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz's method).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast below this point; above it the other tail is computed.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    let away = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..=500 {
        let m = f64::from(m);
        for numerator in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / away(1.0 + numerator * d);
            c = away(1.0 + numerator / c);
            fraction *= d * c;
        }
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// ln of the gamma function (Lanczos, g = 7), for arguments above 0.
fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        return (std::f64::consts::PI / (std::f64::consts::PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let t = x + 7.5;
    let sum = COEFFICIENTS.iter().enumerate().skip(1).fold(COEFFICIENTS[0], |sum, (i, c)| sum + c / (x + i as f64));
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, expected) in
            [(1.0, 12.7062), (2.0, 4.3027), (4.0, 2.7764), (9.0, 2.2622), (30.0, 2.0423), (1e6, 1.96)]
        {
            assert!((quantile(freedom) - expected).abs() < 5e-5, "{freedom}: {}", quantile(freedom));
        }
        // With one degree of freedom t is Cauchy: P(|T| > 1) = 1/2; with two P(|T| > t) = 1 - t / sqrt(2 + t^2).
        assert!((two_sided(1.0, 1.0) - 0.5).abs() < 1e-12);
        assert!((two_sided(-3.0, 2.0) - (1.0 - 3.0 / 11f64.sqrt())).abs() < 1e-12);
        assert_eq!(two_sided(0.0, 5.0), 1.0);
    }

    #[test]
    fn estimates_by_hand() {
        // 1, 2, 3, 4, 5: mean 3, standard error sqrt(2.5 / 5), half 2.776445 sqrt(0.5) = 1.963243.
        let got = estimate(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        let (low, high) = got.interval.unwrap();
        assert!(got.mean == 3.0 && (low - 1.036_757).abs() < 1e-5 && (high - 4.963_243).abs() < 1e-5, "{got:?}");
        // t = 4.242641 with 4 degrees of freedom: p = 0.013236.
        assert!((got.p_value.unwrap() - 0.013_236).abs() < 1e-5, "{got:?}");
        assert_eq!(estimate(&[7.0]), Estimate { mean: 7.0, interval: None, p_value: None });
        assert_eq!(estimate(&[2.0, 2.0]).p_value, None);
    }
}
