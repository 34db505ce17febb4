//! Wording of a question to the judge: minijinja templates, built in or from a file.

use std::path::{Path, PathBuf};

use kit::{Digest, Error, Message, Result};
use lm::bounded::{Bounded, is_beyond, system_error};
use minijinja::syntax::SyntaxConfig;
use minijinja::{UndefinedBehavior, Value, context};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Form in which a question reaches the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As a user message under the chat template.
    Chat,
    /// As it is.
    Text,
}

impl Form {
    /// The role of the message that carries a question.
    pub(crate) fn role(self) -> &'static str {
        match self {
            Form::Chat => "user",
            Form::Text => "text",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Form::Chat => "chat",
            Form::Text => "text",
        }
    }
}

/// The side that a template's question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AsksFor {
    /// The label names the better response.
    Better,
    /// The label names the worse response, such as the more harmful one; the preference is the other way round.
    Worse,
}

/// The answer that a template's question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// A label at once.
    Label,
    /// A level for one response.
    Rating,
    /// An answer that reasons and then decides.
    Reasoning,
    /// A rationale, behind which an ending comes.
    Rationale,
}

impl Task {
    /// The key that asks for it.
    fn key(self) -> &'static str {
        match self {
            Task::Label => "without a mode",
            Task::Rating => "with `rating`",
            Task::Reasoning => "with `reasoning`",
            Task::Rationale => "with `rationale`",
        }
    }
}

struct Builtin {
    name: &'static str,
    /// Raised with every change of the text.
    version: u32,
    task: Task,
    joint: bool,
    asks_for: AsksFor,
    source: &'static str,
}

macro_rules! builtin {
    ($name:literal, $version:literal, $task:ident, $joint:literal, $asks_for:ident) => {
        Builtin {
            name: $name,
            version: $version,
            task: Task::$task,
            joint: $joint,
            asks_for: AsksFor::$asks_for,
            source: include_str!(concat!("../templates/", $name, ".jinja")),
        }
    };
}

const BUILTIN: [Builtin; 11] = [
    builtin!("helpful", 1, Label, false, Better),
    builtin!("harmless", 1, Label, false, Better),
    // Asks for the more harmful response, as the labels of Lee et al. 2023 do.
    builtin!("harmful", 1, Label, false, Worse),
    builtin!("summary", 1, Label, false, Better),
    builtin!("helpful-joint", 1, Label, true, Better),
    builtin!("harmless-joint", 1, Label, true, Better),
    builtin!("summary-joint", 1, Label, true, Better),
    builtin!("helpful-rating", 1, Rating, false, Better),
    builtin!("helpful-reasoning", 1, Reasoning, false, Better),
    builtin!("helpful-rationale", 1, Rationale, false, Better),
    builtin!("summary-rationale", 1, Rationale, false, Better),
];

/// A file of more bytes is not read whole; templates that are compiled are shorter still.
const LONGEST: u64 = 16 << 20;

/// A compiled template.
pub struct Template {
    /// Name and version, or file name and digest of the text.
    pub id: String,
    /// The side that its question asks for.
    pub asks_for: AsksFor,
    text: Bounded,
}

/// One side of a question.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) prompt: &'a [Message],
    pub(crate) response: &'a [Message],
}

impl Template {
    /// The file that a template's name stands for; nothing for built-in ones.
    pub(crate) fn file(name: &str) -> Option<PathBuf> {
        name.contains('/').then(|| PathBuf::from(name))
    }

    /// Opens a built-in template or a file.
    ///
    /// # Errors
    /// When there is no such template, when it is for the other form of comparison, when `asks_for` contradicts a
    /// built-in one, or when its text is not a minijinja template; [`Error::Data`] when it passes a bound.
    pub(crate) fn open(name: &str, task: Task, joint: bool, asks_for: Option<AsksFor>) -> Result<Template> {
        if let Some(path) = Template::file(name) {
            let source = kit::read_small(&path, LONGEST)?;
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let id = format!("{stem}@{}", Digest::of(source.as_bytes()).short(12));
            return Template::compile(id, &source, asks_for.unwrap_or(AsksFor::Better), &path);
        }
        let Some(builtin) = BUILTIN.iter().find(|builtin| builtin.name == name) else {
            let fits = |builtin: &&Builtin| builtin.joint == joint && builtin.task == task;
            let names: Vec<_> = BUILTIN.iter().filter(fits).map(|it| it.name).collect();
            let there_are = if names.is_empty() { "none for this".to_owned() } else { names.join(", ") };
            return Err(Error::Pipeline(format!(
                "no built-in template `{name}`; there are {there_are} (the path of a template file has a `/` in it)"
            )));
        };
        if builtin.task != task {
            return Err(Error::Pipeline(format!(
                "the template `{name}` is for a judge {}, here it is asked {}; take another, or the path of a file",
                builtin.task.key(),
                task.key()
            )));
        }
        if builtin.joint != joint {
            let key = if builtin.joint { "joint_template" } else { "template" };
            return Err(Error::Pipeline(format!("the template `{name}` belongs under `{key}`")));
        }
        if asks_for.is_some_and(|given| given != builtin.asks_for) {
            return Err(Error::Pipeline(format!(
                "the template `{name}` asks for the {} response; leave `asks_for` out",
                if builtin.asks_for == AsksFor::Better { "better" } else { "worse" }
            )));
        }
        let id = format!("{name}@{}", builtin.version);
        Template::compile(id, builtin.source, builtin.asks_for, Path::new(name))
    }

