//! Shortens the times in dashboards/alerts.yml, so that a test can wait for the alerts.
//!
//! Only durations change: those in brackets, those after `for` and `offset`, and two numbers of seconds in
//! expressions. Minutes become seconds. Hours become ten seconds: otherwise the alert about leaks, which compares
//! with six hours ago, would take six minutes. As with scrapes once a minute, each range still has at least ten
//! scrapes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::scenario::Scenario;
use crate::{Test, promtool, tests};

pub(crate) const TESTS: &[Test] = tests![
    shortened_rules_are_valid,
    only_durations_are_shortened,
    no_rule_fails,
    every_alert_has_a_situation,
];

/// Seconds in expressions, and their replacements.
const IN_SECONDS: [(&str, &str); 2] = [("> 900)", "> 15)"), ("2 * 3600)", "2 * 10)")];

/// The directory dashboards/.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("dashboards")
}

fn alerts() -> String {
    let path = folder().join("alerts.yml");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes the alerts with shorter times to this directory.
pub(crate) fn write_shortened(folder: &Path) -> PathBuf {
    let path = folder.join("alerts.yml");
    fs::write(&path, shortened(&alerts())).expect("write the alerts");
    path
}

/// The rules with shorter times.
fn shortened(rules: &str) -> String {
    let mut text = rules.to_owned();
    for (seconds, shorter) in IN_SECONDS {
        assert!(text.contains(seconds), "alerts.yml must compare with {seconds}");
        text = text.replace(seconds, shorter);
    }
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let digits = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (number, behind) = from.split_at(digits);
        let unit = behind.chars().next().unwrap_or(' ');
        let ends = behind.chars().nth(1).is_none_or(|c| !c.is_ascii_alphanumeric());
        let begins = before.ends_with(['[', '"', ' ']);
        let seconds = match unit {
            'm' => Some(1),
            'h' => Some(10),
            'd' => Some(240),
            _ => None,
        };
        out.push_str(before);
        match seconds.filter(|_| begins && ends) {
            Some(seconds) => {
                let number: u32 = number.parse().expect("digits");
                out.push_str(&format!("{}s", number * seconds));
                rest = &behind[1..];
            }
            None => {
                out.push_str(number);
                rest = behind;
            }
        }
    }
    out + rest
}

fn shortened_rules_are_valid(scenario: &Scenario) {
    let path = scenario.folder.join("alerts.yml");
    promtool::run(&["check", "rules", path.to_str().expect("UTF-8")], "");
}

fn only_durations_are_shortened(_: &Scenario) {
    let short =
        shortened("increase(a_rate5m[15m]) offset 6h > 4\nfor: \"5m\" # 10 minutes, 2 * 3600) > 900) 1d");
    assert_eq!(short, "increase(a_rate5m[15s]) offset 60s > 4\nfor: \"5s\" # 10 minutes, 2 * 10) > 15) 240s");
    let (long, short) = (alerts(), shortened(&alerts()));
    let without = |text: &str| text.replace(|c: char| c.is_ascii_digit() || "smhd".contains(c), "");
    let plain =
        |text: &str| IN_SECONDS.iter().fold(text.to_owned(), |text, (long, _)| text.replace(long, ""));
    let short_plain = IN_SECONDS.iter().fold(short.clone(), |text, (_, short)| text.replace(short, ""));
    assert_eq!(without(&plain(&long)), without(&short_plain));
    for unit in ["m", "h", "d"] {
        let is_left = |end: &str| {
            short
                .match_indices(&format!("{unit}{end}"))
                .any(|(at, _)| short[..at].ends_with(|c: char| c.is_ascii_digit()))
        };
        assert!(!is_left("]") && !is_left("\"") && !is_left(")"), "a duration in {unit} is left:\n{short}");
    }
}

fn no_rule_fails(scenario: &Scenario) {
    assert_eq!(scenario.prometheus.rule_errors().expect("rules"), [""; 0]);
}

/// Names and severities of all alerts.
pub(crate) fn names() -> Vec<(String, String)> {
    let text = alerts();
    let value = |line: &str| Some(line.split('"').nth(1)?.to_owned());
    let starting = |word: &'static str| {
        text.lines().filter(move |line| line.trim_start().starts_with(word)).filter_map(value)
    };
    starting("- alert:").zip(starting("severity:")).collect()
}

fn every_alert_has_a_situation(scenario: &Scenario) {
    let played: Vec<_> =
        scenario.situations.iter().map(|one| (one.alert.to_owned(), one.severity.to_owned())).collect();
    let mut names = names();
    assert!(names.len() >= 12, "{names:?}");
    names.retain(|alert| !played.contains(alert));
    assert!(names.is_empty(), "no situation for {names:?}");
}
