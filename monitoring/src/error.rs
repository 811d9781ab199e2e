//! Errors of this crate.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

/// Why a server or a dashboard could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error("{program} is not on PATH: `cargo xtask setup` installs it (Debian's package {package})")]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// The program could not be started.
    #[error("cannot start {program}: {error}")]
    Start {
        /// The program.
        program: &'static str,
        /// The operating system's error.
        error: io::Error,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {error}", path.display())]
    File {
        /// The failed action.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The program ended before it was ready.
    #[error("{program} ended before it was ready ({status}); the end of its log:\n{log}")]
    EndedEarly {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: String,
        /// Its last output.
        log: String,
    },
    /// The program did not get ready in time.
    #[error("{program} was not ready after {after:?}; the end of its log:\n{log}")]
    NotReady {
        /// The program.
        program: &'static str,
        /// The waiting time.
        after: Duration,
        /// Its last output.
        log: String,
    },
    /// A query returned no result in time.
    #[error("`{query}` returned no result within {after:?}")]
    NoResult {
        /// The query.
        query: String,
        /// The waiting time.
        after: Duration,
    },
    /// The connection failed.
    #[error("cannot talk to {address}: {error}")]
    Connection {
        /// The server.
        address: SocketAddr,
        /// The operating system's error.
        error: io::Error,
    },
    /// The answer has another status or format than expected.
    #[error("{address} answered {path} with {problem}")]
    Answer {
        /// The server.
        address: SocketAddr,
        /// The requested path.
        path: String,
        /// The error in the answer.
        problem: String,
    },
    /// The metrics that a server exports about itself have no such series.
    #[error("{address} does not export the metric {name}{} about itself", matchers(labels))]
    NoMetric {
        /// The server.
        address: SocketAddr,
        /// The metric.
        name: String,
        /// The labels that a series must have, each as `name="value"`.
        labels: Vec<String>,
    },
    /// The server refused a query.
    #[error("{address} refuses `{query}`: {reason}")]
    Query {
        /// The server.
        address: SocketAddr,
        /// The query, the name of a label, or `rules`.
        query: String,
        /// The server's error.
        reason: String,
    },
    /// A file is not a dashboard.
    #[error("{} is not a Grafana dashboard: {problem}", path.display())]
    Dashboard {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
}

/// The labels as PromQL writes them behind the name of a metric.
fn matchers(labels: &[String]) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_metric_is_named_with_the_requested_labels() {
        let missing = |labels: &[&str]| {
            let labels = labels.iter().copied().map(str::to_owned).collect();
            let address = ([127, 0, 0, 1], 1).into();
            Error::NoMetric { address, name: "rows".to_owned(), labels }.to_string()
        };
        assert_eq!(missing(&[]), "127.0.0.1:1 does not export the metric rows about itself");
        assert_eq!(
            missing(&["a=\"b\"", "c=\"d\""]),
            "127.0.0.1:1 does not export the metric rows{a=\"b\",c=\"d\"} about itself"
        );
    }
}
