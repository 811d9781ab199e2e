//! Rules that hold for every stream.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;

use crate::{Test, test};

const MAX_COMPLAINTS: usize = 20;

/// The fields that the rules need.
#[derive(Deserialize)]
pub(crate) struct Glance<'a> {
    v: u32,
    #[serde(borrow)]
    pub(crate) event: Cow<'a, str>,
    seq: u64,
    boot_ns: u64,
    #[serde(borrow)]
    time: Cow<'a, str>,
    pub(crate) process: Option<ProcessKey>,
    /// The parent of a fork.
    pub(crate) parent: Option<ProcessKey>,
    ns: Option<NamespaceKey>,
}

/// The identity of a process, and its namespace.
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct ProcessKey {
    pub(crate) pid: i32,
    pub(crate) start_boot_ns: Option<u64>,
    pub(crate) ns: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
struct NamespaceKey {
    inum: u64,
    born_boot_ns: Option<u64>,
}

/// Reads a stream line by line, and collects its faults.
#[derive(Default)]
pub(crate) struct Invariants {
    seq: u64,
    boot_ns: u64,
    last: String,
    processes: HashMap<(i32, u64), Step>,
    namespaces: HashMap<(u64, u64), Step>,
    /// Number of lines by event.
    pub(crate) counts: BTreeMap<String, u64>,
    complaints: Vec<String>,
}

/// The last step of a life, and the line that reported it.
struct Step {
    rank: usize,
    seq: u64,
}

const PROCESS_STEPS: [&str; 4] = ["process.fork", "process.exec", "process.exit", "process.reap"];
const NAMESPACE_STEPS: [&str; 5] =
    ["namespace.create", "namespace.init", "namespace.init_exit", "namespace.teardown", "namespace.destroy"];

impl Invariants {
    /// Checks the next line of the stream.
    pub(crate) fn line<'a>(&mut self, line: &'a str) -> Option<Glance<'a>> {
        let glance: Glance<'a> = match serde_json::from_str(line) {
            Ok(glance) => glance,
            Err(error) => {
                self.complain(format!("not an event ({error}): {line}"));
                return None;
            }
        };
        let seq = glance.seq;
        if glance.v != 1 {
            self.complain(format!("seq {seq}: v is {}, not 1", glance.v));
        }
        if seq != self.seq + 1 {
            self.complain(format!("seq {seq} follows {}", self.seq));
        }
        if glance.boot_ns < self.boot_ns {
            self.complain(format!("seq {seq}: boot_ns {} is before {}", glance.boot_ns, self.boot_ns));
        }
        if (seq == 1) != (glance.event == "stream.start") {
            self.complain(format!(
                "seq {seq} is {}: stream.start is the first and only the first",
                glance.event
            ));
        }
        if self.last == "stream.end" {
            self.complain(format!("seq {seq}: {} after stream.end", glance.event));
        }
        if !is_utc_with_nanoseconds(&glance.time) {
            self.complain(format!(
                "seq {seq}: time {:?} is not RFC 3339 in UTC with nanoseconds",
                glance.time
            ));
        }
        self.take_steps(&glance);
        self.seq = seq;
        self.boot_ns = glance.boot_ns;
        self.last.clear();
        self.last.push_str(&glance.event);
        match self.counts.get_mut(glance.event.as_ref()) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(glance.event.clone().into_owned(), 1)),
        }
        Some(glance)
    }

    fn take_steps(&mut self, glance: &Glance<'_>) {
        let seq = glance.seq;
        if let Some(rank) = PROCESS_STEPS.iter().position(|name| *name == glance.event) {
            match glance.process {
                Some(ProcessKey { pid, start_boot_ns: Some(start), .. }) => {
                    let complaint = step(&mut self.processes, (pid, start), rank, seq, &PROCESS_STEPS);
                    self.complaints.extend(complaint);
                }
                _ => self.complain(format!("seq {seq}: {} without the identity of a process", glance.event)),
            }
        }
        if let Some(rank) = NAMESPACE_STEPS.iter().position(|name| *name == glance.event) {
            match glance.ns {
                Some(NamespaceKey { inum, born_boot_ns: Some(born) }) => {
                    let complaint = step(&mut self.namespaces, (inum, born), rank, seq, &NAMESPACE_STEPS);
                    self.complaints.extend(complaint);
                }
                Some(NamespaceKey { born_boot_ns: None, .. }) => {}
                None => self.complain(format!("seq {seq}: {} without a namespace", glance.event)),
            }
        }
    }

    fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }

    /// Checks the end of the stream, and panics with all faults in their order.
    pub(crate) fn end(mut self) -> BTreeMap<String, u64> {
        if self.last != "stream.end" {
            self.complain(format!("the last line is {:?}, not stream.end", self.last));
        }
        let shown: Vec<&str> = self.complaints.iter().map(String::as_str).take(MAX_COMPLAINTS).collect();
        assert!(
            shown.is_empty(),
            "{} rules of the stream broken:\n  {}",
            self.complaints.len(),
            shown.join("\n  ")
        );
        self.counts
    }
}

