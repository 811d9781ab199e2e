//! Creates each fault on this machine. Its finding must open within two seconds and name the right processes, and no
//! other finding may open. It must close when the cause is removed, and a recording must have the same finding.

mod capture;
pub(crate) mod in_the_agent;
pub(crate) mod limits;

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use self::capture::{Capture, facts, is_shown_at_once};
use crate::actor_handle::{Actor, run};
use crate::cgroups::{self, ScratchCgroup};
use crate::facts::Who;
use crate::forest::{document, namespace, output, process};
use crate::probes::{self, Outcome};
use crate::recordings::{Recorder, run_on};
use crate::seen::get;
use crate::states::Thaws;
use crate::sys;
use crate::tracer::{Tracer, command};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(an_init_that_does_not_reap_is_found),
    test!(an_init_that_reaps_has_no_finding),
    test!(a_storm_has_no_finding),
    test!(a_teardown_names_the_outside_parent_that_it_waits_for),
    test!(a_teardown_names_the_tracer_that_it_waits_for),
    test!(a_teardown_names_the_frozen_process_that_it_waits_for, needs freezer),
    test!(a_teardown_names_the_process_frozen_in_nanosleep, needs freezer),
    test!(a_teardown_names_the_process_stuck_in_the_kernel, needs probes::fuse),
    test!(a_teardown_that_was_held_up_names_its_blocker_afterwards),
    test!(a_fork_into_a_dead_namespace_is_found_with_its_init),
    test!(an_ignored_signal_and_the_kill_that_follows_name_their_sender),
    test!(a_refused_namespace_is_found, needs probes::user_namespaces),
    test!(a_namespace_held_by_a_file_is_found_with_the_holder),
    test!(a_namespace_held_by_a_mount_is_found_with_the_mount_point),
    test!(a_namespace_held_by_a_careless_unshare_is_found_with_the_process),
    test!(a_namespace_held_by_a_proc_is_found_with_the_mount_point),
    test!(a_namespace_held_by_a_zombie_init_is_found_with_the_parent_that_does_not_wait),
    test!(a_process_whose_session_has_ended_is_found),
    test!(a_helper_that_outlives_its_namespace_is_found),
    test!(a_deep_nest_is_found),
    test!(a_process_that_unshared_without_a_fork_is_found),
    test!(an_oom_killed_member_is_found, needs probes::memory_cgroup),
    test!(a_host_proc_is_found_when_its_namespace_is_the_target),
    test!(findings_exit_with_the_requested_code),
];

fn freezer() -> Outcome {
    match fs::exists("/sys/fs/cgroup/freezer/cgroup.procs").is_ok_and(|exists| exists) {
        true => Outcome::Run,
        false => Outcome::Skip("this machine has no cgroup v1 freezer".into()),
    }
}

fn an_init_that_does_not_reap_is_found() {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("init-does-not-reap", &["3"]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let found = capture.opened("zombies-not-reaped", init.ns);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&init.pid.into(), &"warning".into()));
    let zombies = facts(&found, "zombies")[0];
    assert_eq!((&zombies["count"], &zombies["orphans"]), (&3.into(), &3.into()), "{zombies:#}");
    is_shown_at_once("zombies-not-reaped", init.ns);
    capture.recorded(&found);
    actor.go();
    let _: bool = actor.hear("reaped");
    capture.closed(&found);
    actor.go();
    actor.finish();
    capture.only(&["zombies-not-reaped"], &[init.ns]);
}

