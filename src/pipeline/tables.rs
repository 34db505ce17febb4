//! The columns of each table, to hold files of other tools against.

use arrow_schema::{DataType, Field};
use kit::{Row, Table, rows};

/// The columns of a table; none for a folder of other files.
pub fn fields_of(table: Table) -> Vec<Field> {
    match table {
        Table::Prompts => rows::Prompt::fields(),
        Table::Responses => rows::Response::fields(),
        Table::Comparisons => rows::Comparison::fields(),
        Table::Votes => rows::SizedVote::fields(),
        Table::Verdicts => rows::Verdict::fields(),
        Table::Ratings => rows::Rating::fields(),
        Table::Answers => rows::JudgeAnswer::fields(),
        Table::Pairs => rows::Pair::fields(),
        Table::Items => rows::Item::fields(),
        Table::Embeddings => rows::Embedding::fields(),
        Table::Reference => rows::ReferenceRow::fields(),
        Table::Metrics => rows::Metric::fields(),
        Table::Steps => rows::StepRow::fields(),
        Table::Contrasts => rows::Contrast::fields(),
        Table::Splits => rows::Split::fields(),
        Table::Scores => rows::Score::fields(),
        Table::Summary => rows::SummaryRow::fields(),
        Table::Utilities => rows::Utility::fields(),
        Table::Truth => rows::TruthRow::fields(),
        Table::Calibration => rows::CalibrationRow::fields(),
        Table::Reliability => rows::ReliabilityRow::fields(),
        Table::Annotators => rows::AnnotatorRow::fields(),
        Table::Leaderboard => rows::LeaderboardRow::fields(),
        Table::Results => rows::ResultRow::fields(),
        Table::Rejects => rows::Reject::fields(),
        Table::Model | Table::Pages => Vec::new(),
    }
}

/// The required columns of a table that some columns lack.
pub fn lacking(table: Table, columns: &[(String, DataType)]) -> Vec<String> {
    let required = fields_of(table).into_iter().filter(|field| !field.is_nullable());
    required
        .map(|field| field.name().clone())
        .filter(|name| !columns.iter().any(|(column, _)| column == name))
        .collect()
}
