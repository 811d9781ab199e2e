//! Errors of starting the server and of its configuration.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

/// Why the server cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// No address was given.
    #[error("no address to listen on: give one with --web.listen-address")]
    NoAddress,
    /// An address is not available.
    #[error("cannot listen on {address}: {error}{}", advice(error))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The kernel's error.
        error: io::Error,
    },
    /// The metrics cannot have this path.
    #[error("cannot serve the metrics at {path:?}: {reason}; choose another --web.telemetry-path")]
    TelemetryPath {
        /// The path.
        path: String,
        /// The reason.
        reason: String,
    },
    /// An error in the configuration file, or in a file that it names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A thread for scrapes or passwords cannot be started.
    #[error(
        "cannot start a thread of the web server: {0}; raise pids.max of the agent's cgroup, or TasksMax= of its unit"
    )]
    Thread(io::Error),
    /// The runtime cannot use the listening sockets.
    #[error("cannot wait for connections: {0}")]
    Accept(io::Error),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has this port: `ss -ltnp` shows it, choose another with --web.listen-address"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this network namespace has this address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// An error in the configuration file, or in a file that it names.
#[derive(Debug)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line of the error, from 1, if it has one.
    pub line: Option<u64>,
    /// The error, and what to do.
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(file: impl Into<PathBuf>, message: impl fmt::Display) -> Self {
        Self { file: file.into(), line: None, message: message.to_string() }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}
