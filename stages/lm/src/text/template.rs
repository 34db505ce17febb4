//! Chat templates: Jinja as `transformers` renders it.

use std::path::{Path, PathBuf};

use minijinja::ErrorKind;
use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use serde_json::Value as Json;

use crate::error::{Error, Result, is_there};
use crate::model::folder::refuse_pointer;
use crate::text::bounded::{Bounded, STEPS, system_error, unbounded};
use crate::text::scored::Borders;

/// The date that `strftime_now` gives to templates: 26 July 2024, the date that Llama 3's template falls back to.
/// Today's date would make tomorrow's tokens differ from today's.
pub const TEMPLATE_DATE: (i32, u8, u8) = (2024, 7, 26);

/// A compiled chat template with the special tokens that it may write.
pub(crate) struct ChatTemplate {
    template: Bounded,
    tokens: Vec<(String, String)>,
    path: PathBuf,
    marks_scored: bool,
}

/// The result of a rendering.
pub(crate) enum Rendering {
    /// The text to tokenise.
    Text(String),
    /// The template called `raise_exception`: it does not take these messages.
    Refused(String),
}

const NAME: &str = "chat template";
/// The filter that puts borders around a block, and what they are called.
const ENCLOSE: &str = "_enclosed";
const OPEN: &str = "_open_scored";
const CLOSE: &str = "_close_scored";
const RAISED: &str = "the chat template raised: ";

impl ChatTemplate {
    /// Reads `chat_template.jinja`, else `chat_template` of tokenizer_config.json (a string, or a list of
    /// `{name, template}` with one named `default`). None where the folder has neither. `tokens` are the named special
    /// tokens (`bos_token`, ...) that `transformers` hands to the template.
    pub(crate) fn load(folder: &Path, config: &Json, tokens: Vec<(String, String)>) -> Result<Option<ChatTemplate>> {
        let own_file = folder.join("chat_template.jinja");
        if is_there(&own_file)? {
            refuse_pointer(&own_file)?;
            let source = std::fs::read_to_string(&own_file).map_err(Error::io(&own_file))?;
            return Self::compile(source, own_file, tokens).map(Some);
        }
        let config_file = folder.join("tokenizer_config.json");
        let wrong = |problem: &str| Error::file(&config_file, format!("`chat_template` {problem}"));
        let source = match config.get("chat_template") {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::String(source)) => source.clone(),
            Some(Json::Array(list)) => {
                let mut named = Vec::new();
                for entry in list {
                    match (entry["name"].as_str(), entry["template"].as_str()) {
                        (Some(name), Some(template)) => named.push((name, template)),
                        _ => return Err(wrong("is a list with an entry that lacks `name` or `template`")),
                    }
                }
                let default = named.iter().find(|(name, _)| *name == "default");
                match (default, named.as_slice()) {
                    (Some((_, template)), _) | (None, [(_, template)]) => (*template).to_owned(),
                    _ => {
                        let names = named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                        return Err(wrong(&format!("lists templates ({names}) but none is named `default`")));
                    }
                }
            }
            Some(_) => return Err(wrong("is neither a string nor a list")),
        };
        Self::compile(source, config_file, tokens).map(Some)
    }

    fn compile(source: String, path: PathBuf, tokens: Vec<(String, String)>) -> Result<ChatTemplate> {
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let (source, marks_scored) = with_generation_tags(&source);
        let mut environment = Bounded::environment();
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
        });
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter(unbounded("tojson"), to_json);
        environment.add_filter(ENCLOSE, |text: String, open: String, close: String| format!("{open}{text}{close}"));
        // Python's view: none is not iterable, and a text or a mapping is a sequence.
        environment.add_test("iterable", |value: &Value| value.kind() != ValueKind::None && value.try_iter().is_ok());
        environment.add_test("sequence", |value: &Value| {
            matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
        });
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax.expect("the usual delimiters");
        let source = with_escapes_of_python(&source, &syntax);
        let template =
            Bounded::compile(environment, syntax, NAME, &source).map_err(|error| match system_error(&error) {
                Some(source) => Error::io(&path)(source),
                None => Error::file(&path, format!("not a chat template: {}", chain(&error))),
            })?;
        Ok(ChatTemplate { template, tokens, path, marks_scored })
    }

    /// True where the template marks the assistant's words with `{% generation %}`.
    pub(crate) fn marks_scored(&self) -> bool {
        self.marks_scored
    }

    /// Renders messages, with tools or none. What `{% generation %}` marks stands between `borders`.
    pub(crate) fn render(
        &self,
        messages: Vec<Value>,
        tools: Option<Value>,
        add_generation_prompt: bool,
        borders: Option<Borders>,
    ) -> Result<Rendering> {
        let mut context = vec![
            ("messages", Value::from(messages)),
            ("tools", tools.unwrap_or(Value::from(()))),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            (OPEN, Value::from(borders.map_or(String::new(), Borders::open))),
            (CLOSE, Value::from(borders.map_or(String::new(), Borders::close))),
        ];
        context.extend(self.tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))));
        match self.template.render(Value::from_pairs(context)) {
            Ok(text) => Ok(Rendering::Text(text)),
            Err(error) => match error.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
                Some(message) => Ok(Rendering::Refused(message.to_owned())),
                None if error.kind() == ErrorKind::OutOfFuel => Err(Error::file(
                    &self.path,
                    format!("the chat template takes more than {STEPS} steps; does it end?"),
                )),
                None => Err(Error::file(&self.path, format!("rendering the chat template: {}", chain(&error)))),
            },
        }
    }
}