fn an_init_that_reaps_has_no_finding() {
    let capture = Capture::new(&[]);
    let mut actor = Actor::start("init-reaps", &[]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    thread::sleep(Duration::from_secs(3));
    actor.go();
    actor.finish();
    capture.only(&[], &[init.ns]);
}

fn a_storm_has_no_finding() {
    let capture = Capture::new(&[]);
    let mut actor = Actor::start("storm", &["20000", "4"]);
    let init: Who = actor.hear("init");
    actor.go();
    let lives: u64 = actor.hear_within(120, "lives");
    assert_eq!(lives, 20_000);
    actor.go();
    let _: Who = actor.hear("straggler");
    actor.go();
    actor.finish();
    thread::sleep(Duration::from_secs(2));
    capture.only(&[], &[init.ns]);
}

/// `explain`, `tree` and `ps` must name the same process and the same reason as the finding.
#[track_caller]
fn views_agree_on_the_blocker(ns: u64, blocker: &Value) {
    let pid: sys::Pid = get(blocker, "/process/pid");
    let reason = match blocker["by"].as_str() {
        Some("parent") => "not_reaped",
        Some("tracer") => "traced",
        Some("freezer") => "frozen",
        Some("kernel") => "uninterruptible",
        other => panic!("{other:?}: {blocker:#}"),
    };
    let target = ns.to_string();
    let explained = document(&["explain", &target]);
    let tree = document(&["tree", &target]);
    for waits_for in [&explained["namespace"]["waits_for"], &namespace(&tree, ns)["waits_for"]] {
        let all = waits_for.as_array().unwrap_or_else(|| panic!("waits_for is not a list: {explained:#}"));
        let awaited = all.iter().find(|awaited| awaited["process"]["pid"] == pid);
        let awaited = awaited.unwrap_or_else(|| panic!("no {pid}: {waits_for:#}"));
        assert_eq!(awaited["why"]["kind"], reason, "{awaited:#}");
    }
    let listed = document(&["ps", &target]);
    let line = process(&listed, pid);
    assert_eq!((&line["awaited"]["ns"], &line["awaited"]["why"]["kind"]), (&ns.into(), &reason.into()));
    if reason == "uninterruptible" {
        let wchan: String = get(line, "/wchan");
        assert!(wchan.contains("request_wait"), "expected the kernel function in which it sleeps: {line:#}");
        let (_directory, file) = Recorder::start("stuck.ndjson", &[]).stop();
        let text = fs::read_to_string(file).expect("read the recording");
        let recorded = text.lines().any(|line| {
            line.contains("snapshot.process") && line.contains(&format!("\"wchan\":\"{wchan}\""))
        });
        assert!(recorded, "no snapshot.process has {wchan}");
    }
    let name = format!("{}[{pid}]", get::<String>(blocker, "/process/comm"));
    for (view, words) in [("explain", "Waits for"), ("tree", "dying: waits for")] {
        let (text, _) = output(&[view, &target], 0);
        assert!(text.contains(words) && text.contains(&name), "{text}");
    }
    let (text, _) = output(&["ps", &target], 0);
    assert!(text.contains("holds up the end of"), "{text}");
}

/// Returns the blocker of a hanging teardown. The finding must close when the actor continues.
#[track_caller]
fn blocked(situation: &str, args: &[&str], standing: bool) -> (Value, Who) {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start(situation, args);
    let is_frozen = situation.starts_with("frozen");
    let init: Who = actor.hear(if is_frozen { "outer" } else { "init" });
    if standing {
        let _: bool = actor.hear("standing");
        actor.go();
    }
    let _: bool = actor.hear("ready");
    let found = capture.opened("teardown-blocked", init.ns);
    is_shown_at_once("teardown-blocked", init.ns);
    views_agree_on_the_blocker(init.ns, facts(&found, "blocker")[0]);
    assert_eq!((&found["ns"]["inum"], &found["severity"]), (&init.ns.into(), &"critical".into()));
    capture.recorded(&found);
    let named: Who = match situation {
        _ if is_frozen => actor.hear("inner"),
        "hung-teardown" => actor.hear("parent"),
        "traced-teardown" => actor.hear("keeper"),
        _ => actor.hear("member"),
    };
    actor.go();
    actor.finish();
    capture.closed(&found);
    let killed = is_frozen || situation == "traced-teardown";
    let expected: &[&str] = if killed { &["teardown-blocked", "init-killed"] } else { &["teardown-blocked"] };
    capture.only(expected, &[init.ns]);
    let blockers = facts(&found, "blocker");
    assert_eq!(blockers.len(), 1, "{found:#}");
    (blockers[0].clone(), named)
}

fn a_teardown_names_the_outside_parent_that_it_waits_for() {
    let (blocker, parent) = blocked("hung-teardown", &[], true);
    assert_eq!((&blocker["by"], &blocker["keeper"]["pid"]), (&"parent".into(), &parent.pid.into()));
}

fn a_teardown_names_the_tracer_that_it_waits_for() {
    let (blocker, tracer) = blocked("traced-teardown", &[], false);
    assert_eq!((&blocker["by"], &blocker["keeper"]["pid"]), (&"tracer".into(), &tracer.pid.into()));
}

fn a_teardown_names_the_frozen_process_that_it_waits_for() {
    let group = Thaws(ScratchCgroup::make("/sys/fs/cgroup/freezer"));
    let (blocker, frozen) = blocked("frozen-teardown", &[group.0.path()], false);
    assert_eq!((&blocker["by"], &blocker["process"]["pid"]), (&"freezer".into(), &frozen.pid.into()));
}

fn a_teardown_names_the_process_frozen_in_nanosleep() {
    let group = Thaws(ScratchCgroup::make("/sys/fs/cgroup/freezer"));
    let (blocker, frozen) = blocked("frozen-asleep-teardown", &[group.0.path()], false);
    assert_eq!((&blocker["by"], &blocker["process"]["pid"]), (&"freezer".into(), &frozen.pid.into()));
}

fn a_teardown_names_the_process_stuck_in_the_kernel() {
    let (blocker, stuck) = blocked("stuck-in-the-kernel", &[], false);
    assert_eq!((&blocker["by"], &blocker["process"]["pid"]), (&"kernel".into(), &stuck.pid.into()));
    assert!(
        get::<String>(&blocker, "/wchan").contains("request_wait"),
        "expected the kernel function in which it sleeps: {blocker:#}"
    );
}

fn a_teardown_that_was_held_up_names_its_blocker_afterwards() {
    let recorder = Recorder::start("held-up.ndjson", &[]);
    let tracer = Tracer::start(&["-e", "finding"]);
    let mut actor = Actor::start("traced-teardown", &[]);
    let (init, keeper): (Who, Who) = (actor.hear("init"), actor.hear("keeper"));
    let _: bool = actor.hear("ready");
    let is_about =
        |event: &Value, id: &str| event["finding"]["id"] == id && event["finding"]["ns"]["inum"] == init.ns;
    tracer.wait_for("finding teardown-blocked", |event| is_about(event, "teardown-blocked"));
    // The recorder also detects findings once a second.
    thread::sleep(Duration::from_millis(1_500));
    actor.go();
    actor.finish();
    let event = tracer.wait_for("finding init-killed with the teardown", |event| {
        is_about(event, "init-killed") && !facts(&event["finding"], "teardown").is_empty()
    });
    let blockers = facts(&event["finding"], "blocker");
    assert_eq!((blockers.len(), &blockers[0]["keeper"]["pid"]), (1, &keeper.pid.into()), "{event:#}");
    thread::sleep(Duration::from_millis(1_500));
    let (_directory, file) = recorder.stop();
    let ns = init.ns.to_string();
    let (_, text, stderr) = run_on(&file, &["explain", &ns]);
    let tracer_of_it = format!("traced by {}[{}]", keeper.comm, keeper.pid);
    let row = text.lines().find(|line| line.contains("killed in"));
    let is_named = row.is_some_and(|row| row.contains("held up by") && row.contains(&tracer_of_it));
    assert!(is_named, "{text}{stderr}");
    let (_, document, _) = run_on(&file, &["explain", &ns, "-o", "json"]);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let held_up_by = &document["history"]["held_up_by"];
    assert_eq!(held_up_by[0]["keeper"]["pid"], keeper.pid, "{document:#}");
}

fn a_fork_into_a_dead_namespace_is_found_with_its_init() {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("forks-into-a-dead-namespace", &[]);
    let (init, forker): (Who, Who) = (actor.hear("init"), actor.hear("forker"));
    let _: bool = actor.hear("ready");
    let found = capture.opened("namespace-dead-fork", init.ns);
    assert_eq!(facts(&found, "refused_fork")[0]["process"]["pid"], forker.pid, "{found:#}");
    let death = facts(&found, "init_exit")[0];
    assert_eq!((&death["process"]["pid"], &death["exit"]["code"]), (&init.pid.into(), &7.into()));
    capture.recorded(&found);
    actor.go();
    actor.finish();
    capture.closed(&found);
    capture.only(&["namespace-dead-fork"], &[init.ns]);
}

fn an_ignored_signal_and_the_kill_that_follows_name_their_sender() {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("ignores-a-signal", &[]);
    let (init, sender): (Who, Who) = (actor.hear("init"), actor.hear("sender"));
    let _: bool = actor.hear("ready");
    let ignored = capture.opened("init-ignored-signal", init.ns);
    let signal = facts(&ignored, "signal")[0];
    assert_eq!((&signal["signal"], &signal["sender"]["pid"]), (&"SIGTERM".into(), &sender.pid.into()));
    actor.go();
    let _: bool = actor.hear("killed");
    let killed = capture.opened("init-killed", init.ns);
    let cause = &facts(&killed, "init_exit")[0]["cause"];
    assert_eq!((&cause["signal"], &cause["sender"]["pid"]), (&"SIGKILL".into(), &sender.pid.into()));
    assert_eq!(facts(&killed, "signal").len(), 1, "the earlier SIGTERM: {killed:#}");
    capture.recorded(&killed);
    capture.closed(&ignored);
    capture.closed(&killed);
    actor.go();
    actor.finish();
    capture.only(&["init-ignored-signal", "init-killed"], &[init.ns]);
}

fn a_refused_namespace_is_found() {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("too-many", &[]);
    let refused: crate::facts::Refused = actor.hear("refused");
    let found = capture.opened("creation-refused", refused.who.pid as u64);
    assert_eq!(facts(&found, "refused_creation")[0]["reason"], "count_limit", "{found:#}");
    capture.recorded(&found);
    actor.finish();
    capture.closed(&found);
    capture.only(&["creation-refused"], &[refused.who.pid as u64]);
}

/// A namespace that something holds after its processes have ended.
#[track_caller]
fn held(situation: &str) -> (Value, Actor) {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start(situation, &[]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let found = capture.opened("namespace-leaked", init.ns);
    // With such a link, a single snapshot cannot exclude that the namespace is new.
    if situation != "link-holds-a-namespace" {
        is_shown_at_once("namespace-leaked", init.ns);
    }
    capture.recorded(&found);
    actor.go();
    let _: bool = actor.hear("mended");
    capture.closed(&found);
    actor.go();
    capture.only(&["namespace-leaked"], &[init.ns]);
    (facts(&found, "holder")[0]["holder"].clone(), actor)
}

fn a_namespace_held_by_a_file_is_found_with_the_holder() {
    let (holder, mut actor) = held("file-holds-a-namespace");
    let keeper: Who = actor.hear("keeper");
    assert_eq!((&holder["kind"], &holder["pid"]), (&"fd".into(), &keeper.pid.into()));
    actor.finish();
}

fn a_namespace_held_by_a_mount_is_found_with_the_mount_point() {
    let (holder, mut actor) = held("mount-holds-a-namespace");
    let place: String = actor.hear("place");
    assert_eq!((&holder["kind"], &holder["path"]), (&"mount".into(), &format!("{place}/namespace").into()));
    actor.finish();
}

fn a_namespace_held_by_a_careless_unshare_is_found_with_the_process() {
    let (holder, mut actor) = held("link-holds-a-namespace");
    let keeper: Who = actor.hear("keeper");
    assert_eq!((&holder["kind"], &holder["pid"]), (&"pid_for_children".into(), &keeper.pid.into()));
    actor.finish();
}

/// No file shows which namespace such a proc keeps.
fn a_namespace_held_by_a_proc_is_found_with_the_mount_point() {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("proc-holds-a-namespace", &[]);
    let (init, place): (Who, String) = (actor.hear("init"), actor.hear("place"));
    let _: bool = actor.hear("ready");
    let found = capture.opened("namespace-leaked", actor.pid() as u64);
    let holder = &facts(&found, "holder")[0]["holder"];
    assert_eq!((&holder["kind"], &holder["path"]), (&"proc_mount".into(), &place.into()));
    assert_eq!((&holder["pid"], &found["ns"]), (&actor.pid().into(), &Value::Null));
    capture.recorded(&found);
    actor.go();
    let _: bool = actor.hear("mended");
    capture.closed(&found);
    actor.go();
    actor.finish();
    capture.only(&["namespace-leaked"], &[init.ns]);
}

fn a_namespace_held_by_a_zombie_init_is_found_with_the_parent_that_does_not_wait() {
    // A parent has ten times as long to reap an init.
    let mut capture = Capture::new(&["--leaked-time=100ms"]);
    let mut actor = Actor::start("zombie-init-holds-a-namespace", &[]);
    let (init, keeper): (Who, Who) = (actor.hear("init"), actor.hear("keeper"));
    let _: bool = actor.hear("ready");
    let found = capture.opened("namespace-leaked", init.ns);
    assert_eq!(found["ns"]["inum"], init.ns);
    let reaper = facts(&found, "process");
    assert_eq!(reaper.len(), 1, "{found:#}");
    assert_eq!((&reaper[0]["role"], &reaper[0]["process"]["pid"]), (&"reaper".into(), &keeper.pid.into()));
    capture.recorded(&found);
    actor.go();
    let _: bool = actor.hear("mended");
    capture.closed(&found);
    actor.go();
    actor.finish();
    capture.only(&["namespace-leaked"], &[init.ns]);
}

fn a_process_whose_session_has_ended_is_found() {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("session-is-gone", &[]);
    let member: Who = actor.hear("member");
    let _: bool = actor.hear("ready");
    let found = capture.opened("joined-leftover", member.ns);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&member.pid.into(), &"warning".into()));
    capture.recorded(&found);
    actor.go();
    actor.finish();
    capture.closed(&found);
    capture.only(&["joined-leftover", "init-killed"], &[member.ns]);
}

