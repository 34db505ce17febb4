//! Digests that outputs keep.

use kit::{Digest, Stage};

/// Holds a kind's output to the digest that stands beside its version. The numbers are rounded, so that it is the same
/// on every CPU; a change that this shows is a change that users see.
pub fn check_golden(stage: &dyn Stage, lines: impl Iterator<Item = String>, version: &str, digest: &str) {
    let text: String = lines.map(|line| line + "\n").collect();
    assert_eq!(
        (stage.version().as_str(), Digest::of(text.as_bytes()).short(12).as_str()),
        (version, digest),
        "the output changed: raise the version, then put version and digest here\n{text}"
    );
}
