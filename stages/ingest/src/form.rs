//! The form of plain strings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The form of plain strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Messages of a user and an assistant: models see them through their chat template.
    Chat,
    /// Raw text: no chat template touches it.
    Text,
}
