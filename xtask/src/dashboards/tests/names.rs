//! Compares the metrics and labels in dashboards, rules and alerts with docs/metrics.md, and the anchors with the
//! runbook.

use std::{collections::BTreeSet, fs, path::Path};

use crate::dashboards::{
    alerts,
    catalogue::{Catalogue, Metric, Type},
    files, promql, rules,
};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every query of dashboards, rules and alerts, with its origin.
fn queries() -> Vec<(String, String)> {
    let boards = files::boards();
    let panels = boards.iter().flat_map(|board| board.panels().map(move |panel| (board.title, panel)));
    let of_panels = panels.flat_map(|(board, panel)| {
        panel.targets.iter().map(move |target| (format!("{board}: {}", panel.title), target.query.clone()))
    });
    let groups = [rules::groups(), alerts::groups()];
    let of_rules = groups.iter().flatten().flat_map(|group| &group.rules);
    of_panels.chain(of_rules.map(|rule| (rule.name.to_owned(), rule.query.clone()))).collect()
}

#[test]
fn every_metric_and_label_that_is_queried_is_documented() {
    let catalogue = Catalogue::read().expect("docs/metrics.md");
    let problems: Vec<String> = queries()
        .iter()
        .flat_map(|(whence, query)| {
            catalogue.missing(query).into_iter().map(move |problem| format!("{whence}: {problem}"))
        })
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_query_with_an_unknown_metric_or_label_is_found() {
    let catalogue = Catalogue::read().expect("docs/metrics.md");
    for (query, problem) in [
        ("sum(pidns_namespace_creation_total)", "pidns_namespace_creation_total is not in docs/metrics.md"),
        (r#"pidns_namespaces{status="x"}"#, "pidns_namespaces has no label status by docs/metrics.md"),
        ("sum by (runtime) (pidns_namespaces)", "no metric of the query has the label runtime"),
        ("pidns_namespace_teardown_seconds", "pidns_namespace_teardown_seconds is not in docs/metrics.md"),
        ("pidns_namespaces_bucket", "pidns_namespaces_bucket is not in docs/metrics.md"),
    ] {
        assert_eq!(catalogue.missing(query), [problem]);
    }
}

#[test]
fn every_documented_metric_is_in_a_dashboard_or_in_the_exceptions() {
    // Metrics that only queries by hand need.
    const NOT_SHOWN: [&str; 3] =
        ["pidns_thread_exits_total", "process_threads", "process_virtual_memory_bytes"];
    let catalogue = Catalogue::read().expect("docs/metrics.md");
    let all = queries();
    let used: BTreeSet<String> =
        all.iter().flat_map(|(_, query)| promql::uses(query).metrics).map(|(name, _)| name).collect();
    let is_used = |name: &str| {
        used.iter().any(|series| {
            series == name
                || series.strip_prefix(name).is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))
        })
    };
    let unused: Vec<&str> = (catalogue.0.keys())
        .map(String::as_str)
        .filter(|name| !name.contains(':') && !is_used(name) && !NOT_SHOWN.contains(name))
        .collect();
    assert!(unused.is_empty(), "{unused:?} are not shown: show them, or add them to NOT_SHOWN");
    assert!(NOT_SHOWN.iter().all(|name| !is_used(name)), "one of NOT_SHOWN is shown");
}

#[test]
fn the_names_of_metrics_follow_the_conventions_of_prometheus() {
    let catalogue = Catalogue::read().expect("docs/metrics.md");
    for (name, Metric { kind, .. }) in &catalogue.0 {
        assert_eq!(name.ends_with("_total"), *kind == Type::Counter, "{name}: only counters end in _total");
        assert!(!name.contains("_ns_"), "{name}: promtool reads nanoseconds there");
    }
}

#[test]
fn every_alert_has_summary_description_and_runbook() {
    for rule in alerts::groups().iter().flat_map(|group| &group.rules) {
        let name = rule.name;
        let annotation = |key: &str| {
            let found = rule.annotations.iter().find(|(name, _)| *name == key);
            &found.unwrap_or_else(|| panic!("{name} has no {key}")).1
        };
        assert!(rule.lasts.is_some(), "{name} fires at the first bad sample");
        let severity =
            rule.labels.iter().find(|(label, _)| *label == "severity").map(|(_, value)| value.as_str());
        assert!(
            matches!(severity, Some("critical" | "warning" | "info")),
            "{name} has the severity {severity:?}"
        );
        let in_words: usize =
            annotation("summary").split("{{").map(|part| part.rsplit("}}").next().map_or(0, str::len)).sum();
        assert!(
            in_words < 100,
            "{name}: a summary must be one line, but has {in_words} letters without its variables"
        );
        assert!(
            annotation("summary").contains("instance") || annotation("summary").contains("pidns"),
            "{name}: the summary must name the place"
        );
        assert!(annotation("description").ends_with('.'), "{name}: a description must be sentences");
        let anchor = format!("#{}", alerts::anchor(name));
        let url = annotation("runbook_url");
        assert!(
            url.starts_with("https://") && url.ends_with(&anchor),
            "{name}: {url} is not an address in the runbook"
        );
    }
}

#[test]
fn the_runbook_has_exactly_one_section_for_each_alert() {
    let runbook = read("docs/runbook.md");
    let sections: Vec<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|line| line.starts_with("Pidns"))
        .collect();
    assert_eq!(sections, alerts::names(), "the alerts' addresses lead to the headings");
}

#[test]
fn rules_are_named_by_their_level_metric_and_operation() {
    for rule in rules::groups().iter().flat_map(|group| &group.rules) {
        let parts: Vec<&str> = rule.name.split(':').collect();
        let [level, metric, _operation] = parts[..] else {
            panic!("{} does not have three parts", rule.name)
        };
        let grouping = promql::uses(&rule.query).grouping;
        assert!(metric.starts_with("pidns_"), "{}: the middle part must be a metric", rule.name);
        assert_eq!(level == "instance", grouping.contains("instance"), "{}: {grouping:?}", rule.name);
        assert!(grouping.contains("job"), "{}: rules must not mix jobs", rule.name);
    }
}
