//! Runs `pidns-trace agent`, and reads its answers.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::actor_handle::{patience, wait_in_time};
use crate::again;
use crate::program::path as program;
use crate::settings;
use crate::sys::Pid;

/// The samples of a scrape, by name and labels as they are written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(BTreeMap<String, f64>);

impl Samples {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line:?}"));
            (name.to_owned(), value.parse().unwrap_or_else(|error| panic!("{line:?}: {error}")))
        };
        Self(lines.map(sample).collect())
    }

    /// The value of a series, which must exist.
    pub(crate) fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no series {series}"))
    }

    pub(crate) fn find(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// The series that are not zero, for a failure message.
    fn not_zero(&self) -> BTreeMap<&str, f64> {
        self.0
            .iter()
            .filter(|(_, value)| **value != 0.0)
            .map(|(series, value)| (series.as_str(), *value))
            .collect()
    }

    /// The series whose names start with this text.
    pub(crate) fn starting(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        let name = name.to_owned();
        self.0
            .iter()
            .filter(move |(series, _)| series.starts_with(&name))
            .map(|(series, value)| (series.as_str(), *value))
    }
}

/// A running agent. Killed on drop.
pub(crate) struct Agent {
    process: Child,
    address: Option<SocketAddr>,
    log: Arc<Mutex<Vec<String>>>,
    log_reader: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts an agent with these arguments, and waits until it is ready.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut agent = Self::start_raw(&[&["--web.listen-address", "127.0.0.1:0"], args].concat());
        agent.address = Some(agent.wait_for_address());
        let deadline = Instant::now() + patience(20);
        while agent.get("/readyz").is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < deadline, "the agent is not ready in time:\n{}", agent.log_text());
            thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    /// Starts an agent without waiting.
    pub(crate) fn start_raw(args: &[&str]) -> Self {
        Self::start_with(Command::new(program()), args)
    }

    /// The same as `start_raw`, with the environment of this command.
    pub(crate) fn start_with(mut command: Command, args: &[&str]) -> Self {
        command.args(["agent", "--log-format", "json"]).args(args);
        settings::add_hooks(&mut command);
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = process.stderr.take().expect("stderr is a pipe");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let log_reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("no thread panics with the log").push(line);
            }
        });
        Self { process, address: None, log, log_reader: Some(log_reader) }
    }

    pub(crate) fn wait_for_address(&mut self) -> SocketAddr {
        let deadline = Instant::now() + patience(20);
        loop {
            let found = self.log.lock().expect("no thread panics with the log").iter().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == "serving").then(|| line["address"].as_str()?.parse().ok())?
            });
            if let Some(address) = found {
                return address;
            }
            let ended = self.process.try_wait().expect("wait for the agent");
            assert!(ended.is_none(), "the agent ended with {ended:?}:\n{}", self.log_text());
            assert!(Instant::now() < deadline, "the agent does not serve in time:\n{}", self.log_text());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.id() as Pid
    }

    pub(crate) fn log_text(&self) -> String {
        self.log.lock().expect("no thread panics with the log").join("\n")
    }

    /// Status and body of a page. `None` if there is no answer.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.address.expect("the agent serves"), path).ok()
    }

    /// All metrics.
    pub(crate) fn scrape(&self) -> Samples {
        let (status, text) = self.get("/metrics").expect("an answer");
        assert_eq!(status, 200, "{text}");
        let samples = Samples::parse(&text);
        if samples.find("pidns_trace_events_lost_total{stage=\"hook\"}").is_some_and(|lost| lost > 0.0) {
            again::mark_left_out_hooks();
        }
        samples
    }

    /// Scrapes until the condition is true. Returns that scrape.
    pub(crate) fn scrape_until(&self, what: &str, is_so: impl Fn(&Samples) -> bool) -> Samples {
        let deadline = Instant::now() + patience(30);
        loop {
            let samples = self.scrape();
            if is_so(&samples) {
                return samples;
            }
            assert!(Instant::now() < deadline, "{what} did not come in time: {:#?}", samples.not_zero());
            thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn status(&self) -> Value {
        let (status, text) = self.get("/status").expect("an answer");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("/status: {error} in {text}"))
    }

    /// Waits for the agent's end, and for its whole log.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = wait_in_time(&mut self.process, "the agent");
        if let Some(reader) = self.log_reader.take() {
            reader.join().expect("the thread that reads the log does not panic");
        }
        status
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _gone_already = self.process.kill();
            let _reaped = self.process.wait();
        }
    }
}

/// Status and body of a page.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patience(30)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).map_err(io::Error::other)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no headers"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(|| io::Error::other("no status"))?, body.to_owned()))
}
