use std::time::Instant;

use minijinja::{Value, context};

use super::*;

fn compile(source: &str) -> Result<Bounded, Error> {
    Bounded::compile(Bounded::environment(), SyntaxConfig::default(), "the.jinja", source)
}

fn values() -> Value {
    let message = |role: &str, content: &str| context! { role, content };
    context! {
        messages => vec![message("user", "Is 1 < 2?"), message("assistant", "Yes.\nIt is.")],
        word => "word",
        other => Value::UNDEFINED,
    }
}

fn text(source: &str) -> String {
    compile(source).and_then(|template| template.render(values())).unwrap_or_else(|error| panic!("{source}: {error}"))
}

/// The message with which a template is refused; it has to come soon.
fn refused(source: &str) -> String {
    let began = Instant::now();
    let error = match compile(source).and_then(|template| template.render(values())) {
        Ok(text) => panic!("{} gave {} bytes", &source[..source.len().min(80)], text.len()),
        Err(error) => error,
    };
    let shown = format!("{}: {error}", &source[..source.len().min(80)]);
    assert!(is_beyond(&error) && shown.contains("the.jinja"), "{shown}");
    assert!(began.elapsed().as_secs() < 50, "{shown}");
    shown
}

#[test]
fn measuring_changes_no_text() {
    let mut plain = Environment::new();
    plain.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    for source in [
        "{{ word ~ 1 ~ word }}{{ 'a' + word }}{{ [1] + [2, 3] }}",
        "{{ 2 * 3 }} {{ 2 * 1.5 }} {{ word * 2 }} {{ 2 * 'ab' }} {{ [0, 1] * 2 }} {{ '' * 9 }} {{ true * 2 }}",
        "{{ 1 - 2 - 3 }} {{ 2 ** 3 ** 2 }} {{ 7 // 2 }} {{ -7 % 3 }} {{ not word == 'x' }} {{ 9007199254740993 * 3 }}",
        "{% for m in messages %}{{ loop.index }}{{ m.role[0] }}{{ ',' if not loop.last }}{% endfor %}",
        "{% for m in messages[1:] recursive %}{{ m.content.split()[0] }}{{ loop([]) }}{% endfor %}",
        "{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
        "{% macro m(a, b='-') %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}{{ m(1) }}{% call m(2, b='+') %}!{% endcall %}",
        "{% set x %}a\nb{% endset %}{{ x|indent(2) }}|{% filter upper %}{{ word }}{% endfilter %}",
        "{% set x|upper %}a{% endset %}{{ x }}{% with y = 1 %}{{ y }}{% endwith %}",
        "{{ word.replace('o', '00') }}{{ word|replace('o', '0') }} {{ ', '.join(['a', 'b']) }} {{ ['a', 'b']|join('-') }}",
        "{{ messages|map(attribute='role')|list }} {{ messages|selectattr('role', 'eq', 'user')|list|length }}",
        "{{ '%5.1f|%s'|format(1.25, word) }} {{ '{:>6}'.format(word) }} {{ {'a': [1]}|tojson }} {{ [1]|tojson(indent=2) }}",
        "{{ other is defined }} {{ nothing is undefined }} {{ 1 < 2 < 3 }} {{ 'o' in word }} {{ 'x' not in word }}",
        "{{ (1, 2) }} {{ {'k': word} }} {{ [1, 2, 3]|batch(2)|list }} {{ messages[0]['content'][-2:] }} {{ 1 if 0 }}",
        "{% for a, b in {'x': 1}|items %}{{ a }}{{ b }}{% else %}none{% endfor %}{% for i in [] %}{% else %}none{% endfor %}",
        "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "{{ messages|length }} {{ messages|first }} {{ messages[0].items()|list }} {{ word|upper|reverse }} {{ range(3)|sum }}",
        "{%- set x = messages | rejectattr('role', 'equalto', 'user') | list -%} {{ x[0].content | trim }} {{ [word, 1] | sort | string }}",
    ] {
        let expected = plain.render_str(source, values()).unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(text(source), expected, "{source}");
    }
}

