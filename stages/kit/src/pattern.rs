//! Names that a pattern chooses.

/// True where a name fits a pattern in which `*` stands for any letters.
pub fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.into_iter().any(|at| fits(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_letters() {
        for (pattern, name, expected) in [
            ("*/NoRules/*", "gpt/NoRules/ab", true),
            ("*/NoRules/*", "gpt/Rules/ab", false),
            ("anna", "anna", true),
            ("anna", "annabel", false),
            ("a*", "a", true),
            ("*", "", true),
            ("*b", "abab", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
