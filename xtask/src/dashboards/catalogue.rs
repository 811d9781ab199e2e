//! The metrics that docs/metrics.md lists, and those that the recording rules make.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use super::{promql, rules};

/// A metric's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// A metric: its type, and its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) kind: Type,
    pub(crate) labels: Vec<String>,
}

/// All metrics by name. A histogram has the name without suffix.
#[derive(Debug)]
pub(crate) struct Catalogue(pub(crate) BTreeMap<String, Metric>);

/// The metrics that Prometheus adds for each target.
const OF_PROMETHEUS: [&str; 2] = ["up", "scrape_duration_seconds"];

impl Catalogue {
    /// Reads the table of docs/metrics.md, and adds the other metrics that queries may use.
    pub(crate) fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("metrics.md");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut metrics = Self::parse(&text).with_context(|| format!("in {}", path.display()))?;
        let mut gauge = |name: &str, labels: Vec<String>| {
            metrics.insert(name.to_owned(), Metric { kind: Type::Gauge, labels });
        };
        for name in OF_PROMETHEUS {
            gauge(name, Vec::new());
        }
        for rule in rules::groups().iter().flat_map(|group| &group.rules) {
            gauge(
                rule.name,
                promql::uses(&rule.query).grouping.into_iter().filter(|label| label != "le").collect(),
            );
        }
        Ok(Self(metrics))
    }

    /// The rows of the table: a name in backticks, a type, labels.
    pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, Metric>> {
        let mut metrics = BTreeMap::new();
        let rows = text.lines().skip_while(|line| !line.starts_with("| name | type | labels |")).skip(2);
        for row in rows.take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [_, name, kind, labels, _unit, _meaning, _] = cells[..] else {
                bail!("this row does not have five cells: {row}")
            };
            let name = name.trim_matches('`');
            let kind = match kind {
                "counter" => Type::Counter,
                "gauge" => Type::Gauge,
                "histogram" => Type::Histogram,
                other => bail!("{name} has the type {other:?}, which is unknown"),
            };
            let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
            let before = metrics.insert(name.to_owned(), Metric { kind, labels });
            ensure!(before.is_none(), "{name} has two rows");
        }
        ensure!(!metrics.is_empty(), "there is no table of metrics");
        Ok(metrics)
    }
}

#[cfg(test)]
impl Catalogue {
    /// The metric of a series, and the labels of its series except job and instance.
    pub(crate) fn series(&self, name: &str) -> Option<(&Metric, Vec<&str>)> {
        let part_of = |suffix: &str| {
            let metric = self.0.get(name.strip_suffix(suffix)?)?;
            (metric.kind == Type::Histogram).then_some(metric)
        };
        let whole = self.0.get(name).filter(|metric| metric.kind != Type::Histogram);
        let bucket = part_of("_bucket");
        let metric = whole.or(bucket).or_else(|| part_of("_sum")).or_else(|| part_of("_count"))?;
        let labels = metric.labels.iter().map(String::as_str).chain(bucket.map(|_| "le"));
        Some((metric, labels.collect()))
    }

    /// The metrics in a query that do not exist, and the labels that their metrics do not have.
    pub(crate) fn missing(&self, query: &str) -> Vec<String> {
        let uses = promql::uses(query);
        let mut problems = Vec::new();
        let mut known = vec!["job", "instance"];
        known.extend(uses.made.iter().map(String::as_str));
        for (name, selected_by) in &uses.metrics {
            let Some((_, labels)) = self.series(name) else {
                problems.push(format!("{name} is not in docs/metrics.md"));
                continue;
            };
            for label in selected_by {
                if !["job", "instance"].contains(&label.as_str()) && !labels.contains(&label.as_str()) {
                    problems.push(format!("{name} has no label {label} by docs/metrics.md"));
                }
            }
            known.extend(labels);
        }
        let unknown = uses.grouping.iter().filter(|label| !known.contains(&label.as_str()));
        problems.extend(unknown.map(|label| format!("no metric of the query has the label {label}")));
        problems
    }
}
