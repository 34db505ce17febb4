//! Comparisons of a model's responses with a baseline's.

use std::collections::BTreeMap;

use kit::rows::Message;

/// One item of a model: its win probability, and lengths.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Game {
    /// P(the model's response better), the mean over its verdicts.
    pub(crate) win: f64,
    /// Lengths of the model's response and of the baseline's.
    pub(crate) lengths: Option<[f64; 2]>,
}

/// The items of a model by name, and sums while they are read.
#[derive(Debug, Default)]
pub(crate) struct Games(BTreeMap<String, Sum>);

#[derive(Debug, Default)]
struct Sum {
    weight: f64,
    win: f64,
    lengths: [f64; 2],
    /// Weight of what has lengths.
    measured: f64,
}

impl Games {
    /// Adds a verdict of some weight above 0.
    pub(crate) fn add(&mut self, item: String, win: f64, weight: f64, lengths: Option<[f64; 2]>) {
        let sum = self.0.entry(item).or_default();
        sum.weight += weight;
        sum.win += weight * win;
        if let Some(lengths) = lengths {
            sum.measured += weight;
            sum.lengths.iter_mut().zip(lengths).for_each(|(sum, length)| *sum += weight * length);
        }
    }

    /// The items with their means; lengths where all verdicts have them.
    pub(crate) fn finish(self) -> BTreeMap<String, Game> {
        let mean = |sum: Sum| Game {
            // The mean of equal values is that value to the last bit: a draw stays a draw.
            win: sum.win / sum.weight,
            lengths: (sum.measured == sum.weight).then(|| sum.lengths.map(|length| length / sum.weight)),
        };
        self.0.into_iter().map(|(item, sum)| (item, mean(sum))).collect()
    }
}

/// Characters of a response: Unicode code points.
pub(crate) fn characters(messages: &[Message]) -> f64 {
    messages.iter().map(|message| message.text().chars().count() as f64).sum()
}
