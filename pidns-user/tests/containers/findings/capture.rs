//! Runs a stream of findings and a recording, which start before the situation, and selects the findings about one
//! container.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{scratch::Scratch, scratch::output, stream::Stream};

/// A PID 1 that exits on SIGTERM, and reaps its own children and orphans.
pub(super) const HEALTHY: &str = "trap 'exit 0' TERM; while :; do (sleep 0.1 &); sleep 0.2 & wait $!; done";

/// The command line that runs this script in a container.
pub(super) fn shell(script: &str) -> [&str; 3] {
    ["/bin/sh", "-c", script]
}

/// This number of seconds, times `PIDNS_TEST_PATIENCE` for slow machines.
pub(super) fn patience(seconds: u64) -> Duration {
    let factor = std::env::var("PIDNS_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds * factor.unwrap_or(1))
}

/// How long an event counts as a finding here. It is long enough for a recording to end meanwhile.
const INCIDENT: &str = "--incident-time=10s";
/// The time limit for a finding, its end, or an event.
const SECONDS: u64 = 60;

/// A running stream and a running recording.
pub(super) struct Capture {
    stream: Option<Stream>,
    lines: PathBuf,
    recorder: Option<Stream>,
    recording: PathBuf,
    _scratch: Scratch,
}

/// A container, with the facts that select its findings.
pub(super) struct Subject {
    /// Inode number and birth of its namespace. `None` if it has no separate one.
    namespace: Option<(u64, u64)>,
    /// Its processes, and those outside that keep it.
    pids: BTreeSet<u64>,
    /// Its id, for findings whose cgroup or runtime's file shows it.
    id: String,
}

impl Subject {
    /// A container that shares another namespace.
    pub(super) fn sharing(id: &str, main: u32) -> Self {
        Self { namespace: None, pids: BTreeSet::from([u64::from(main)]), id: id.to_owned() }
    }

    /// Adds another process.
    pub(super) fn with(mut self, pid: u32) -> Self {
        self.pids.insert(u64::from(pid));
        self
    }

    fn is_of(&self, finding: &Value) -> bool {
        let ns = &finding["ns"];
        let is_its = self.namespace.is_some_and(|(inum, born)| {
            ns["inum"] == inum && ns["born_boot_ns"].as_u64().is_none_or(|its| its == born)
        });
        is_its
            || ns["container"]["id"] == self.id.as_str()
            || finding["process"]["container"]["id"] == self.id.as_str()
            || mentions(finding, &self.pids)
    }
}

/// Whether the value mentions one of these processes.
fn mentions(value: &Value, pids: &BTreeSet<u64>) -> bool {
    match value {
        Value::Array(values) => values.iter().any(|value| mentions(value, pids)),
        Value::Object(fields) => fields.iter().any(|(key, value)| match key.as_str() {
            // Only this field is a PID. Other numbers are not, such as the number of used PIDs.
            "pid" => value.as_u64().is_some_and(|pid| pids.contains(&pid)),
            _ => mentions(value, pids),
        }),
        _ => false,
    }
}

/// The events about findings and about inits, from a file that is still written.
fn events(file: &Path) -> Vec<Value> {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let whole = &text[..text.rfind('\n').unwrap_or(0)];
    // A recording of a busy machine is long, so do not parse the other lines.
    let names = ["finding", "namespace.init"].map(|name| format!("\"event\":\"{name}\""));
    let wanted = whole.lines().filter(|line| names.iter().any(|name| line.contains(name.as_str())));
    wanted.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The fields that distinguish findings.
fn key(finding: &Value) -> [Value; 3] {
    [finding["id"].clone(), finding["ns"]["inum"].clone(), finding["process"]["pid"].clone()]
}

/// The facts of this kind.
pub(super) fn facts<'a>(finding: &'a Value, kind: &str) -> Vec<&'a Value> {
    let evidence = finding["evidence"].as_array().expect("evidence");
    evidence.iter().filter(|fact| fact["kind"] == kind).collect()
}

impl Capture {
    /// Starts the stream and the recording, with these thresholds.
    pub(super) fn new(thresholds: &[&str]) -> Self {
        let scratch = Scratch::new();
        let (lines, recording) = (scratch.path("findings.json"), scratch.path("recording.ndjson"));
        let path = scratch.arg("recording.ndjson");
        let recorder = Stream::start(&[&["record", &path, INCIDENT], thresholds].concat(), &recording);
        let events = ["-o", "json", "-e", "finding", "-e", "namespace.init", INCIDENT];
        let stream = Stream::start(&[&events, thresholds].concat(), &lines);
        Self { stream: Some(stream), lines, recorder: Some(recorder), recording, _scratch: scratch }
    }

