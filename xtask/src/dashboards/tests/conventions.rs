//! Checks the conventions of the dashboards on their JSON. Each assertion message gives the reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::dashboards::files;

/// The dashboards by their titles.
fn boards() -> Vec<(String, Value)> {
    files::boards().iter().map(|board| (board.title.to_owned(), board.json())).collect()
}

/// The panels without headings, each with a name for messages.
fn panels() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (title, board) in boards() {
        let panels = board["panels"].as_array().expect("panels").clone();
        for panel in panels.into_iter().filter(|panel| panel["type"] != "row") {
            all.push((format!("{title}: {}", panel["title"]), panel));
        }
    }
    assert!(all.len() > 40, "{} panels are too few to be all", all.len());
    all
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn queries(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().expect("targets");
    targets.iter().map(|target| text(target, "/expr")).collect()
}

#[test]
fn the_four_dashboards_have_fixed_and_distinct_addresses() {
    let uids: Vec<String> = boards().iter().map(|(_, board)| text(board, "/uid").to_owned()).collect();
    assert_eq!(
        uids,
        ["pidns-trace-fleet", "pidns-trace-node", "pidns-trace-namespace", "pidns-trace-agent"],
        "a uid is the dashboard's address in Grafana: links and bookmarks break when it changes"
    );
}

#[test]
fn every_dashboard_is_made_here_and_links_to_the_others() {
    for (title, board) in boards() {
        assert_eq!(board["editable"], false, "{title}: a change in Grafana is lost at the next provisioning");
        let version = board["schemaVersion"].as_u64().expect("a number");
        assert!((39..=42).contains(&version), "{title}: Grafana 11 and 12 read 39 to 42, not {version}");
        let tags: Vec<&str> =
            board["tags"].as_array().expect("tags").iter().filter_map(Value::as_str).collect();
        assert_eq!(tags, ["pidns-trace"], "{title}: dashboards find each other by this tag");
        let link = &board["links"][0];
        assert_eq!(link["type"], "dashboards", "{title}: the link leads to all dashboards with the tag");
        assert_eq!(link["tags"], board["tags"], "{title}: the link selects by the tag");
        assert_eq!(link["keepTime"], true, "{title}: a link keeps the time range");
        assert_eq!(link["includeVars"], true, "{title}: a link keeps the machines");
        assert!(
            !text(&board, "/description").is_empty(),
            "{title}: a list of dashboards shows its description"
        );
    }
}

#[test]
fn every_dashboard_chooses_its_data_source_jobs_and_machines() {
    for (title, board) in boards() {
        let variables = board["templating"]["list"].as_array().expect("variables");
        let of_type =
            |kind: &str| variables.iter().filter(|variable| variable["type"] == kind).collect::<Vec<_>>();
        let [source] = of_type("datasource")[..] else {
            panic!("{title}: expected one data source variable")
        };
        assert_eq!(source["name"], "datasource", "{title}: panels name the variable");
        assert_eq!(source["query"], "prometheus", "{title}: the queries are PromQL");
        let queries = of_type("query");
        let names: Vec<&str> = queries.iter().map(|variable| text(variable, "/name")).collect();
        assert_eq!(names[..2], ["job", "instance"], "{title}: every dashboard filters by these");
        for variable in queries {
            let name = text(variable, "/name");
            assert_eq!(variable["multi"], true, "{title}, {name}: several can be compared");
            assert_eq!(variable["includeAll"], true, "{title}, {name}: the user begins with all");
            assert_eq!(
                variable["allValue"], ".+",
                "{title}, {name}: a list of all values makes queries too long on a large fleet"
            );
            assert_eq!(
                variable["datasource"]["uid"], "${datasource}",
                "{title}, {name}: the values come from the chosen source"
            );
        }
    }
}

#[test]
fn every_panel_has_a_description_and_a_unit() {
    for (name, panel) in panels() {
        assert!(
            !text(&panel, "/title").is_empty(),
            "{name}: a panel needs a title, so that people can refer to it"
        );
        let description = text(&panel, "/description");
        assert!(
            description.len() > 20 && description.ends_with('.'),
            "{name}: a sentence must describe the panel"
        );
        assert!(!text(&panel, "/fieldConfig/defaults/unit").is_empty(), "{name}: a number needs a unit");
        assert!(
            text(&panel, "/fieldConfig/defaults/noValue").len() > 10,
            "{name}: an empty panel must give the reason"
        );
    }
}

/// The selectors of a query: the text in braces after a metric's name.
fn selectors(query: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some((_, after)) = rest.split_once('{') {
        let (inside, behind) = after.split_once('}').expect("braces are closed");
        found.push(inside);
        rest = behind;
    }
    found
}

#[test]
fn every_target_filters_by_job_and_machine() {
    for (name, panel) in panels() {
        for query in queries(&panel) {
            let selectors = selectors(query);
            assert!(!selectors.is_empty(), "{name}: no selector in {query}");
            for selector in selectors {
                assert!(
                    selector.starts_with(r#"job=~"$job", instance=~"$instance""#),
                    "{name}: {{{selector}}} shows machines that were not chosen"
                );
            }
            let metrics = crate::dashboards::promql::uses(query).metrics;
            let bare: Vec<_> = metrics.iter().filter(|(_, labels)| labels.is_empty()).collect();
            assert!(bare.is_empty(), "{name}: {bare:?} is not filtered");
        }
    }
}

#[test]
fn ranges_of_rates_follow_the_shown_time() {
    for (name, panel) in panels() {
        for query in queries(&panel) {
            for call in ["rate(", "increase("] {
                for (at, _) in query.match_indices(call) {
                    let range = query[at..].split_once('[').expect("a rate is over a range").1;
                    assert!(
                        range.starts_with("$__rate_interval]") || range.starts_with("$__range]"),
                        "{name}: a fixed range skips samples, or finds none, at another zoom: {query}"
                    );
                }
            }
        }
    }
}

#[test]
fn panels_have_the_chosen_source_a_unique_id_and_a_free_place() {
    for (title, board) in boards() {
        let panels = board["panels"].as_array().expect("panels");
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
        assert_eq!(ids.len(), panels.len(), "{title}: a link to a panel contains its id");
        let mut cells: BTreeMap<(u64, u64), &Value> = BTreeMap::new();
        for panel in panels {
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
            assert!(x + w <= 24, "{title}: {} is wider than Grafana's grid", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                let other = cells.insert(cell, &panel["title"]);
                assert!(other.is_none(), "{title}: {} overlaps {:?}", panel["title"], other);
            }
            if panel["type"] != "row" {
                assert_eq!(
                    panel["datasource"]["uid"], "${datasource}",
                    "{title}: the panel must use the chosen source"
                );
                let targets = panel["targets"].as_array().expect("targets");
                let sources = targets.iter().filter(|target| target["datasource"]["uid"] == "${datasource}");
                assert_eq!(sources.count(), targets.len(), "{title}: every query must use the chosen source");
                let refs: BTreeSet<&str> = targets.iter().map(|target| text(target, "/refId")).collect();
                assert_eq!(refs.len(), targets.len(), "{title}: the refId identifies a query");
            }
        }
    }
}

#[test]
fn titles_within_a_dashboard_differ() {
    for (title, board) in boards() {
        let panels = board["panels"].as_array().expect("panels");
        let mut seen = BTreeSet::new();
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            assert!(
                seen.insert(panel["title"].to_string()),
                "{title}: two panels are named {}",
                panel["title"]
            );
        }
    }
}
