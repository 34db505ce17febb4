//! The pulse of ranks: each tells the others once a second that it is there, and whether it computes or waits. So one that
//! is slow differs from one that is gone, stopped or stuck.

use std::time::{Duration, Instant};

/// Between two beats.
pub const BEAT: Duration = Duration::from_secs(1);

/// Without a beat for so long a rank counts as gone; sooner where patience ends sooner.
const SILENCE: Duration = Duration::from_secs(30);

/// Time for a rank to come to its next exchange and to end in order, once others are missing; then its process ends.
pub const GRACE: Duration = Duration::from_secs(15);

/// A rank that has not looked for so long was stopped itself: what it did not hear says nothing.
const LAPSE: Duration = Duration::from_secs(5 * BEAT.as_secs());

/// What a rank does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Pulse {
    Computes,
    /// For another one.
    Waits,
    /// It has ended well: no further beat follows.
    Leaves,
}

impl Pulse {
    /// Of the byte that stands for it.
    pub fn of(byte: u8) -> Option<Pulse> {
        [Pulse::Computes, Pulse::Waits, Pulse::Leaves].into_iter().find(|pulse| *pulse as u8 == byte)
    }
}

/// What one rank knows of the others.
pub struct Watch {
    /// The time that a rank waits for the others, at most.
    patience: Duration,
    others: Vec<Other>,
    /// When it looked last.
    looked: Instant,
    /// When it went on after it was stopped itself.
    awake: Instant,
}

struct Other {
    rank: usize,
    machine: String,
    heard: Instant,
    pulse: Pulse,
}

impl Watch {
    /// Of rank `own` among ranks on these machines.
    pub fn new(own: usize, machines: Vec<String>, patience: Duration, now: Instant) -> Watch {
        let other = |(rank, machine)| Other { rank, machine, heard: now, pulse: Pulse::Computes };
        let others = machines.into_iter().enumerate().filter(|(rank, _)| *rank != own).map(other).collect();
        Watch { patience, others, looked: now, awake: now }
    }

    /// A beat of another rank. One that has left does not come back.
    pub fn hear(&mut self, rank: usize, pulse: Pulse, now: Instant) {
        self.others
            .iter_mut()
            .filter(|other| other.rank == rank && other.pulse != Pulse::Leaves)
            .for_each(|other| (other.heard, other.pulse) = (now, pulse));
    }

    /// True where all others have left.
    pub fn is_last(&self) -> bool {
        self.others.iter().all(|other| other.pulse == Pulse::Leaves)
    }

    /// True where a rank has left.
    pub fn has_left(&self, rank: usize) -> bool {
        self.others.iter().any(|other| other.rank == rank && other.pulse == Pulse::Leaves)
    }

    /// Looks at the others after all that came was heard; `waits` is since when this rank waits for one. Gives what is
    /// wrong with which ranks: silence, or that they let the others wait longer than they have patience.
    pub fn look(&mut self, waits: Option<Instant>, now: Instant) -> Option<String> {
        if now - self.looked > LAPSE {
            self.others.iter_mut().for_each(|other| other.heard = now);
            self.awake = now;
        }
        self.looked = now;
        let silence = SILENCE.min(self.patience);
        let silent = self.named(|other| other.pulse != Pulse::Leaves && now - other.heard > silence);
        if let Some(names) = silent {
            return Some(format!(
                "not heard of for {} s: {names}; killed, stopped, or on a machine that is gone; run the same command \
                 again to go on from the latest checkpoint",
                silence.as_secs()
            ));
        }
        waits.filter(|since| now - self.awake.max(*since) > self.patience)?;
        let late = self.named(|other| other.pulse == Pulse::Computes);
        let names = late.unwrap_or_else(|| "none of them, they wait for each other".to_owned());
        Some(format!(
            "at work alone for {} s, while the others wait: {names}; if that is no fault give `--patience` more seconds; \
             run the same command again to go on from the latest checkpoint",
            self.patience.as_secs()
        ))
    }

