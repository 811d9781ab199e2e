//! Checks the rule files with promtool.

use std::{collections::BTreeSet, fs};

use crate::dashboards::{alerts, files, promtool, rules};

#[test]
fn rules_and_alerts_pass_the_checks_and_tests_of_promtool() {
    promtool::check().expect("promtool accepts the rules");
}

fn tests(name: &str) -> String {
    let path = files::folder().join("tests").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_alert_is_tested_to_fire_and_to_be_silent() {
    let text = tests("alerts.yml");
    let (mut fires, mut is_silent) = (BTreeSet::new(), BTreeSet::new());
    for case in text.split("- alertname: ").skip(1) {
        let name = case.lines().next().expect("a name");
        let expected =
            case.lines().find_map(|line| line.trim().strip_prefix("exp_alerts:")).expect("what is expected");
        if expected.trim() == "[]" {
            is_silent.insert(name)
        } else {
            fires.insert(name)
        };
    }
    let all: BTreeSet<&str> = alerts::names().into_iter().collect();
    assert_eq!(fires, all, "each alert must fire in a case of dashboards/tests/alerts.yml");
    assert_eq!(is_silent, all, "each alert must be silent in a case of dashboards/tests/alerts.yml");
}

#[test]
fn every_recording_rule_is_tested() {
    let text = tests("rules.yml");
    for rule in rules::groups().iter().flat_map(|group| &group.rules) {
        assert!(text.contains(&format!("- expr: {}\n", rule.name)), "{} has no test", rule.name);
    }
}
