//! The sandbox's ground truth: the utility of an answer, and the probability that it is preferred.

use crate::words::Request;

/// The temperature of preferences: a difference in utility of this size is preferred with odds e : 1.
pub const TEMPERATURE: f64 = 0.25;

/// The utility of an answer: the share of its words that are of the requested category, less 1/4 where there are more
/// or fewer words than requested. In [-0.25, 1]; an answer without words has -0.25.
pub fn utility(request: &Request, answer: &str) -> f64 {
    let words: Vec<&str> = answer.split_whitespace().collect();
    let right = words.iter().filter(|word| request.category().words.contains(word)).count();
    let share = if words.is_empty() { 0.0 } else { right as f64 / words.len() as f64 };
    share - if words.len() == request.count() { 0.0 } else { 0.25 }
}

/// The true probability that a is preferred to b: sigma((u_a - u_b) / [`TEMPERATURE`]).
pub fn preference(utility_a: f64, utility_b: f64) -> f64 {
    let z = (utility_a - utility_b) / TEMPERATURE;
    // Both forms are exact; each is used where its exponential is small.
    if z >= 0.0 { 1.0 / (1.0 + (-z).exp()) } else { z.exp() / (1.0 + z.exp()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, answer: &str, expected: f64) {
        let request = Request::parse(request).unwrap();
        assert!((utility(&request, answer) - expected).abs() < 1e-12, "{request:?} {answer}");
    }

    #[test]
    fn utilities_by_hand() {
        check("name three fruits:", " apple pear plum", 1.0);
        check("name three fruits please:", " apple apple apple", 1.0);
        check("list three fruits:", " apple hammer plum", 2.0 / 3.0);
        check("give two tools now:", " hammer saw drill", 0.75);
        check("give two tools now:", " hammer", 0.75);
        check("pick four drinks:", " oak", -0.25);
        check("pick one drink:", " oak", 0.0);
        check("pick one drink:", "", -0.25);
        // Any other token counts as a wrong word.
        check("find two trees today:", " oak pine:", 0.5);
    }

    #[test]
    fn preferences_by_hand() {
        assert_eq!(preference(0.4, 0.4), 0.5);
        // sigma(1) = e / (1 + e)
        let e = std::f64::consts::E;
        assert!((preference(1.0, 0.75) - e / (1.0 + e)).abs() < 1e-12);
        assert!((preference(1.0, -0.25) - 1.0 / (1.0 + (-5f64).exp())).abs() < 1e-12);
    }

    #[test]
    fn swapping_the_sides_mirrors_the_preference() {
        for i in -25..=100 {
            for j in -25..=100 {
                let (a, b) = (f64::from(i) / 100.0, f64::from(j) / 100.0);
                assert!((preference(a, b) + preference(b, a) - 1.0).abs() < 1e-15);
            }
        }
    }
}
