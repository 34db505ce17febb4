//! Events of a run, and the reporters that print them.

mod bars;
mod course;
mod detail;
mod ending;
mod event;
mod fetching;
mod fit;
mod json;
mod lines;
mod recorder;
mod table;

pub use bars::Bars;
pub use course::Course;
pub use detail::Detail;
pub use ending::ending;
pub use event::{Event, Reporter, Reporters, RunEvent};
pub use fetching::Fetching;
pub use json::Json;
pub use lines::Lines;
pub use recorder::Recorder;
pub use table::{aligned, summary};
