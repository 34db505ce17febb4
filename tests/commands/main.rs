//! The commands that people call beside `run`, on the built binary.

mod check;
mod diff;
mod export;
mod gguf;
mod init;
mod project;
mod scenarios;
