//! Trainings against PyTorch, stopped, resumed and shared out to ranks.

mod adapter;
mod common;
mod ranks;
mod resume;
mod reward;
mod stage;
mod trajectories;
