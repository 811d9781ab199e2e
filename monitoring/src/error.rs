//! Errors of this crate.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

/// Why Prometheus, Alertmanager or a dashboard could not be used.
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
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// The failed action.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
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
        /// The time waited.
        after: Duration,
        /// Its last output.
        log: String,
    },
    /// A query returned no result in time.
    #[error("`{query}` returned no result within {after:?}")]
    NoResult {
        /// The query.
        query: String,
        /// The time waited.
        after: Duration,
    },
    /// The connection failed.
    #[error("cannot talk to {address}: {source}")]
    Connection {
        /// The server.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// The answer does not have Prometheus's format.
    #[error("{address} answered {path} with {problem}")]
    Answer {
        /// The server.
        address: SocketAddr,
        /// The requested path.
        path: String,
        /// The error in the answer.
        problem: String,
    },
    /// The metrics that a server exports about itself lack this one.
    #[error("{address} does not export the metric {name} about itself")]
    NoMetric {
        /// The server.
        address: SocketAddr,
        /// The metric.
        name: String,
    },
    /// Prometheus refused a query.
    #[error("prometheus refuses `{query}`: {reason}")]
    Query {
        /// The query.
        query: String,
        /// Prometheus's error.
        reason: String,
    },
    /// A file is not a dashboard.
    #[error("{} is not a Grafana dashboard: {problem}", path.display())]
    Dashboard {
        /// The file.
        path: PathBuf,
        /// The missing part.
        problem: String,
    },
}
