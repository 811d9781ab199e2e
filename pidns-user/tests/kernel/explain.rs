//! Tests of `explain`. An actor creates a situation, and `explain` must show it.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::actor_handle::{Actor, patience, run};
use crate::facts::Who;
use crate::forest::outer_number_of_thread;
use crate::recordings::{Recorder, run_on};
use crate::tracer::program;
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(explain_names_the_processes_that_joined_a_namespace),
    test!(a_joined_process_has_a_parent_that_is_invisible_in_its_namespace),
    test!(explain_names_the_namespace_in_which_new_children_start),
    test!(explain_names_the_reaper_of_a_zombie),
    test!(explain_names_the_process_and_the_tids_of_a_thread),
    test!(explain_names_the_file_that_holds_an_empty_namespace),
    test!(a_dead_namespace_is_explained_from_a_recording),
    test!(an_unknown_target_is_not_explained),
    test!(a_target_that_ends_meanwhile_is_explained_or_unknown),
];

/// The output of `explain` for this target, as JSON and as text.
#[track_caller]
fn explain(target: impl ToString) -> (Value, String) {
    let target = target.to_string();
    let report = |args: &[&str]| {
        let (status, stdout, stderr) = run(Command::new(program()).arg("explain").arg(&target).args(args));
        assert_eq!(status.code(), Some(0), "{stderr}");
        stdout
    };
    let json = report(&["-o", "json"]);
    (serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}")), report(&[]))
}

fn explain_names_the_processes_that_joined_a_namespace() {
    let mut actor = Actor::start("still-joined", &[]);
    let init: Who = actor.hear("init");
    let joiner: Who = actor.hear("joiner");
    let child: Who = actor.hear("child");
    let _: bool = actor.hear("ready");
    let (report, text) = explain(init.ns);
    let report = &report["namespace"];
    assert_eq!(report["state"]["kind"], "alive", "{report:#}");
    assert_eq!(report["init"]["pid"], init.pid);
    assert_eq!(report["processes"], 2);
    let joined = report["joined"].as_array().expect("a list of joined processes");
    assert_eq!(joined.len(), 1, "{joined:#?}");
    assert_eq!((&joined[0]["process"]["pid"], &joined[0]["parent"]), (&child.pid.into(), &joiner.pid.into()));
    assert_eq!(joined[0]["from"], joiner.ns);
    assert!(text.contains(&format!("[{}]", joiner.pid)) && text.contains("Parents"), "{text}");
    actor.go();
    actor.finish();
}

fn a_joined_process_has_a_parent_that_is_invisible_in_its_namespace() {
    let mut actor = Actor::start("still-joined", &[]);
    let init: Who = actor.hear("init");
    let child: Who = actor.hear("child");
    let _: bool = actor.hear("ready");
    let (report, text) = explain(child.pid);
    let report = &report["process"];
    assert_eq!(report["process"]["pid"], child.pid, "{report:#}");
    assert_eq!((&report["joined"], &report["parent_visible"]), (&true.into(), &false.into()), "{report:#}");
    let levels: Vec<_> = report["levels"].as_array().expect("levels").iter().collect();
    assert_eq!(levels.last().expect("a level")["ns"], init.ns);
    assert!(levels.iter().map(|level| &level["pid"]).eq(child.pids.iter()), "{levels:?}");
    assert!(text.contains("invisible there"), "{text}");
    let (init, text) = explain(init.pid);
    assert_eq!(init["process"]["init_of"], 1, "the other process in the namespace: {init:#}");
    assert!(text.contains("PID 1"), "{text}");
    actor.go();
    actor.finish();
}

fn explain_names_the_namespace_in_which_new_children_start() {
    let mut actor = Actor::start("still-joined", &[]);
    let init: Who = actor.hear("init");
    let joiner: Who = actor.hear("joiner");
    let child: Who = actor.hear("child");
    let _: bool = actor.hear("ready");
    let (report, text) = explain(joiner.pid);
    assert_eq!(report["process"]["children_ns"], init.ns, "{report:#}");
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(&format!("new ones start in {}, not in its own namespace", init.ns)), "{text}");
    let (report, text) = explain(child.pid);
    assert!(report["process"]["children_ns"].is_null(), "its children start in its own: {report:#}");
    assert!(!text.contains("new ones start"), "{text}");
    actor.go();
    actor.finish();
}

fn explain_names_the_reaper_of_a_zombie() {
    let mut actor = Actor::start("still-zombie", &[]);
    let _: bool = actor.hear("ready");
    let init: Who = actor.hear("init");
    let (report, text) = explain(init.ns);
    let zombies = report["namespace"]["zombies"].as_array().expect("zombies").clone();
    assert_eq!(zombies.len(), 1, "{zombies:#?}");
    assert_eq!(zombies[0]["reaper"]["pid"], init.pid, "{zombies:#?}");
    assert!(text.contains("must reap it"), "{text}");
    let (report, _) = explain(&zombies[0]["process"]["pid"]);
    assert_eq!(report["process"]["zombie"]["reaper"]["pid"], init.pid, "{report:#}");
    actor.go();
    actor.finish();
}