fn a_helper_that_outlives_its_namespace_is_found() {
    let mut capture = Capture::new(&["--creator-time=1s"]);
    let mut actor = Actor::start("helper-stays", &[]);
    let (init, helper): (Who, Who) = (actor.hear("init"), actor.hear("helper"));
    let _: bool = actor.hear("ready");
    let found = capture.opened("creator-leftover", helper.pid as u64);
    assert_eq!((&found["process"]["pid"], &found["ns"]["inum"]), (&helper.pid.into(), &init.ns.into()));
    capture.recorded(&found);
    actor.go();
    actor.finish();
    capture.closed(&found);
    capture.only(&["creator-leftover"], &[init.ns]);
}

fn a_deep_nest_is_found() {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("deep-nest", &["29"]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let found = capture.opened("near-depth-limit", init.ns);
    assert_eq!(found["ns"]["level"], 29);
    capture.recorded(&found);
    actor.go();
    actor.finish();
    capture.closed(&found);
    capture.only(&["near-depth-limit"], &[init.ns]);
}

fn a_process_that_unshared_without_a_fork_is_found() {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("unshares-and-waits", &[]);
    let process: Who = actor.hear("process");
    let _: bool = actor.hear("ready");
    let found = capture.opened("children-elsewhere", process.pid as u64);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&process.pid.into(), &"info".into()));
    capture.recorded(&found);
    actor.go();
    actor.finish();
    capture.closed(&found);
    capture.only(&["children-elsewhere"], &[process.pid as u64]);
}

