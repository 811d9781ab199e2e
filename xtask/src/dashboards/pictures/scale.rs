//! Formats axes and numbers like Grafana.

use pidns_monitoring::Range;

/// Formats a number in one of Grafana's units.
pub(super) fn number(value: f64, unit: &str) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    match unit {
        "percentunit" => format!("{} %", plain(value * 100.0)),
        "cps" => format!("{} /s", scaled(value)),
        "s" => seconds(value),
        "dtdurations" => age(value),
        "bytes" => bytes(value),
        _ => scaled(value),
    }
}

/// At most three digits, without trailing zeros.
fn plain(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 || size == 0.0 => 3,
        _ => 6,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn scaled(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{} G", plain(value / 1e9)),
        size if size >= 1e6 => format!("{} M", plain(value / 1e6)),
        size if size >= 1e4 => format!("{} k", plain(value / 1e3)),
        _ => plain(value),
    }
}

fn seconds(value: f64) -> String {
    match value.abs() {
        0.0 => "0 s".to_owned(),
        size if size < 1e-6 => format!("{} ns", plain(value * 1e9)),
        size if size < 1e-3 => format!("{} µs", plain(value * 1e6)),
        size if size < 1.0 => format!("{} ms", plain(value * 1e3)),
        size if size < 120.0 => format!("{} s", plain(value)),
        size if size < 7200.0 => format!("{} min", plain(value / 60.0)),
        size if size < 172_800.0 => format!("{} h", plain(value / 3600.0)),
        _ => format!("{} d", plain(value / 86_400.0)),
    }
}

/// The two largest units.
fn age(value: f64) -> String {
    let (days, rest) = (value / 86_400.0, value % 86_400.0);
    let (hours, rest) = (rest / 3600.0, rest % 3600.0);
    let (minutes, seconds) = (rest / 60.0, rest % 60.0);
    match value {
        value if value >= 86_400.0 => format!("{:.0}d {:.0}h", days.floor(), hours.floor()),
        value if value >= 3600.0 => format!("{:.0}h {:.0}m", hours.floor(), minutes.floor()),
        value if value >= 60.0 => format!("{:.0}m {:.0}s", minutes.floor(), seconds.floor()),
        _ => format!("{} s", plain(seconds.round())),
    }
}

fn bytes(value: f64) -> String {
    match value.abs() {
        size if size >= f64::from(1 << 30) => format!("{} GiB", plain(value / f64::from(1 << 30))),
        size if size >= f64::from(1 << 20) => format!("{} MiB", plain(value / f64::from(1 << 20))),
        size if size >= 1024.0 => format!("{} KiB", plain(value / 1024.0)),
        _ => format!("{} B", plain(value)),
    }
}

/// Marks of an axis from `low` or below to `high` or above, with steps of 1, 2 or 5 times a power of ten.
pub(super) fn marks(low: f64, high: f64) -> Vec<f64> {
    let high = if high > low { high } else { low + 1.0 };
    let span = high - low;
    let power = 10f64.powf((span / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| span / step <= 4.5);
    let step = step.unwrap_or(10.0 * power);
    let mut marks = vec![(low / step).floor() * step];
    // The limit of 20 marks keeps the loop finite for any numbers.
    while let Some(last) = marks.last().copied().filter(|last| *last < high && marks.len() < 20) {
        marks.push(last + step);
    }
    marks
}

/// Hours and minutes of a Unix time in UTC. Adds seconds if the range is too short for minutes.
pub(super) fn clock(unix: f64, range: &Range) -> String {
    let minutes = (unix / 60.0).floor();
    let text = format!("{:02.0}:{:02.0}", (minutes / 60.0).floor() % 24.0, minutes % 60.0);
    if range.end - range.start < 600.0 { format!("{text}:{:02.0}", (unix % 60.0).floor()) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_in_their_units() {
        for (value, unit, text) in [
            (0.5, "percentunit", "50 %"),
            (1234.0, "short", "1234"),
            (12_345.0, "short", "12.3 k"),
            (0.25, "cps", "0.25 /s"),
            (0.0042, "s", "4.2 ms"),
            (90_061.0, "dtdurations", "1d 1h"),
            (125.0, "dtdurations", "2m 5s"),
            (17_825_792.0, "bytes", "17 MiB"),
            (100.0, "short", "100"),
            (f64::NAN, "s", "NaN"),
        ] {
            assert_eq!(number(value, unit), text, "{value} in {unit}");
        }
    }

    #[test]
    fn a_few_marks_span_the_values() {
        for (low, high) in [(0.0, 1.0), (0.0, 7.0), (0.0, 0.0), (0.0, 12_345.0), (-3.0, 3.0), (5.0, 5.0)] {
            let marks = marks(low, high);
            assert!((2..=8).contains(&marks.len()), "{low} to {high}: {marks:?}");
            assert!(marks[0] <= low && marks[marks.len() - 1] >= high, "{low} to {high}: {marks:?}");
        }
        assert!(marks(0.0, f64::INFINITY).len() <= 20);
    }

    #[test]
    fn a_clock_shows_utc_with_seconds_for_short_ranges() {
        let range = |end: f64| Range { start: 0.0, end, step: 1.0 };
        assert_eq!(clock(86_400.0 + 3_667.0, &range(3600.0)), "01:01");
        assert_eq!(clock(86_400.0 + 3_667.0, &range(60.0)), "01:01:07");
    }
}
