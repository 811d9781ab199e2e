//! The runner's side of an actor: starts it, hears its facts, lets it go on, and leaves nothing of it behind.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::facts::{Refused, Who};
use crate::sys::Pid;

const SECONDS_FOR_A_FACT: u64 = 20;

/// The inode numbers of the machine's own namespaces, which would make every event one of the cast's.
const INITIAL: Range<u64> = 0xeffffff0..0xf0000000;

thread_local! {
    /// The numbers that the facts of this test mention: what a failure report is about.
    static CAST: RefCell<BTreeSet<u64>> = const { RefCell::new(BTreeSet::new()) };
}

/// Seconds, times `PIDNS_TEST_PATIENCE` for machines that are slow (emulated guests).
pub(crate) fn patience(seconds: u64) -> Duration {
    let factor = std::env::var("PIDNS_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds * factor.unwrap_or(1))
}

/// Forgets the actors of the test before.
pub(crate) fn new_play() {
    CAST.with_borrow_mut(BTreeSet::clear);
}

/// Whether a number of the actors' (a PID, an inode number) occurs in this event.
pub(crate) fn concerns_the_cast(event: &Value) -> bool {
    fn mentions(value: &Value, cast: &BTreeSet<u64>) -> bool {
        match value {
            Value::Number(number) => number.as_u64().is_some_and(|number| cast.contains(&number)),
            Value::Array(values) => values.iter().any(|value| mentions(value, cast)),
            Value::Object(fields) => {
                let keys = [
                    "pid", "inum", "process", "parent", "creator", "sender", "ns", "cascade", "nested",
                    "cause",
                ];
                keys.iter().filter_map(|key| fields.get(*key)).any(|value| mentions(value, cast))
            }
            _ => false,
        }
    }
    CAST.with_borrow(|cast| mentions(event, cast))
}

/// Whether a PID of the actors' is among those that this value has; `None` where it has none.
pub(crate) fn concerns_the_cast_by_pid(value: &Value) -> Option<bool> {
    fn pids(value: &Value, found: &mut Vec<u64>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| pids(value, found)),
            Value::Object(fields) => {
                found.extend(fields.get("pid").and_then(Value::as_u64));
                fields.values().for_each(|value| pids(value, found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    pids(value, &mut found);
    CAST.with_borrow(|cast| (!found.is_empty()).then(|| found.iter().any(|pid| cast.contains(pid))))
}

fn remember(fact: &Value) {
    match fact {
        Value::Array(values) => values.iter().for_each(remember),
        Value::Object(fields) => {
            let numbers = [fields.get("pid"), fields.get("ns"), fields.get("inum")];
            let numbers = numbers.into_iter().flatten().filter_map(Value::as_u64);
            CAST.with_borrow_mut(|cast| cast.extend(numbers.filter(|number| !INITIAL.contains(number))));
            fields.values().filter(|value| value.is_object()).for_each(remember);
        }
        _ => {}
    }
}

#[derive(Deserialize)]
struct Fact {
    fact: String,
    is: Value,
}

/// A situation being played.
pub(crate) struct Actor {
    situation: String,
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    heard: Vec<Fact>,
}

impl Actor {
    pub(crate) fn start(situation: &str, args: &[&str]) -> Self {
        let this = std::env::current_exe().expect("/proc/self/exe can be read");
        let mut process = Command::new(this)
            .args(["actor", situation])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be run again as an actor");
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        CAST.with_borrow_mut(|cast| cast.insert(u64::from(process.id())));
        Self { situation: situation.into(), stdin: process.stdin.take(), process, lines, heard: Vec::new() }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.id() as Pid
    }

    /// Waits until the actor has reported this fact.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self, fact: &str) -> T {
        self.hear_within(SECONDS_FOR_A_FACT, fact)
    }

    /// As `hear`, for a fact that takes longer.
    pub(crate) fn hear_within<T: DeserializeOwned>(&mut self, seconds: u64, fact: &str) -> T {
        let deadline = Instant::now() + patience(seconds);
        loop {
            if let Some(heard) = self.heard.iter().find(|heard| heard.fact == fact) {
                return decode(heard);
            }
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            match line {
                Ok(line) => self.keep(&line),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("actor {} did not report {fact:?} in time", self.situation)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("actor {} ended without {fact:?}", self.situation)
                }
            }
        }
    }

    /// What the actor has reported of this so far.
    pub(crate) fn all_heard<T: DeserializeOwned>(&self, fact: &str) -> Vec<T> {
        self.heard.iter().filter(|heard| heard.fact == fact).map(decode).collect()
    }

    /// Whether it has reported this so far.
    pub(crate) fn heard_any(&self, fact: &str) -> bool {
        self.heard.iter().any(|heard| heard.fact == fact)
    }

    /// Reads its reports for so long.
    pub(crate) fn listen(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.keep(&line);
        }
    }

    fn keep(&mut self, line: &str) {
        let fact: Fact = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("actor {} printed {line:?}: {error}", self.situation));
        remember(&fact.is);
        self.heard.push(fact);
    }

    /// Lets the actor go on.
    pub(crate) fn go(&mut self) {
        let stdin = self.stdin.as_mut().expect("stdin is open until the actor is finished");
        stdin.write_all(b"\n").expect("the actor reads its stdin");
    }

    /// Waits until the actor has ended, which it must do well, and keeps what it reported.
    pub(crate) fn finish(self) -> Report {
        self.finish_within(SECONDS_FOR_A_FACT)
    }

    /// As `finish`, for an end that takes longer.
    pub(crate) fn finish_within(mut self, seconds: u64) -> Report {
        let deadline = Instant::now() + patience(seconds);
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.keep(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("actor {} did not end in time", self.situation),
            }
        }
        let status = self.process.wait().expect("the actor can be waited for");
        assert!(status.success(), "actor {} ended with {status}", self.situation);
        Report { actor: self.pid(), facts: std::mem::take(&mut self.heard) }
    }
}

