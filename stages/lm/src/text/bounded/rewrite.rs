//! A copy of a template's syntax tree in which values are measured where they are made and where they are taken up.

use minijinja::machinery::{Span, ast};
use minijinja::value::Value;
use minijinja::{Environment, Error};

use super::growth::times;
use super::{failed, meter};
use ast::{BinOpKind, CallArg, Expr, Spanned, Stmt};

// No template can write these names.
const SEEN: &str = "<seen>";
const MADE: &str = "<made>";
const TIMES: &str = "<times>";
const WRITTEN: &str = "<written>";

/// The functions that a copy calls.
pub(super) fn add_functions(environment: &mut Environment<'static>) {
    environment.add_function(SEEN, |value: Value| meter::seen(&value).map(|_| value));
    environment.add_function(MADE, meter::made);
    environment.add_function(WRITTEN, |value: Value| meter::written(&value).map(|()| value));
    environment.add_function(TIMES, |left: Value, right: Value| times(&left, &right).and_then(meter::made));
}

/// Copies a statement with all that it holds.
///
/// # Errors
/// When it leads to other templates: one that comes with a model or a question stands alone.
pub(super) fn statement<'a>(old: &Stmt<'a>) -> Result<Stmt<'a>, Error> {
    Ok(match old {
        Stmt::Template(it) => Stmt::Template(like(it, ast::Template { children: statements(&it.children)? })),
        Stmt::EmitExpr(it) => {
            let expr = measured(WRITTEN, it.span(), expression(&it.expr));
            Stmt::EmitExpr(like(it, ast::EmitExpr { expr }))
        }
        // As a value, so that the writing of it is counted.
        Stmt::EmitRaw(it) => {
            let value = Value::from_safe_string(it.raw.to_owned());
            let expr = measured(WRITTEN, it.span(), Expr::Const(like(it, ast::Const { value })));
            Stmt::EmitExpr(like(it, ast::EmitExpr { expr }))
        }
        Stmt::ForLoop(it) => Stmt::ForLoop(like(
            it,
            ast::ForLoop {
                target: target(&it.target),
                iter: seen(&it.iter),
                filter_expr: it.filter_expr.as_ref().map(expression),
                recursive: it.recursive,
                body: statements(&it.body)?,
                else_body: statements(&it.else_body)?,
            },
        )),
        Stmt::IfCond(it) => Stmt::IfCond(like(
            it,
            ast::IfCond {
                expr: expression(&it.expr),
                true_body: statements(&it.true_body)?,
                false_body: statements(&it.false_body)?,
            },
        )),
        Stmt::WithBlock(it) => {
            let assignments = it.assignments.iter().map(|(to, value)| (target(to), seen(value))).collect();
            Stmt::WithBlock(like(it, ast::WithBlock { assignments, body: statements(&it.body)? }))
        }
        Stmt::Set(it) => Stmt::Set(like(it, ast::Set { target: target(&it.target), expr: seen(&it.expr) })),
        Stmt::SetBlock(it) => Stmt::SetBlock(like(
            it,
            ast::SetBlock {
                target: target(&it.target),
                filter: it.filter.as_ref().map(block_filter),
                body: statements(&it.body)?,
            },
        )),
        Stmt::AutoEscape(it) => Stmt::AutoEscape(like(
            it,
            ast::AutoEscape { enabled: expression(&it.enabled), body: statements(&it.body)? },
        )),
        Stmt::FilterBlock(it) => Stmt::FilterBlock(like(
            it,
            ast::FilterBlock { filter: block_filter(&it.filter), body: statements(&it.body)? },
        )),
        Stmt::Macro(it) => Stmt::Macro(macro_of(it)?),
        Stmt::CallBlock(it) => {
            Stmt::CallBlock(like(it, ast::CallBlock { call: call(&it.call), macro_decl: macro_of(&it.macro_decl)? }))
        }
        Stmt::Continue(it) => Stmt::Continue(like(it, ast::Continue)),
        Stmt::Break(it) => Stmt::Break(like(it, ast::Break)),
        Stmt::Do(it) => Stmt::Do(like(it, ast::Do { call: call(&it.call) })),
        Stmt::Block(it) => return Err(not_alone("block", it.span())),
        Stmt::Import(it) => return Err(not_alone("import", it.span())),
        Stmt::FromImport(it) => return Err(not_alone("from", it.span())),
        Stmt::Extends(it) => return Err(not_alone("extends", it.span())),
        Stmt::Include(it) => return Err(not_alone("include", it.span())),
    })
}

