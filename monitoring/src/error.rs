//! What can go wrong.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

/// Why Prometheus, Alertmanager or a dashboard could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there.
    #[error("{program} is not on PATH: `cargo xtask setup` installs it (Debian's package of that name)")]
    NotInstalled {
        /// The program, and the package.
        program: &'static str,
    },
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: &'static str,
        /// What came back.
        source: io::Error,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// The program ended while it was waited for.
    #[error("{program} ended before it was ready ({status}); the end of its log:\n{log}")]
    EndedEarly {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: String,
        /// Its last output.
        log: String,
    },
    /// The program did not get ready.
    #[error("{program} was not ready after {after:?}; the end of its log:\n{log}")]
    NotReady {
        /// The program.
        program: &'static str,
        /// How long it was waited for.
        after: Duration,
        /// Its last output.
        log: String,
    },
    /// A query had no result for too long.
    #[error("`{query}` had no result for {after:?}")]
    NoResult {
        /// The query.
        query: String,
        /// How long it was asked.
        after: Duration,
    },
    /// There is no connection.
    #[error("cannot talk to {address}: {source}")]
    Connection {
        /// To whom.
        address: SocketAddr,
        /// What came back.
        source: io::Error,
    },
    /// The answer is no answer of Prometheus.
    #[error("{address} answered {path} with {problem}")]
    Answer {
        /// Who answered.
        address: SocketAddr,
        /// What was asked for.
        path: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// Prometheus refused a query.
    #[error("prometheus refuses `{query}`: {reason}")]
    Query {
        /// The query.
        query: String,
        /// Prometheus's error.
        reason: String,
    },
    /// A file is no dashboard.
    #[error("{} is no dashboard of Grafana: {problem}", path.display())]
    Dashboard {
        /// The file.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
}
