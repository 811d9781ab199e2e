//! Checks that rules, alerts and the dashboards of all machines read no series that fleet/prometheus-agent.yml drops.

use std::{collections::BTreeSet, fs};

use crate::dashboards::{alerts, board::Board, catalogue::Catalogue, files, promql, rules};

/// The names that the file's regular expressions match. Each expression has the form `beginning(one|other)`.
fn dropped() -> BTreeSet<String> {
    let path = files::folder().with_file_name("fleet").join("prometheus-agent.yml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let expressions = text.lines().filter_map(|line| line.trim().strip_prefix("regex: "));
    let expand = |expression: &str| -> Vec<String> {
        let (beginning, rest) = expression.split_once('(').expect("a list of names");
        let list = rest.strip_suffix(')').expect("the list ends the expression");
        list.split('|').map(|end| format!("{beginning}{end}")).collect()
    };
    expressions.flat_map(expand).collect()
}

/// Queries that read a dropped metric, or the processes of a namespace in another state than zombie, which are dropped
/// too.
fn broken<'a>(queries: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let dropped = dropped();
    let is_broken = |query: &&str| {
        let reads_dropped = promql::uses(query).metrics.iter().any(|(name, _)| dropped.contains(name));
        let mut processes = query.split("pidns_namespace_processes{").skip(1);
        reads_dropped
            || processes.any(|rest| !rest.split('}').next().unwrap_or("").contains("state=\"zombie\""))
    };
    queries.filter(is_broken).collect()
}

fn of_board(board: &Board) -> Vec<String> {
    board.panels().flat_map(|panel| panel.targets.iter().map(|target| target.query.clone())).collect()
}

#[test]
fn what_is_dropped_is_documented() {
    let catalogue = Catalogue::read().expect("docs/metrics.md");
    let names = dropped();
    assert!(names.len() >= 10, "{names:?}");
    for name in names.iter().filter(|name| !name.starts_with("scrape_")) {
        let metric = name.split(';').next().expect("a name");
        assert!(catalogue.series(metric).is_some(), "{name} is no metric of docs/metrics.md");
    }
}

#[test]
fn rules_and_alerts_and_the_dashboards_of_all_machines_read_nothing_that_is_dropped() {
    for group in [rules::groups(), alerts::groups()].iter().flatten() {
        let queries = group.rules.iter().map(|rule| rule.query.as_str());
        assert_eq!(broken(queries), [""; 0], "{}", group.name);
    }
    for board in files::boards().iter().filter(|board| ["fleet", "agent"].contains(&board.name)) {
        let queries = of_board(board);
        assert_eq!(broken(queries.iter().map(String::as_str)), [""; 0], "{}", board.name);
    }
}

#[test]
fn a_query_of_what_is_dropped_is_found() {
    for query in [
        "sum(pidns_namespace_threads)",
        "sum without (state) (pidns_namespace_processes{})",
        "pidns_namespace_processes{state=\"zombie\"} / pidns_namespace_processes{state=\"running\"}",
    ] {
        assert_eq!(broken([query].into_iter()), [query]);
    }
    assert_eq!(broken(["pidns_namespace_processes{job=\"x\", state=\"zombie\"} > 0"].into_iter()), [""; 0]);
}