fn statements<'a>(list: &[Stmt<'a>]) -> Result<Vec<Stmt<'a>>, Error> {
    list.iter().map(statement).collect()
}

fn not_alone(what: &str, span: Span) -> Error {
    failed(&format!(
        "line {}: `{what}` is for templates that are made of several; this one stands alone",
        span.start_line
    ))
}

fn macro_of<'a>(old: &Spanned<ast::Macro<'a>>) -> Result<Spanned<ast::Macro<'a>>, Error> {
    let args = old.args.iter().map(target).collect();
    let defaults = old.defaults.iter().map(expression).collect();
    Ok(like(old, ast::Macro { name: old.name, args, defaults, body: statements(&old.body)? }))
}

/// A node at the place of another.
fn like<T, U>(old: &Spanned<U>, node: T) -> Spanned<T> {
    Spanned::new(node, old.span())
}

/// The target of an assignment.
fn target<'a>(old: &Expr<'a>) -> Expr<'a> {
    match old {
        Expr::GetAttr(it) => Expr::GetAttr(like(it, ast::GetAttr { expr: target(&it.expr), name: it.name })),
        Expr::List(it) => Expr::List(like(it, ast::List { items: it.items.iter().map(target).collect() })),
        Expr::Tuple(it) => Expr::Tuple(like(it, ast::Tuple { items: it.items.iter().map(target).collect() })),
        other => expression(other),
    }
}

/// A filter that is put on what a block writes.
fn block_filter<'a>(old: &Expr<'a>) -> Expr<'a> {
    match old {
        Expr::Filter(it) => {
            let expr = it.expr.as_ref().map(block_filter);
            Expr::Filter(like(it, ast::Filter { name: it.name, expr, args: arguments(&it.args) }))
        }
        other => expression(other),
    }
}

fn expression<'a>(old: &Expr<'a>) -> Expr<'a> {
    match old {
        Expr::Var(it) => Expr::Var(like(it, ast::Var { id: it.id })),
        Expr::Const(it) => Expr::Const(like(it, ast::Const { value: it.value.clone() })),
        Expr::Slice(it) => measured(
            MADE,
            it.span(),
            Expr::Slice(like(
                it,
                ast::Slice {
                    expr: seen(&it.expr),
                    start: it.start.as_ref().map(expression),
                    stop: it.stop.as_ref().map(expression),
                    step: it.step.as_ref().map(expression),
                },
            )),
        ),
        Expr::UnaryOp(it) => {
            #[expect(clippy::needless_match, reason = "the kind can neither be copied nor cloned")]
            let op = match it.op {
                ast::UnaryOpKind::Not => ast::UnaryOpKind::Not,
                ast::UnaryOpKind::Neg => ast::UnaryOpKind::Neg,
            };
            Expr::UnaryOp(like(it, ast::UnaryOp { op, expr: expression(&it.expr) }))
        }
        Expr::BinOp(it) => binary(it),
        Expr::Compare(it) => {
            let of = |op: &ast::CompareOp<'a>| ast::CompareOp { op: op.op, expr: seen(&op.expr) };
            Expr::Compare(like(it, ast::Compare { expr: seen(&it.expr), ops: it.ops.iter().map(of).collect() }))
        }
        Expr::IfExpr(it) => Expr::IfExpr(like(
            it,
            ast::IfExpr {
                test_expr: expression(&it.test_expr),
                true_expr: expression(&it.true_expr),
                false_expr: it.false_expr.as_ref().map(expression),
            },
        )),
        Expr::Filter(it) => {
            let expr = it.expr.as_ref().map(seen);
            let filter = Expr::Filter(like(it, ast::Filter { name: it.name, expr, args: arguments(&it.args) }));
            measured(MADE, it.span(), filter)
        }
        Expr::Test(it) => {
            // Without arguments it looks at no more than the value's kind.
            let expr = if it.args.is_empty() { expression(&it.expr) } else { seen(&it.expr) };
            Expr::Test(like(it, ast::Test { name: it.name, expr, args: arguments(&it.args) }))
        }
        Expr::GetAttr(it) => Expr::GetAttr(like(it, ast::GetAttr { expr: expression(&it.expr), name: it.name })),
        Expr::GetItem(it) => {
            let subscript_expr = expression(&it.subscript_expr);
            Expr::GetItem(like(it, ast::GetItem { expr: expression(&it.expr), subscript_expr }))
        }
        Expr::Call(it) => measured(MADE, it.span(), Expr::Call(call(it))),
        Expr::List(it) => {
            let items = it.items.iter().map(expression).collect();
            measured(MADE, it.span(), Expr::List(like(it, ast::List { items })))
        }
        Expr::Tuple(it) => {
            let items = it.items.iter().map(expression).collect();
            measured(MADE, it.span(), Expr::Tuple(like(it, ast::Tuple { items })))
        }
        Expr::Map(it) => {
            let (keys, values) = (it.keys.iter().map(expression), it.values.iter().map(expression));
            let map = ast::Map { keys: keys.collect(), values: values.collect() };
            measured(MADE, it.span(), Expr::Map(like(it, map)))
        }
    }
}

