//! What goes wrong is found: each situation made for real, the finding with the processes that it is about within two seconds,
//! no other one, its end when the cause is removed, and the same finding in a recording.

mod stage;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::stage::{Stage, facts, is_shown_at_once};
use crate::cgroups::{self, ScratchCgroup};
use crate::facts::Who;
use crate::forest::{document, namespace, output, process};
use crate::probes::{self, Outcome};
use crate::seen::get;
use crate::stage::{Actor, patience, run};
use crate::states::Thaws;
use crate::sys;
use crate::tracer::command;
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(an_init_that_does_not_reap_is_found_and_named),
    test!(an_init_that_reaps_is_no_finding),
    test!(a_teardown_that_waits_for_a_parent_outside_names_it),
    test!(a_teardown_that_waits_for_a_tracer_names_it),
    test!(a_teardown_that_waits_for_a_frozen_process_names_it, needs freezer),
    test!(a_teardown_that_waits_for_a_process_frozen_in_its_sleep_names_it, needs freezer),
    test!(a_teardown_that_waits_for_the_kernel_names_the_process, needs probes::fuse),
    test!(a_fork_into_a_dead_namespace_is_found_with_its_init),
    test!(an_ignored_signal_and_the_kill_that_follows_name_their_sender),
    test!(a_full_pids_cgroup_is_found_with_what_refused, needs probes::counting_cgroups),
    test!(threads_that_fill_a_cgroup_are_found, needs probes::counting_cgroups),
    test!(a_refused_namespace_is_found, needs probes::user_namespaces),
    test!(a_namespace_that_a_file_holds_is_found_with_the_holder),
    test!(a_namespace_that_a_mount_holds_is_found_with_the_place),
    test!(a_process_whose_session_is_gone_is_found),
    test!(a_helper_that_outlives_its_namespace_is_found),
    test!(a_deep_nest_is_found),
    test!(a_process_that_unshared_and_forked_none_is_found),
    test!(a_member_that_memory_ran_out_for_is_found, needs probes::memory_cgroup),
    test!(a_proc_of_the_host_is_found_where_the_namespace_is_asked_about),
    test!(findings_end_with_the_exit_code_that_was_asked_for),
];

fn freezer() -> Outcome {
    match fs::exists("/sys/fs/cgroup/freezer/cgroup.procs").is_ok_and(|exists| exists) {
        true => Outcome::Run,
        false => Outcome::Skip("this machine has no cgroup v1 freezer".into()),
    }
}

fn an_init_that_does_not_reap_is_found_and_named() {
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start("init-does-not-reap", &["3"]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let found = stage.opened("zombies-not-reaped", init.ns);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&init.pid.into(), &"warning".into()));
    let zombies = facts(&found, "zombies")[0];
    assert_eq!((&zombies["count"], &zombies["orphans"]), (&3.into(), &3.into()), "{zombies:#}");
    is_shown_at_once("zombies-not-reaped", init.ns);
    stage.recorded(&found);
    actor.go();
    let _: bool = actor.hear("reaped");
    stage.closed(&found);
    actor.go();
    actor.finish();
    stage.only(&["zombies-not-reaped"], &[init.ns]);
}

fn an_init_that_reaps_is_no_finding() {
    let stage = Stage::new(&[]);
    let mut actor = Actor::start("init-reaps", &[]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    thread::sleep(Duration::from_secs(3));
    actor.go();
    actor.finish();
    stage.only(&[], &[init.ns]);
}

/// `explain`, `tree` and `ps` name the process that the finding names, with the same reason.
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
        let all = waits_for.as_array().unwrap_or_else(|| panic!("nothing is waited for: {explained:#}"));
        let awaited = all.iter().find(|awaited| awaited["process"]["pid"] == pid);
        let awaited = awaited.unwrap_or_else(|| panic!("no {pid}: {waits_for:#}"));
        assert_eq!(awaited["why"]["kind"], reason, "{awaited:#}");
    }
    let listed = document(&["ps", &target]);
    let line = process(&listed, pid);
    assert_eq!((&line["awaited"]["ns"], &line["awaited"]["why"]["kind"]), (&ns.into(), &reason.into()));
    let name = format!("{}[{pid}]", get::<String>(blocker, "/process/comm"));
    for (view, words) in [("explain", "Waits for"), ("tree", "dying: waits for")] {
        let (text, _) = output(&[view, &target], 0);
        assert!(text.contains(words) && text.contains(&name), "{text}");
    }
    let (text, _) = output(&["ps", &target], 0);
    assert!(text.contains("holds up the end of"), "{text}");
}

