//! Tests with many short-lived processes at the same time (a storm). The stream must report each of them, or count the
//! missing events.

use std::collections::{BTreeMap, HashSet};
use std::process::{Command, ExitStatus};

use serde::Deserialize;

use crate::actor_handle::{Actor, run};
use crate::facts::Who;
use crate::invariants::{Invariants, ProcessKey};
use crate::seen::expect_code;
use crate::settings::{SECONDS_FOR_A_STORM, lives};
use crate::sys;
use crate::tracer::FileTracer;
use crate::{Test, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_storm_is_traced_without_loss),
    test!(every_zombie_of_a_storm_is_reported_as_reaped),
    test!(losses_of_a_small_ring_are_counted_and_the_stream_continues),
    test!(strict_turns_a_loss_into_an_exit_code),
    test!(visitors_from_outside_do_not_count_as_the_storm),
    test!(without_losses_the_model_has_no_inconsistencies),
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

/// The events of a storm that the stream reported.
struct Report {
    /// Number of lines about processes of the storm, by event.
    inside: BTreeMap<String, u64>,
    /// Number of lines about other processes in its namespace, by event. Processes outside forked them (nsenter,
    /// docker exec, a tool that asks each namespace for its PIDs); their descendants count too.
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

    /// Number of lines about all processes in its namespace.
    fn seen_there(&self, event: &str) -> u64 {
        self.seen(event) + self.visitors.get(event).copied().unwrap_or(0)
    }

    fn kernel(&self, event: &str) -> &KernelCount {
        self.end
            .kernel
            .get(event)
            .unwrap_or_else(|| panic!("the kernel's counts lack {event}: {:?}", self.end.kernel))
    }
}

/// How long or under which conditions a storm is traced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// Until its end.
    Steadily,
    /// Until every zombie is reaped too, or for some seconds.
    ToTheLastReap,
    /// By a program that is stopped during the storm, so that the ring must overflow.
    Stalled,
    /// Until its end, while other processes enter its namespace.
    WithVisitors,
}

/// Number of processes that enter a storm's namespace. Each forks one more there.
const VISITORS: u64 = 4;

fn visit(init: &Who) {
    for _ in 0..VISITORS {
        let file = format!("--pid=/proc/{}/ns/pid", init.pid);
        let (status, _, stderr) = run(Command::new("nsenter").args([&file, "sh", "-c", "true & wait"]));
        assert!(status.success(), "nsenter: {stderr}");
    }
}