/// Checks the next step of a life. Only exec may happen repeatedly.
fn step<K: std::hash::Hash + Eq + std::fmt::Debug>(
    lives: &mut HashMap<K, Step>,
    key: K,
    rank: usize,
    seq: u64,
    names: &[&str],
) -> Option<String> {
    let before = lives.get(&key);
    let complaint =
        before.filter(|before| rank < before.rank || rank == before.rank && names[rank] != "process.exec");
    let complaint = complaint.map(|before| {
        format!("seq {seq}: {} of {key:?} after its {} (seq {})", names[rank], names[before.rank], before.seq)
    });
    lives.insert(key, Step { rank, seq });
    complaint
}

/// `2026-01-31T12:34:56.123456789Z`
fn is_utc_with_nanoseconds(time: &str) -> bool {
    let pattern = b"dddd-dd-ddTdd:dd:dd.dddddddddZ";
    time.len() == pattern.len()
        && time
            .bytes()
            .zip(pattern)
            .all(|(byte, want)| if *want == b'd' { byte.is_ascii_digit() } else { byte == *want })
}

/// Checks that absent facts are absent fields: no null, no empty string, no `"exact": true`.
pub(crate) fn complain_about_absent_facts(event: &Value) -> Option<String> {
    fn empty(path: &str, value: &Value) -> Option<String> {
        match value {
            Value::Null => Some(format!("{path} is null")),
            Value::String(text) if text.is_empty() => Some(format!("{path} is empty")),
            Value::Object(fields) => {
                fields.iter().find_map(|(key, value)| empty(&format!("{path}/{key}"), value))
            }
            // An argument may be an empty string, which is a fact.
            Value::Array(values) if !path.ends_with("/args") => {
                values.iter().find_map(|value| empty(path, value))
            }
            _ => None,
        }
    }
    if event.get("exact").is_some_and(|exact| exact != &Value::Bool(false)) {
        return Some(format!("exact is false or absent: {event}"));
    }
    empty("", event).map(|complaint| format!("{complaint}, an absent fact is an absent field: {event}"))
}

pub(crate) const TESTS: &[Test] = &[test!(a_stream_that_breaks_a_rule_is_reported)];

/// Tests the rules themselves with streams that keep and break them.
fn a_stream_that_breaks_a_rule_is_reported() {
    let line = |seq: u64, boot_ns: u64, event: &str, rest: &str| {
        let time = "2026-01-31T12:34:56.123456789Z";
        format!(r#"{{"v":1,"event":"{event}","seq":{seq},"time":"{time}","boot_ns":{boot_ns}{rest}}}"#)
    };
    let complaints = |lines: &[String]| {
        let mut rules = Invariants::default();
        lines.iter().for_each(|line| drop(rules.line(line)));
        rules.complaints.join("; ")
    };
    let life = r#","process":{"pid":7,"start_boot_ns":100}"#;
    let other = r#","process":{"pid":7,"start_boot_ns":200}"#;
    let home = r#","ns":{"inum":9,"born_boot_ns":100}"#;
    let start = line(1, 1, "stream.start", "");
    let good = [
        start.clone(),
        line(2, 2, "namespace.create", home),
        line(3, 2, "process.fork", life),
        line(4, 3, "process.exec", life),
        line(5, 4, "process.exec", life),
        line(6, 5, "process.exit", life),
        line(7, 6, "process.fork", other),
        line(8, 7, "namespace.teardown", home),
        line(9, 8, "stream.end", ""),
    ];
    assert_eq!(complaints(&good), "", "faults of a stream that keeps the rules");
    let bad = [
        ("follows", vec![start.clone(), line(3, 2, "process.fork", life)]),
        ("is before", vec![start.clone(), line(2, 0, "process.fork", life)]),
        ("only the first", vec![line(1, 1, "process.fork", life)]),
        (
            "after stream.end",
            vec![start.clone(), line(2, 2, "stream.end", ""), line(3, 3, "process.fork", life)],
        ),
        (
            "after its process.exit",
            vec![start.clone(), line(2, 2, "process.exit", life), line(3, 3, "process.exec", life)],
        ),
        (
            "after its process.fork",
            vec![start.clone(), line(2, 2, "process.fork", life), line(3, 3, "process.fork", life)],
        ),
        (
            "after its namespace.teardown",
            vec![start.clone(), good[7].replace(":8,", ":2,"), line(3, 8, "namespace.init", home)],
        ),
        ("without the identity", vec![start.clone(), line(2, 2, "process.exit", "")]),
        ("RFC 3339", vec![start.replace("789Z", "Z")]),
        ("not an event", vec![start, "stream.lost".into()]),
    ];
    for (expected, lines) in bad {
        let found = complaints(&lines);
        assert!(found.contains(expected), "expected {expected:?} for {lines:#?}, found {found:?}");
    }
}
