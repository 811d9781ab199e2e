//! Notifications at the webhook. They lead from kernel events through rules, Prometheus and Alertmanager.

use std::fs;

use crate::scenario::Scenario;
use crate::{Test, rules, tests};

pub(crate) const TESTS: &[Test] =
    tests![every_alert_and_its_resolution_arrive_at_the_webhook, notifications_name_fault_place_and_remedy,];

fn every_alert_and_its_resolution_arrive_at_the_webhook(scenario: &Scenario) {
    let received = scenario.webhook.received();
    for situation in &scenario.situations {
        for instance in &situation.instances {
            let mut all = received.iter().filter(|one| situation.is_notified_by(one, instance));
            let place = format!("{} ({}) on {instance}", situation.alert, situation.severity);
            let first = all.next().unwrap_or_else(|| panic!("{place} did not arrive"));
            assert!(!first.is_resolved, "{place} must fire first");
            assert!(all.next_back().is_some_and(|last| last.is_resolved), "{place} was not resolved");
        }
    }
}

fn notifications_name_fault_place_and_remedy(scenario: &Scenario) {
    let runbook = fs::read_to_string(rules::folder().with_file_name("docs").join("runbook.md"))
        .expect("read the runbook");
    let headings: Vec<String> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase).collect();
    let received = scenario.webhook.received();
    assert!(!received.is_empty());
    for notification in &received {
        let annotation = |name: &str| {
            let text = notification.annotations.get(name);
            text.unwrap_or_else(|| panic!("no {name} in {notification:?}")).as_str()
        };
        for name in ["summary", "description"] {
            let text = annotation(name);
            let is_filled_in = !text.is_empty() && !text.contains("{{") && !text.contains("no value");
            assert!(is_filled_in, "{name}: {text:?}");
        }
        let (_, anchor) =
            annotation("runbook_url").split_once("/runbook.md#").expect("an address in the runbook");
        assert!(headings.iter().any(|heading| heading == anchor), "no section {anchor}");
        let text = annotation("summary").to_owned() + annotation("description");
        match notification.labels.get("instance") {
            Some(instance) => assert!(text.contains(instance.as_str()), "no node in {notification:?}"),
            // If Prometheus has no agent to scrape yet, the alert has no instance. A busy machine starts agents late.
            None => assert_eq!(notification.labels["alertname"], "PidnsTraceDown", "{notification:?}"),
        }
    }
}