fn binary<'a>(old: &Spanned<ast::BinOp<'a>>) -> Expr<'a> {
    let both = |of: fn(&Expr<'a>) -> Expr<'a>| {
        Expr::BinOp(like(old, ast::BinOp { op: old.op, left: of(&old.left), right: of(&old.right) }))
    };
    match old.op {
        // Its result may be large at once.
        BinOpKind::Mul => called(TIMES, old.span(), vec![expression(&old.left), expression(&old.right)]),
        BinOpKind::Add | BinOpKind::Concat => measured(MADE, old.span(), both(seen)),
        BinOpKind::ScAnd | BinOpKind::ScOr => both(expression),
        // The operands of these may be large.
        BinOpKind::Eq
        | BinOpKind::Ne
        | BinOpKind::Lt
        | BinOpKind::Lte
        | BinOpKind::Gt
        | BinOpKind::Gte
        | BinOpKind::In => both(seen),
        BinOpKind::Sub | BinOpKind::Div | BinOpKind::FloorDiv | BinOpKind::Rem | BinOpKind::Pow => both(expression),
    }
}

/// A call whose result is not measured yet. Of a method the value it belongs to is taken up.
fn call<'a>(old: &Spanned<ast::Call<'a>>) -> Spanned<ast::Call<'a>> {
    let expr = match &old.expr {
        Expr::GetAttr(it) if !matches!(&it.expr, Expr::Var(var) if var.id == "loop") => {
            Expr::GetAttr(like(it, ast::GetAttr { expr: seen(&it.expr), name: it.name }))
        }
        other => expression(other),
    };
    like(old, ast::Call { expr, args: arguments(&old.args) })
}

fn arguments<'a>(old: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
    let argument = |argument: &CallArg<'a>| match argument {
        CallArg::Pos(value) => CallArg::Pos(seen(value)),
        CallArg::Kwarg(name, value) => CallArg::Kwarg(name, seen(value)),
        CallArg::PosSplat(value) => CallArg::PosSplat(seen(value)),
        CallArg::KwargSplat(value) => CallArg::KwargSplat(seen(value)),
    };
    old.iter().map(argument).collect()
}

/// An expression whose value is measured when it is taken up, where it was not when it was made.
fn seen<'a>(old: &Expr<'a>) -> Expr<'a> {
    match old {
        Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) | Expr::IfExpr(_) | Expr::BinOp(_) => {
            measured(SEEN, old.span(), expression(old))
        }
        other => expression(other),
    }
}

fn measured<'a>(how: &'static str, span: Span, value: Expr<'a>) -> Expr<'a> {
    called(how, span, vec![value])
}

fn called<'a>(name: &'static str, span: Span, values: Vec<Expr<'a>>) -> Expr<'a> {
    let expr = Expr::Var(Spanned::new(ast::Var { id: name }, span));
    Expr::Call(Spanned::new(ast::Call { expr, args: values.into_iter().map(CallArg::Pos).collect() }, span))
}
