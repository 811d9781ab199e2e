//! Limits frequencies: requests by `rate_limit`, and log lines that a client could otherwise cause without end.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A token bucket. It gets one token per interval, up to `burst`.
#[derive(Debug)]
pub(super) struct TokenBucket {
    interval: Duration,
    burst: u32,
    state: Mutex<(f64, Instant)>,
}

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self { interval, burst, state: Mutex::new((f64::from(burst), now)) }
    }

    /// Takes a token, if there is one. Returns whether there was.
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

/// Lets one log line pass every ten seconds, and counts the others.
#[derive(Debug, Default)]
pub(super) struct LogThrottle {
    state: Mutex<(Option<Instant>, u64)>,
}

impl LogThrottle {
    const INTERVAL: Duration = Duration::from_secs(10);

    /// Whether to write a line now. Returns the number of lines omitted since the last one; `None` if this one must be
    /// omitted.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
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
    fn a_bucket_gives_its_burst_and_then_a_token_per_interval() {
        let start = Instant::now();
        let bucket = TokenBucket::new(Duration::from_secs(1), 2, start);
        let taken = |ms| bucket.take(start + Duration::from_millis(ms));
        assert_eq!([taken(0), taken(0), taken(0)], [true, true, false]);
        assert_eq!([taken(900), taken(1100), taken(1200)], [false, true, false]);
        assert_eq!([taken(60_000), taken(60_000), taken(60_000)], [true, true, false]);
    }

    #[test]
    fn one_line_in_ten_seconds_passes_and_counts_the_omitted_ones() {
        let start = Instant::now();
        let quiet = LogThrottle::default();
        let at = |s| quiet.admit(start + Duration::from_secs(s));
        assert_eq!([at(0), at(1), at(9), at(10), at(25)], [Some(0), None, None, Some(2), Some(0)]);
    }
}
