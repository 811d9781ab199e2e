//! The test runner's side of an actor: it starts the actor, reads its facts, lets it continue, and leaves nothing
//! behind.

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

/// The inode numbers of the machine's own namespaces. They do not count as numbers of an actor, because nearly every
/// event mentions one.
const INITIAL: Range<u64> = 0xeffffff0..0xf0000000;

thread_local! {
    /// The numbers in the facts of this test. A failure report shows the events that mention one of them.
    static ACTOR_NUMBERS: RefCell<BTreeSet<u64>> = const { RefCell::new(BTreeSet::new()) };
}

/// This number of seconds, times `PIDNS_TEST_PATIENCE` for slow machines (emulated guests).
pub(crate) fn patience(seconds: u64) -> Duration {
    let factor = std::env::var("PIDNS_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds * factor.unwrap_or(1))
}

/// Forgets the actors of the previous test.
pub(crate) fn forget_actors() {
    ACTOR_NUMBERS.with_borrow_mut(BTreeSet::clear);
}

/// Whether this event mentions a number of an actor (a PID or an inode number).
pub(crate) fn concerns_actor(event: &Value) -> bool {
    fn mentions(value: &Value, numbers: &BTreeSet<u64>) -> bool {
        match value {
            Value::Number(number) => number.as_u64().is_some_and(|number| numbers.contains(&number)),
            Value::Array(values) => values.iter().any(|value| mentions(value, numbers)),
            Value::Object(fields) => {
                let keys = [
                    "pid", "inum", "process", "parent", "creator", "sender", "ns", "cascade", "nested",
                    "cause",
                ];
                keys.iter().filter_map(|key| fields.get(*key)).any(|value| mentions(value, numbers))
            }
            _ => false,
        }
    }
    ACTOR_NUMBERS.with_borrow(|numbers| mentions(event, numbers))
}

/// Whether this value mentions a PID of an actor. `None` if it mentions no PID.
pub(crate) fn concerns_actor_by_pid(value: &Value) -> Option<bool> {
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
    ACTOR_NUMBERS
        .with_borrow(|numbers| (!found.is_empty()).then(|| found.iter().any(|pid| numbers.contains(pid))))
}

fn remember(fact: &Value) {
    match fact {
        Value::Array(values) => values.iter().for_each(remember),
        Value::Object(fields) => {
            let numbers = [fields.get("pid"), fields.get("ns"), fields.get("inum")];
            let numbers = numbers.into_iter().flatten().filter_map(Value::as_u64);
            ACTOR_NUMBERS
                .with_borrow_mut(|known| known.extend(numbers.filter(|number| !INITIAL.contains(number))));
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

/// A running situation.
pub(crate) struct Actor {
    situation: String,
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    heard: Vec<Fact>,
}

impl Actor {
    pub(crate) fn start(situation: &str, args: &[&str]) -> Self {
        let this = std::env::current_exe().expect("find this program");
        let mut process = Command::new(this)
            .args(["actor", situation])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start this program as an actor");
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        ACTOR_NUMBERS.with_borrow_mut(|numbers| numbers.insert(u64::from(process.id())));
        Self { situation: situation.into(), stdin: process.stdin.take(), process, lines, heard: Vec::new() }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.id() as Pid
    }

    /// Waits until the actor has reported this fact.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self, fact: &str) -> T {
        self.hear_within(SECONDS_FOR_A_FACT, fact)
    }

    /// The same as `hear`, for a fact that takes longer.
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

    /// All reports of this fact so far.
    pub(crate) fn all_heard<T: DeserializeOwned>(&self, fact: &str) -> Vec<T> {
        self.heard.iter().filter(|heard| heard.fact == fact).map(decode).collect()
    }

    /// Whether the actor has reported this fact so far.
    pub(crate) fn heard_any(&self, fact: &str) -> bool {
        self.heard.iter().any(|heard| heard.fact == fact)
    }

    /// Reads reports for this time.
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

    /// Lets the actor continue.
    pub(crate) fn go(&mut self) {
        let stdin = self.stdin.as_mut().expect("stdin is open until the actor has finished");
        stdin.write_all(b"\n").expect("write to the actor");
    }

    /// Waits until the actor has ended, which must be with 0. Returns its report.
    pub(crate) fn finish(self) -> Report {
        self.finish_within(SECONDS_FOR_A_FACT)
    }

    /// The same as `finish`, for an end that takes longer.
    pub(crate) fn finish_within(mut self, seconds: u64) -> Report {
        let deadline = Instant::now() + patience(seconds);
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.keep(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("actor {} did not end in time", self.situation),
            }
        }
        let status = self.process.wait().expect("wait for the actor");
        assert!(status.success(), "actor {} ended with {status}", self.situation);
        Report { actor: self.pid(), facts: std::mem::take(&mut self.heard) }
    }
}

impl Drop for Actor {
    /// The actor's children die with it, because they requested a parent-death signal.
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

/// All facts of an actor that has ended.
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

    /// The kernel's refusal of `via`. The actor must have seen `errno`.
    pub(crate) fn refused(&self, via: &str, errno: &str) -> Refused {
        let all: Vec<Refused> = self.all("refused");
        let refused = all.into_iter().find(|refused| refused.via == via);
        let refused = refused.unwrap_or_else(|| panic!("the actor did not try {via}"));
        assert_eq!(refused.errno, errno, "the kernel's answer to {via}");
        refused
    }
}

/// Runs a program to its end, with a time limit.
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
    (status, stdout.join().expect("read stdout"), stderr.join().expect("read stderr"))
}

fn drain(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("read the pipe");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits until a process ends by itself. If it does not, kills it and fails.
pub(crate) fn wait_in_time(process: &mut Child, what: &str) -> ExitStatus {
    let deadline = Instant::now() + patience(30);
    loop {
        if let Some(status) = process.try_wait().expect("wait for the process") {
            return status;
        }
        if Instant::now() > deadline {
            process.kill().expect("kill the process");
            process.wait().expect("wait for the process");
            panic!("{what} did not end in time");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
