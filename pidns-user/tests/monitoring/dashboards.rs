//! Sends every query of the dashboards to a Prometheus that has scraped real agents.

use pidns_monitoring::{Dashboard, Panel, Range, Series, Variables};

use crate::scenario::Scenario;
use crate::{Test, rules, tests};

pub(crate) const TESTS: &[Test] = tests![
    every_panel_has_data_from_real_agents,
    the_variables_of_dashboards_list_the_nodes,
    a_dashboard_shows_one_several_or_all_nodes,
    a_dashboard_shows_one_namespace,
    the_query_of_each_panel_works_for_an_unknown_node,
];

const NAMES: [&str; 4] = ["fleet", "node", "namespace", "agent"];

/// Panels that may be empty, and the reason.
const MAY_BE_EMPTY: [(&str, &str); 3] = [
    ("Processes that wait uninterruptibly", "no situation makes a process wait so on purpose"),
    ("Failed lookups of containers", "no situation starts a container"),
    ("Corrections by snapshots", "a model that lost nothing needs none"),
];

fn dashboards() -> impl Iterator<Item = Dashboard> {
    NAMES.into_iter().map(|name| {
        let path = rules::folder().join(format!("{name}.json"));
        Dashboard::read(&path).unwrap_or_else(|error| panic!("{error}"))
    })
}

fn panels(dashboard: &Dashboard) -> impl Iterator<Item = &Panel> {
    dashboard.panels.iter().filter(|panel| panel.kind != "row")
}

/// The time from the quiet period until all causes of alerts existed at the same time.
fn all_of_it(scenario: &Scenario) -> Range {
    Range { start: scenario.quiet.0 + 5.0, end: scenario.height, step: 2.0 }
}

/// All values of all variables, for a Prometheus that scrapes once a second.
fn everything() -> Variables {
    Variables::all(1.0)
}

/// These values of a variable, in the regular expression that Grafana writes.
fn chosen(variable: &str, values: &[&str]) -> Variables {
    let escaped: Vec<String> = values.iter().map(|value| value.replace('.', "\\\\.")).collect();
    let expression = if escaped.len() == 1 { escaped[0].clone() } else { format!("({})", escaped.join("|")) };
    Variables { chosen: vec![(variable.to_owned(), expression)], ..everything() }
}

fn ask(
    scenario: &Scenario,
    dashboard: &Dashboard,
    panel: &Panel,
    variables: &Variables,
    range: &Range,
) -> Vec<Vec<Series>> {
    panel
        .ask(&scenario.prometheus, variables, range)
        .unwrap_or_else(|error| panic!("{}: {}: {error}", dashboard.title, panel.title))
}

fn every_panel_has_data_from_real_agents(scenario: &Scenario) {
    let mut asked = 0;
    let mut problems = Vec::new();
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let title = panel.title.as_str();
            let mut range = all_of_it(scenario);
            if title == "Agents down" {
                range.end = scenario.down;
            }
            let results = ask(scenario, &dashboard, panel, &everything(), &range);
            asked += results.len();
            let is_listed = |list: &[(&str, &str)]| list.iter().any(|(listed, _)| *listed == title);
            for (target, series) in panel.targets.iter().zip(results) {
                let has_number = |series: &Series| series.points.iter().any(|(_, value)| value.is_finite());
                let has_data = series.iter().any(has_number);
                if !has_data && !is_listed(&MAY_BE_EMPTY) {
                    problems.push(format!("{}: {title}: no data: {}", dashboard.title, target.query));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(asked > 80, "{asked} queries are too few to be all");
}

/// The values that a variable offers, from its query `label_values(SELECTOR, LABEL)`.
fn values(scenario: &Scenario, dashboard: &str, variable: &str) -> Vec<String> {
    let path = rules::folder().join(format!("{dashboard}.json"));
    let text = std::fs::read_to_string(&path).expect("read the dashboard");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let list = json.pointer("/templating/list").and_then(|list| list.as_array()).expect("variables");
    let variable = list.iter().find(|one| one["name"] == variable).expect("the dashboard has this variable");
    let query = variable.pointer("/query/query").and_then(|query| query.as_str()).expect("a query");
    let inside =
        query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect("label_values");
    let (selector, label) = inside.rsplit_once(", ").expect("a selector and a label");
    let query = everything().fill(&format!("group by ({label}) ({selector})"), &all_of_it(scenario));
    let series =
        scenario.prometheus.query(&query, Some(scenario.height)).unwrap_or_else(|error| panic!("{error}"));
    let mut values: Vec<String> = series.iter().map(|one| one.label(label).to_owned()).collect();
    values.sort();
    values
}

fn nodes(scenario: &Scenario) -> Vec<String> {
    let mut nodes: Vec<String> = scenario.situations[0].instances.clone();
    nodes.sort();
    nodes
}

fn the_variables_of_dashboards_list_the_nodes(scenario: &Scenario) {
    for name in NAMES {
        assert_eq!(values(scenario, name, "job"), ["pidns-trace"], "{name}");
        assert_eq!(values(scenario, name, "instance"), nodes(scenario), "{name}");
    }
    assert!(values(scenario, "namespace", "pidns").len() >= 8);
}

/// The number of machines that one panel counts, and the machines that all panels name.
fn shown(scenario: &Scenario, variables: &Variables) -> (f64, Vec<String>) {
    let (mut counted, mut named) = (0.0, Vec::new());
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let results = ask(scenario, &dashboard, panel, variables, &all_of_it(scenario));
            if panel.title == "Machines up" {
                counted = results[0][0].last().expect("a number");
            }
            let instances = results.iter().flatten().map(|series| series.label("instance").to_owned());
            named.extend(instances.filter(|instance| !instance.is_empty()));
        }
    }
    named.sort();
    named.dedup();
    (counted, named)
}

fn a_dashboard_shows_one_several_or_all_nodes(scenario: &Scenario) {
    let nodes = nodes(scenario);
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    for some in [&names[..1], &names[1..]] {
        let (counted, named) = shown(scenario, &chosen("instance", some));
        assert_eq!(
            (counted, named.as_slice()),
            (some.len() as f64, some.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>().as_slice())
        );
    }
    assert_eq!(shown(scenario, &everything()), (3.0, nodes.clone()));
}

fn a_dashboard_shows_one_namespace(scenario: &Scenario) {
    let zombies = scenario
        .situations
        .iter()
        .find(|one| one.alert == "PidnsZombiesNotReaped")
        .expect("the situation was run");
    let (_, pidns) = &zombies.labels[0];
    let dashboard = dashboards().nth(2).expect("the dashboard of namespaces");
    for panel in panels(&dashboard) {
        let results = ask(scenario, &dashboard, panel, &chosen("pidns", &[pidns]), &all_of_it(scenario));
        let of_others = results.iter().flatten().find(|one| !["", pidns].contains(&one.label("pidns")));
        assert!(of_others.is_none(), "{}: {of_others:?}", panel.title);
        let number = results[0].first().and_then(Series::last);
        match panel.title.as_str() {
            // Three agents see the same namespace.
            "Shown" => assert_eq!(number, Some(3.0)),
            "Zombies" => assert_eq!(number, Some(25.0)),
            _ => {}
        }
    }
}

fn the_query_of_each_panel_works_for_an_unknown_node(scenario: &Scenario) {
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let results =
                ask(scenario, &dashboard, panel, &chosen("instance", &["nowhere:1"]), &all_of_it(scenario));
            assert!(results.iter().all(Vec::is_empty), "{}: {results:?}", panel.title);
        }
    }
}
