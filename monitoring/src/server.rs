//! Starts a private Prometheus on a free loopback port, with its own directory, and stops it on drop.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

pub use crate::process::free_address;
use crate::{
    Client, Error,
    process::{POLL, Process, of_file},
};

/// The directory for samples, in the directory of a Prometheus.
const DATA: &str = "data";

/// The configuration of a Prometheus.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// Directory for configuration, data and log. Created if missing; existing data in `data/` is kept.
    pub folder: &'a Path,
    /// The jobs that it scrapes.
    pub jobs: Vec<Job>,
    /// Rule files, which it evaluates as often as it scrapes.
    pub rules: Vec<PathBuf>,
    /// The scrape interval.
    pub interval: Duration,
    /// The Alertmanager that gets firing alerts.
    pub alertmanager: Option<SocketAddr>,
}

impl<'a> Setup<'a> {
    /// No jobs yet; scrapes every second.
    pub fn in_folder(folder: &'a Path) -> Self {
        Self {
            folder,
            jobs: Vec::new(),
            rules: Vec::new(),
            interval: Duration::from_secs(1),
            alertmanager: None,
        }
    }

    /// The content of prometheus.yml.
    fn configuration(&self) -> String {
        let interval = format!("{}ms", self.interval.as_millis());
        let mut out = format!(
            "global:\n  scrape_interval: {interval}\n  scrape_timeout: {interval}\n  evaluation_interval: {interval}\n"
        );
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let section = |out: &mut String, name: &str, is_empty: bool| {
            let _ = writeln!(out, "{name}:{}", if is_empty { " []" } else { "" });
        };
        section(&mut out, "rule_files", self.rules.is_empty());
        for rules in &self.rules {
            let _ = writeln!(out, "  - {}", quoted(&rules.to_string_lossy()));
        }
        if let Some(address) = self.alertmanager {
            let _ = writeln!(
                out,
                "alerting:\n  alertmanagers:\n    - static_configs:\n        - targets: [{}]",
                quoted(&address.to_string())
            );
        }
        section(&mut out, "scrape_configs", self.jobs.is_empty());
        for job in &self.jobs {
            let targets: Vec<String> = job.targets.iter().map(|target| quoted(target)).collect();
            // The metrics keep their own labels, as dashboards/README.md recommends.
            let _ = writeln!(
                out,
                "  - job_name: {}\n    honor_labels: true\n    static_configs:\n      - targets: [{}]",
                quoted(&job.name),
                targets.join(", ")
            );
        }
        out
    }
}

/// Addresses that are scraped under one job name.
#[derive(Clone, Debug)]
pub struct Job {
    /// The label `job`.
    pub name: String,
    /// HOST:PORT of each target, which becomes the label `instance`. The path is /metrics.
    pub targets: Vec<String>,
}

impl Job {
    /// A job with these targets.
    pub fn new<T: Into<String>>(name: &str, targets: impl IntoIterator<Item = T>) -> Self {
        Self { name: name.to_owned(), targets: targets.into_iter().map(Into::into).collect() }
    }
}

/// A running Prometheus. Dereferences to its [`Client`]. Stopped on drop or when the thread that started it ends.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    client: Client,
}

impl Deref for Prometheus {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Prometheus {
    /// Starts Prometheus, and waits until it answers queries.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Start`], [`Error::File`], and [`Error::EndedEarly`] or [`Error::NotReady`]
    /// with the end of its log.
    pub fn start(setup: &Setup<'_>) -> Result<Self, Error> {
        let arguments = vec![
            format!("--storage.tsdb.path={}", setup.folder.join(DATA).display()),
            // Test data may have any timestamp.
            "--storage.tsdb.retention.time=100y".to_owned(),
        ];
        let (process, client) = start(setup.folder, &setup.configuration(), arguments)?;
        Ok(Self { process, client })
    }

    /// The process's PID.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Repeats the query until it returns a series.
    ///
    /// # Errors
    /// [`Error::NoResult`] after `timeout`, and the same as [`Client::query`].
    pub fn wait_for(&self, query: &str, timeout: Duration) -> Result<Vec<crate::Series>, Error> {
        let start = Instant::now();
        loop {
            let series = self.query(query, None)?;
            if !series.is_empty() {
                return Ok(series);
            }
            if start.elapsed() >= timeout {
                return Err(Error::NoResult { query: query.to_owned(), after: timeout });
            }
            thread::sleep(POLL);
        }
    }
}

/// A running Prometheus in agent mode: it scrapes metrics and sends them to another server. It neither answers queries
/// nor evaluates rules. Dereferences to its [`Client`], which reads the metrics that this Prometheus exports about
/// itself. Stopped like a [`Prometheus`].
#[derive(Debug)]
pub struct PrometheusAgent {
    _process: Process,
    client: Client,
}

impl Deref for PrometheusAgent {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl PrometheusAgent {
    /// Starts Prometheus with this configuration and these options, and waits until it is ready. The options must
    /// switch agent mode on. Configuration, data and log are written to `folder`.
    ///
    /// # Errors
    /// As [`Prometheus::start`].
    pub fn start(folder: &Path, configuration: &str, options: &[String]) -> Result<Self, Error> {
        let mut arguments = options.to_vec();
        arguments.push(format!("--storage.agent.path={}", folder.join(DATA).display()));
        let (process, client) = start(folder, configuration, arguments)?;
        Ok(Self { _process: process, client })
    }
}

/// Starts Prometheus with this configuration and these arguments, and waits until it is ready. Configuration and log
/// are written to `folder`.
fn start(folder: &Path, configuration: &str, mut arguments: Vec<String>) -> Result<(Process, Client), Error> {
    const PROGRAM: &str = "prometheus";
    fs::create_dir_all(folder).map_err(of_file("create the directory", folder))?;
    let file = folder.join("prometheus.yml");
    fs::write(&file, configuration).map_err(of_file("write", &file))?;
    let address = free_address().map_err(|error| Error::Start { program: PROGRAM, error })?;
    arguments.extend([
        format!("--config.file={}", file.display()),
        format!("--web.listen-address={address}"),
        // With a higher threshold, a failed start logs no reason.
        "--log.level=warn".to_owned(),
    ]);
    let mut process = Process::start(PROGRAM, &arguments, &folder.join("prometheus.log"))?;
    let client = Client::new(address);
    // The first attempts fail, because the server does not listen yet.
    process.wait_until(|| matches!(client.is_ready(), Ok(true)))?;
    Ok((process, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_jobs_targets_and_rules() {
        let setup = Setup {
            jobs: vec![Job::new("pidns-trace", ["127.0.0.1:1", "127.0.0.1:2"])],
            rules: vec![PathBuf::from("/tmp/rules.yml")],
            alertmanager: Some(([127, 0, 0, 1], 3).into()),
            ..Setup::in_folder(Path::new("/nonexistent"))
        };
        assert_eq!(
            setup.configuration(),
            "global:\n  scrape_interval: 1000ms\n  scrape_timeout: 1000ms\n  evaluation_interval: 1000ms\n\
             rule_files:\n  - \"/tmp/rules.yml\"\nalerting:\n  alertmanagers:\n    - static_configs:\n        \
             - targets: [\"127.0.0.1:3\"]\nscrape_configs:\n  - job_name: \"pidns-trace\"\n    honor_labels: true\n    \
             static_configs:\n      - targets: [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n"
        );
    }
}