#[test]
fn a_source_is_bounded_in_length_and_nesting() {
    let said = refused(&format!("{{{{ {} }}}}", "1+".repeat(50_000) + "1"));
    assert!(said.contains("more than 20000 words and signs in one tag (in the.jinja:1)"), "{said}");
    assert!(refused(&"x".repeat(300_000)).contains("more than 262144 bytes"));
    for source in [
        format!("{{{{ {} }}}}", "not ".repeat(60_000) + "x"),
        format!("{{{{ {}1 }}}}", "-".repeat(60_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(60_000)),
        format!("{{{{ x{} }}}}", "|upper".repeat(30_000)),
        format!("{{{{ x{} }}}}", "()".repeat(60_000)),
        format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(15_000)),
    ] {
        refused(&source);
    }
    // Deep, and within the bound of one tag.
    assert_eq!(text(&format!("{{{{ {}1 }}}}", "1+".repeat(9_000))), "9001");
    assert_eq!(text(&format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(20_000))), "");
    let error = compile(&format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000))).err().unwrap();
    assert!(is_beyond(&error), "{error}");
    let error = compile(&("{% if 1 %}".repeat(5000) + &"{% endif %}".repeat(5000))).err().unwrap();
    assert!(is_beyond(&error), "{error}");
}

#[test]
fn what_makes_much_out_of_little_is_stopped_before_it_does() {
    for source in [
        "{{ word|indent(1000000000) }}",
        "{{ 'a\nb'|indent(width=1000000000) }}",
        "{% filter indent(1000000000) %}a\nb{% endfilter %}",
        "{% set x|indent(1000000000) %}a\nb{% endset %}{{ x }}",
        "{{ ['a\nb']|map('indent', 1000000000)|list }}",
        "{{ messages|slice(1000000000)|list }}",
        "{{ messages|batch(1000000000, 'x')|list }}",
        "{{ messages|tojson(indent=1000000000) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%*d'|format(1000000000, 1) }}",
        "{{ '{:>1000000000}'.format('a') }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * [1] }}",
        "{{ 'a' * 99999999 ~ 'a' * 99999999 ~ 'a' * 99999999 ~ 'a' * 99999999 }}",
        "{% set a = 'a' * 100000 %}{{ a.replace('a', a) }}",
        "{% set a = 'a' * 100000 %}{{ a|replace('', a) }}",
        "{% set a = 'a' * 100000 %}{{ a|list|join(a) }}",
        "{% set a = 'a' * 100000 %}{{ a.join(a|list) }}",
    ] {
        refused(source);
    }
}

#[test]
fn what_grows_step_by_step_is_stopped() {
    for source in [
        "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x|chain(ns.x) %}{% endfor %}{{ ns.x|length }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] + [] %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = dict(a=ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = namespace(a=ns.x) %}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.self = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.self = ns %}{{ ns|string|length }}",
        "{% set ns = namespace(x='') %}{% for i in range(99999) %}{% set ns.x = ns.x ~ 'aaaaaaaaaaaaaaaaaaaa' %}{% endfor %}",
        "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = m(ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}{% endfor %}",
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    ] {
        refused(source);
    }
    let raw = "aaaaaaaaaaaaaaaa".repeat(1000);
    refused(&format!("{{% for i in range(99999) %}}{raw}{{% endfor %}}"));
    refused(&format!("{{% set x %}}{{% for i in range(99999) %}}{raw}{{% endfor %}}{{% endset %}}"));
}

#[test]
fn a_rendering_without_end_is_stopped() {
    let said = refused("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}");
    assert!(said.contains("out of fuel"), "{said}");
}

#[test]
fn a_template_stands_alone_and_errors_have_their_line() {
    for source in
        ["{% include 'the.jinja' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% block a %}{% endblock %}"]
    {
        let error = compile(source).err().unwrap();
        assert!(error.to_string().contains("this one stands alone") && !is_beyond(&error), "{error}");
    }
    let error = compile("\n\n{{ word|nothing }}").unwrap().render(values()).unwrap_err();
    assert!(error.to_string().contains("(in the.jinja:3)") && !is_beyond(&error), "{error}");
    let error = compile("\n{% if %}").err().unwrap();
    assert!(error.to_string().contains("(in the.jinja:2)"), "{error}");
}

#[test]
fn a_thread_that_the_system_refuses_is_its_fault() {
    let refused = std::io::Error::from(std::io::ErrorKind::WouldBlock);
    let said = system_error(&failed(NO_THREAD).with_source(refused)).unwrap();
    assert_eq!((said.kind(), said.to_string().contains("no thread")), (std::io::ErrorKind::WouldBlock, true));
    assert!(system_error(&compile("{% if %}").err().unwrap()).is_none());
}
