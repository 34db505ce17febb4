//! The commands that people call beside `run`, on the built binary.

mod check;
mod diff;
mod export;
mod init;
mod project;
mod scenarios;
