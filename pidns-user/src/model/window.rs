//! Counts recent occurrences by time.

use crate::event::{finding::Windows, identity::BootNs};

/// Length of a slice in nanoseconds.
const SLICE_NS: u64 = 15_000_000_000;
/// Number of slices: 15 minutes, and the one being filled.
const SLICES: usize = 61;

/// Counts for the last 15 minutes, exact to 15 seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    counts: [u32; SLICES],
    /// Number of the slice being filled, counted from boot.
    last: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { counts: [0; SLICES], last: 0 }
    }
}

impl Window {
    /// Counts one occurrence.
    pub fn add(&mut self, at: BootNs) {
        let slice = at.0 / SLICE_NS;
        self.move_to(slice);
        // An event can have a slightly earlier time than the previous one.
        if self.last - slice < SLICES as u64 {
            let count = &mut self.counts[(slice % SLICES as u64) as usize];
            *count = count.saturating_add(1);
        }
    }

    fn move_to(&mut self, slice: u64) {
        let empty = slice.saturating_sub(self.last).min(SLICES as u64);
        for next in self.last + 1..=self.last + empty {
            self.counts[(next % SLICES as u64) as usize] = 0;
        }
        if empty == SLICES as u64 {
            self.counts = [0; SLICES];
        }
        self.last = self.last.max(slice);
    }

    /// Number of occurrences in the last 1, 5 and 15 minutes before this time.
    pub fn until(&self, now: BootNs) -> Windows {
        let slice = now.0 / SLICE_NS;
        let in_slices = |slices: u64| {
            let from = (slice + 1).saturating_sub(slices).max((self.last + 1).saturating_sub(SLICES as u64));
            (from..=self.last.min(slice))
                .map(|slice| u64::from(self.counts[(slice % SLICES as u64) as usize]))
                .sum()
        };
        Windows { in_1_min: in_slices(4), in_5_min: in_slices(20), in_15_min: in_slices(60) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> BootNs {
        BootNs(seconds * 1_000_000_000)
    }

    #[test]
    fn events_are_counted_for_the_length_of_the_window() {
        let mut window = Window::default();
        for second in [1_000, 1_001, 1_100, 1_700] {
            window.add(at(second));
        }
        let found = |second| {
            let Windows { in_1_min, in_5_min, in_15_min } = window.until(at(second));
            [in_1_min, in_5_min, in_15_min]
        };
        assert_eq!(found(1_700), [1, 1, 4]);
        assert_eq!(found(1_800), [0, 1, 4]);
        assert_eq!(found(3_000), [0, 0, 0]);
        assert_eq!(Window::default().until(at(0)), Windows::default());
    }

    proptest! {
        #[test]
        fn counts_match_those_of_a_list_of_times(mut times in prop::collection::vec(0_u64..5_000, 0..60), later in 0_u64..2_000) {
            times.sort_unstable();
            let mut window = Window::default();
            times.iter().for_each(|&second| window.add(at(second)));
            let now = times.last().copied().unwrap_or(0) + later;
            let within = |seconds: u64| times.iter().filter(|&&time| time / 15 + seconds / 15 > now / 15).count() as u64;
            let expected = Windows { in_1_min: within(60), in_5_min: within(300), in_15_min: within(900) };
            prop_assert_eq!(window.until(at(now)), expected);
        }
    }
}