/// The blocker of a teardown that hangs, which must be closed when the actor goes on.
#[track_caller]
fn blocked(situation: &str, args: &[&str], standing: bool) -> (Value, Who) {
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start(situation, args);
    let is_frozen = situation.starts_with("frozen");
    let init: Who = actor.hear(if is_frozen { "outer" } else { "init" });
    if standing {
        let _: bool = actor.hear("standing");
        actor.go();
    }
    let _: bool = actor.hear("ready");
    let found = stage.opened("teardown-blocked", init.ns);
    is_shown_at_once("teardown-blocked", init.ns);
    views_agree_on_the_blocker(init.ns, facts(&found, "blocker")[0]);
    assert_eq!((&found["ns"]["inum"], &found["severity"]), (&init.ns.into(), &"critical".into()));
    stage.recorded(&found);
    let named: Who = match situation {
        _ if is_frozen => actor.hear("inner"),
        "hung-teardown" => actor.hear("parent"),
        "traced-teardown" => actor.hear("keeper"),
        _ => actor.hear("member"),
    };
    actor.go();
    actor.finish();
    stage.closed(&found);
    let killed = is_frozen || situation == "traced-teardown";
    let expected: &[&str] = if killed { &["teardown-blocked", "init-killed"] } else { &["teardown-blocked"] };
    stage.only(expected, &[init.ns]);
    let blockers = facts(&found, "blocker");
    assert_eq!(blockers.len(), 1, "{found:#}");
    (blockers[0].clone(), named)
}

fn a_teardown_that_waits_for_a_parent_outside_names_it() {
    let (blocker, parent) = blocked("hung-teardown", &[], true);
    assert_eq!((&blocker["by"], &blocker["keeper"]["pid"]), (&"parent".into(), &parent.pid.into()));
}

fn a_teardown_that_waits_for_a_tracer_names_it() {
    let (blocker, tracer) = blocked("traced-teardown", &[], false);
    assert_eq!((&blocker["by"], &blocker["keeper"]["pid"]), (&"tracer".into(), &tracer.pid.into()));
}

fn a_teardown_that_waits_for_a_frozen_process_names_it() {
    let group = Thaws(ScratchCgroup::make("/sys/fs/cgroup/freezer"));
    let (blocker, frozen) = blocked("frozen-teardown", &[group.0.path()], false);
    assert_eq!((&blocker["by"], &blocker["process"]["pid"]), (&"freezer".into(), &frozen.pid.into()));
}

fn a_teardown_that_waits_for_a_process_frozen_in_its_sleep_names_it() {
    let group = Thaws(ScratchCgroup::make("/sys/fs/cgroup/freezer"));
    let (blocker, frozen) = blocked("frozen-asleep-teardown", &[group.0.path()], false);
    assert_eq!((&blocker["by"], &blocker["process"]["pid"]), (&"freezer".into(), &frozen.pid.into()));
}

fn a_teardown_that_waits_for_the_kernel_names_the_process() {
    let (blocker, stuck) = blocked("stuck-in-the-kernel", &[], false);
    assert_eq!((&blocker["by"], &blocker["process"]["pid"]), (&"kernel".into(), &stuck.pid.into()));
    assert!(get::<String>(&blocker, "/wchan").contains("request_wait"), "where it sleeps: {blocker:#}");
}

fn a_fork_into_a_dead_namespace_is_found_with_its_init() {
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start("forks-into-a-dead-namespace", &[]);
    let (init, forker): (Who, Who) = (actor.hear("init"), actor.hear("forker"));
    let _: bool = actor.hear("ready");
    let found = stage.opened("namespace-dead-fork", init.ns);
    assert_eq!(facts(&found, "refused_fork")[0]["process"]["pid"], forker.pid, "{found:#}");
    let death = facts(&found, "init_exit")[0];
    assert_eq!((&death["process"]["pid"], &death["exit"]["code"]), (&init.pid.into(), &7.into()));
    stage.recorded(&found);
    actor.go();
    actor.finish();
    stage.closed(&found);
    stage.only(&["namespace-dead-fork"], &[init.ns]);
}

