//! The commands that people call beside `run`, on the built binary.

mod check;
mod diff;
mod documents;
mod export;
mod forecasts;
mod gguf;
mod init;
mod project;
mod scenarios;
