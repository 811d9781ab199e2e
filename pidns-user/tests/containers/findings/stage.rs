//! A stream of the machine's findings, and a recording, from before a situation, and their findings about one container.

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

/// A PID 1 that ends at SIGTERM, and reaps: its own children, and orphans.
pub(super) const HEALTHY: &str = "trap 'exit 0' TERM; while :; do (sleep 0.1 &); sleep 0.2 & wait $!; done";

/// The program that runs this in a container.
pub(super) fn shell(script: &str) -> [&str; 3] {
    ["/bin/sh", "-c", script]
}

/// Seconds, times `PIDNS_TEST_PATIENCE` for machines that are slow.
pub(super) fn patience(seconds: u64) -> Duration {
    let factor = std::env::var("PIDNS_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds * factor.unwrap_or(1))
}

/// How long an event is a finding here: long enough for a recording to be ended meanwhile.
const INCIDENT: &str = "--incident-time=10s";
/// How long a finding, its end, or an event may take to come.
const SECONDS: u64 = 60;

/// A stream and a recording.
pub(super) struct Stage {
    stream: Option<Stream>,
    lines: PathBuf,
    recorder: Option<Stream>,
    recording: PathBuf,
    _scratch: Scratch,
}

/// A container by which its findings are known.
pub(super) struct Subject {
    /// Its namespace and when that was born; none where it has none of its own.
    namespace: Option<(u64, u64)>,
    /// Its processes, and those outside that keep it.
    pids: BTreeSet<u64>,
    /// Its id, where a cgroup or a runtime's file shows it.
    id: String,
}

impl Subject {
    /// A container in a namespace of others.
    pub(super) fn sharing(id: &str, main: u32) -> Self {
        Self { namespace: None, pids: BTreeSet::from([u64::from(main)]), id: id.to_owned() }
    }

    /// With another process.
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

/// Whether one of these processes occurs in it.
fn mentions(value: &Value, pids: &BTreeSet<u64>) -> bool {
    match value {
        Value::Array(values) => values.iter().any(|value| mentions(value, pids)),
        Value::Object(fields) => fields.iter().any(|(key, value)| match key.as_str() {
            // What is used of the machine's limits is no process.
            "pid" => value.as_u64().is_some_and(|pid| pids.contains(&pid)),
            _ => mentions(value, pids),
        }),
        _ => false,
    }
}

/// The events about findings, and of namespaces' beginnings, in a file that is being written.
fn events(file: &Path) -> Vec<Value> {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let whole = &text[..text.rfind('\n').unwrap_or(0)];
    // A recording of a busy machine is long: of the others nothing is parsed.
    let names = ["finding", "namespace.init"].map(|name| format!("\"event\":\"{name}\""));
    let wanted = whole.lines().filter(|line| names.iter().any(|name| line.contains(name.as_str())));
    wanted.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What distinguishes findings.
fn key(finding: &Value) -> [Value; 3] {
    [finding["id"].clone(), finding["ns"]["inum"].clone(), finding["process"]["pid"].clone()]
}

/// The facts of this kind.
pub(super) fn facts<'a>(finding: &'a Value, kind: &str) -> Vec<&'a Value> {
    let evidence = finding["evidence"].as_array().expect("evidence");
    evidence.iter().filter(|fact| fact["kind"] == kind).collect()
}

impl Stage {
    /// With these thresholds.
    pub(super) fn new(thresholds: &[&str]) -> Self {
        let scratch = Scratch::new();
        let (lines, recording) = (scratch.path("findings.json"), scratch.path("recording.ndjson"));
        let path = scratch.arg("recording.ndjson");
        let recorder = Stream::start(&[&["record", &path, INCIDENT], thresholds].concat(), &recording);
        let events = ["-o", "json", "-e", "finding", "-e", "namespace.init", INCIDENT];
        let stream = Stream::start(&[&events, thresholds].concat(), &lines);
        Self { stream: Some(stream), lines, recorder: Some(recorder), recording, _scratch: scratch }
    }

    /// The first line that this accepts.
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
                panic!("waiting for {what}: not in time; there were {findings:#?}");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The container whose PID 1 this is: by the event of its beginning.
    #[track_caller]
    pub(super) fn subject(&self, id: &str, init: u32) -> Subject {
        let born = self.wait_for(&self.lines, "the container's PID 1", |line| {
            line["event"] == "namespace.init" && line["process"]["pid"] == init
        });
        let number = |field: &str| born["ns"][field].as_u64().expect("a number");
        let keeper = fs::read_to_string(format!("/proc/{init}/stat")).ok();
        let keeper = keeper.and_then(|stat| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok());
        // The machine's own PID 1 keeps those that have no shim.
        let keeper = keeper.filter(|&pid: &u64| pid > 1);
        Subject {
            namespace: Some((number("inum"), number("born_boot_ns"))),
            pids: [Some(u64::from(init)), keeper].into_iter().flatten().collect(),
            id: id.to_owned(),
        }
    }

    /// The finding of this kind about this container, which must come in time.
    #[track_caller]
    pub(super) fn opened(&self, id: &str, subject: &Subject) -> Value {
        let began = Instant::now();
        let event = self.wait_for(&self.lines, &format!("the finding {id}"), |line| {
            line["state"] == "opened" && line["finding"]["id"] == id && subject.is_of(&line["finding"])
        });
        eprintln!("{id}: seen {:.1} s after it was asked for", began.elapsed().as_secs_f64());
        event["finding"].clone()
    }

    /// The finding as it becomes when it has a fact of this kind that this accepts.
    #[track_caller]
    pub(super) fn with_fact(&self, opened: &Value, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let event = self.wait_for(&self.lines, &format!("{} with {kind}", opened["id"]), |line| {
            line["event"] == "finding"
                && key(&line["finding"]) == key(opened)
                && facts(&line["finding"], kind).into_iter().any(&is_it)
        });
        event["finding"].clone()
    }

    /// The end of that finding, after it was opened.
    #[track_caller]
    pub(super) fn closed(&self, opened: &Value) {
        self.wait_for(&self.lines, &format!("the end of {}", opened["id"]), |line| {
            line["state"] == "closed"
                && key(&line["finding"]) == key(opened)
                && line["finding"]["since_boot_ns"] == opened["since_boot_ns"]
        });
    }

    /// The last finding of a recording that ends now: the same finding.
    #[track_caller]
    pub(super) fn recorded(&mut self, opened: &Value) {
        // The recorder detects once a second, too, and what it writes is not in the file at once.
        thread::sleep(patience(3));
        self.recorder.take().expect("it is ended once").end();
        let path = self.recording.to_str().expect("a plain name");
        let findings = ["findings", "--from", path, "-o", "json"];
        let found = output(Command::new(crate::program::path()).args(findings));
        let stderr = String::from_utf8_lossy(&found.stderr);
        assert_eq!(found.status.code(), Some(1), "something is wrong: {stderr}");
        let document: Value = serde_json::from_slice(&found.stdout).expect("JSON");
        let found = document["findings"].as_array().expect("findings");
        assert!(found.iter().any(|finding| key(finding) == key(opened)), "{opened:#} is not in {document:#}");
    }

    /// Ends the stream, which must have had these kinds of findings alone about this container.
    #[track_caller]
    pub(super) fn only(mut self, expected: &[&str], subject: &Subject) {
        self.stream.take().expect("it is ended once").end();
        let lines = events(&self.lines);
        let is_its = |line: &&Value| line["event"] == "finding" && subject.is_of(&line["finding"]);
        let its: Vec<&Value> = lines.iter().filter(is_its).collect();
        let ids: BTreeSet<&str> = its.iter().filter_map(|line| line["finding"]["id"].as_str()).collect();
        assert_eq!(ids, expected.iter().copied().collect(), "of {}: {its:#?}", subject.id);
        for id in expected {
            let news = its.iter().filter(|line| line["finding"]["id"] == *id).count();
            // Opened, closed, and what was learnt between.
            assert!(news <= 12, "{id} is reported {news} times: {its:#?}");
        }
    }
}

/// Sends a signal to a process by its PID on the host.
#[track_caller]
pub(super) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a PID");
    kill_process(pid, signal).expect("the process is there");
}
