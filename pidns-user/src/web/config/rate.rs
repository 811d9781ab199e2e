//! `rate_limit`: limits how often requests are answered.

use std::time::{Duration, Instant};

use super::{
    TokenBucket,
    file::{ConfigFault, RateSection},
};

pub(super) fn bucket(section: &RateSection, now: Instant) -> Result<Option<TokenBucket>, ConfigFault> {
    let Some(interval) = &section.interval else { return Ok(None) };
    let Some(duration) = duration(&interval.value) else {
        let message = format!("interval {:?} is not a duration; write 500ms, 1s or 1m30s", interval.value);
        return Err(ConfigFault::at(interval, message));
    };
    if duration.is_zero() {
        return Ok(None);
    }
    match &section.burst {
        Some(burst) if burst.value > 0 => Ok(Some(TokenBucket::new(duration, burst.value, now))),
        Some(burst) => {
            Err(ConfigFault::at(burst, "burst 0 refuses every request; write 1 or more, or interval: 0"))
        }
        None => Err(ConfigFault::at(
            interval,
            "an interval without a burst refuses every request; add burst: 1 or more",
        )),
    }
}

/// Parses a duration as Go writes it. In Go, a bare number is in nanoseconds.
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
    fn durations_are_parsed_like_in_go() {
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
