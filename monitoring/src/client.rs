//! Queries a Prometheus, or a server that answers like one.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::Value;

use crate::{Error, http, samples};

/// Time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends queries to one server: a Prometheus, a VictoriaMetrics or a vmalert.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
}

/// Points in time every `step` seconds from `start` to `end`, which are Unix times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The first point.
    pub start: f64,
    /// The last point.
    pub end: f64,
    /// Seconds between two points.
    pub step: f64,
}

/// A series: its labels, and its values by Unix time. An instant query gives one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Labels by name. `__name__` is the name of the metric.
    pub labels: BTreeMap<String, String>,
    /// Unix times in seconds, and values.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// The newest value.
    pub fn last(&self) -> Option<f64> {
        self.points.last().map(|(_, value)| *value)
    }

    /// A label's value. As in PromQL, it is empty if there is no such label.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

impl Client {
    /// A client of the server that listens at this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// The address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the server is ready.
    ///
    /// # Errors
    /// [`Error::Connection`] if no server listens.
    pub fn is_ready(&self) -> Result<bool, Error> {
        Ok(self.get("/-/ready", Duration::from_secs(2))?.status == 200)
    }

    /// The result of a query at a Unix time in seconds, or now.
    ///
    /// # Errors
    /// [`Error::Query`] if the server refuses the query, [`Error::Connection`] and [`Error::Answer`] if it gives no
    /// valid answer.
    pub fn query(&self, query: &str, at: Option<f64>) -> Result<Vec<Series>, Error> {
        let at = at.map(|at| at.to_string());
        let mut parameters = vec![("query", query)];
        parameters.extend(at.as_deref().map(|at| ("time", at)));
        self.series(query, &http::path_with("/api/v1/query", &parameters))
    }

    /// The results of a query over time.
    ///
    /// # Errors
    /// The same as [`Client::query`].
    pub fn query_range(&self, query: &str, range: &Range) -> Result<Vec<Series>, Error> {
        let [start, end, step] = [range.start, range.end, range.step].map(|number| number.to_string());
        let parameters = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        self.series(query, &http::path_with("/api/v1/query_range", &parameters))
    }

    /// All values of a label.
    ///
    /// # Errors
    /// The same as [`Client::query`].
    pub fn label_values(&self, label: &str) -> Result<Vec<String>, Error> {
        let path = format!("/api/v1/label/{label}/values");
        let data = self.data(label, &path)?;
        let values = data.as_array().ok_or_else(|| self.malformed(&path, "no list of values"))?;
        Ok(values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// The rules that the server could not evaluate, each with its error.
    ///
    /// # Errors
    /// The same as [`Client::query`].
    pub fn rule_errors(&self) -> Result<Vec<String>, Error> {
        let path = "/api/v1/rules";
        let data = self.data("rules", path)?;
        let groups = data["groups"].as_array().ok_or_else(|| self.malformed(path, "no groups of rules"))?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        let of_rule = |rule: &Value| {
            let error = rule["lastError"].as_str().filter(|error| !error.is_empty())?;
            Some(format!("{}: {error}", rule["name"].as_str().unwrap_or("?")))
        };
        Ok(rules.filter_map(of_rule).collect())
    }

    /// The sum of a metric that the server exports about itself, over its series with all of these labels
    /// (`name="value"`).
    ///
    /// # Errors
    /// [`Error::NoMetric`] if there is no such series, and the same as [`Client::query`].
    pub fn own_metric(&self, name: &str, labels: &[&str]) -> Result<f64, Error> {
        let path = "/metrics";
        let response = self.get(path, TIMEOUT)?;
        if response.status != 200 {
            return Err(self.malformed(path, &format!("status {}", response.status)));
        }
        samples::sum(&response.body, name, labels).ok_or_else(|| Error::NoMetric {
            address: self.address,
            name: name.to_owned(),
            labels: labels.iter().copied().map(str::to_owned).collect(),
        })
    }

    /// Makes a VictoriaMetrics show all received samples to queries, and merge its files on disk.
    ///
    /// # Errors
    /// [`Error::Connection`], and [`Error::Answer`] if the server is not a VictoriaMetrics.
    pub fn force_flush_and_merge(&self) -> Result<(), Error> {
        for path in ["/internal/force_flush", "/internal/force_merge"] {
            let status = self.get(path, TIMEOUT)?.status;
            if status != 200 {
                return Err(self.malformed(path, &format!("status {status}")));
            }
        }
        Ok(())
    }

    fn series(&self, query: &str, path: &str) -> Result<Vec<Series>, Error> {
        let data = self.data(query, path)?;
        read_series(&data).ok_or_else(|| self.malformed(path, "a result that holds no series"))
    }

    fn data(&self, query: &str, path: &str) -> Result<Value, Error> {
        let response = self.get(path, TIMEOUT)?;
        let Ok(mut answer) = serde_json::from_str::<Value>(&response.body) else {
            return Err(self.malformed(path, &format!("status {} and no JSON", response.status)));
        };
        if answer["status"] == "success" {
            return Ok(answer["data"].take());
        }
        let reason = answer["error"].as_str().unwrap_or("no reason given").to_owned();
        Err(Error::Query { address: self.address, query: query.to_owned(), reason })
    }

    fn get(&self, path: &str, timeout: Duration) -> Result<http::Response, Error> {
        http::get(self.address, path, timeout)
            .map_err(|error| Error::Connection { address: self.address, error })
    }

    fn malformed(&self, path: &str, problem: &str) -> Error {
        Error::Answer { address: self.address, path: path.to_owned(), problem: problem.to_owned() }
    }
}

/// Reads series from a result that Prometheus calls a vector, a matrix or a scalar.
fn read_series(data: &Value) -> Option<Vec<Series>> {
    let result = &data["result"];
    if data["resultType"] == "scalar" {
        return Some(vec![Series { labels: BTreeMap::new(), points: vec![read_point(result)?] }]);
    }
    result.as_array()?.iter().map(read_one).collect()
}

fn read_one(series: &Value) -> Option<Series> {
    let label = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    let labels = series["metric"].as_object()?.iter().map(label).collect::<Option<_>>()?;
    let points = match series["values"].as_array() {
        Some(points) => points.iter().map(read_point).collect::<Option<_>>()?,
        None => vec![read_point(&series["value"])?],
    };
    Some(Series { labels, points })
}

/// Reads a Unix time and a value. The value is a string, because JSON has no infinity.
fn read_point(point: &Value) -> Option<(f64, f64)> {
    let value = match point[1].as_str()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().ok()?,
    };
    Some((point[0].as_f64()?, value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn vectors_matrices_and_scalars_are_series() {
        let vector =
            json!({ "resultType": "vector", "result": [{ "metric": { "a": "b" }, "value": [1.5, "NaN"] }] });
        let series = read_series(&vector).expect("a vector");
        assert_eq!(series[0].label("a"), "b");
        assert_eq!(series[0].label("absent"), "");
        assert!(series[0].last().is_some_and(f64::is_nan));
        let matrix = json!({
            "resultType": "matrix",
            "result": [{ "metric": {}, "values": [[1, "2"], [2, "+Inf"]] }],
        });
        assert_eq!(read_series(&matrix).expect("a matrix")[0].points, [(1.0, 2.0), (2.0, f64::INFINITY)]);
        let scalar = json!({ "resultType": "scalar", "result": [1, "3"] });
        assert_eq!(read_series(&scalar).expect("a scalar")[0].last(), Some(3.0));
        assert_eq!(read_series(&json!({ "resultType": "vector", "result": 1 })), None);
    }
}