impl Drop for Actor {
    /// Its children die with it: they asked the kernel for that.
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _gone_already = self.process.kill();
            let _reaped = self.process.wait();
        }
    }
}

fn decode<T: DeserializeOwned>(fact: &Fact) -> T {
    serde_json::from_value(fact.is.clone())
        .unwrap_or_else(|error| panic!("fact {}: {error} in {}", fact.fact, fact.is))
}

/// All that an actor reported, once it has ended.
pub(crate) struct Report {
    pub(crate) actor: Pid,
    facts: Vec<Fact>,
}

impl Report {
    pub(crate) fn all<T: DeserializeOwned>(&self, fact: &str) -> Vec<T> {
        self.facts.iter().filter(|heard| heard.fact == fact).map(decode).collect()
    }

    pub(crate) fn the<T: DeserializeOwned>(&self, fact: &str) -> T {
        let found = self.facts.iter().find(|heard| heard.fact == fact);
        decode(found.unwrap_or_else(|| panic!("the actor did not report {fact:?}")))
    }

    pub(crate) fn who(&self, fact: &str) -> Who {
        self.the(fact)
    }

    /// How the kernel refused `via`: the actor must have seen `errno`.
    pub(crate) fn refused(&self, via: &str, errno: &str) -> Refused {
        let all: Vec<Refused> = self.all("refused");
        let refused = all.into_iter().find(|refused| refused.via == via);
        let refused = refused.unwrap_or_else(|| panic!("the actor did not try {via}"));
        assert_eq!(refused.errno, errno, "what the kernel answered to {via}");
        refused
    }
}

/// Runs a program to its end, in bounded time.
pub(crate) fn run(command: &mut Command) -> (ExitStatus, String, String) {
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = drain(process.stdout.take().expect("stdout is a pipe"));
    let stderr = drain(process.stderr.take().expect("stderr is a pipe"));
    let status = wait_in_time(&mut process, &format!("{command:?}"));
    (status, stdout.join().expect("stdout can be read"), stderr.join().expect("stderr can be read"))
}

fn drain(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for a process to end by itself; kills it and fails when it does not.
pub(crate) fn wait_in_time(process: &mut Child, what: &str) -> ExitStatus {
    let deadline = Instant::now() + patience(30);
    loop {
        if let Some(status) = process.try_wait().expect("a child can be waited for") {
            return status;
        }
        if Instant::now() > deadline {
            process.kill().expect("a child can be killed");
            process.wait().expect("a child can be waited for");
            panic!("{what} did not end in time");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
