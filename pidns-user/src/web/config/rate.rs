//! `rate_limit`: how often requests are answered.

use std::time::{Duration, Instant};

use super::{
    Bucket,
    file::{RateSection, Wrong},
};

pub(super) fn bucket(section: &RateSection, now: Instant) -> Result<Option<Bucket>, Wrong> {
    let Some(interval) = &section.interval else { return Ok(None) };
    let Some(duration) = duration(&interval.value) else {
        let message = format!("interval {:?} is no duration; write 500ms, 1s or 1m30s", interval.value);
        return Err(Wrong::at(interval, message));
    };
    if duration.is_zero() {
        return Ok(None);
    }
    match &section.burst {
        Some(burst) if burst.value > 0 => Ok(Some(Bucket::new(duration, burst.value, now))),
        Some(burst) => {
            Err(Wrong::at(burst, "burst 0 refuses every request; write 1 or more, or interval: 0"))
        }
        None => Err(Wrong::at(
            interval,
            "an interval without a burst refuses every request; add burst: 1 or more",
        )),
    }
}

/// A duration as Go writes it. A bare number is nanoseconds there.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    if let Ok(nanoseconds) = text.parse() {
        return Some(Duration::from_nanos(nanoseconds));
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number * UNITS.iter().find(|(name, _)| *name == &rest[..unit])?.1;
        rest = &rest[unit..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1s", Some(1000)),
            ("250ms", Some(250)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("1000000", Some(1)),
            ("", None),
            ("s", None),
            ("1", Some(0)),
            ("1 s", None),
            ("-1s", None),
            ("1x", None),
        ] {
            assert_eq!(duration(text).map(|duration| duration.as_millis()), expected, "{text}");
        }
    }
}
