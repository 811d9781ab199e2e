//! Histograms.

/// Counts values by bucket.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// The count of each bucket, with the one above the last bound; not cumulative.
    counts: Vec<u64>,
    sum: f64,
}

/// Lifetimes of namespaces in seconds, from those of short helpers to those of servers.
pub(super) const LIFETIMES: &[f64] =
    &[0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0];
/// Durations of teardowns in seconds. With four members a teardown takes 1 ms, with 500 members 50 ms.
pub(super) const TEARDOWNS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0];
/// Numbers of processes that one teardown kills.
pub(super) const KILLED: &[f64] = &[0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 10_000.0];
/// Delays of events in seconds, from the hook to their processing. The ring buffer is read at least every 20 ms.
pub(super) const DELAYS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub(super) fn observe(&mut self, value: f64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place] += 1;
        self.sum += value;
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    /// Each bound, and the number of values up to it.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        self.bounds.iter().zip(&self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((*bound, *sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_every_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::new(&[1.0, 10.0]);
        [0.5, 1.0, 5.0, 100.0].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(1.0, 2), (10.0, 3)]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 106.5));
    }
}