    fn compile(id: String, source: &str, asks_for: AsksFor, path: &Path) -> Result<Template> {
        let mut environment = Bounded::environment();
        // A misspelt variable is an error, not an empty place in the question.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let name = path.to_string_lossy();
        let text = Bounded::compile(environment, SyntaxConfig::default(), &name, source).map_err(|error| {
            let said = system_error(&error);
            said.map_or_else(|| of_template(error), Error::io(path))
        })?;
        Ok(Template { id, asks_for, text })
    }

    /// Words a question with `first` shown as A and `second` as B.
    ///
    /// The variables: `prompt` (not for joint comparisons), `a`, `b`, `a_prompt`, `b_prompt` as text; the same with
    /// `_messages` as lists of `role` and `content`; `form` is `chat` or `text`. `a` is what is shown first.
    ///
    /// # Errors
    /// When the template asks for something that is not there.
    pub(crate) fn render(&self, joint: bool, first: Side<'_>, second: Side<'_>, form: Form) -> Result<String> {
        let (prompt, prompt_messages) = if joint {
            (Value::UNDEFINED, Value::UNDEFINED)
        } else {
            (Value::from(plain_text(first.prompt)), list(first.prompt))
        };
        let values = context! {
            prompt, prompt_messages,
            a => plain_text(first.response), a_messages => list(first.response),
            b => plain_text(second.response), b_messages => list(second.response),
            a_prompt => plain_text(first.prompt), a_prompt_messages => list(first.prompt),
            b_prompt => plain_text(second.prompt), b_prompt_messages => list(second.prompt),
            form => form.name(),
        };
        self.text.render(values).map_err(|error| match of_template(error) {
            Error::Pipeline(text) if joint => Error::Pipeline(format!(
                "{text}; a joint comparison has `a_prompt` and `b_prompt` in place of `prompt`"
            )),
            error => error,
        })
    }

    /// Words the question for the level of one response.
    ///
    /// The variables: `prompt` and `response` as text, the same with `_messages` as lists; `criterion` and `rubric`;
    /// `levels`, the first spelling of each without white space around it; `form`.
    ///
    /// # Errors
    /// When the template asks for something that is not there.
    pub(crate) fn render_rating(
        &self,
        side: Side<'_>,
        criterion: (&str, &str),
        levels: &[Vec<String>],
        form: Form,
    ) -> Result<String> {
        let levels = levels.iter().filter_map(|level| level.first()).map(|level| level.trim().to_owned());
        let levels: Vec<String> = levels.collect();
        let values = context! {
            prompt => plain_text(side.prompt), prompt_messages => list(side.prompt),
            response => plain_text(side.response), response_messages => list(side.response),
            criterion => criterion.0, rubric => criterion.1, levels, form => form.name(),
        };
        self.text.render(values).map_err(|error| match of_template(error) {
            Error::Pipeline(text) => {
                Error::Pipeline(format!("{text}; with `rating` a template sees one `response`, not `a` and `b`"))
            }
            error => error,
        })
    }
}

/// A template that passes a bound is bad data; what else is wrong with one is the pipeline's mistake.
fn of_template(error: minijinja::Error) -> Error {
    let text = format!("template: {error}");
    if is_beyond(&error) { Error::Data(text) } else { Error::Pipeline(text) }
}

/// Messages as a list that a template can walk through, with the fields that the data gives them.
fn list(messages: &[Message]) -> Value {
    let message = |message: &Message| {
        let text = [("role", &message.role), ("content", &message.content)];
        let fields = text.map(|(name, text)| (name.to_owned(), Value::from(text)));
        let value = |text: &str| serde_json::from_str::<Value>(text).expect("`extra` holds JSON");
        let extra = message.extra_fields().into_iter().map(|(name, text)| (name, value(&text.0)));
        Value::from_pairs(fields.into_iter().chain(extra))
    };
    messages.iter().map(message).collect::<Vec<Value>>().into()
}

