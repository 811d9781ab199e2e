//! The HTTP server of the agent: pages, TLS, passwords and limits. The caller provides the content as a [`Site`].
//!
//! It uses hyper's HTTP/1.1 directly: five fixed paths need no router, and the limits need access to the connection.
//! HTTP/2 is not supported; clients agree on HTTP/1.1 during the TLS handshake.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

mod answer;
mod body;
mod config;
mod connections;
mod encoding;
mod error;
mod landing;
mod live_config;
mod passwords;
mod paths;
mod server;
mod stream;
mod throttle;
mod workers;

pub use error::{ConfigError, WebError};
pub use server::{Handle, Server};

/// The content of the server. Several threads call its methods at the same time.
pub trait Site: Send + Sync + 'static {
    /// Returns all current metrics. It may be slow: it runs in a separate thread, in at most [`Limits::scrapes`]
    /// threads at the same time.
    ///
    /// # Errors
    /// The client gets 503 or 500 with the reason.
    fn metrics(&self, format: Format) -> Result<Vec<u8>, SiteError>;

    /// The state of the agent for `/status`. Runs in the same threads as [`Site::metrics`].
    fn status(&self) -> serde_json::Value;

    /// Whether the agent works, for `/healthz`. It must not block.
    ///
    /// # Errors
    /// The reason why it does not work; the client gets it with 503.
    fn health(&self) -> Result<(), String>;

    /// Whether the agent can answer a scrape, for `/readyz`. It must not block.
    ///
    /// # Errors
    /// The reason why it is not ready; the client gets it with 503.
    fn readiness(&self) -> Result<(), String>;
}

/// Format of the metrics. OpenMetrics is not supported: the crate `prometheus` 0.14 only writes text and protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
}

impl Format {
    /// The Content-Type of an answer in this format.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Why metrics cannot be returned.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// They will be available soon: 503.
    #[error("the metrics are not ready: {0}")]
    NotReady(String),
    /// An error occurred: 500.
    #[error("cannot collect the metrics: {0}")]
    Failed(String),
}

/// Options of the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The addresses to listen on: at least one.
    pub listen: Vec<SocketAddr>,
    /// The path of the metrics, `/metrics` by default. It begins with `/` and must differ from the other pages.
    pub telemetry_path: String,
    /// TLS, passwords and headers, in the format of the Prometheus exporter toolkit (`--web.config.file`).
    pub config_file: Option<PathBuf>,
    /// The content of the page `/`.
    pub landing: Landing,
    /// The limits.
    pub limits: Limits,
}

/// The landing page. All text is escaped.
#[derive(Clone, Debug, Default)]
pub struct Landing {
    /// The name of the program.
    pub title: String,
    /// Its version.
    pub version: String,
    /// Paragraphs above the links.
    pub paragraphs: Vec<String>,
    /// Links after those to the server's own pages.
    pub links: Vec<Link>,
}

/// A link of the landing page.
#[derive(Clone, Debug)]
pub struct Link {
    /// The target.
    pub address: String,
    /// Its text.
    pub text: String,
}

/// Limits for the work and memory that clients can cause.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Number of open connections. A further one replaces the one that has waited longest for a request, or whose
    /// client reads slowest. If all are busy, it waits in the kernel's queue.
    pub connections: usize,
    /// Number of simultaneous scrapes. Their threads are started with the server, so that a scrape works even if no PID
    /// is left for a new thread.
    pub scrapes: usize,
    /// A scrape waits this long for another one to end before it gets 503.
    pub scrape_wait: Duration,
    /// A client waits this long for an answer in total before it gets 503.
    pub answer_time: Duration,
    /// Maximum length of the request line and headers in bytes. Beyond it, the answer is 431.
    pub header_bytes: usize,
    /// Time from the connection, or the first byte of a later request, to the end of the headers.
    pub header_time: Duration,
    /// Time from an answer to the next request.
    pub idle_time: Duration,
    /// Time for the client to read an answer.
    pub read_time: Duration,
    /// Maximum length of all unread answers in bytes. Beyond it, the connection of the slowest client is closed. If all
    /// clients have had less than a second, the new answer is 503. A single answer may be longer, and an answer up to
    /// 16 KiB is always sent.
    pub unread_bytes: usize,
    /// Time for the TLS handshake.
    pub handshake_time: Duration,
    /// Time for unfinished answers when the server stops.
    pub stop_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            scrapes: 2,
            scrape_wait: Duration::from_secs(1),
            answer_time: Duration::from_secs(30),
            header_bytes: 16 * 1024,
            header_time: Duration::from_secs(5),
            idle_time: Duration::from_secs(120),
            read_time: Duration::from_secs(30),
            unread_bytes: 8 * 1024 * 1024,
            handshake_time: Duration::from_secs(5),
            stop_time: Duration::from_millis(500),
        }
    }
}
