//! Templates are programs from strangers: Jinja whose source, nesting, steps, values and output are bounded.
//!
//! minijinja counts steps and little else: `x ~ x` doubles a text in one step, and `1+1+...` nests as deep as it is
//! long. So a template is compiled from a copy of its syntax tree (`rewrite`) in which every value that is made or
//! taken up is measured (`meter`), and what makes much out of little says beforehand how much (`growth`). Chat
//! templates and the questions of judges both come through here. Read [`Bounded`] first.

mod growth;
mod meter;
mod rewrite;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock, PoisonError};

use minijinja::machinery::{CodeGenerator, Instructions, Token, eval, make_string_output, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

pub use growth::unbounded;
use meter::Metered;

/// The longest source in bytes; the longest that models come with have some ten thousand.
const SOURCE: usize = 256 << 10;
/// The most tokens between `{{` or `{%` and its end.
const TOKENS: usize = 20_000;
/// Steps that a rendering may take: far more than a long conversation needs, and over in seconds.
pub const STEPS: u64 = 20_000_000;
/// Most levels of loops, macros and the like while rendering; a macro counts four times.
const RECURSION: usize = 200;
/// The stack on which a template is compiled; it is reserved and not used up. The source's bound keeps far below it.
const STACK: usize = 256 << 20;
/// Beginning of an error that means that a bound was passed.
const BEYOND: &str = "a template may not ";
/// The message of an error whose source is the system's.
const NO_THREAD: &str = "no thread to compile it";

/// A compiled template whose renderings are bounded.
pub struct Bounded {
    environment: Environment<'static>,
    code: Code,
}

type Blocks = BTreeMap<&'static str, Instructions<'static>>;
type Code = (Instructions<'static>, Blocks);

impl Bounded {
    /// An environment to add to and to compile in. It has Python's methods of text and mappings. A filter that replaces
    /// a built-in one which makes much out of little is added under the name that [`unbounded`] gives. A formatter may
    /// be set; fuel, the limit of recursion and the callback for unknown methods are what bounds it.
    pub fn environment() -> Environment<'static> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(STEPS));
        environment.set_recursion_limit(RECURSION);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        growth::guard(&mut environment);
        rewrite::add_functions(&mut environment);
        environment
    }

    /// Compiles a template in what came from [`Bounded::environment`].
    ///
    /// # Errors
    /// When it is no template or passes a bound ([`is_beyond`]); the text ends with `name` and the line.
    pub fn compile(
        environment: Environment<'static>,
        syntax: SyntaxConfig,
        name: &str,
        source: &str,
    ) -> Result<Bounded, Error> {
        if source.len() > SOURCE {
            return Err(beyond(&format!("have more than {SOURCE} bytes; this one has {} (in {name})", source.len())));
        }
        let (name, source) = (kept(name), kept(source));
        // On a stack of its own: parsing, copying and dropping a tree take a frame a level.
        let compiling = std::thread::Builder::new().stack_size(STACK).spawn(move || compile(name, source, syntax));
        let compiling = compiling.map_err(|error| failed(NO_THREAD).with_source(error))?;
        let code = compiling.join().map_err(|_| failed("the template's compiler panicked"))??;
        Ok(Bounded { environment, code })
    }

    /// Renders with `values` as the template's variables.
    ///
    /// # Errors
    /// When the template fails or passes a bound ([`is_beyond`]); the text ends with its name and the line.
    pub fn render(&self, values: Value) -> Result<String, Error> {
        let _metered = Metered::start();
        let mut text = String::new();
        let mut out = make_string_output(&mut text);
        let (instructions, blocks) = &self.code;
        eval(&self.environment, instructions, values, blocks, &mut out, AutoEscape::None)?;
        drop(out);
        Ok(text)
    }
}

/// True where an error means that a template passed a bound.
pub fn is_beyond(error: &Error) -> bool {
    let said = |text: &str| error.detail().is_some_and(|detail| detail.contains(text));
    error.kind() == ErrorKind::OutOfFuel || said(BEYOND) || said("recursion limit")
}

/// The system's error, where it is at fault and not the template.
pub fn system_error(error: &Error) -> Option<std::io::Error> {
    let source = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
    Some(std::io::Error::new(source.kind(), format!("{NO_THREAD}: {source}")))
}

/// `what` goes on from "a template may not".
fn beyond(what: &str) -> Error {
    failed(&format!("{BEYOND}{what}"))
}

fn failed(text: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.to_owned())
}

fn compile(name: &'static str, source: &'static str, syntax: SyntaxConfig) -> Result<Code, Error> {
    let mut in_tag = 0;
    for token in tokenize(source, false, syntax.clone()) {
        // The parser reports syntax errors, with their place.
        let Ok((token, span)) = token else { break };
        in_tag = match token {
            Token::VariableStart | Token::BlockStart => 0,
            _ => in_tag + 1,
        };
        if in_tag > TOKENS {
            let place = format!("(in {name}:{})", span.start_line);
            return Err(beyond(&format!("have more than {TOKENS} words and signs in one tag {place}")));
        }
    }
    let tree = rewrite::statement(&parse(source, name, syntax)?)?;
    let mut code = CodeGenerator::new(name, source);
    code.compile_stmt(&tree);
    Ok(code.finish())
}

/// A text that stays for as long as the process: compiled code points into its source. Equal ones are kept once.
fn kept(text: &str) -> &'static str {
    static KEPT: OnceLock<Mutex<BTreeSet<&'static str>>> = OnceLock::new();
    let mut all = KEPT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    match all.get(text) {
        Some(known) => known,
        None => {
            let new: &'static str = text.to_owned().leak();
            all.insert(new);
            new
        }
    }
}

#[cfg(test)]
mod tests;