fn an_ignored_signal_and_the_kill_that_follows_name_their_sender() {
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start("ignores-a-signal", &[]);
    let (init, sender): (Who, Who) = (actor.hear("init"), actor.hear("sender"));
    let _: bool = actor.hear("ready");
    let ignored = stage.opened("init-ignored-signal", init.ns);
    let signal = facts(&ignored, "signal")[0];
    assert_eq!((&signal["signal"], &signal["sender"]["pid"]), (&"SIGTERM".into(), &sender.pid.into()));
    actor.go();
    let _: bool = actor.hear("killed");
    let killed = stage.opened("init-killed", init.ns);
    let cause = &facts(&killed, "init_exit")[0]["cause"];
    assert_eq!((&cause["signal"], &cause["sender"]["pid"]), (&"SIGKILL".into(), &sender.pid.into()));
    assert_eq!(facts(&killed, "signal").len(), 1, "what was tried before: {killed:#}");
    stage.recorded(&killed);
    stage.closed(&ignored);
    stage.closed(&killed);
    actor.go();
    actor.finish();
    stage.only(&["init-ignored-signal", "init-killed"], &[init.ns]);
}

fn pids_cgroup(limit: u32) -> ScratchCgroup {
    let group = ScratchCgroup::make(&cgroups::pids_controller().expect("the probe found it"));
    fs::write(format!("{}/pids.max", group.path()), limit.to_string()).expect("a limit can be set");
    group
}

fn a_full_pids_cgroup_is_found_with_what_refused() {
    let group = pids_cgroup(6);
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start("full-cgroup", &[group.path(), "5"]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let found = stage.opened("pid-exhaustion", init.ns);
    assert_eq!(found["severity"], "critical");
    assert_eq!(facts(&found, "refused_fork")[0]["process"]["pid"], init.pid, "{found:#}");
    let limits = facts(&found, "limit");
    let is_reached = |fact: &&&Value| fact["limit"]["value"] == 6 && fact["limit"]["current"] == 6;
    let limit = limits.iter().find(is_reached).unwrap_or_else(|| panic!("{found:#}"));
    let path: String = get(limit, "/limit/cgroup");
    assert!(group.path().ends_with(&path), "{path} is not {}", group.path());
    stage.recorded(&found);
    actor.go();
    actor.finish();
    stage.closed(&found);
    stage.only(&["pid-exhaustion"], &[init.ns]);
}

fn threads_that_fill_a_cgroup_are_found() {
    let group = pids_cgroup(100);
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start("threads-in-a-cgroup", &[group.path()]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    // The limit is read when its turn comes, and the threads then.
    let began = Instant::now();
    let found = loop {
        let event = stage.tracer.wait_for("finding thread-growth", |event| {
            event["finding"]["id"] == "thread-growth" && event["finding"]["process"]["pid"] == init.pid
        });
        if event["state"] == "opened" {
            break event["finding"].clone();
        }
        assert!(began.elapsed() < patience(20), "it is not found");
    };
    assert_eq!(facts(&found, "threads")[0]["threads"], 51, "{found:#}");
    stage.recorded(&found);
    actor.go();
    actor.finish();
    stage.closed(&found);
    stage.only(&["thread-growth"], &[init.ns]);
}

fn a_refused_namespace_is_found() {
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start("too-many", &[]);
    let refused: crate::facts::Refused = actor.hear("refused");
    let found = stage.opened("creation-refused", refused.who.pid as u64);
    assert_eq!(facts(&found, "refused_creation")[0]["reason"], "count_limit", "{found:#}");
    stage.recorded(&found);
    actor.finish();
    stage.closed(&found);
    stage.only(&["creation-refused"], &[refused.who.pid as u64]);
}

/// A namespace that something holds when its processes are gone.
#[track_caller]
fn held(situation: &str) -> (Value, Actor) {
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start(situation, &[]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let found = stage.opened("namespace-leaked", init.ns);
    is_shown_at_once("namespace-leaked", init.ns);
    stage.recorded(&found);
    actor.go();
    let _: bool = actor.hear("mended");
    stage.closed(&found);
    actor.go();
    stage.only(&["namespace-leaked"], &[init.ns]);
    (facts(&found, "holder")[0]["holder"].clone(), actor)
}

fn a_namespace_that_a_file_holds_is_found_with_the_holder() {
    let (holder, mut actor) = held("file-holds-a-namespace");
    let keeper: Who = actor.hear("keeper");
    assert_eq!((&holder["kind"], &holder["pid"]), (&"fd".into(), &keeper.pid.into()));
    actor.finish();
}

fn a_namespace_that_a_mount_holds_is_found_with_the_place() {
    let (holder, mut actor) = held("mount-holds-a-namespace");
    let place: String = actor.hear("place");
    assert_eq!((&holder["kind"], &holder["path"]), (&"mount".into(), &format!("{place}/namespace").into()));
    actor.finish();
}

fn a_process_whose_session_is_gone_is_found() {
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start("session-is-gone", &[]);
    let member: Who = actor.hear("member");
    let _: bool = actor.hear("ready");
    let found = stage.opened("joined-leftover", member.ns);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&member.pid.into(), &"warning".into()));
    stage.recorded(&found);
    actor.go();
    actor.finish();
    stage.closed(&found);
    stage.only(&["joined-leftover", "init-killed"], &[member.ns]);
}

fn a_helper_that_outlives_its_namespace_is_found() {
    let stage = Stage::new(&["--creator-time=1s"]);
    let mut actor = Actor::start("helper-stays", &[]);
    let (init, helper): (Who, Who) = (actor.hear("init"), actor.hear("helper"));
    let _: bool = actor.hear("ready");
    let found = stage.opened("creator-leftover", helper.pid as u64);
    assert_eq!((&found["process"]["pid"], &found["ns"]["inum"]), (&helper.pid.into(), &init.ns.into()));
    actor.go();
    actor.finish();
    stage.closed(&found);
    stage.only(&["creator-leftover"], &[init.ns]);
}

fn a_deep_nest_is_found() {
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start("deep-nest", &["29"]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let found = stage.opened("near-depth-limit", init.ns);
    assert_eq!(found["ns"]["level"], 29);
    stage.recorded(&found);
    actor.go();
    actor.finish();
    stage.closed(&found);
    stage.only(&["near-depth-limit"], &[init.ns]);
}

fn a_process_that_unshared_and_forked_none_is_found() {
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start("unshares-and-waits", &[]);
    let process: Who = actor.hear("process");
    let _: bool = actor.hear("ready");
    let found = stage.opened("children-elsewhere", process.pid as u64);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&process.pid.into(), &"info".into()));
    stage.recorded(&found);
    actor.go();
    actor.finish();
    stage.closed(&found);
    stage.only(&["children-elsewhere"], &[process.pid as u64]);
}

