//! Whether it pays to let entities wait in line: what comes for them meanwhile shares their run.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The share of the runs that lately began with more than one message. One trip of grants after the other tells it,
/// and who asks is content with any recent answer: no order is needed.
#[derive(Debug, Default)]
pub(crate) struct Gathered(AtomicUsize);

/// All of them.
const ALL: usize = 1 << 12;
/// "Lately" is about so many runs.
const LATELY: usize = 32;

impl Gathered {
    /// Takes in, for each run, whether it began with several messages.
    pub(crate) fn learn(&self, several: impl Iterator<Item = bool>) {
        let share = several.fold(self.0.load(Ordering::Relaxed), |share, several| {
            (share * (LATELY - 1) + usize::from(several) * ALL) / LATELY
        });
        self.0.store(share, Ordering::Relaxed);
    }

    /// Of so many runs, those that begin with one message: nothing is won by letting them wait.
    pub(crate) fn alone(&self, of: usize) -> usize {
        of * (ALL - self.0.load(Ordering::Relaxed)) / ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_goes_from_one_end_to_the_other_with_what_was_seen_lately() {
        let gathered = Gathered::default();
        assert_eq!(gathered.alone(64), 64);
        for (several, alone) in [(true, 0..=1), (false, 63..=64)] {
            gathered.learn(std::iter::repeat_n(several, LATELY));
            assert!((16..48).contains(&gathered.alone(64)), "by and by");
            gathered.learn(std::iter::repeat_n(several, 8 * LATELY));
            assert!(alone.contains(&gathered.alone(64)));
        }
    }
}