/// `{% generation %}` marks the assistant's tokens for `transformers`; here it is a block with borders around it, a
/// scope of its own as there. Gives also whether there is one.
fn with_generation_tags(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let (mut rest, mut found) = (source, false);
    while let Some(open) = rest.find("{%") {
        let (before, tag) = rest.split_at(open + 2);
        out.push_str(before);
        let Some(close) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (body, after) = tag.split_at(close);
        match body.trim_matches(['-', '+', ' ', '\t', '\r', '\n']) {
            "generation" => {
                found = true;
                out.push_str(&body.replace("generation", &format!("filter {ENCLOSE}({OPEN}, {CLOSE})")));
            }
            "endgeneration" => out.push_str(&body.replace("endgeneration", "endfilter")),
            _ => out.push_str(body),
        }
        rest = after;
    }
    out.push_str(rest);
    (out, found)
}

/// Texts in tags with Python's escapes, which Jinja2 reads: a line break behind a backslash is none, and `\/` is both
/// characters. Those of minijinja are JSON's.
fn with_escapes_of_python(source: &str, syntax: &SyntaxConfig) -> String {
    let mut out = String::with_capacity(source.len());
    let mut copied = 0;
    for token in tokenize(source, false, syntax.clone()) {
        // What is no template is said by the parser.
        let Ok((token, span)) = token else { break };
        if !matches!(token, Token::String(_)) {
            continue;
        }
        let (start, end) = (span.start_offset as usize, span.end_offset as usize);
        out.push_str(&source[copied..start]);
        let mut characters = source[start..end].chars();
        while let Some(character) = characters.next() {
            match (character, if character == '\\' { characters.next() } else { None }) {
                ('\\', Some('\n')) => {}
                ('\\', Some('/')) => out.push_str(r"\\/"),
                (one, other) => out.extend([one].into_iter().chain(other)),
            }
        }
        copied = end;
    }
    out.push_str(&source[copied..]);
    out
}

/// An error with its causes and its line, on one line.
fn chain(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.replace('\n', " ")
}

