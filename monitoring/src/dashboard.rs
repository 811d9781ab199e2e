//! Reads the queries and the layout of Grafana dashboards.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{Client, Error, Range, Series, process::of_file};

/// A dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Its title.
    pub title: String,
    /// Headings and panels in the order of the file.
    pub panels: Vec<Panel>,
}

/// A panel, or a heading (kind `row`).
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its title.
    pub title: String,
    /// Grafana's name for the kind of panel: `timeseries`, `stat`, `row` …
    pub kind: String,
    /// Position in a grid of 24 columns: x, y, width, height.
    pub place: [u32; 4],
    /// Its queries; a heading has none.
    pub targets: Vec<Target>,
    /// The text that the panel shows without data.
    pub no_data: String,
    /// The panel's whole JSON.
    pub json: Value,
}

/// A query of a panel.
#[derive(Clone, Debug)]
pub struct Target {
    /// A, B, C …
    pub ref_id: String,
    /// PromQL, with variables in it.
    pub query: String,
    /// The template of its legend.
    pub legend: String,
    /// Whether the panel shows only the newest values.
    pub instant: bool,
}

impl Dashboard {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`], and [`Error::Dashboard`] if the file lacks a part that this reader needs.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(of_file("read", path))?;
        let problem = |problem: String| Error::Dashboard { path: path.to_owned(), problem };
        let json: Value = serde_json::from_str(&text).map_err(|error| problem(error.to_string()))?;
        let panels = json["panels"].as_array().ok_or_else(|| problem("no panels".to_owned()))?;
        let panels = panels.iter().map(Panel::of).collect::<Option<_>>();
        Ok(Self {
            title: json["title"].as_str().unwrap_or_default().to_owned(),
            panels: panels.ok_or_else(|| problem("a panel lacks kind, place or query".to_owned()))?,
        })
    }
}

impl Panel {
    fn of(json: &Value) -> Option<Self> {
        let place = ["x", "y", "w", "h"]
            .map(|side| json["gridPos"][side].as_u64().and_then(|n| u32::try_from(n).ok()));
        let [Some(x), Some(y), Some(w), Some(h)] = place else { return None };
        let targets =
            json["targets"].as_array().into_iter().flatten().map(Target::of).collect::<Option<_>>()?;
        Some(Self {
            title: json["title"].as_str().unwrap_or_default().to_owned(),
            kind: json["type"].as_str()?.to_owned(),
            place: [x, y, w, h],
            targets,
            no_data: json["fieldConfig"]["defaults"]["noValue"].as_str().unwrap_or_default().to_owned(),
            json: json.clone(),
        })
    }

    /// The same range, with steps at least as long as the panel's `interval` (such as `1m`).
    pub fn range(&self, range: &Range) -> Range {
        let least = self.json["interval"].as_str().and_then(seconds).unwrap_or(0.0);
        Range { step: range.step.max(least), ..*range }
    }

    /// The results of the panel's queries, in their order.
    ///
    /// # Errors
    /// The same as [`Client::query`].
    pub fn ask(
        &self,
        client: &Client,
        variables: &Variables,
        range: &Range,
    ) -> Result<Vec<Vec<Series>>, Error> {
        let range = self.range(range);
        self.targets.iter().map(|target| target.ask(client, variables, &range)).collect()
    }
}

impl Target {
    fn of(json: &Value) -> Option<Self> {
        Some(Self {
            ref_id: json["refId"].as_str()?.to_owned(),
            query: json["expr"].as_str()?.to_owned(),
            legend: json["legendFormat"].as_str().unwrap_or_default().to_owned(),
            instant: json["instant"].as_bool().unwrap_or_default(),
        })
    }

    /// The result at the end of the range if the target is instant, else over the whole range.
    ///
    /// # Errors
    /// The same as [`Client::query`].
    pub fn ask(&self, client: &Client, variables: &Variables, range: &Range) -> Result<Vec<Series>, Error> {
        let query = variables.fill(&self.query, range);
        if self.instant { client.query(&query, Some(range.end)) } else { client.query_range(&query, range) }
    }
}

/// Values for the variables of a dashboard.
#[derive(Clone, Debug)]
pub struct Variables {
    /// Regular expressions by the name of their variable. A variable that is absent matches everything.
    pub chosen: Vec<(String, String)>,
    /// Prometheus's scrape interval in seconds. Grafana derives `$__rate_interval` from it.
    pub scrape_interval: f64,
}

impl Variables {
    /// No variable has a value, so each matches everything.
    pub fn all(scrape_interval: f64) -> Self {
        Self { chosen: Vec::new(), scrape_interval }
    }

    /// Replaces the variables of a query with their values. `$__rate_interval` follows Grafana's rule: four scrapes,
    /// or a step plus a scrape if that is longer.
    pub fn fill(&self, query: &str, range: &Range) -> String {
        let rate_interval = (4.0 * self.scrape_interval).max(range.step + self.scrape_interval);
        let milliseconds = |seconds: f64| format!("{:.0}ms", (seconds * 1000.0).max(1.0));
        let fixed = [
            ("__rate_interval", milliseconds(rate_interval)),
            ("__interval", milliseconds(range.step)),
            ("__range", milliseconds(range.end - range.start)),
        ];
        let chosen = self.chosen.iter().cloned();
        let known: Vec<(String, String)> =
            fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(chosen).collect();
        let mut out = String::new();
        let mut rest = query;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let length =
                after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
            let (name, behind) = after.split_at(length);
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                // A `$1` in label_replace.
                out.push('$');
                out.push_str(name);
            } else {
                let value = known.iter().find(|(known, _)| known == name);
                out.push_str(value.map_or(".+", |(_, value)| value));
            }
            rest = behind;
        }
        out + rest
    }
}

/// The seconds of a duration such as `30s`, `1m` or `6h`.
fn seconds(duration: &str) -> Option<f64> {
    let (number, unit) = duration.split_at(duration.len().checked_sub(1)?);
    let of_unit = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * of_unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range { start: 1000.0, end: 4600.0, step: 60.0 };

    #[test]
    fn a_panels_step_is_at_least_its_interval() {
        assert_eq!(
            ["30s", "1m", "2h", "m", "", "1y"].map(seconds),
            [Some(30.0), Some(60.0), Some(7200.0), None, None, None]
        );
    }

    #[test]
    fn variables_are_filled_in_and_regex_groups_are_kept() {
        let mut variables = Variables::all(15.0);
        variables.chosen.push(("job".to_owned(), "a|b".to_owned()));
        let query = r#"label_replace(rate(x{job=~"$job", instance=~"$instance"}[$__rate_interval]), "w", "$1", "w", "(.*)")"#;
        assert_eq!(
            variables.fill(query, &RANGE),
            r#"label_replace(rate(x{job=~"a|b", instance=~".+"}[75000ms]), "w", "$1", "w", "(.*)")"#
        );
        assert_eq!(variables.fill("increase(x[$__range])", &RANGE), "increase(x[3600000ms])");
        let short = Range { step: 5.0, ..RANGE };
        assert_eq!(variables.fill("[$__rate_interval]", &short), "[60000ms]", "four scrapes at least");
    }
}
