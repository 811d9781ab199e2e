//! A situation with its findings: in the stream, in a recording, and in the views.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::forest::{document, namespace, output};
use crate::recordings::{Recorder, run_on};
use crate::seen::Seen;
use crate::stage::{concerns_the_cast_by_pid, patience};
use crate::sys;
use crate::tracer::Tracer;

/// How long a finding may take after its cause, where it has no longer threshold.
const SECONDS: u64 = 2;

/// A stream of findings, and a recording, from before the situation.
pub(super) struct Stage {
    /// When, on the kernel's clock.
    began: u64,
    pub(super) tracer: Tracer,
    recorder: Option<Recorder>,
}

/// What the findings are about: any process or namespace whose number is among these.
fn mentions(finding: &Value, numbers: &BTreeSet<u64>) -> bool {
    match finding {
        Value::Number(number) => number.as_u64().is_some_and(|number| numbers.contains(&number)),
        Value::Array(values) => values.iter().any(|value| mentions(value, numbers)),
        Value::Object(fields) => {
            let keys = ["pid", "inum", "ns", "process", "keeper", "sender", "evidence", "finding", "parent"];
            keys.iter().filter_map(|key| fields.get(*key)).any(|value| mentions(value, numbers))
        }
        _ => false,
    }
}

impl Stage {
    pub(super) fn new(thresholds: &[&str]) -> Self {
        let began = sys::boot_ns();
        let recorder = Some(Recorder::start("findings.ndjson", &[]));
        let tracer = Tracer::start(&[&["-e", "finding", "--incident-time=3s"], thresholds].concat());
        Self { began, tracer, recorder }
    }

    /// The finding of this kind about this namespace or process, which must come in time.
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
        // Its own second, and a second between two detections.
        assert!(took < patience(SECONDS + 1), "{id} took {took:?}");
        eprintln!("{id}: {took:?} after its cause");
        event["finding"].clone()
    }

    /// The end of that finding.
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

    /// What a recording that ends here has, with the same kind, namespace and process.
    #[track_caller]
    pub(super) fn recorded(&mut self, opened: &Value) {
        // The recorder detects once a second, too.
        thread::sleep(Duration::from_millis(1_500));
        let recorder = self.recorder.take().expect("it is stopped once");
        let (_directory, file) = recorder.stop();
        let (code, document, stderr) = run_on(&file, &["findings", "-o", "json"]);
        assert_eq!(code, Some(1), "something is wrong: {stderr}");
        let document: Value =
            serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}: {document}"));
        let found = document["findings"].as_array().expect("findings");
        let key = |finding: &Value| {
            (finding["id"].clone(), finding["ns"]["inum"].clone(), finding["process"]["pid"].clone())
        };
        assert!(found.iter().any(|finding| key(finding) == key(opened)), "{opened:#} is not in {document:#}");
    }

    /// Ends the stream, which must have had these kinds of findings alone about the namespaces and processes.
    #[track_caller]
    pub(super) fn only(self, expected: &[&str], about: &[u64]) -> Seen {
        let seen = self.tracer.stop();
        let about: BTreeSet<u64> = about.iter().copied().collect();
        // The kernel gives the number of a namespace to the next one at once, which may be another program's.
        let is_ours = |finding: &Value| {
            concerns_the_cast_by_pid(finding)
                .unwrap_or_else(|| mentions(finding, &about) && since(finding) >= self.began)
        };
        let found: BTreeSet<&str> = seen
            .named("finding")
            .filter(|event| is_ours(&event["finding"]))
            .map(|event| event["finding"]["id"].as_str().expect("an id"))
            .collect();
        assert_eq!(found, expected.iter().copied().collect(), "of {about:?}");
        seen
    }
}

/// What a stream found about this namespace `tree` and `explain` show by a snapshot alone.
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