fn an_oom_killed_member_is_found() {
    let group = cgroups::memory_cgroups().expect("the probe found the memory controller").make(64 << 20);
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("memory-runs-out-for-a-member", &[group.path()]);
    let (init, member): (Who, Who) = (actor.hear("init"), actor.hear("member"));
    let _: crate::facts::Ended = actor.hear("end");
    let found = capture.opened("member-oom-killed", init.ns);
    let killed = facts(&found, "oom_kill");
    assert_eq!((killed.len(), &killed[0]["process"]["pid"]), (1, &member.pid.into()), "{found:#}");
    capture.recorded(&found);
    capture.closed(&found);
    actor.go();
    actor.finish();
    capture.only(&["member-oom-killed"], &[init.ns]);
}

fn a_host_proc_is_found_when_its_namespace_is_the_target() {
    let mut actor = Actor::start("ignores-a-signal", &[]);
    let init: Who = actor.hear("init");
    let (status, document, stderr) = run(&mut command(&["findings", &init.ns.to_string(), "-o", "json"]));
    assert_eq!(status.code(), Some(1), "{stderr}");
    let document: Value = serde_json::from_str(&document).expect("a document");
    let found = document["findings"].as_array().expect("findings");
    let ids: Vec<&str> = found.iter().filter_map(|finding| finding["id"].as_str()).collect();
    assert_eq!(ids, ["proc-mismatch"], "{document:#}");
    assert_eq!(found[0]["process"]["pid"], init.pid);
    let _: bool = actor.hear("ready");
    actor.go();
    let _: bool = actor.hear("killed");
    actor.go();
    actor.finish();
}

fn findings_exit_with_the_requested_code() {
    let mut actor = Actor::start("init-does-not-reap", &["1"]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let code = |args: &[&str]| run(&mut command(args)).0.code();
    let (status, text, _) = run(&mut command(&["findings", "--for", "3s"]));
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("zombies-not-reaped") && text.contains(&format!("[{}]", init.pid)), "{text}");
    let critical = ["findings", "--for", "3s", "--fail-on", "critical", &init.ns.to_string()];
    assert_eq!(code(&critical), Some(0), "a warning is below critical");
    assert_eq!(code(&["findings", "--fail-on", "nonsense"]), Some(2));
    assert_eq!(code(&["findings", "no-such-container"]), Some(1));
    sys::kill(actor.pid(), libc::SIGKILL).expect("kill the actor");
}
