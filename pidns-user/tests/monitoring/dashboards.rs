//! Every query of the dashboards, of a Prometheus that has scraped real agents.

use pidns_monitoring::{Dashboard, Panel, Range, Series, Variables};

use crate::play::Play;
use crate::{Test, rules, tests};

pub(crate) const TESTS: &[Test] = tests![
    every_panel_has_data_of_real_agents,
    the_variables_of_dashboards_list_the_nodes,
    a_dashboard_shows_one_node_or_several_or_all,
    a_dashboard_shows_one_namespace,
    the_query_of_each_panel_works_for_a_node_that_is_not_there,
];

const NAMES: [&str; 4] = ["fleet", "node", "namespace", "agent"];

/// Panels that may have data or not, and why.
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

/// From the quiet time until all causes of alerts were there at once.
fn all_of_it(play: &Play) -> Range {
    Range { start: play.quiet.0 + 5.0, end: play.height, step: 2.0 }
}

/// All, of a Prometheus that scrapes once a second.
fn everything() -> Variables {
    Variables::all(1.0)
}

/// These values of a variable, as Grafana writes them into a regular expression.
fn chosen(variable: &str, values: &[&str]) -> Variables {
    let escaped: Vec<String> = values.iter().map(|value| value.replace('.', "\\\\.")).collect();
    let expression = if escaped.len() == 1 { escaped[0].clone() } else { format!("({})", escaped.join("|")) };
    Variables { chosen: vec![(variable.to_owned(), expression)], ..everything() }
}

fn ask(
    play: &Play,
    dashboard: &Dashboard,
    panel: &Panel,
    variables: &Variables,
    range: &Range,
) -> Vec<Vec<Series>> {
    panel
        .ask(&play.prometheus, variables, range)
        .unwrap_or_else(|error| panic!("{}: {}: {error}", dashboard.title, panel.title))
}

fn every_panel_has_data_of_real_agents(play: &Play) {
    let mut asked = 0;
    let mut problems = Vec::new();
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let title = panel.title.as_str();
            let mut range = all_of_it(play);
            if title == "Agents down" {
                range.end = play.down;
            }
            let results = ask(play, &dashboard, panel, &everything(), &range);
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
fn values(play: &Play, dashboard: &str, variable: &str) -> Vec<String> {
    let path = rules::folder().join(format!("{dashboard}.json"));
    let text = std::fs::read_to_string(&path).expect("a dashboard");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let list = json.pointer("/templating/list").and_then(|list| list.as_array()).expect("variables");
    let variable = list.iter().find(|one| one["name"] == variable).expect("this variable");
    let query = variable.pointer("/query/query").and_then(|query| query.as_str()).expect("a query");
    let inside =
        query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect("label_values");
    let (selector, label) = inside.rsplit_once(", ").expect("a selector and a label");
    let query = everything().fill(&format!("group by ({label}) ({selector})"), &all_of_it(play));
    let series = play.prometheus.query(&query, Some(play.height)).unwrap_or_else(|error| panic!("{error}"));
    let mut values: Vec<String> = series.iter().map(|one| one.label(label).to_owned()).collect();
    values.sort();
    values
}

fn nodes(play: &Play) -> Vec<String> {
    let mut nodes: Vec<String> = play.situations[0].instances.clone();
    nodes.sort();
    nodes
}

fn the_variables_of_dashboards_list_the_nodes(play: &Play) {
    for name in NAMES {
        assert_eq!(values(play, name, "job"), ["pidns-trace"], "{name}");
        assert_eq!(values(play, name, "instance"), nodes(play), "{name}");
    }
    assert!(values(play, "namespace", "pidns").len() >= 8);
}

/// The machines that a panel of this dashboard counts, and those that all panels name.
fn shown(play: &Play, variables: &Variables) -> (f64, Vec<String>) {
    let (mut counted, mut named) = (0.0, Vec::new());
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let results = ask(play, &dashboard, panel, variables, &all_of_it(play));
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

fn a_dashboard_shows_one_node_or_several_or_all(play: &Play) {
    let nodes = nodes(play);
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    for some in [&names[..1], &names[1..]] {
        let (counted, named) = shown(play, &chosen("instance", some));
        assert_eq!(
            (counted, named.as_slice()),
            (some.len() as f64, some.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>().as_slice())
        );
    }
    assert_eq!(shown(play, &everything()), (3.0, nodes.clone()));
}

fn a_dashboard_shows_one_namespace(play: &Play) {
    let zombies =
        play.situations.iter().find(|one| one.alert == "PidnsZombiesNotReaped").expect("it was played");
    let (_, pidns) = &zombies.labels[0];
    let dashboard = dashboards().nth(2).expect("that of namespaces");
    for panel in panels(&dashboard) {
        let results = ask(play, &dashboard, panel, &chosen("pidns", &[pidns]), &all_of_it(play));
        let of_others = results.iter().flatten().find(|one| !["", pidns].contains(&one.label("pidns")));
        assert!(of_others.is_none(), "{}: {of_others:?}", panel.title);
        let number = results[0].first().and_then(Series::last);
        match panel.title.as_str() {
            // The same namespace, as three agents see it.
            "Shown" => assert_eq!(number, Some(3.0)),
            "Zombies" => assert_eq!(number, Some(25.0)),
            _ => {}
        }
    }
}

fn the_query_of_each_panel_works_for_a_node_that_is_not_there(play: &Play) {
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let results = ask(play, &dashboard, panel, &chosen("instance", &["nowhere:1"]), &all_of_it(play));
            assert!(results.iter().all(Vec::is_empty), "{}: {results:?}", panel.title);
        }
    }
}
