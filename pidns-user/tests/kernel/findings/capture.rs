//! Checks the findings of a situation in the stream, in a recording, and in the views.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::actor_handle::{concerns_actor_by_pid, patience};
use crate::forest::{document, namespace, output};
use crate::recordings::{Recorder, run_on};
use crate::seen::Seen;
use crate::sys;
use crate::tracer::Tracer;

/// Seconds between a cause and its finding, unless the finding has a longer threshold.
const SECONDS: u64 = 2;

/// A stream of findings and a recording, both started before the situation.
pub(super) struct Capture {
    /// The start on the kernel's clock.
    began: u64,
    pub(super) tracer: Tracer,
    recorder: Option<Recorder>,
}

/// Whether the finding mentions a process or namespace with one of these numbers.
fn mentions(finding: &Value, numbers: &BTreeSet<u64>) -> bool {
    match finding {
        Value::Number(number) => number.as_u64().is_some_and(|number| numbers.contains(&number)),
        Value::Array(values) => values.iter().any(|value| mentions(value, numbers)),
        Value::Object(fields) => {
            let keys = [
                "pid", "inum", "ns", "process", "keeper", "sender", "evidence", "holder", "finding", "parent",
            ];
            keys.iter().filter_map(|key| fields.get(*key)).any(|value| mentions(value, numbers))
        }
        _ => false,
    }
}

impl Capture {
    pub(super) fn new(thresholds: &[&str]) -> Self {
        let began = sys::boot_ns();
        let recorder = Some(Recorder::start("findings.ndjson", thresholds));
        let tracer = Tracer::start(&[&["-e", "finding", "--incident-time=3s"], thresholds].concat());
        Self { began, tracer, recorder }
    }

    /// Waits for the finding of this kind about this namespace or process. It must come in time.
    #[track_caller]
    pub(super) fn opened(&self, id: &str, about: u64) -> Value {
        let began = Instant::now();
        let about = BTreeSet::from([about]);
        let is_it = |event: &Value| {
            event["event"] == "finding"
                && event["state"] == "opened"
                && event["finding"]["id"] == id
                && mentions(&event["finding"], &about)
        };
        let event = self.tracer.wait_for(&format!("finding {id}"), is_it);
        let took = began.elapsed();
        // The threshold of one second, and the pause between two detections.
        assert!(took < patience(SECONDS), "{id} took {took:?}");
        eprintln!("{id}: {took:?} after its cause");
        event["finding"].clone()
    }

    /// Waits until that finding is so. A snapshot may have opened it before everything had happened.
    #[track_caller]
    pub(super) fn becomes(&self, opened: &Value, is_so: impl Fn(&Value) -> bool) -> Value {
        if is_so(opened) {
            return opened.clone();
        }
        let is_it = |event: &Value| {
            event["event"] == "finding"
                && event["state"] != "closed"
                && event["finding"]["since_boot_ns"] == opened["since_boot_ns"]
                && event["finding"]["id"] == opened["id"]
                && event["finding"]["ns"]["inum"] == opened["ns"]["inum"]
                && is_so(&event["finding"])
        };
        self.tracer.wait_for(&format!("the whole finding {}", opened["id"]), is_it)["finding"].clone()
    }

    /// Waits for the end of that finding.
    #[track_caller]
    pub(super) fn closed(&self, opened: &Value) {
        let key = |finding: &Value| {
            (finding["id"].clone(), finding["ns"]["inum"].clone(), finding["process"]["pid"].clone())
        };
        let is_it = |event: &Value| {
            event["event"] == "finding" && event["state"] == "closed" && key(&event["finding"]) == key(opened)
        };
        self.tracer.wait_for(&format!("the end of {}", opened["id"]), is_it);
    }

    /// Ends the recording. It must have a finding of the same kind, namespace and process.
    #[track_caller]
    pub(super) fn recorded(&mut self, opened: &Value) {
        let key = |finding: &Value| {
            (finding["id"].clone(), finding["ns"]["inum"].clone(), finding["process"]["pid"].clone())
        };
        let recorder = self.recorder.take().expect("the recorder runs");
        let is_it = |event: &Value| event["event"] == "finding" && key(&event["finding"]) == key(opened);
        let deadline = Instant::now() + patience(10);
        while !recorder.has(is_it) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
        }
        let (_directory, file) = recorder.stop();
        let (code, document, stderr) = run_on(&file, &["findings", "-o", "json"]);
        assert_eq!(code, Some(1), "expected findings: {stderr}");
        let document: Value =
            serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}: {document}"));
        let found = document["findings"].as_array().expect("findings");
        assert!(found.iter().any(|finding| key(finding) == key(opened)), "{opened:#} is not in {document:#}");
    }

    /// Ends the stream. It must have reported exactly these kinds of findings about the namespaces and processes.
    #[track_caller]
    pub(super) fn only(self, expected: &[&str], about: &[u64]) -> Seen {
        let seen = self.tracer.stop();
        let about: BTreeSet<u64> = about.iter().copied().collect();
        // The kernel reuses a namespace's number at once, possibly for a namespace of another program.
        let is_ours = |finding: &Value| {
            concerns_actor_by_pid(finding)
                .unwrap_or_else(|| mentions(finding, &about) && since(finding) >= self.began)
        };
        let found: BTreeSet<&str> = seen
            .named("finding")
            .filter(|event| is_ours(&event["finding"]))
            .map(|event| event["finding"]["id"].as_str().expect("an id"))
            .collect();
        assert_eq!(found, expected.iter().copied().collect(), "findings about {about:?}");
        seen
    }
}

/// Checks that `tree` and `explain` show a finding of the stream from a snapshot alone.
#[track_caller]
pub(super) fn is_shown_at_once(id: &str, ns: u64) {
    let target = ns.to_string();
    let tree = document(&["tree", &target]);
    let line = namespace(&tree, ns);
    let found = line["findings"].as_array().is_some_and(|found| found.iter().any(|found| found["id"] == id));
    assert!(found, "no {id} in {line:#}");
    let (table, _) = output(&["tree", &target], 0);
    assert!(table.contains(&format!("!{id}")), "{table}");
    let (text, _) = output(&["explain", &target], 0);
    assert!(text.contains(&format!(" {id}, for ")), "{text}");
}

fn since(finding: &Value) -> u64 {
    finding["since_boot_ns"].as_u64().expect("a time")
}

/// The facts of this kind.
pub(super) fn facts<'a>(finding: &'a Value, kind: &str) -> Vec<&'a Value> {
    let evidence = finding["evidence"].as_array().expect("evidence");
    evidence.iter().filter(|fact| fact["kind"] == kind).collect()
}
