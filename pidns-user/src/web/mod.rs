//! The HTTP server of the agent: pages, TLS, passwords and limits. What it serves is a [`Site`], which the caller brings.
//!
//! It is HTTP/1.1 by hyper alone: five fixed paths need no router, and the limits need the connection itself. There is no
//! HTTP/2: clients agree on HTTP/1.1 with it during the TLS handshake.

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

/// What is served. Its methods are called from several threads at once.
pub trait Site: Send + Sync + 'static {
    /// All metrics now. May take its time: it runs in a thread for this, at most [`Limits::scrapes`] at once.
    ///
    /// # Errors
    /// The client gets 503 or 500 with the reason.
    fn metrics(&self, format: Format) -> Result<Vec<u8>, SiteError>;

    /// The state of the agent for `/status`. Runs in the same threads as [`Site::metrics`].
    fn status(&self) -> serde_json::Value;

    /// Whether the agent works, for `/healthz`. Must not wait for anything.
    ///
    /// # Errors
    /// The reason why it does not: the client gets it with 503.
    fn health(&self) -> Result<(), String>;

    /// Whether the agent has what a scrape needs, for `/readyz`. Must not wait for anything.
    ///
    /// # Errors
    /// The reason why it is not ready yet: the client gets it with 503.
    fn readiness(&self) -> Result<(), String>;
}

/// How metrics are written. There is no OpenMetrics: the crate `prometheus` 0.14 writes text and protobuf only.
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

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// There will be some soon: 503.
    #[error("the metrics are not ready: {0}")]
    NotReady(String),
    /// Something went wrong: 500.
    #[error("cannot collect the metrics: {0}")]
    Failed(String),
}

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// The addresses to listen on: at least one.
    pub listen: Vec<SocketAddr>,
    /// The path of the metrics, `/metrics` by default. Begins with `/` and is none of the other pages.
    pub telemetry_path: String,
    /// TLS, passwords and headers, in the format of the Prometheus exporter toolkit (`--web.config.file`).
    pub config_file: Option<PathBuf>,
    /// The page `/`.
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
    /// Where it leads.
    pub address: String,
    /// Its text.
    pub text: String,
}

/// What bounds the work and the memory that clients can cause.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections. One more closes the one that has waited longest for a request, or whose client reads slowest; where
    /// all are busy, it waits in the kernel's queue.
    pub connections: usize,
    /// Scrapes at once. Each has a thread, which is started with the server: a scrape works where no PID is left for a thread.
    pub scrapes: usize,
    /// How long a scrape waits for one of those to end, before it gets 503.
    pub scrape_wait: Duration,
    /// How long a client waits for an answer in all, before it gets 503.
    pub answer_time: Duration,
    /// The request line and the headers of a request, in bytes: 431 beyond.
    pub header_bytes: usize,
    /// From the connection, or the first byte of a later request, to the end of its headers.
    pub header_time: Duration,
    /// From one answer to the next request.
    pub idle_time: Duration,
    /// For the client to read an answer.
    pub read_time: Duration,
    /// Bytes of all answers that clients have not read yet. Beyond it, the slowest reader is cut off; if all have had less than a
    /// second, the new answer is 503. A single answer may be longer, and one up to 16 KiB is always sent.
    pub unread_bytes: usize,
    /// For the TLS handshake.
    pub handshake_time: Duration,
    /// For answers that are under way when the server stops.
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