    /// The others that are so, by name; none where there are none.
    fn named(&self, is: impl Fn(&Other) -> bool) -> Option<String> {
        let names = self.others.iter().filter(|other| is(other));
        let names: Vec<String> = names.map(|other| format!("rank {} on {}", other.rank, other.machine)).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rank 1 of four, with a patience of so many seconds.
    fn watch(patience: u64, start: Instant) -> Watch {
        let machines = ["n0", "n1", "n2", "n3"].map(str::to_owned).to_vec();
        Watch::new(1, machines, Duration::from_secs(patience), start)
    }

    /// Looks once a second up to the first finding, at most a day; `beats` has the pulse of ranks 0, 2 and 3.
    fn found(
        mut watch: Watch,
        start: Instant,
        waits: bool,
        beats: impl Fn(usize, u64) -> Option<Pulse>,
    ) -> Option<(u64, String)> {
        (0..86_400).find_map(|second| {
            let now = start + Duration::from_secs(second);
            for rank in [0, 2, 3] {
                beats(rank, second).into_iter().for_each(|pulse| watch.hear(rank, pulse, now));
            }
            watch.look(waits.then_some(start), now).map(|text| (second, text))
        })
    }

    #[test]
    fn a_slow_rank_is_no_fault_and_a_silent_one_is() {
        let start = Instant::now();
        // One that waits for nobody has all patience.
        assert_eq!(found(watch(60, start), start, false, |_, _| Some(Pulse::Computes)), None);
        let of = |rank, second| (rank != 2 || second < 100).then_some(Pulse::Computes);
        let (second, text) = found(watch(1800, start), start, false, of).unwrap();
        assert_eq!(second, 99 + 31);
        assert!(text.starts_with("not heard of for 30 s: rank 2 on n2; killed"), "{text}");
        let (second, text) =
            found(watch(5, start), start, true, |rank, _| (rank == 3).then_some(Pulse::Waits)).unwrap();
        assert!(second == 6 && text.starts_with("not heard of for 5 s: rank 0 on n0, rank 2 on n2; "), "{text}");
    }

    #[test]
    fn who_lets_the_others_wait_is_named() {
        let start = Instant::now();
        let of = |rank, _| Some(if rank == 3 { Pulse::Computes } else { Pulse::Waits });
        let (second, text) = found(watch(1800, start), start, true, of).unwrap();
        assert_eq!(second, 1801);
        assert!(text.starts_with("at work alone for 1800 s, while the others wait: rank 3 on n3; "), "{text}");
        let (_, text) = found(watch(1800, start), start, true, |_, _| Some(Pulse::Waits)).unwrap();
        assert!(text.contains("none of them, they wait for each other"), "{text}");
    }

    #[test]
    fn one_that_was_stopped_itself_hears_first() {
        let start = Instant::now();
        let mut watch = watch(10, start);
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(watch.look(Some(start), at(1)), None);
        assert_eq!(watch.look(Some(start), at(1000)), None, "all were suspended together");
        assert_eq!(watch.look(Some(start), at(1005)), None);
        assert_eq!(watch.look(Some(start), at(1010)), None);
        assert!(watch.look(Some(start), at(1011)).unwrap().starts_with("not heard of"));
    }

    #[test]
    fn those_that_left_are_not_missed() {
        let start = Instant::now();
        let of = |_, second| (second == 0).then_some(Pulse::Leaves);
        assert_eq!(found(watch(5, start), start, false, of), None);
        let mut watch = watch(5, start);
        assert!(!watch.is_last());
        [0, 2, 3].into_iter().for_each(|rank| watch.hear(rank, Pulse::Leaves, start));
        assert!(watch.is_last() && watch.has_left(2) && !watch.has_left(1), "oneself is no other");
        watch.hear(2, Pulse::Computes, start);
        assert!(watch.is_last(), "a beat that came late");
        assert_eq!([0, 1, 2, 3].map(Pulse::of), [Some(Pulse::Computes), Some(Pulse::Waits), Some(Pulse::Leaves), None]);
    }
}
