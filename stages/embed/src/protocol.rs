//! The request for the vectors of some texts, and the check of what comes.

use std::sync::{Arc, OnceLock};

use endpoint::{Content, Form, Protocol, words};
use serde_json::{Map, Value, json};

/// Embeddings of several texts at once.
#[derive(Debug, Clone)]
pub(crate) struct Vectors {
    dimensions: Option<usize>,
    together: usize,
    /// The length of the first vector that came: all have it.
    length: Arc<OnceLock<usize>>,
}

/// A text to embed.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) prompt_id: String,
    pub(crate) text: String,
}

impl Vectors {
    /// Vectors of so many numbers, where that is given, of so many texts at once.
    pub(crate) fn new(dimensions: Option<usize>, together: usize) -> Vectors {
        let length = dimensions.map(OnceLock::from).unwrap_or_default();
        Vectors { dimensions, together, length: Arc::new(length) }
    }

    /// All vectors are of the length of this one.
    pub(crate) fn expect(&self, vector: &[f32]) {
        // It is known already where the stage wants a length.
        _ = self.length.set(vector.len());
    }

    fn vector(&self, text: &Text, embedding: Option<&Value>) -> Result<Vec<f32>, String> {
        let id = &text.prompt_id;
        let Some(values) = embedding.and_then(Value::as_array) else {
            let got = embedding.map_or("nothing".to_owned(), |value| words(&value.to_string()));
            return Err(format!("gave no list of numbers for prompt `{id}`: {got}"));
        };
        let number = |value: &Value| value.as_f64().map(|value| value as f32).filter(|value| value.is_finite());
        let vector: Option<Vec<f32>> = values.iter().map(number).collect();
        let Some(vector) = vector else {
            return Err(format!("gave a value that is no number for prompt `{id}`"));
        };
        let wanted = *self.length.get_or_init(|| vector.len());
        if vector.len() != wanted || vector.is_empty() {
            let rule = match self.dimensions {
                Some(_) => "`dimensions` says",
                None => "the vectors before it have",
            };
            return Err(format!("gave a vector of length {} for prompt `{id}`, {rule} {wanted}", vector.len()));
        }
        Ok(vector)
    }
}

impl Protocol for Vectors {
    type Question = Text;
    type Answer = Vec<f32>;

    const PATH: &'static str = "/embeddings";
    const LONGEST: u64 = 1 << 30;
    const OURS: &'static [(&'static str, &'static str)] =
        &[("model", ""), ("input", ""), ("dimensions", "is a key of the stage, beside `endpoint`")];

