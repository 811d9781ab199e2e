//! Sends every query of the dashboards to a real Prometheus that has every metric of docs/metrics.md.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pidns_monitoring::{Client, Dashboard, Range, Series, Variables};

use crate::{
    dashboards::{files, pictures, sample},
    workspace,
};

/// Panels that are empty if there is no fault.
const EMPTY: [&str; 1] = ["Agents down"];

/// The labels of a legend's template.
fn labels(legend: &str) -> Vec<&str> {
    legend.split("{{").skip(1).filter_map(|part| Some(part.split_once("}}")?.0)).collect()
}

#[test]
fn every_panel_has_data_if_every_metric_exists() {
    let folder = workspace::target_dir().expect("target").join("dashboards-queries");
    let prometheus = sample::prometheus(&folder, 3600).expect("a Prometheus with data");
    // The rules are evaluated once a second, one after the other.
    let wait = Duration::from_secs(20);
    prometheus.wait_for("cluster:pidns_namespace_teardown_seconds:p99_1h", wait).expect("rules");
    prometheus.wait_for("cluster:pidns_namespace_creations:rate5m", wait).expect("rules on rules");
    assert_eq!(prometheus.rule_errors().expect("rules"), [""; 0], "some rules cannot be evaluated");
    let end = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let range = Range { start: end - 3000.0, end, step: 30.0 };
    let variables = Variables::all(f64::from(sample::STEP));
    let mut asked = 0;
    for board in files::boards() {
        let path = files::folder().join(format!("{}.json", board.name));
        let dashboard = Dashboard::read(&path).expect("a dashboard");
        for panel in dashboard.panels.iter().filter(|panel| panel.kind != "row") {
            let place = format!("{}: {}", dashboard.title, panel.title);
            for target in &panel.targets {
                let series = target
                    .ask(&prometheus, &variables, &range)
                    .unwrap_or_else(|error| panic!("{place}: {error}"));
                asked += 1;
                let is_empty = EMPTY.contains(&panel.title.as_str());
                assert_eq!(series.is_empty(), is_empty, "{place}: {}", target.query);
                check_names(&place, &panel.json, &target.legend, &series);
                let is_number = |series: &Series| series.points.iter().any(|(_, value)| value.is_finite());
                assert!(
                    series.iter().all(is_number),
                    "{place}: the result of {} is not a number",
                    target.query
                );
            }
        }
    }
    for query in documented_queries() {
        let series =
            prometheus.query(&query, None).unwrap_or_else(|error| panic!("docs/metrics.md: {error}"));
        assert!(!series.is_empty(), "docs/metrics.md: {query} has no result");
    }
    pictures_show_every_panel(&prometheus, &variables, &range);
    assert!(asked > 80, "{asked} queries are too few to be all");
    drop(prometheus);
    fs::remove_dir_all(&folder).expect("remove the directory");
}

/// The queries that docs/metrics.md recommends.
fn documented_queries() -> Vec<String> {
    let path = files::folder().with_file_name("docs").join("metrics.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let block =
        text.split("## Useful queries").nth(1).and_then(|text| text.split("```").nth(1)).expect("queries");
    let mut queries: Vec<String> = Vec::new();
    for line in block.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match queries.last_mut().filter(|_| line.starts_with(' ')) {
            // This line continues a query.
            Some(query) => query.push_str(line),
            None => queries.push(line.to_owned()),
        }
    }
    assert!(queries.len() >= 8, "{queries:?}");
    queries
}

fn pictures_show_every_panel(client: &Client, variables: &Variables, range: &Range) {
    for board in files::boards() {
        let dashboard =
            Dashboard::read(&files::folder().join(format!("{}.json", board.name))).expect("a dashboard");
        let picture =
            pictures::page(&dashboard, client, variables, range, "MADE-UP DATA").expect("a picture");
        assert!(picture.contains("not by Grafana"), "a picture must say that it is not a screenshot");
        for panel in &dashboard.panels {
            assert!(
                picture.contains(&format!(">{}</text>", panel.title)),
                "{}: {}",
                dashboard.title,
                panel.title
            );
        }
        for number in ["NaN", "inf"] {
            let is_drawn_with =
                picture.lines().filter(|line| line.starts_with("<path") || line.starts_with("<rect"));
            let bad: Vec<&str> = is_drawn_with.filter(|line| line.contains(number)).collect();
            assert!(bad.is_empty(), "{}: {number} is not a position: {bad:?}", dashboard.title);
        }
        let [opened, closed] = ["<text", "</text>"].map(|tag| picture.matches(tag).count());
        assert_eq!(opened, closed, "{}", dashboard.title);
    }
}

/// The labels in legends and table columns must exist, because Grafana would show an empty name.
fn check_names(place: &str, panel: &serde_json::Value, legend: &str, series: &[Series]) {
    let Some(first) = series.first() else { return };
    for label in labels(legend) {
        assert!(
            first.labels.contains_key(label),
            "{place}: the legend's {label} is not a label of {:?}",
            first.labels
        );
    }
    let columns =
        panel.pointer("/transformations/1/options/include/names").and_then(|names| names.as_array());
    for column in columns.into_iter().flatten().filter_map(|name| name.as_str()) {
        // Prometheus drops empty labels.
        let is_there = series.iter().any(|series| series.labels.contains_key(column));
        assert!(
            column.starts_with("Value") || is_there,
            "{place}: the column {column} is not a label of {:?}",
            first.labels
        );
    }
}
