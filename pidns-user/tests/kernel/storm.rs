//! Many lives at once: all are seen, and where they cannot be, what is missing is counted.

use std::collections::{BTreeMap, HashSet};
use std::process::{Command, ExitStatus};

use serde::Deserialize;

use crate::facts::Who;
use crate::invariants::{Invariants, ProcessKey};
use crate::seen::expect_code;
use crate::settings::{SECONDS_FOR_A_STORM, lives};
use crate::stage::{Actor, run};
use crate::sys;
use crate::tracer::FileTracer;
use crate::{Test, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_storm_is_seen_without_loss),
    test!(every_zombie_of_a_storm_is_seen_to_go),
    test!(what_a_small_ring_loses_is_counted_and_the_stream_goes_on),
    test!(strict_turns_a_loss_into_an_exit_code),
    test!(who_enters_a_storm_from_outside_is_none_of_it),
    test!(the_model_is_surprised_by_nothing_where_no_event_was_lost),
];

const WORKERS: u64 = 2;
#[derive(Debug, Deserialize)]
struct End {
    events: BTreeMap<String, u64>,
    #[serde(default)]
    lost: BTreeMap<String, u64>,
    kernel: BTreeMap<String, KernelCount>,
    #[serde(default)]
    swept: BTreeMap<String, u64>,
    model: Option<Model>,
}

#[derive(Debug, Deserialize)]
struct Model {
    #[serde(default)]
    surprises: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
struct KernelCount {
    submitted: u64,
    lost: u64,
}

#[derive(Deserialize)]
struct Loss {
    count: u64,
}

/// What the stream of a storm holds.
struct Report {
    /// Lines about processes of the storm, by event.
    inside: BTreeMap<String, u64>,
    /// Lines about other processes of its namespace, by event: those that were forked from outside (nsenter, docker exec, a tool
    /// that asks each namespace how it numbers processes), and what stems from them.
    visitors: BTreeMap<String, u64>,
    lost_lines: u64,
    straggler_seen: bool,
    end: End,
    stderr: String,
    status: ExitStatus,
}

impl Report {
    fn seen(&self, event: &str) -> u64 {
        self.inside.get(event).copied().unwrap_or(0)
    }

    /// The lines about processes of its namespace, of any kind.
    fn seen_there(&self, event: &str) -> u64 {
        self.seen(event) + self.visitors.get(event).copied().unwrap_or(0)
    }

    fn kernel(&self, event: &str) -> &KernelCount {
        self.end
            .kernel
            .get(event)
            .unwrap_or_else(|| panic!("the kernel's counts name {event}: {:?}", self.end.kernel))
    }
}

/// How a storm is watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// To its end.
    Steadily,
    /// Until every zombie is gone too, or some seconds have passed.
    ToTheLastReap,
    /// By a program that is stopped while the storm lasts, so that the ring must overflow.
    Stalled,
    /// To its end, and others enter its namespace meanwhile.
    WithVisitors,
}

/// How many processes enter a storm's namespace, each of which forks one more there.
const VISITORS: u64 = 4;

fn visit(init: &Who) {
    for _ in 0..VISITORS {
        let file = format!("--pid=/proc/{}/ns/pid", init.pid);
        let (status, _, stderr) = run(Command::new("nsenter").args([&file, "sh", "-c", "true & wait"]));
        assert!(status.success(), "nsenter: {stderr}");
    }
}

