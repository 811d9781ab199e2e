//! Runs the agent in parallel with the load.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::program;

/// The time limit for a start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running agent.
pub(crate) struct Agent {
    process: Child,
    address: SocketAddr,
}

impl Agent {
    pub(crate) fn start(options: &[&str]) -> Result<Self> {
        let mut command = Command::new(program::path());
        command.args(["agent", "--web.listen-address", "127.0.0.1:0", "--log-format", "json"]).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().context("start the agent")?;
        let mut log = BufReader::new(process.stderr.take().context("the agent's stderr is not a pipe")?);
        let mut line = String::new();
        let address = loop {
            line.clear();
            ensure!(log.read_line(&mut line)? > 0, "the agent ended before it served");
            let entry: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            if entry["message"] == "serving" {
                break entry["address"].as_str().context("the log has no address")?.parse()?;
            }
        };
        // The rest of the log must be read, or the pipe fills up.
        thread::spawn(move || log.lines().map_while(Result::ok).count());
        let agent = Self { process, address };
        let began = Instant::now();
        while agent.get("/readyz").map_or(true, |answer| !answer.starts_with("HTTP/1.1 200")) {
            ensure!(began.elapsed() < PATIENCE, "the agent is not ready");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(agent)
    }

    /// Requests a page. Returns it with its headers.
    pub(crate) fn get(&self, page: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(stream, "GET {page} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Reads a value from /metrics.
    pub(crate) fn value(&self, series: &str) -> Result<f64> {
        let answer = self.get("/metrics")?;
        let line = answer.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.with_context(|| format!("no {series} in /metrics"))?.parse().context("the value is not a number")
    }

    /// The CPU time that the agent has used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields = stat.rsplit_once(')').context("/proc/PID/stat has no name in brackets")?.1;
        // utime and stime, in ticks of 10 ms (proc(5)).
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(10 * ticks))
    }

    /// The memory in use and its peak, in KiB.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let field = |name: &str| -> Option<u64> {
            status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
        };
        field("VmRSS:").zip(field("VmHWM:")).context("VmRSS and VmHWM of the agent")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}
