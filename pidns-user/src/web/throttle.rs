//! How often something may happen: requests by `rate_limit`, and log lines that a client could cause without end.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A token bucket: one token an interval, and at most `burst` of them.
#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    burst: u32,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self { interval, burst, state: Mutex::new((f64::from(burst), now)) }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, last) = *state;
        let new = now.saturating_duration_since(last).as_secs_f64() / self.interval.as_secs_f64();
        let tokens = (tokens + new).min(f64::from(self.burst));
        let taken = tokens >= 1.0;
        *state = (if taken { tokens - 1.0 } else { tokens }, now.max(last));
        taken
    }
}

/// Lets a log line through every ten seconds, and counts the others.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Quiet {
    const INTERVAL: Duration = Duration::from_secs(10);

    /// How many lines were left out since the last one; none if this one is to be left out, too.
    pub(super) fn speak(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, left_out) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < Self::INTERVAL) {
            *left_out += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_a_token_an_interval() {
        let start = Instant::now();
        let bucket = Bucket::new(Duration::from_secs(1), 2, start);
        let taken = |ms| bucket.take(start + Duration::from_millis(ms));
        assert_eq!([taken(0), taken(0), taken(0)], [true, true, false]);
        assert_eq!([taken(900), taken(1100), taken(1200)], [false, true, false]);
        assert_eq!([taken(60_000), taken(60_000), taken(60_000)], [true, true, false]);
    }

    #[test]
    fn a_line_in_ten_seconds_counts_the_lines_left_out() {
        let start = Instant::now();
        let quiet = Quiet::default();
        let at = |s| quiet.speak(start + Duration::from_secs(s));
        assert_eq!([at(0), at(1), at(9), at(10), at(25)], [Some(0), None, None, Some(2), Some(0)]);
    }
}