/// Runs a storm with this number of lives in one namespace, traced with a filter for that namespace.
fn watch_storm(lives: u64, watch: Watch, args: &[&str]) -> Report {
    let mut actor = Actor::start("storm", &[&lives.to_string(), &WORKERS.to_string()]);
    let init: Who = actor.hear("init");
    // Held open, so that no other namespace gets its number before the stream ends.
    let _pin = std::fs::File::open(format!("/proc/{}/ns/pid", init.pid)).expect("open the namespace");
    let filter = ["-n", &init.ns.to_string(), "-e", "process.*", "-e", "namespace.*"];
    let tracer = FileTracer::start(&[&filter, args].concat());
    if watch == Watch::Stalled {
        sys::kill(tracer.pid(), libc::SIGSTOP).expect("stop the tracer");
    }
    actor.go();
    if watch == Watch::WithVisitors {
        visit(&init);
    }
    let done: u64 = actor.hear_within(SECONDS_FOR_A_STORM, "lives");
    if watch == Watch::Stalled {
        sys::kill(tracer.pid(), libc::SIGCONT).expect("continue the tracer");
        tracer.wait_for_text("the loss", r#""event":"stream.lost""#);
        // Otherwise the small ring would also lose the process after the storm.
        tracer.wait_until_quiet();
    }
    assert_eq!(done, lives, "the number of lives in the storm");
    actor.go();
    let straggler: Who = actor.hear("straggler");
    tracer.wait_for_text("the process after the storm", r#""exit":{"code":42}"#);
    actor.go();
    actor.finish();
    if watch == Watch::ToTheLastReap {
        // The kernel frees a process some milliseconds after its parent's wait.
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
        assert_eq!(end.events.get(event), Some(&counts[event]), "stream.end must count the printed {event}");
    }
    Report { inside, visitors, lost_lines: losses, straggler_seen, end, stderr, status }
}

/// Number of forks in a storm: its short-lived processes, the workers and the last process. The init is older than the
/// tracer, so only its exit is seen.
fn births(lives: u64) -> u64 {
    lives + WORKERS + 1
}

fn a_storm_is_traced_without_loss() {
    let lives = lives();
    let report = watch_storm(lives, Watch::Steadily, &[]);
    expect_code(report.status, 0, &report.stderr);
    let lost: u64 = report.end.lost.values().sum();
    assert_eq!(lost, report.lost_lines, "the lines of the stream and its end must agree on the loss");
    let left_out = report.end.lost.get("hook").copied().unwrap_or(0);
    // On kernels that skip programs, the second program of a pair can be preempted too. In a guest that rarely gets CPU
    // time, this happens to a few of thousands of events. All are counted.
    let most = if probes::tracepoints_are_preemptible() { lives / 50 } else { 0 };
    assert!(
        lost == left_out && left_out <= most,
        "the ring must be large enough, and the kernel may skip at most {most} hooks: {:?}, {}",
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
            "the kernel's count of {event}, including visitors {:?}",
            report.visitors
        );
    }
    assert!(report.straggler_seen, "the process after the storm must be seen");
}

/// Some kernels run no eBPF program while the machine's PID 1 is current. If such a kernel frees a process at that
/// time, only a sweep shows that the zombie is gone.
fn every_zombie_of_a_storm_is_reported_as_reaped() {
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
    assert!(ring > 0, "a stopped reader and a small ring must lose events: {:?}", report.end);
    let lost: u64 = report.end.lost.values().sum();
    assert_eq!(report.lost_lines, lost, "the lines of the stream and its end must agree on the loss");
    for (event, expected) in [("process.fork", expected), ("process.exit", expected + 1)] {
        let (seen, kernel) = (report.seen(event), report.kernel(event));
        let (known, left_out) = (seen + kernel.lost, report.end.lost.get("hook").copied().unwrap_or(0));
        assert!(
            known <= expected && expected - known <= left_out,
            "{event}: {seen} seen and {kernel:?}, {left_out} without a record, of {expected}"
        );
        assert_eq!(
            kernel.submitted,
            report.seen_there(event),
            "{event}: all submitted records must be printed"
        );
    }
    let by_kind: u64 = report.end.kernel.values().map(|count| count.lost).sum();
    assert_eq!(by_kind, ring, "the losses by kind must add up: {:?}", report.end);
    let stderr = report.stderr.to_lowercase();
    let named = stderr.contains("lost") && stderr.contains(&ring.to_string());
    assert!(named, "stderr must name the loss of {ring}: {}", report.stderr);
    assert!(report.straggler_seen, "the stream must continue after the loss");
}

fn losses_of_a_small_ring_are_counted_and_the_stream_continues() {
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

/// Other processes may enter any namespace at any time. Their forks there do not belong to the storm.
fn visitors_from_outside_do_not_count_as_the_storm() {
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
        // Each visitor is a shell and its child.
        assert!(visitors >= 2 * VISITORS - left_out.min(2 * VISITORS), "{event}: {:?}", report.visitors);
    }
}

/// The stream starts in the middle of a storm, and many namespaces come and go. For the model, no process or namespace
/// may end before it begins, and none may end twice.
fn without_losses_the_model_has_no_inconsistencies() {
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
    assert_eq!(done, lives, "the number of lives in the storm");
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
        "the ring must be large enough: {:?}, {stderr}",
        end.lost
    );
    let creations = end.kernel.get("namespace.create").map_or(0, |count| count.submitted + count.lost);
    let left_out = end.lost.get("hook").copied().unwrap_or(0);
    assert!(creations >= created, "the kernel counts {creations} creations, but {created} were printed");
    assert!(created + left_out >= namespaces, "{created} of {namespaces} namespaces, {left_out} lost");
    if end.lost.is_empty() {
        let model = end.model.expect("a stream with a snapshot has a model");
        assert_eq!(
            model.surprises,
            BTreeMap::new(),
            "inconsistencies with {creations} namespaces, although nothing was lost"
        );
    }
}
