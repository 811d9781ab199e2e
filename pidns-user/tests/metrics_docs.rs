//! Checks that docs/metrics.md and the program have the same metrics, with the same types and labels.

use std::collections::BTreeMap;

use pidns_user::metrics::catalog::{self, Kind, is_of_the_process};

/// Type and labels of each metric, by name.
type Metrics = BTreeMap<String, (String, Vec<String>)>;

fn documented() -> Metrics {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));
    let text = text.expect("read docs/metrics.md");
    let table = text.lines().skip_while(|line| !line.starts_with("| name | type |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`').to_owned();
        let labels = cells[2].split(',').map(str::trim).filter(|label| !label.is_empty());
        (name, (cells[1].to_owned(), labels.map(str::to_owned).collect()))
    });
    rows.collect()
}

#[test]
fn the_documentation_and_the_program_have_the_same_metrics() {
    let mut documented = documented();
    assert!(documented.len() > 40, "the table has only {} rows", documented.len());
    documented.retain(|name, _| !is_of_the_process(name));
    let known: Metrics = catalog::ALL
        .iter()
        .map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
            (metric.name.to_owned(), (kind.to_owned(), labels))
        })
        .collect();
    for (name, metric) in &known {
        assert_eq!(documented.get(name), Some(metric), "{name} in docs/metrics.md");
    }
    let undefined: Vec<_> = documented.keys().filter(|name| !known.contains_key(*name)).collect();
    assert!(undefined.is_empty(), "documented, but not in the program: {undefined:?}");
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    for metric in catalog::ALL {
        let is_counter = metric.kind == Kind::Counter;
        assert_eq!(metric.name.ends_with("_total"), is_counter, "{}", metric.name);
        assert!(!metric.name.contains("_ns_"), "{} looks like nanoseconds", metric.name);
        assert!(metric.help.ends_with('.'), "the help of {} must be a sentence", metric.name);
    }
}
