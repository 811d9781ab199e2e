//! Dashboards of Grafana, as far as their queries and their layout go.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{Client, Error, Range, Series};

/// A dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Its title.
    pub title: String,
    /// Headings and panels, in their order.
    pub panels: Vec<Panel>,
}

/// A panel, or a heading (kind `row`).
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its title.
    pub title: String,
    /// Grafana's name of its kind: `timeseries`, `stat`, `row` …
    pub kind: String,
    /// Its place in a grid of 24 columns: x, y, width, height.
    pub place: [u32; 4],
    /// Its queries; a heading has none.
    pub targets: Vec<Target>,
    /// What stands in it without data.
    pub no_data: String,
    /// All of its JSON.
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
    /// Whether the newest values are all that it is for.
    pub instant: bool,
}

impl Dashboard {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`], and [`Error::Dashboard`] where a part is missing that is needed here.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::File {
            what: "read",
            path: path.to_owned(),
            source,
        })?;
        let problem = |problem: String| Error::Dashboard { path: path.to_owned(), problem };
        let json: Value = serde_json::from_str(&text).map_err(|error| problem(error.to_string()))?;
        let panels = json["panels"].as_array().ok_or_else(|| problem("it has no panels".to_owned()))?;
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

    /// The range with steps as long as the panel wants them at least (its `interval`, such as `1m`).
    pub fn range(&self, range: &Range) -> Range {
        let least = self.json["interval"].as_str().and_then(seconds).unwrap_or(0.0);
        Range { step: range.step.max(least), ..*range }
    }

    /// The results of its queries, in their order.
    ///
    /// # Errors
    /// As [`Client::query`].
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

    /// The result: at the end of the range, or over it, as the target wants it.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub fn ask(&self, client: &Client, variables: &Variables, range: &Range) -> Result<Vec<Series>, Error> {
        let query = variables.fill(&self.query, range);
        if self.instant { client.query(&query, Some(range.end)) } else { client.query_range(&query, range) }
    }
}

/// What stands for the variables of a dashboard.
#[derive(Clone, Debug)]
pub struct Variables {
    /// Regular expressions by name; a variable that is not here matches everything.
    pub chosen: Vec<(String, String)>,
    /// How often Prometheus scrapes, in seconds, by which Grafana chooses `$__rate_interval`.
    pub scrape_interval: f64,
}

impl Variables {
    /// All of everything, scraped that often.
    pub fn all(scrape_interval: f64) -> Self {
        Self { chosen: Vec::new(), scrape_interval }
    }

    /// A query with values in the place of its variables. `$__rate_interval` is Grafana's: four scrapes, or a step and a
    /// scrape if that is longer.
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
                // `$1` of label_replace.
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
    fn the_step_of_a_panel_is_as_long_as_it_wants_it() {
        assert_eq!(
            ["30s", "1m", "2h", "m", "", "1y"].map(seconds),
            [Some(30.0), Some(60.0), Some(7200.0), None, None, None]
        );
    }

    #[test]
    fn variables_are_filled_in_and_groups_of_expressions_are_left() {
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