/// A storm of so many lives in one namespace, watched through a filter for that namespace.
fn watch_storm(lives: u64, watch: Watch, args: &[&str]) -> Report {
    let mut actor = Actor::start("storm", &[&lives.to_string(), &WORKERS.to_string()]);
    let init: Who = actor.hear("init");
    // Held, so that its number is not another's before the stream has ended.
    let _pin = std::fs::File::open(format!("/proc/{}/ns/pid", init.pid)).expect("a child's namespace");
    let filter = ["-n", &init.ns.to_string(), "-e", "process.*", "-e", "namespace.*"];
    let tracer = FileTracer::start(&[&filter, args].concat());
    if watch == Watch::Stalled {
        sys::kill(tracer.pid(), libc::SIGSTOP).expect("a child can be stopped");
    }
    actor.go();
    if watch == Watch::WithVisitors {
        visit(&init);
    }
    let done: u64 = actor.hear_within(SECONDS_FOR_A_STORM, "lives");
    if watch == Watch::Stalled {
        sys::kill(tracer.pid(), libc::SIGCONT).expect("a child can be continued");
        tracer.wait_for_text("the loss", r#""event":"stream.lost""#);
        // The small ring would lose the process after the storm, too.
        tracer.wait_until_quiet();
    }
    assert_eq!(done, lives, "lives that the storm gave");
    actor.go();
    let straggler: Who = actor.hear("straggler");
    tracer.wait_for_text("the process after the storm", r#""exit":{"code":42}"#);
    actor.go();
    actor.finish();
    if watch == Watch::ToTheLastReap {
        // A process is freed some milliseconds after its parent has waited for it.
        tracer.wait_for_lines(r#""event":"process.reap""#, births(lives) + 1);
    }
    let mut rules = Invariants::default();
    let (mut inside, mut visitors) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    let mut from_outside = HashSet::new();
    let (mut losses, mut end, mut straggler_seen) = (0, None, false);
    let (stderr, status) = tracer.interrupt(|line| {
        let Some(glance) = rules.line(line) else { return };
        match (&*glance.event, glance.process) {
            ("stream.lost", _) => losses += serde_json::from_str::<Loss>(line).expect("a count").count,
            ("stream.end", _) => {
                end = serde_json::from_str::<End>(line).map_err(|error| panic!("{error}: {line}")).ok()
            }
            (event, Some(process)) if process.ns == Some(init.ns) => {
                straggler_seen |= event == "process.exit" && process.pid == straggler.pid;
                let key = |process: ProcessKey| (process.pid, process.start_boot_ns);
                if let Some(parent) = glance.parent
                    && (parent.ns != Some(init.ns) || from_outside.contains(&key(parent)))
                {
                    from_outside.insert(key(process));
                }
                let counts = if from_outside.contains(&key(process)) { &mut visitors } else { &mut inside };
                match counts.get_mut(event) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(event.to_owned(), 1)),
                }
            }
            _ => {}
        }
    });
    let counts = rules.end();
    let end = end.expect("a checked stream has an end");
    for event in inside.keys() {
        assert_eq!(
            end.events.get(event),
            Some(&counts[event]),
            "stream.end counts the {event} that were printed"
        );
    }
    Report { inside, visitors, lost_lines: losses, straggler_seen, end, stderr, status }
}

/// The storm's own, and those that it needs to make them: the workers and the last one. The init is older than the
/// tracer, so it is only seen to exit.
fn births(lives: u64) -> u64 {
    lives + WORKERS + 1
}

fn a_storm_is_seen_without_loss() {
    let lives = lives();
    let report = watch_storm(lives, Watch::Steadily, &[]);
    expect_code(report.status, 0, &report.stderr);
    let lost: u64 = report.end.lost.values().sum();
    assert_eq!(lost, report.lost_lines, "the lines of the stream and its end agree on what was lost");
    let left_out = report.end.lost.get("hook").copied().unwrap_or(0);
    // Where the kernel leaves programs out, the second one of a moment can be put aside as the first: in a guest whose
    // CPU stands still most of the time that happens to a few of thousands, and all are counted.
    let most = if probes::tracepoints_are_preemptible() { lives / 50 } else { 0 };
    assert!(
        lost == left_out && left_out <= most,
        "the ring was large enough, and the kernel ran all hooks but {most}: {:?}, {}",
        report.end,
        report.stderr
    );
    let expected = births(lives);
    for (event, expected) in
        [("process.fork", expected), ("process.exit", expected + 1), ("process.reap", expected + 1)]
    {
        let seen = report.seen(event);
        assert!(
            seen <= expected && expected - seen <= left_out,
            "{event}: {seen} of {expected} at the end of the stream, {left_out} counted as lost"
        );
    }
    for event in ["process.fork", "process.exit", "process.reap"] {
        let kernel = report.kernel(event);
        let swept = report.end.swept.get(event).copied().unwrap_or(0);
        assert_eq!(
            (kernel.submitted + swept, kernel.lost),
            (report.seen_there(event), 0),
            "{event} as the kernel counted it, visitors {:?} included",
            report.visitors
        );
    }
    assert!(report.straggler_seen, "the process after the storm");
}

/// Where the kernel frees a process in a moment at which it runs no eBPF program (a machine whose PID 1 is hidden from
/// them has such moments), only a sweep can show that the zombie is gone.
fn every_zombie_of_a_storm_is_seen_to_go() {
    let lives = lives() / 5;
    let report = watch_storm(lives, Watch::ToTheLastReap, &[]);
    expect_code(report.status, 0, &report.stderr);
    let left_out = report.end.lost.get("hook").copied().unwrap_or(0);
    let expected = births(lives) + 1;
    let exits = report.seen("process.exit");
    assert!(
        exits <= expected && expected - exits <= left_out,
        "{exits} exits of {expected}, {left_out} lost"
    );
    let reapings = report.seen("process.reap");
    assert!(
        (exits..=expected).contains(&reapings),
        "{reapings} reapings of {exits} exits, and of {expected} lives"
    );
}

fn expect_loss_is_counted(report: &Report, lives: u64) {
    let expected = births(lives);
    let ring = report.end.lost.get("ring").copied().unwrap_or(0);
    assert!(ring > 0, "a stopped reader and a small ring lose events: {:?}", report.end);
    let lost: u64 = report.end.lost.values().sum();
    assert_eq!(report.lost_lines, lost, "the lines of the stream and its end agree on what was lost");
    for (event, expected) in [("process.fork", expected), ("process.exit", expected + 1)] {
        let (seen, kernel) = (report.seen(event), report.kernel(event));
        let (known, left_out) = (seen + kernel.lost, report.end.lost.get("hook").copied().unwrap_or(0));
        assert!(
            known <= expected && expected - known <= left_out,
            "{event}: {seen} seen and {kernel:?}, {left_out} without a record, of {expected}"
        );
        assert_eq!(kernel.submitted, report.seen_there(event), "{event}: all that was submitted was printed");
    }
    let by_kind: u64 = report.end.kernel.values().map(|count| count.lost).sum();
    assert_eq!(by_kind, ring, "the losses by kind add up: {:?}", report.end);
    let stderr = report.stderr.to_lowercase();
    let named = stderr.contains("lost") && stderr.contains(&ring.to_string());
    assert!(named, "stderr names the loss of {ring}: {}", report.stderr);
    assert!(report.straggler_seen, "the stream goes on after the loss");
}

fn what_a_small_ring_loses_is_counted_and_the_stream_goes_on() {
    let lives = lives() / 10;
    let report = watch_storm(lives, Watch::Stalled, &["--ring-size", "16K"]);
    expect_loss_is_counted(&report, lives);
    expect_code(report.status, 0, &report.stderr);
}

fn strict_turns_a_loss_into_an_exit_code() {
    let lives = lives() / 20;
    let report = watch_storm(lives, Watch::Stalled, &["--ring-size", "16K", "--strict"]);
    expect_loss_is_counted(&report, lives);
    expect_code(report.status, 5, &report.stderr);
}

/// Others may enter any namespace of a machine at any time: what they fork there is no part of the storm.
fn who_enters_a_storm_from_outside_is_none_of_it() {
    let lives = lives() / 20;
    let report = watch_storm(lives, Watch::WithVisitors, &[]);
    expect_code(report.status, 0, &report.stderr);
    let left_out = report.end.lost.get("hook").copied().unwrap_or(0);
    for (event, expected) in [("process.fork", births(lives)), ("process.exit", births(lives) + 1)] {
        let seen = report.seen(event);
        assert!(
            seen <= expected && expected - seen <= left_out,
            "{event}: {seen} of {expected}, {left_out} lost"
        );
        let visitors = report.visitors.get(event).copied().unwrap_or(0);
        // The shell and what it starts, of each.
        assert!(visitors >= 2 * VISITORS - left_out.min(2 * VISITORS), "{event}: {:?}", report.visitors);
    }
}

/// The stream starts in the midst of a storm, and sees many namespaces come and go: of none the end may come before the
/// beginning, or twice.
fn the_model_is_surprised_by_nothing_where_no_event_was_lost() {
    let (lives, namespaces) = (lives() / 5, lives() / 50);
    let mut storm = Actor::start("storm", &[&lives.to_string(), &WORKERS.to_string()]);
    let _: Who = storm.hear("init");
    storm.go();
    let tracer =
        FileTracer::start(&["--snapshot", "--ring-size", "64M", "-e", "process.*", "-e", "namespace.*"]);
    let mut churn = Actor::start("churn", &[&namespaces.to_string()]);
    let _: u64 = churn.hear_within(SECONDS_FOR_A_STORM, "done");
    churn.finish();
    let done: u64 = storm.hear_within(SECONDS_FOR_A_STORM, "lives");
    assert_eq!(done, lives, "lives that the storm gave");
    storm.go();
    let _: Who = storm.hear("straggler");
    storm.go();
    storm.finish();
    tracer.wait_until_quiet();
    let (mut created, mut end) = (0, None);
    let (stderr, status) = tracer.interrupt(|line| {
        if line.contains(r#""event":"namespace.create""#) {
            created += 1;
        } else if line.contains(r#""event":"stream.end""#) {
            end = serde_json::from_str::<End>(line).map_err(|error| panic!("{error}: {line}")).ok();
        }
    });
    expect_code(status, 0, &stderr);
    let end = end.expect("the stream has an end");
    assert!(
        end.lost.is_empty() || probes::tracepoints_are_preemptible(),
        "the ring was large enough: {:?}, {stderr}",
        end.lost
    );
    let creations = end.kernel.get("namespace.create").map_or(0, |count| count.submitted + count.lost);
    let left_out = end.lost.get("hook").copied().unwrap_or(0);
    assert!(creations >= created, "the kernel counts each of the {created} that were printed: {creations}");
    assert!(created + left_out >= namespaces, "{created} of {namespaces} namespaces, {left_out} lost");
    if end.lost.is_empty() {
        let model = end.model.expect("a stream with a snapshot has a model");
        assert_eq!(model.surprises, BTreeMap::new(), "{creations} namespaces, and nothing was lost");
    }
}
