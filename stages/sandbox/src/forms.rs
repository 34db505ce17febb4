//! The texts that the sandbox's judge reads. `pipelines/templates/sandbox.jinja` and `sandbox_joint.jinja` render the
//! same for the `judge` stage; a test holds them to it.

use crate::words::{Request, answer_text};

/// The judge's answer that the first response is better.
pub const FIRST: &str = " A";
/// The judge's answer that the second one is.
pub const SECOND: &str = " B";

/// Two answers to one request.
pub fn same(request: &str, a: &str, b: &str) -> String {
    format!("{request}\nA:{a}\nB:{b}\nbetter:")
}

/// Two answers, each to its own request.
pub fn joint(request_a: &str, a: &str, request_b: &str, b: &str) -> String {
    format!("{request_a}\nA:{a}\n{request_b}\nB:{b}\nbetter:")
}

/// An answer checked word by word: each word is followed by yes or no to "of the requested category?"; the prompt and
/// the response.
pub fn check_row(request: &Request, words: &[&str]) -> (String, String) {
    let verdict = |word: &&str| if request.category().words.contains(word) { "ok" } else { "no" };
    let checked: Vec<&str> = words.iter().flat_map(|word| [*word, verdict(word)]).collect();
    (format!("{}\ncheck:", request.text()), answer_text(&checked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_by_hand() {
        assert_eq!(same("name one tool:", " saw", " oak"), "name one tool:\nA: saw\nB: oak\nbetter:");
        assert_eq!(
            joint("name one tool:", " saw", "list one tree:", " oak"),
            "name one tool:\nA: saw\nlist one tree:\nB: oak\nbetter:"
        );
        let request = Request::parse("name two tools:").unwrap();
        let row = check_row(&request, &["saw", "oak"]);
        assert_eq!(row, ("name two tools:\ncheck:".to_owned(), " saw ok oak no".to_owned()));
    }

    #[test]
    fn the_templates_beside_the_pipelines_say_the_same() {
        let render = |source: &str, values: minijinja::Value| {
            minijinja::Environment::new().render_str(source, values).expect("the template is whole")
        };
        let (request, other, a, b) = ("name one tool:", "list one tree:", " saw", " oak");
        let source = include_str!("../../../pipelines/templates/sandbox.jinja");
        assert_eq!(render(source, minijinja::context! { prompt => request, a, b }), same(request, a, b));
        let source = include_str!("../../../pipelines/templates/sandbox_joint.jinja");
        let values = minijinja::context! { a_prompt => request, b_prompt => other, a, b };
        assert_eq!(render(source, values), joint(request, a, other, b));
    }
}
