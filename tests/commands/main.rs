//! The commands that people call beside `run`, on the built binary.

mod bases;
mod calls;
mod check;
mod clusters;
mod diff;
mod doctor;
mod documents;
mod ends;
mod export;
mod forecasts;
mod gguf;
mod help;
mod init;
mod judged;
mod models;
mod nothing;
mod scenarios;
mod ways;
