//! A Prometheus of one's own: on a free port of the loopback interface, in a folder of one's own, ended with its value.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Client, Error};

/// How long Prometheus may take to get ready: it reads its data first.
const READY: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END: Duration = Duration::from_secs(10);
/// Between two questions whether something has come about.
const POLL: Duration = Duration::from_millis(50);

/// What a Prometheus scrapes and evaluates.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// Where configuration, data and log go. It is made if it is not there; data in it (`data/`) is used.
    pub folder: &'a Path,
    /// What it scrapes.
    pub jobs: Vec<Job>,
    /// Rule files, which it evaluates as often as it scrapes.
    pub rules: Vec<PathBuf>,
    /// How often it scrapes.
    pub interval: Duration,
}

impl<'a> Setup<'a> {
    /// One that scrapes nothing yet, once a second.
    pub fn in_folder(folder: &'a Path) -> Self {
        Self { folder, jobs: Vec::new(), rules: Vec::new(), interval: Duration::from_secs(1) }
    }

    /// prometheus.yml.
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
        section(&mut out, "scrape_configs", self.jobs.is_empty());
        for job in &self.jobs {
            let targets: Vec<String> = job.targets.iter().map(|target| quoted(target)).collect();
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

/// Addresses that are scraped under one name.
#[derive(Clone, Debug)]
pub struct Job {
    /// The label `job`.
    pub name: String,
    /// HOST:PORT of each, which is the label `instance`; the path is /metrics.
    pub targets: Vec<String>,
}

impl Job {
    /// A job of these targets.
    pub fn new<T: Into<String>>(name: &str, targets: impl IntoIterator<Item = T>) -> Self {
        Self { name: name.to_owned(), targets: targets.into_iter().map(Into::into).collect() }
    }
}

/// A running Prometheus. It is a [`Client`] of itself, and ends when it is dropped.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    client: Client,
    log: PathBuf,
}

impl Deref for Prometheus {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Prometheus {
    /// Starts one, and waits until it is ready to be asked.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Start`], [`Error::File`], and [`Error::EndedEarly`] or [`Error::NotReady`] with
    /// the end of its log.
    pub fn start(setup: &Setup<'_>) -> Result<Self, Error> {
        let program = find("prometheus").ok_or(Error::NotInstalled)?;
        let at = |name: &str| setup.folder.join(name);
        let file = |what, path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { what, path, source }
        };
        fs::create_dir_all(setup.folder).map_err(file("make the folder", setup.folder))?;
        let configuration = at("prometheus.yml");
        fs::write(&configuration, setup.configuration()).map_err(file("write", &configuration))?;
        let log = at("prometheus.log");
        let output = fs::File::create(&log).map_err(file("write", &log))?;
        let address = free_address().map_err(Error::Start)?;
        let child = Command::new(program)
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", at("data").display()))
            // Data that was made for a test may be of any time.
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--web.listen-address={address}"))
            // Below that it says nothing that helps where it does not start.
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(file("write", &log))?)
            .stderr(output)
            .spawn()
            .map_err(Error::Start)?;
        let mut prometheus = Self { child, client: Client::new(address), log };
        prometheus.wait_until_ready()?;
        Ok(prometheus)
    }

    /// The process's PID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks until there is a result, and gives that.
    ///
    /// # Errors
    /// [`Error::NoResult`] after `timeout`; and as [`Client::query`].
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

    fn wait_until_ready(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        while start.elapsed() < READY {
            if let Some(status) = self.child.try_wait().map_err(Error::Start)? {
                return Err(Error::EndedEarly { status: status.to_string(), log: self.end_of_log() });
            }
            // Nobody listens there at first.
            if matches!(self.client.is_ready(), Ok(true)) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(Error::NotReady { after: READY, log: self.end_of_log() })
    }

    /// The last lines that it logged.
    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(cannot be read: {error})"));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It may have ended by itself: then there is nobody to be asked, and the waiting returns at once.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let start = Instant::now();
        while start.elapsed() < END {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// An address of the loopback interface that was free a moment ago.
///
/// # Errors
/// Where the machine has no port left.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_jobs_targets_and_rules() {
        let setup = Setup {
            jobs: vec![Job::new("pidns-trace", ["127.0.0.1:1", "127.0.0.1:2"])],
            rules: vec![PathBuf::from("/tmp/rules.yml")],
            ..Setup::in_folder(Path::new("/nonexistent"))
        };
        assert_eq!(
            setup.configuration(),
            "global:\n  scrape_interval: 1000ms\n  scrape_timeout: 1000ms\n  evaluation_interval: 1000ms\n\
             rule_files:\n  - \"/tmp/rules.yml\"\nscrape_configs:\n  - job_name: \"pidns-trace\"\n    honor_labels: true\n    \
             static_configs:\n      - targets: [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n"
        );
    }
}