/// Python's strftime on [`TEMPLATE_DATE`] at midnight.
fn strftime_now(format: String) -> Result<String, minijinja::Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let (year, month, day) = TEMPLATE_DATE;
    let month_name = MONTHS[usize::from(month) - 1];
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let (padded, directive) = match characters.next() {
            Some('-') => (false, characters.next()),
            other => (true, other),
        };
        let number = |value: u8| if padded { format!("{value:02}") } else { value.to_string() };
        match directive {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&number((year % 100) as u8)),
            Some('m') => out.push_str(&number(month)),
            Some('d') => out.push_str(&number(day)),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str("Friday"),
            Some('a') => out.push_str("Fri"),
            Some('j') => out.push_str("208"),
            Some('H' | 'M' | 'S') => out.push_str(&number(0)),
            Some('I') => out.push_str("12"),
            Some('p') => out.push_str("AM"),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => out.push_str("00:00:00"),
            Some('%') => out.push('%'),
            other => {
                let shown = other.map(String::from).unwrap_or_default();
                let text = format!("strftime_now does not know `%{shown}`");
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, text));
            }
        }
    }
    Ok(out)
}

/// `json.dumps` with the defaults of `transformers`: nothing escaped for HTML, non-ASCII kept, `, ` and `: `.
fn to_json(value: &Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let wrong = |text: String| minijinja::Error::new(ErrorKind::InvalidOperation, text);
    let ensure_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let indent = match options.get::<Option<Value>>("indent")? {
        Some(indent) if indent.kind() == ValueKind::Number => {
            let width = usize::try_from(indent).map_err(|error| wrong(format!("tojson: indent: {error}")))?;
            Some(" ".repeat(width))
        }
        Some(indent) if indent.kind() == ValueKind::String => Some(indent.to_string()),
        _ => None,
    };
    let (item, key) = match options.get::<Option<Vec<String>>>("separators")? {
        Some(pair) if pair.len() == 2 => (pair[0].clone(), pair[1].clone()),
        Some(_) => return Err(wrong("tojson: separators are two strings".to_owned())),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    options.assert_all_used()?;
    let style = JsonStyle { ensure_ascii, sort_keys, indent, item, key };
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(out)
}

/// A number as Python writes it: fractions in the shortest form, with an exponent of two digits below 1e-4 and from
/// 1e16.
fn python_number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(number) = f64::try_from(value.clone()) else { return value.to_string() };
    if !number.is_finite() {
        return if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').expect("a form with an exponent");
    let exponent: i32 = exponent.parse().expect("a whole exponent");
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

struct JsonStyle {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: String,
    key: String,
}

impl JsonStyle {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), minijinja::Error> {
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.collect::<Vec<_>>();
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.separate(index, depth + 1, out);
                    self.write(item, depth + 1, out)?;
                }
                self.close(items.is_empty(), depth, out);
                out.push(']');
            }
            ValueKind::Map => {
                let mut keys = value.try_iter()?.collect::<Vec<_>>();
                if self.sort_keys {
                    keys.sort();
                }
                out.push('{');
                for (index, key) in keys.iter().enumerate() {
                    self.separate(index, depth + 1, out);
                    self.string(&key.to_string(), out);
                    out.push_str(&self.key);
                    self.write(&value.get_item(key)?, depth + 1, out)?;
                }
                self.close(keys.is_empty(), depth, out);
                out.push('}');
            }
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&python_number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            kind => {
                let text = format!("tojson: a value of kind {kind} is not JSON");
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, text));
            }
        }
        Ok(())
    }

    fn separate(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            out.push_str(&self.item);
        }
        self.close(false, depth, out);
    }

    fn close(&self, empty: bool, depth: usize, out: &mut String) {
        if let (false, Some(indent)) = (empty, &self.indent) {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        let quoted = Json::String(text.to_owned()).to_string();
        if !self.ensure_ascii {
            out.push_str(&quoted);
            return;
        }
        let mut units = [0; 2];
        for character in quoted.chars() {
            if character.is_ascii() {
                out.push(character);
            } else {
                for unit in character.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message((role, content): (&str, &str)) -> Value {
        Value::from_pairs([("role", role), ("content", content)])
    }

    fn check(source: &str, add_generation_prompt: bool, expected: &str) {
        let tokens = vec![("bos_token".to_owned(), "<s>".to_owned())];
        let template = ChatTemplate::compile(source.to_owned(), "test".into(), tokens).expect("compiles");
        let messages = [("user", " Is 1 < 2 & \"true\"? "), ("assistant", "yés")].map(message);
        match template.render(messages.to_vec(), None, add_generation_prompt, None).expect("renders") {
            Rendering::Text(text) => assert_eq!(text, expected),
            Rendering::Refused(message) => assert_eq!(format!("refused: {message}"), expected),
        }
    }

    #[test]
    fn a_template_without_end_is_stopped() {
        let source = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        let template = ChatTemplate::compile(source.to_owned(), "t.jinja".into(), Vec::new()).expect("compiles");
        let error =
            template.render(vec![message(("user", "q"))], None, false, None).err().expect("it is stopped").to_string();
        assert!(error.contains("t.jinja: the chat template takes more than"), "{error}");
    }

    #[test]
    fn a_template_that_takes_too_much_is_refused_with_its_place() {
        let compile = |source: &str| ChatTemplate::compile(source.to_owned(), "t.jinja".into(), Vec::new());
        let error = compile(&format!("\n{{{{ {}1 }}}}", "1+".repeat(50_000))).err().expect("refused");
        assert!(error.is_data() && error.to_string().contains("(in chat template:2)"), "{error}");
        for source in [
            "\n{{ messages[0].content | indent(1000000000) }}",
            "\n{{ messages | tojson(indent=1000000000) }}",
            "\n{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        ] {
            let template = compile(source).expect("compiles");
            let error = template.render(vec![message(("user", "q"))], None, false, None).err().expect("it is stopped");
            assert!(error.is_data() && error.to_string().contains("a template may not"), "{error}");
            assert!(error.to_string().contains("t.jinja") && error.to_string().contains("chat template:2"), "{error}");
        }
    }

    #[test]
    fn templates_render_as_jinja2_does() {
        check("{{ bos_token }}{{ eos_token }}|{{ messages[0]['content'].strip() }}", false, "<s>|Is 1 < 2 & \"true\"?");
        check("{% for m in messages %}\n  {% if m.role == 'user' %}\nU\n  {% endif %}\n{% endfor %}", false, "U\n");
        check("{{ messages[-1].content | tojson }}", false, "\"yés\"");
        check(
            "{{ messages | tojson }}",
            false,
            "[{\"role\": \"user\", \"content\": \" Is 1 < 2 & \\\"true\\\"? \"}, {\"role\": \"assistant\", \"content\": \"yés\"}]",
        );
        check(
            "{{ messages[1:] | tojson(indent=2, ensure_ascii=true) }}",
            false,
            "[\n  {\n    \"role\": \"assistant\",\n    \"content\": \"y\\u00e9s\"\n  }\n]",
        );
        check("{{ strftime_now('%d %b %Y, %-m/%y') }}", false, "26 Jul 2024, 7/24");
        check(
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if loop.first %}{% continue %}{% endif %}{{ ns.n }}{% endfor %}",
            false,
            "2",
        );
        check(
            "{% for m in messages %}{%- generation -%} {{ m.content.split()[0] }} {%- endgeneration %}{% endfor %}",
            false,
            "Isyés",
        );
        check("{% if add_generation_prompt %}go{% endif %}{% if tools is not none %}tools{% endif %}", true, "go");
        check("{% if tools is iterable or messages is not iterable or 'a' is not sequence %}no{% endif %}", false, "");
        check("{{ none }} {{ 1 < 2 }} {{ 2.0 }} {{ absent }}", false, "None True 2.0 ");
        check("{{ [true, none, 1e-7, 2.0, 1e16] | tojson }}", false, "[true, null, 1e-07, 2.0, 1e+16]");
        check("{{ 'one\\\ntwo\\\\\nthree' }} \\\n{{ \"a\\/b \\\"\\t\" }}", false, "onetwo\\\nthree \\\na\\/b \"\t");
        check("a\r\n{% if true %}\r\nb{% endif %}\r\n", false, "a\nb");
        check("{{ raise_exception('System role not supported') }}", false, "refused: System role not supported");
    }

    #[test]
    fn a_broken_template_names_its_file() {
        let error = ChatTemplate::compile("{% for %}".to_owned(), "dir/chat_template.jinja".into(), vec![]).err();
        assert!(error.expect("refused").to_string().starts_with("dir/chat_template.jinja: not a chat template"));
    }
}