    /// Waits for the first line that `is_it` accepts.
    #[track_caller]
    fn wait_for(&self, file: &Path, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + patience(SECONDS);
        loop {
            let lines = events(file);
            if let Some(found) = lines.iter().find(|line| is_it(line)) {
                return found.clone();
            }
            if Instant::now() > deadline {
                let findings: Vec<String> = lines
                    .iter()
                    .filter(|line| line["event"] == "finding")
                    .map(|line| {
                        format!("{} {} {}", line["state"], line["finding"]["id"], line["finding"]["ns"])
                    })
                    .collect();
                panic!("{what} did not come in time; there were {findings:#?}");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The container with this PID 1. Its namespace comes from the event of the init's start.
    #[track_caller]
    pub(super) fn subject(&self, id: &str, init: u32) -> Subject {
        let born = self.wait_for(&self.lines, "the container's PID 1", |line| {
            line["event"] == "namespace.init" && line["process"]["pid"] == init
        });
        let number = |field: &str| born["ns"][field].as_u64().expect("a number");
        let keeper = fs::read_to_string(format!("/proc/{init}/stat")).ok();
        let keeper = keeper.and_then(|stat| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok());
        // The host's init keeps containers that have no shim.
        let keeper = keeper.filter(|&pid: &u64| pid > 1);
        Subject {
            namespace: Some((number("inum"), number("born_boot_ns"))),
            pids: [Some(u64::from(init)), keeper].into_iter().flatten().collect(),
            id: id.to_owned(),
        }
    }

    /// The finding of this kind about this container. It must come in time.
    #[track_caller]
    pub(super) fn opened(&self, id: &str, subject: &Subject) -> Value {
        let began = Instant::now();
        let event = self.wait_for(&self.lines, &format!("the finding {id}"), |line| {
            line["state"] == "opened" && line["finding"]["id"] == id && subject.is_of(&line["finding"])
        });
        eprintln!("{id}: seen after {:.1} s", began.elapsed().as_secs_f64());
        event["finding"].clone()
    }

    /// Waits until the finding has a fact of this kind that `is_it` accepts. Returns the finding.
    #[track_caller]
    pub(super) fn with_fact(&self, opened: &Value, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let event = self.wait_for(&self.lines, &format!("{} with {kind}", opened["id"]), |line| {
            line["event"] == "finding"
                && key(&line["finding"]) == key(opened)
                && facts(&line["finding"], kind).into_iter().any(&is_it)
        });
        event["finding"].clone()
    }

    /// Waits for the end of that finding.
    #[track_caller]
    pub(super) fn closed(&self, opened: &Value) {
        self.wait_for(&self.lines, &format!("the end of {}", opened["id"]), |line| {
            line["state"] == "closed"
                && key(&line["finding"]) == key(opened)
                && line["finding"]["since_boot_ns"] == opened["since_boot_ns"]
        });
    }

    /// Ends the recording, whose last findings must include this one.
    #[track_caller]
    pub(super) fn recorded(&mut self, opened: &Value) {
        // The recorder also detects findings once a second, and writes to the file with a delay.
        thread::sleep(patience(3));
        self.recorder.take().expect("the recorder runs").end();
        let path = self.recording.to_str().expect("a plain name");
        let findings = ["findings", "--from", path, "-o", "json"];
        let found = output(Command::new(crate::program::path()).args(findings));
        let stderr = String::from_utf8_lossy(&found.stderr);
        assert_eq!(found.status.code(), Some(1), "expected findings: {stderr}");
        let document: Value = serde_json::from_slice(&found.stdout).expect("JSON");
        let found = document["findings"].as_array().expect("findings");
        assert!(found.iter().any(|finding| key(finding) == key(opened)), "{opened:#} is not in {document:#}");
    }

    /// Ends the stream. It must have reported exactly these kinds of findings about this container.
    #[track_caller]
    pub(super) fn only(mut self, expected: &[&str], subject: &Subject) {
        self.stream.take().expect("the stream runs").end();
        let lines = events(&self.lines);
        let is_its = |line: &&Value| line["event"] == "finding" && subject.is_of(&line["finding"]);
        let its: Vec<&Value> = lines.iter().filter(is_its).collect();
        let ids: BTreeSet<&str> = its.iter().filter_map(|line| line["finding"]["id"].as_str()).collect();
        assert_eq!(ids, expected.iter().copied().collect(), "findings about {}: {its:#?}", subject.id);
        for id in expected {
            let news = its.iter().filter(|line| line["finding"]["id"] == *id).count();
            // Lines report the opening, the end, and new facts in between.
            assert!(news <= 12, "{id} has {news} lines: {its:#?}");
        }
    }
}

/// Sends a signal to a process with this PID on the host.
#[track_caller]
pub(super) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a PID");
    kill_process(pid, signal).expect("send the signal");
}
