//! The stage kinds, one line each.

use kit::Kind;

/// Every kind that a pipeline file can name.
pub const KINDS: &[Kind] = &[
    calibrate::KIND,
    compare::KIND,
    embed::KIND,
    evaluate::KIND,
    ingest::KIND,
    judge::KIND,
    jury::KIND,
    pairs::KIND,
    reference::KIND,
    sample::KIND,
    sandbox::KIND,
    summarize::KIND,
    train::KIND,
];
