//! Views of the store that change nothing: tables, two runs side by side, one row's lineage, the report.

pub mod diff;
pub mod draw;
pub mod inspect;
pub mod lineage;
pub mod report;
pub mod runs;