/// Messages as text: the content of a single one, else each under its role's name.
fn plain_text(messages: &[Message]) -> String {
    match messages {
        [one] => one.text().into_owned(),
        several => several
            .iter()
            .map(|message| {
                let mut letters = message.role.chars();
                let role: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
                format!("{role}: {}", message.text())
            })
            .collect::<Vec<_>>()
            .join("\n\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &Template, joint: bool, form: Form) -> Result<String> {
        let prompt = [
            Message::new("user", "Where is {{ b }}?"),
            Message::new("assistant", "Who?"),
            Message::new("user", "Bob."),
        ];
        let (a, b) = ([Message::new("assistant", "At home. A")], [Message::new("assistant", "Away. B")]);
        let other = [Message::new("user", "And now?")];
        let second = if joint { &other[..] } else { &prompt[..] };
        template.render(joint, Side { prompt: &prompt, response: &a }, Side { prompt: second, response: &b }, form)
    }

    #[test]
    fn every_built_in_template_shows_all_of_a_comparison() {
        for builtin in BUILTIN.iter().filter(|builtin| builtin.task != Task::Rating) {
            let template = Template::open(builtin.name, builtin.task, builtin.joint, None).unwrap();
            for form in [Form::Chat, Form::Text] {
                let question = render(&template, builtin.joint, form).unwrap();
                // Content is not read as a template.
                for part in ["User: Where is {{ b }}?\n\nAssistant: Who?\n\nUser: Bob.", "At home. A", "Away. B"] {
                    assert!(question.contains(part), "{}: {question}", builtin.name);
                }
                assert_eq!(question.contains("And now?"), builtin.joint);
                assert!(!question.ends_with(char::is_whitespace));
                let begins_answer = if builtin.task == Task::Label { " is" } else { ":" };
                assert_eq!(question.ends_with(begins_answer), form == Form::Text, "{question}");
            }
        }
    }

    #[test]
    fn a_rating_shows_one_response_and_its_criterion_last() {
        let template = Template::open("helpful-rating", Task::Rating, false, None).unwrap();
        let (prompt, response) = ([Message::new("user", "Where?")], [Message::new("assistant", "At {{ home }}.")]);
        let side = Side { prompt: &prompt, response: &response };
        let levels: Vec<Vec<String>> = ["1", "2", "3"].map(|level| vec![format!(" {level}")]).into();
        for form in [Form::Chat, Form::Text] {
            let ask = |criterion| template.render_rating(side, criterion, &levels, form).unwrap();
            let (honest, plain) = (ask(("honesty", "3: no word is untrue")), ask(("", "")));
            for question in [&honest, &plain] {
                assert!(question.contains("Where?") && question.contains("At {{ home }}."), "{question}");
                assert!(question.contains("1, 2, 3"), "{question}");
                assert_eq!(question.ends_with(":"), form == Form::Text, "{question}");
            }
            assert!(honest.contains("honesty") && honest.contains("3: no word is untrue"), "{honest}");
            // What all criteria share comes first, so that it is computed once.
            let shared = honest.chars().zip(plain.chars()).take_while(|(one, other)| one == other).count();
            assert!(shared > honest.find("At {{ home }}.").unwrap(), "{honest}\n{plain}");
        }
        let error = Template::open("helpful", Task::Rating, false, None).err().unwrap().to_string();
        assert!(error.contains("is for a judge without a mode, here it is asked with `rating`"), "{error}");
    }

    #[test]
    fn the_question_that_asks_for_harm_is_marked() {
        assert_eq!(Template::open("harmful", Task::Label, false, None).unwrap().asks_for, AsksFor::Worse);
        let error = Template::open("harmful", Task::Label, false, Some(AsksFor::Better)).err().unwrap().to_string();
        assert!(error.contains("asks for the worse response"), "{error}");
    }

    #[test]
    fn tool_calls_are_text_to_a_judge_and_fields_to_a_template() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.jinja");
        let calls = r#"[{"function":{"name":"f","arguments":{"b":1,"a":2}}}]"#;
        let extra = Some(format!(r#"{{"content":null,"tool_calls":{calls}}}"#));
        let (a, b) = ([Message { extra, ..Message::new("assistant", "") }], [Message::new("assistant", "B")]);
        let show = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let template = Template::open(&path.to_string_lossy(), Task::Label, false, Some(AsksFor::Better)).unwrap();
            template
                .render(false, Side { prompt: &b, response: &a }, Side { prompt: &b, response: &b }, Form::Text)
                .unwrap()
        };
        assert_eq!(show("{{ prompt }}|{{ b }}|{{ a }}"), format!("B|B|{calls}"));
        let template =
            "{{ a_messages[0].content is none }}|{{ prompt }}|{{ b }}|{{ a_messages[0].tool_calls | tojson }}";
        assert_eq!(show(template).replace(' ', ""), format!("True|B|B|{calls}"));
    }

    #[test]
    fn a_wrong_name_or_place_is_explained() {
        let error = Template::open("helpfull", Task::Label, false, None).err().unwrap().to_string();
        assert!(error.contains("there are helpful, harmless, harmful, summary ("), "{error}");
        let error = Template::open("helpful-joint", Task::Label, false, None).err().unwrap().to_string();
        assert!(error.contains("belongs under `joint_template`"), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_cannot_be_read_is_not_a_wrong_template() {
        let folder = tempfile::tempdir().unwrap();
        let open = |target: &str| {
            let path = folder.path().join("mine.jinja");
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink(target, &path).unwrap();
            Template::open(&path.to_string_lossy(), Task::Label, false, None).err().unwrap()
        };
        for target in ["/proc/self/mem", "mine.jinja"] {
            assert!(matches!(open(target), Error::Io { .. }), "{target}");
        }
        for (target, kind) in [("/dev/zero", "a device"), ("/proc", "a folder")] {
            let error = open(target);
            let said = error.to_string().ends_with(&format!("is {kind}, wanted a file"));
            assert!(said && matches!(error, Error::Data(_)), "{error}");
        }
        std::fs::write(folder.path().join("binary"), [0xff]).unwrap();
        assert!(matches!(open("binary"), Error::Data(_)));
    }

    #[test]
    fn a_file_is_a_template_with_the_digest_of_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.jinja");
        std::fs::write(&path, "{{ prompt }}|{{ a }}|{{ b_messages[0].role }}").unwrap();
        let template = Template::open(&path.to_string_lossy(), Task::Label, false, Some(AsksFor::Worse)).unwrap();
        assert!(template.id.starts_with("mine@") && template.id.len() == 17, "{}", template.id);
        assert_eq!(template.asks_for, AsksFor::Worse);
        assert!(render(&template, false, Form::Text).unwrap().ends_with("|At home. A|assistant"));
        let error = render(&template, true, Form::Text).unwrap_err().to_string();
        assert!(error.contains("`a_prompt` and `b_prompt` in place of `prompt`"), "{error}");
        std::fs::write(&path, "{{ promt }}").unwrap();
        let template = Template::open(&path.to_string_lossy(), Task::Label, false, None).unwrap();
        assert!(render(&template, false, Form::Text).is_err());
        std::fs::write(&path, "{% if %}").unwrap();
        assert!(Template::open(&path.to_string_lossy(), Task::Label, false, None).is_err());
        // Programs that take too much are bad data, with the place.
        for (source, line) in [
            ("\n{{ prompt|indent(1000000000) }}", 2),
            ("{% for i in range(99999) %}\n{% for j in range(99999) %}{% endfor %}{% endfor %}", 2),
        ] {
            std::fs::write(&path, source).unwrap();
            match render(&Template::open(&path.to_string_lossy(), Task::Label, false, None).unwrap(), false, Form::Text)
            {
                Err(Error::Data(text)) => assert!(text.contains(&format!("mine.jinja:{line})")), "{text}"),
                other => panic!("{other:?}"),
            }
        }
        std::fs::write(&path, format!("{{{{ {}1 }}}}", "1+".repeat(50_000))).unwrap();
        assert!(matches!(Template::open(&path.to_string_lossy(), Task::Label, false, None), Err(Error::Data(_))));
    }

    #[test]
    fn a_built_in_templates_version_stands_for_its_text() {
        let texts =
            BUILTIN.map(|it| format!("{}@{} {}", it.name, it.version, Digest::of(it.source.as_bytes()).short(8)));
        assert_eq!(
            texts,
            [
                "helpful@1 3af9dd1f",
                "harmless@1 43d50fb9",
                "harmful@1 c51911c9",
                "summary@1 d0d66dc9",
                "helpful-joint@1 4e01434c",
                "harmless-joint@1 3be7e028",
                "summary-joint@1 c22e3982",
                "helpful-rating@1 b1b70dd5",
                "helpful-reasoning@1 211437f0",
                "helpful-rationale@1 2ab467ab",
                "summary-rationale@1 d3e6057c"
            ],
            "a text changed: raise its version, then put the digest here"
        );
    }
}