fn explain_names_the_process_and_the_tids_of_a_thread() {
    let mut actor = Actor::start("still-thread", &[]);
    let init: Who = actor.hear("init");
    let inner: u32 = actor.hear("thread");
    let _: bool = actor.hear("ready");
    let tid = outer_number_of_thread(&init, inner);
    let (report, text) = explain(tid);
    let report = &report["process"];
    assert_eq!(report["process"]["pid"], init.pid, "{report:#}");
    assert_eq!(report["thread"]["tid"], tid, "{report:#}");
    let levels = report["thread"]["levels"].as_array().expect("levels");
    let levels: Vec<_> = levels.iter().map(|level| &level["pid"]).collect();
    assert_eq!((levels.first(), levels.last()), (Some(&&tid.into()), Some(&&inner.into())), "{report:#}");
    assert!(text.contains(&format!("{tid} is a thread of this process")), "{text}");
    actor.go();
    actor.finish();
}

fn explain_names_the_file_that_holds_an_empty_namespace() {
    let mut actor = Actor::start("still-held-by-a-file", &[]);
    let _: bool = actor.hear("ready");
    let ns: u64 = actor.hear("ns");
    let (report, text) = explain(ns);
    let report = &report["namespace"];
    assert_eq!(report["processes"], 0, "{report:#}");
    let holders = report["holders"].as_array().expect("holders");
    assert!(holders.iter().any(|holder| holder["kind"] == "fd"), "{holders:#?}");
    assert!(text.contains(" fd "), "{text}");
    actor.go();
    actor.finish();
}

fn a_dead_namespace_is_explained_from_a_recording() {
    let recorder = Recorder::start("it.ndjson", &[]);
    let report = Actor::start("zombie", &["10"]).finish();
    let child = report.who("child");
    thread::sleep(Duration::from_millis(100));
    let (_directory, file) = recorder.stop();
    let (code, json, stderr) = run_on(&file, &["explain", &child.ns.to_string(), "-o", "json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let report: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    let kind = &report["namespace"]["state"]["kind"];
    assert!(["ended", "gone"].map(Value::from).contains(kind), "{report:#}");
    let events = report["history"]["events"].as_array().expect("a list of events");
    let names: Vec<_> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    for name in ["namespace.create", "namespace.init", "namespace.init_exit", "namespace.teardown"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let counts = &report["history"]["counts"];
    assert!(counts["forks"].as_u64().is_some_and(|forks| forks >= 2), "{counts}");
    assert_eq!(counts["exits"], counts["forks"], "{counts}");

    let (code, text, stderr) = run_on(&file, &["explain", &child.pid.to_string()]);
    assert_eq!(code, Some(0), "{stderr}");
    for part in ["exit", "reap", "fork"] {
        assert!(text.lines().any(|line| line.contains(&format!("  {part}  "))), "{part}: {text}");
    }
}

fn an_unknown_target_is_not_explained() {
    for (target, code) in [
        ("4194303", 1),
        ("4294967295", 1),
        ("no-such-container", 1),
        ("nobody/is-called-so", 1),
        ("pid:[3]", 2),
    ] {
        let (status, stdout, stderr) = run(Command::new(program()).args(["explain", target]));
        assert_eq!(status.code(), Some(code), "{target}: {stderr}");
        assert!(stdout.is_empty() && !stderr.is_empty(), "{target}: {stdout}{stderr}");
    }
}

/// The namespace that the process has unshared, once its first child exists.
fn unshared_namespace(pid: u32) -> u64 {
    let link_of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid_for_children"));
    let own = link_of(std::process::id()).expect("read the own namespace");
    let began = Instant::now();
    loop {
        if let Ok(link) = link_of(pid)
            && link != own
        {
            let number =
                link.to_str().and_then(|link| link.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok());
            return number.expect("an inode number");
        }
        assert!(began.elapsed() < patience(20), "unshare has no child");
        thread::sleep(Duration::from_millis(1));
    }
}

fn a_target_that_ends_meanwhile_is_explained_or_unknown() {
    // `explain` takes about 40 ms on an idle machine, so the target ends before, during or after its snapshot.
    for delay in (0..60).step_by(3) {
        for is_namespace in [false, true] {
            let mut unshare = Command::new("unshare")
                .args(["--pid", "--fork", "--kill-child", "sleep", "60"])
                .spawn()
                .expect("start unshare");
            let namespace = unshared_namespace(unshare.id());
            let target = if is_namespace { namespace } else { unshare.id().into() }.to_string();
            let explain = Command::new(program())
                .args(["explain", &target])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("start explain");
            thread::sleep(Duration::from_millis(delay));
            unshare.kill().expect("it is not reaped yet");
            unshare.wait().expect("wait for unshare");
            let output = explain.wait_with_output().expect("wait for explain");
            let (stdout, stderr) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let is_named = match output.status.code() {
                Some(0) => stdout.contains(&target),
                Some(1) => stdout.is_empty() && stderr.contains(&target),
                _ => false,
            };
            assert!(is_named, "{target} after {delay} ms: {}\n{stdout}\n{stderr}", output.status);
        }
    }
}