fn a_member_that_memory_ran_out_for_is_found() {
    let group = cgroups::memory_cgroups().expect("the probe found it").make(64 << 20);
    let mut stage = Stage::new(&[]);
    let mut actor = Actor::start("memory-runs-out-for-a-member", &[group.path()]);
    let (init, member): (Who, Who) = (actor.hear("init"), actor.hear("member"));
    let _: crate::facts::Ended = actor.hear("end");
    let found = stage.opened("member-oom-killed", init.ns);
    let killed = facts(&found, "oom_kill");
    assert_eq!((killed.len(), &killed[0]["process"]["pid"]), (1, &member.pid.into()), "{found:#}");
    stage.recorded(&found);
    stage.closed(&found);
    actor.go();
    actor.finish();
    stage.only(&["member-oom-killed"], &[init.ns]);
}

fn a_proc_of_the_host_is_found_where_the_namespace_is_asked_about() {
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

fn findings_end_with_the_exit_code_that_was_asked_for() {
    let mut actor = Actor::start("init-does-not-reap", &["1"]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let code = |args: &[&str]| run(&mut command(args)).0.code();
    let (status, text, _) = run(&mut command(&["findings", "--for", "3s"]));
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("zombies-not-reaped") && text.contains(&format!("[{}]", init.pid)), "{text}");
    let critical = ["findings", "--for", "3s", "--fail-on", "critical", &init.ns.to_string()];
    assert_eq!(code(&critical), Some(0), "it is a warning");
    assert_eq!(code(&["findings", "--fail-on", "nonsense"]), Some(2));
    assert_eq!(code(&["findings", "no-such-container"]), Some(1));
    sys::kill(actor.pid(), libc::SIGKILL).expect("it is there");
}
