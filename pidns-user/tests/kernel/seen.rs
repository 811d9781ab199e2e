//! A finished stream, and assertions about it.

use std::fmt::Debug;
use std::process::ExitStatus;
use std::thread;

use pidns_user::event::Event;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::facts::{Namespace, Who, Window};
use crate::invariants::{Invariants, complain_about_absent_facts};
use crate::sys::Pid;
use crate::tracer::show_relevant;

/// All events of a run. They follow the rules of every stream.
pub(crate) struct Seen {
    pub(crate) events: Vec<Value>,
    pub(crate) stderr: String,
}

impl Seen {
    /// Parses the lines of a stream, and checks the general rules.
    pub(crate) fn check(lines: Vec<String>, stderr: String) -> Self {
        let mut rules = Invariants::default();
        lines.iter().for_each(|line| drop(rules.line(line)));
        for line in &lines {
            let event: Event = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let again = serde_json::to_string(&event).expect("write the event again");
            assert_eq!(&again, line, "reading and writing an event must not change it");
        }
        let events = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let seen = Self { events, stderr };
        let counts = rules.end();
        let absent: Vec<String> =
            seen.events.iter().filter_map(complain_about_absent_facts).take(5).collect();
        assert!(absent.is_empty(), "absent facts:\n  {}", absent.join("\n  "));
        let printed = &seen.end()["events"];
        for (name, count) in counts.iter().filter(|(name, _)| !name.starts_with("stream.")) {
            assert_eq!(printed[name.as_str()], *count, "stream.end must count {printed} printed {name}");
        }
        seen
    }

    pub(crate) fn named(&self, event: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |seen| seen["event"] == event)
    }

    pub(crate) fn all(&self, event: &str, wanted: impl Fn(&Value) -> bool) -> Vec<&Value> {
        self.named(event).filter(|seen| wanted(seen)).collect()
    }

    /// The only event with this name that `wanted` accepts.
    pub(crate) fn one(&self, event: &str, wanted: impl Fn(&Value) -> bool) -> &Value {
        let all = self.all(event, wanted);
        assert_eq!(all.len(), 1, "expected exactly one {event}, but found {all:#?}");
        all[0]
    }

    pub(crate) fn none(&self, event: &str, wanted: impl Fn(&Value) -> bool) {
        let all = self.all(event, wanted);
        assert!(all.is_empty(), "expected no {event}, but found {all:#?}");
    }

    /// The only event with this name about a process.
    pub(crate) fn of(&self, event: &str, who: &Who) -> &Value {
        self.one(event, |seen| seen["process"]["pid"] == who.pid)
    }

    /// Whether function hooks were attached, and not only tracepoints.
    pub(crate) fn by_functions(&self) -> bool {
        get::<String>(self.start(), "/hooks/copy_pid_ns").starts_with("fexit")
    }

    pub(crate) fn end(&self) -> &Value {
        self.events.last().expect("a checked stream has an end")
    }

    pub(crate) fn start(&self) -> &Value {
        self.events.first().expect("a checked stream has a start")
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("stderr of pidns-trace: {}\n{}", self.stderr, show_relevant(&self.events));
        }
    }
}

/// Whether an event is about this namespace.
pub(crate) fn in_ns(inum: u64) -> impl Fn(&Value) -> bool {
    move |event| event["ns"]["inum"] == inum
}

/// Whether an event is about this process.
pub(crate) fn about(pid: Pid) -> impl Fn(&Value) -> bool {
    move |event| event["process"]["pid"] == pid
}

/// Whether this process created the namespace, or tried to.
pub(crate) fn made_by(pid: Pid) -> impl Fn(&Value) -> bool {
    move |event| event["creator"]["pid"] == pid
}

/// The field at a JSON pointer. It must exist.
pub(crate) fn get<T: DeserializeOwned>(event: &Value, pointer: &str) -> T {
    let value = event.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is absent in {event}"));
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{pointer}: {error} in {event}"))
}

/// Checks that a field has exactly this value.
pub(crate) fn expect<T: Into<Value> + Debug>(event: &Value, pointer: &str, value: T) {
    let value = value.into();
    let found = event.pointer(pointer);
    assert_eq!(found, Some(&value), "{pointer} in {event}");
}

/// Checks that a field is absent.
pub(crate) fn expect_absent(event: &Value, pointer: &str) {
    assert_eq!(event.pointer(pointer), None, "{pointer} in {event}");
}

/// Checks that a field is absent or false.
pub(crate) fn expect_not(event: &Value, pointer: &str) {
    let found = event.pointer(pointer);
    assert!(
        found.is_none_or(|found| found == &Value::Bool(false)),
        "{pointer} must be absent or false in {event}"
    );
}

/// Checks that the process object at `pointer` is `who`, in every field that /proc knows.
pub(crate) fn expect_process(event: &Value, pointer: &str, who: &Who) {
    expect_process_renamed(event, pointer, who);
    expect(event, &format!("{pointer}/comm"), who.comm.clone());
}

/// The same as `expect_process`, for a process whose name has changed since.
pub(crate) fn expect_process_renamed(event: &Value, pointer: &str, who: &Who) {
    let at = |name: &str| format!("{pointer}/{name}");
    expect(event, &at("pid"), who.pid);
    expect(event, &at("pids"), who.pids.clone());
    expect(event, &at("ppid"), who.ppid);
    expect(event, &at("uid"), who.uid);
    expect(event, &at("ns"), who.ns);
    let start: u64 = get(event, &at("start_boot_ns"));
    assert_eq!(
        start / 10_000_000,
        who.start_ticks,
        "start_boot_ns at {pointer} must be the start in /proc: {event}"
    );
}

/// Checks that the event's namespace object is this one, at this level.
pub(crate) fn expect_namespace(event: &Value, ns: &Namespace, level: usize) {
    expect(event, "/ns/inum", ns.inum);
    expect(event, "/ns/level", level);
    expect(event, "/ns/parent", ns.parent);
    expect(event, "/ns/user_ns", ns.user_ns);
    expect(event, "/ns/owner_uid", ns.owner_uid);
    match ns.kernel_id {
        Some(id) => expect(event, "/ns/kernel_id", id),
        None => expect_absent(event, "/ns/kernel_id"),
    }
}

/// Checks that the event happened during the actor's action.
pub(crate) fn expect_within(event: &Value, window: Window) {
    let boot_ns = boot_ns(event);
    assert!((window.from..=window.to).contains(&boot_ns), "boot_ns is not within {window:?}: {event}");
}

pub(crate) fn boot_ns(event: &Value) -> u64 {
    get(event, "/boot_ns")
}

/// Checks that the events came in this order.
pub(crate) fn expect_order(events: &[&Value]) {
    let seq = |event: &Value| get::<u64>(event, "/seq");
    for pair in events.windows(2) {
        assert!(seq(pair[0]) < seq(pair[1]), "these came in the other order:\n  {}\n  {}", pair[0], pair[1]);
    }
}

/// Checks that the program exited with this code.
pub(crate) fn expect_code(status: ExitStatus, code: i32, stderr: &str) {
    assert_eq!(status.code(), Some(code), "exit code ({status}), stderr: {stderr}");
}
