//! What arrives at a webhook: through rules, Prometheus and Alertmanager, from events in the kernel.

use std::fs;

use crate::play::Play;
use crate::{Test, rules, tests};

pub(crate) const TESTS: &[Test] = tests![
    every_alert_arrives_at_the_webhook_and_later_its_resolution,
    notifications_have_fault_place_and_remedy,
];

fn every_alert_arrives_at_the_webhook_and_later_its_resolution(play: &Play) {
    let received = play.webhook.received();
    for situation in &play.situations {
        for instance in &situation.instances {
            let mut all = received.iter().filter(|one| situation.is_notified_by(one, instance));
            let place = format!("{} ({}) of {instance}", situation.alert, situation.severity);
            let first = all.next().unwrap_or_else(|| panic!("{place} did not arrive"));
            assert!(!first.is_resolved, "{place} fires first");
            assert!(all.next_back().is_some_and(|last| last.is_resolved), "{place} was not resolved");
        }
    }
}

fn notifications_have_fault_place_and_remedy(play: &Play) {
    let runbook =
        fs::read_to_string(rules::folder().with_file_name("docs").join("runbook.md")).expect("a runbook");
    let headings: Vec<String> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase).collect();
    let received = play.webhook.received();
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
            annotation("runbook_url").split_once("/runbook.md#").expect("a place in the runbook");
        assert!(headings.iter().any(|heading| heading == anchor), "no section {anchor}");
        let text = annotation("summary").to_owned() + annotation("description");
        match notification.labels.get("instance") {
            Some(instance) => assert!(text.contains(instance.as_str()), "no node in {notification:?}"),
            // Of no node at all, where Prometheus has no agent to scrape yet: a busy machine starts them late.
            None => assert_eq!(notification.labels["alertname"], "PidnsTraceDown", "{notification:?}"),
        }
    }
}