    fn unit(&self) -> &'static str {
        "prompt"
    }

    fn forms(&self) -> Vec<Form> {
        vec![Form::FIRST]
    }

    fn probe(&self, _form: Form) -> Vec<Text> {
        vec![Text { prompt_id: "the probe".to_owned(), text: "Answer with the letter A.".to_owned() }]
    }

    fn together(&self, _form: Form) -> usize {
        self.together
    }

    fn tokens(&self, _questions: &[Text]) -> u64 {
        0
    }

    fn fields(&self, questions: &[Text], _form: Form) -> Map<String, Value> {
        let texts: Vec<&str> = questions.iter().map(|question| question.text.as_str()).collect();
        let mut fields = Map::new();
        fields.insert("input".to_owned(), json!(texts));
        if let Some(dimensions) = self.dimensions {
            fields.insert("dimensions".to_owned(), dimensions.into());
        }
        fields
    }

    fn read(&self, questions: &[Text], reply: &Value) -> Content<Vec<f32>> {
        let Some(data) = reply.get("data").and_then(Value::as_array) else {
            return Content::NoAnswer(format!("no `data`: {}", words(&reply.to_string())));
        };
        let mut answers: Vec<Option<Vec<f32>>> = vec![None; questions.len()];
        if data.len() != questions.len() {
            // Which text each belongs to is not certain.
            let text = format!("gave {} vectors for {} texts", data.len(), questions.len());
            return Content::Wrong(answers, text);
        }
        let mut wrong = None;
        for (at, entry) in data.iter().enumerate() {
            let index = entry.get("index").and_then(Value::as_u64).map_or(at, |index| index as usize);
            let Some(question) = questions.get(index) else {
                return Content::Wrong(
                    answers,
                    format!("gave a vector with `index: {index}` for {} texts", data.len()),
                );
            };
            match self.vector(question, entry.get("embedding")) {
                Ok(vector) => answers[index] = Some(vector),
                Err(text) => _ = wrong.get_or_insert(text),
            }
        }
        let missing = || questions.iter().zip(&answers).find(|(_, answer)| answer.is_none());
        let wrong = wrong.or_else(|| Some(format!("gave no vector for prompt `{}`", missing()?.0.prompt_id)));
        match wrong {
            Some(text) => Content::Wrong(answers, text),
            None => Content::Answers(answers.into_iter().flatten().collect()),
        }
    }

    fn name(&self, _form: Form) -> String {
        "`input`".to_owned()
    }

    fn wanted(&self) -> String {
        let dimensions = self.dimensions.map(|length| format!(" of `dimensions: {length}`")).unwrap_or_default();
        format!("a request for embeddings{dimensions}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dimensions: Option<usize>, reply: &Value) -> Content<Vec<f32>> {
        let texts = ["a", "b"].map(|id| Text { prompt_id: id.to_owned(), text: id.to_owned() });
        Vectors::new(dimensions, 64).read(&texts, reply)
    }

    #[test]
    fn vectors_are_put_in_their_places() {
        let reply = json!({"data": [{"index": 1, "embedding": [3, 4.5]}, {"index": 0, "embedding": [1, 2]}]});
        assert_eq!(read(None, &reply), Content::Answers(vec![vec![1.0, 2.0], vec![3.0, 4.5]]));
        let reply = json!({"data": [{"embedding": [1, 2]}, {"embedding": [3, 4]}]});
        assert_eq!(read(Some(2), &reply), Content::Answers(vec![vec![1.0, 2.0], vec![3.0, 4.0]]));
    }

    #[test]
    fn vectors_that_cannot_be_right_are_named_and_the_others_kept() {
        let wrong = |dimensions: Option<usize>, data: Value| match read(dimensions, &json!({"data": data})) {
            Content::Wrong(answers, text) => (answers, text),
            other => panic!("{other:?}"),
        };
        let (answers, text) = wrong(None, json!([{"embedding": [1, 2]}, {"embedding": [null, 2]}]));
        assert_eq!(answers, [Some(vec![1.0, 2.0]), None]);
        assert_eq!(text, "gave a value that is no number for prompt `b`");
        let (answers, text) = wrong(None, json!([{"embedding": [1, 2]}, {"embedding": [1, 2, 3]}]));
        assert_eq!(
            (answers[1].as_ref(), text.as_str()),
            (None, "gave a vector of length 3 for prompt `b`, the vectors before it have 2")
        );
        let (_, text) = wrong(Some(3), json!([{"embedding": [1, 2]}, {"embedding": [1, 2, 3]}]));
        assert_eq!(text, "gave a vector of length 2 for prompt `a`, `dimensions` says 3");
        let (answers, text) = wrong(None, json!([{"embedding": [1, 2]}]));
        assert_eq!((answers, text.as_str()), (vec![None, None], "gave 1 vectors for 2 texts"));
        let (_, text) = wrong(None, json!([{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]));
        assert_eq!(text, "gave no vector for prompt `b`");
        let (_, text) = wrong(None, json!([{"index": 7, "embedding": [1]}, {"embedding": [1]}]));
        assert_eq!(text, "gave a vector with `index: 7` for 2 texts");
        let (_, text) = wrong(None, json!([{"embedding": "AACAPw=="}, {"embedding": [1]}]));
        assert!(text.starts_with("gave no list of numbers for prompt `a`: \"AACAPw=="), "{text}");
    }
}
